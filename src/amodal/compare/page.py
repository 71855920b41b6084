"""The page of a comparison: numbers, curves, settings and pictures of runs beside each other, in one file."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from amodal.compare.differences import Line, Side, differing_settings, image_scores, most_different, verdict
from amodal.errors import counted, printable
from amodal.evaluation.table import PARTS
from amodal.report.charts import series
from amodal.report.page import legend, page
from amodal.report.pictures import SHOWN_FROM, Painter
from amodal.reproduce.bootstrap import Difference

_TITLES = dict(PARTS)
_SIGNS = {"better": "▲", "worse": "▼", "same": "="}


def write_page(
    sides: Sequence[Side], lines: Sequence[Line], images: Path | None, limit: int, draws: int, missing: list[str]
) -> str:
    """Markup of the whole page.

    Args:
        sides: the runs, the first of which the others are compared with.
        lines: their metrics.
        images: folder of the tested images; None: no pictures.
        limit: pictures at most.
        draws: of the bootstrap, 0 for none.
        missing: lines that say what is not there; what the pictures lack is added.
    """
    names = [side.source.name for side in sides]
    title = f"{names[0]} against {', '.join(names[1:])}"
    body = [
        _head(title, sides, lines),
        _metrics(names, lines, draws),
        _curves(sides),
        _settings(sides),
        _pictures(sides, images, limit, missing),
        _missing(missing),
    ]
    return page(printable(title), "\n".join(body))


def _name(text: str) -> str:
    return escape(printable(text))


def _head(title: str, sides: Sequence[Side], lines: Sequence[Line]) -> str:
    first = next((line for line in lines if (line.part, line.key) == ("mask", "AP")), None)
    tiles = ""
    for place, side in enumerate(sides):
        value = None if first is None else first.values[place]
        told = "" if first is None or place == 0 else f" {_difference(first, place)}"
        shown = "–" if value is None else f"{value:.1f}"
        what = f"{_name(side.source.name)}<br>AP of the amodal masks, {_name(side.tested.what)}"
        tiles += f'<div class="tile"><b>{shown}<small>{told}</small></b><span>{what}</span></div>'
    counts = next((side.tested.counts for side in sides if side.tested.counts), None)
    of = f"{counted(counts[0], 'image')} with {counted(counts[1], 'object')}; " if counts else ""
    lead = f"{of}numbers in percent, differences in points, to the first run."
    head = f'<h1>{_name(title)}</h1><p class="soft">{lead}</p>'
    return f'<header>{head}<div class="tiles">{tiles}</div></header>'


def _difference(line: Line, place: int) -> str:
    """``▲ +1.30 better``, coloured unless it may be chance."""
    difference, interval = line.difference(place), line.intervals[place]
    word = verdict(difference)
    style = word if interval is None or _sure(interval) else "same"
    return "" if difference is None else f'<span class="{style}">{_SIGNS[word]} {difference:+.2f} {word}</span>'


def _sure(interval: Difference) -> bool:
    return interval.low > 0 or interval.high < 0


def interval_words(interval: Difference) -> str:
    """The 95 % interval of a difference, and whether chance could explain it."""
    chance = "" if _sure(interval) else ", may be chance"
    return f"95 %: {interval.low:+.2f} to {interval.high:+.2f}{chance}"


def _metrics(names: Sequence[str], lines: Sequence[Line], draws: int) -> str:
    head = "".join(f'<th scope="col">{_name(name)}</th>' for name in names)
    head += "".join(f'<th scope="col">{_name(name)} minus {_name(names[0])}</th>' for name in names[1:])
    rows = []
    for line in lines:
        cells = "".join(f"<td>{'–' if value is None else f'{value:.2f}'}</td>" for value in line.values)
        for place in range(1, len(names)):
            interval = line.intervals[place]
            small = "" if interval is None else f"<small>{interval_words(interval)}</small>"
            cells += f"<td>{_difference(line, place)}{small}</td>"
        rows.append(f'<tr><th scope="row">{_TITLES[line.part]} {line.key}</th>{cells}</tr>')
    note = "Higher is better in every row."
    if any(interval is not None for line in lines for interval in line.intervals):
        note += (
            f" Intervals: paired bootstrap, {draws} draws of the images with replacement, both runs evaluated on each; "
            "where one holds 0, which images were tested on may be all there is to the difference."
        )
    return (
        f'<section><h2>Metrics</h2><p class="note">{note}</p><div class="wide" tabindex="0" role="region" '
        f'aria-label="metrics"><table class="runs"><thead><tr><th scope="col">metric</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def _curves(sides: Sequence[Side]) -> str:
    charts = ""
    for title, unit, curves in (
        ("Training loss", "loss", [(side.source.name, side.source.loss) for side in sides]),
        ("Amodal mask AP on the validation set", "AP", [(side.source.name, side.source.ap) for side in sides]),
    ):
        if any(points for _, points in curves):
            charts += f'<div class="chart"><h3>{title}</h3>{series(curves, unit)}</div>'
    return f'<section><h2>Curves of the trainings</h2><div class="charts">{charts}</div></section>' if charts else ""


def _settings(sides: Sequence[Side]) -> str:
    sources = [side.source for side in sides]
    if sum(source.settings is not None for source in sources) < 2:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{_name(key)}</th>{"".join(f"<td>{_setting(value)}</td>" for value in values)}</tr>'
        for key, values in differing_settings(sources)
    )
    if not rows:
        return '<section><h2>Settings that differ</h2><p class="note">none</p></section>'
    head = "".join(f'<th scope="col">{_name(source.name)}</th>' for source in sources)
    return (
        '<section><h2>Settings that differ</h2><div class="wide" tabindex="0" role="region" aria-label="settings">'
        f'<table class="runs"><thead><tr><th scope="col">setting</th>{head}</tr></thead><tbody>{rows}</tbody></table>'
        "</div></section>"
    )


def _setting(value: Any) -> str:
    return "–" if value is None else _name(str(value))


def _pictures(sides: Sequence[Side], images: Path | None, limit: int, missing: list[str]) -> str:
    """The images on which the runs differ most, truth first."""
    evaluations = [side.evaluation for side in sides if side.evaluation is not None]
    if len(evaluations) < len(sides) or not limit:
        return ""
    if images is None or not images.is_dir():
        missing.append("no pictures: the folder of the tested images is not there; --images names it")
        return ""
    scores = np.stack([image_scores(evaluation) for evaluation in evaluations])
    painters = [Painter(evaluation, images) for evaluation in evaluations]
    chosen = most_different(scores, limit)
    body = "".join(_scene(sides, painters, scores[:, index], index) for index in chosen)
    failed = {name: reason for painter in painters for name, reason in painter.failed.items()}
    missing.extend(f"{name}: not shown, {reason}" for name, reason in failed.items())
    if not body:
        return '<section><h2>Pictures</h2><p class="note">The runs find every object alike.</p></section>'
    note = (
        "The images on which the runs differ most in the mean mask IoU of their objects (0 for a missed one), largest "
        f"difference first; detections with a score of at least {SHOWN_FROM:g}. An object and its detection have the "
        "same colour."
    )
    return f'<section><h2>Pictures</h2><p class="note">{note}</p>{legend()}{body}</section>'


def _scene(sides: Sequence[Side], painters: Sequence[Painter], scores: Any, index: int) -> str:
    name = _name(painters[0].truth.file_names[index])
    figures = ""
    for place, (side, painter) in enumerate(zip(sides, painters, strict=True)):
        try:
            _, found, truth = painter.scene(index)
        except Exception as fault:  # Of this image, and no reason for no page.
            why = escape(painter.note(index, fault))
            return f'<article class="scene"><p>{name}</p><p class="note">not shown: {why}</p></article>'
        if place == 0:
            figures += _figure(truth, "truth", name)
        figures += _figure(found, f"{_name(side.source.name)}: mean IoU {scores[place]:.2f}", name)
    columns = f'style="grid-template-columns:repeat({len(sides) + 1},1fr)"'
    strip = f'<div class="strip" {columns} role="group" tabindex="0" aria-label="{name}">{figures}</div>'
    return f'<article class="scene"><p>{name}</p>{strip}</article>'


def _figure(uri: str, caption: str, name: str) -> str:
    image = f'<img src="{uri}" alt="{caption} for {name}" loading="lazy">'
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"


def _missing(missing: Sequence[str]) -> str:
    if not missing:
        return ""
    rows = "".join(f"<li>{_name(line)}</li>" for line in missing)
    return f'<section><h2>What is missing</h2><ul class="note">{rows}</ul></section>'
