"""Which metrics are shown, wherever metrics are shown, and how they look as a text table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from amodal.errors import counted

PARTS = (("mask", "amodal mask"), ("box", "amodal box"), ("visible", "visible mask"))
"""Part of the metrics and its title."""

COLUMNS = ("AP", "AP50", "AP75", "AR100", "AP-occ-gt", "AP-occ", "mIoU", "mIoU-occ")
"""Metrics that stand first, of every part that has them."""

MORE = ("AP-occ-gt75", "AP-occ-gt60", "AP-occ75", "AP-occ60", "AP-of-mask")
"""Metrics that stand behind them."""

BY_CLASS = (
    ("mask", "AP"),
    ("mask", "AP50"),
    ("mask", "AP-occ-gt"),
    ("mask", "mIoU-occ"),
    ("box", "AP"),
    ("visible", "AP"),
)
"""Part and metric of what is told of each class."""


def table(metrics: Mapping[str, Any]) -> str:
    """The dictionary of :func:`amodal.evaluate` as aligned text, in percent, "-" where a number is undefined."""
    blocks = [_grid(metrics, COLUMNS), _grid(metrics, MORE)]
    if "per_class" in metrics:
        head = ["class", *(key if part == "mask" else f"{part} {key}" for part, key in BY_CLASS)]
        rows = [
            [name, *(_number(values[part][key]) for part, key in BY_CLASS)]
            for name, values in metrics["per_class"].items()
        ]
        blocks.append(_align([head, *rows]))
    blocks.append(_counts(metrics))
    return "\n\n".join(blocks)


def _grid(metrics: Mapping[str, Any], keys: Iterable[str]) -> str:
    shown = list(keys)
    rows = [
        [title, *(_number(metrics[part].get(key)) for key in shown)]
        for part, title in PARTS
        if any(key in metrics[part] for key in shown)
    ]
    return _align([["", *shown], *rows])


def _counts(metrics: Mapping[str, Any]) -> str:
    text = f"{counted(metrics['images'], 'image')}, {counted(metrics['instances'], 'instance')}"
    share = metrics.get("coverage")
    if share is not None:
        text += f"; {100 * share:.0f} % of the hidden pixels lie under other annotated objects"
    return text


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _align(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
