"""What ``amodal prior fit`` tells: quality of encoder, solver and bank, and the table of retrievals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import torch

from amodal.data.coverage import coverage
from amodal.data.store import OCCLUDED
from amodal.errors import counted
from amodal.priors.encoder import dead_channels, reconstruction_iou
from amodal.priors.fit import FitReport, key_masks
from amodal.priors.flow_quality import flow_quality
from amodal.priors.prior import Prior
from amodal.priors.quality import Judged, Row, retrieval_table
from amodal.priors.types import PriorInstances

FLOW_LIMIT = 1000
"""Pairs of masks that the flow solver is judged on at most."""
_LISTED = 30  # classes that are listed one by one


def make_report(
    prior: Prior, fitted: FitReport, judged: Judged, extra: list[Row] | None = None, *, progress: bool = False
) -> dict[str, Any]:
    """All numbers, as in ``report.json``: shares and IoUs from 0 to 1, None where undefined.

    Args:
        prior: the prior.
        fitted: how it was fitted.
        judged: held-out objects.
        extra: further rows of the table.
        progress: show a progress bar.
    """
    rows = [*retrieval_table(prior, judged, progress=progress), *(extra or [])]
    counts = fitted.class_counts
    return {
        "objects": len(fitted.instances),
        "left_out": fitted.left_out,
        "banked": int(fitted.banked.sum()),
        "classes": [
            {"name": name, "objects": count, "slots": prior.config.slots if count else 0}
            for name, count in zip(prior.class_names, counts, strict=True)
        ],
        "judged": {
            "file": judged.annotations.path,
            "images": judged.images,
            "objects": len(judged),
            "min_occlusion": OCCLUDED,
            "own_image_excluded": judged.exclude,
        },
        "encoder": _encoder_quality(prior, judged.objects),
        "flow": _flow_qualities(prior, judged),
        "coverage": coverage(judged.annotations),
        "rerank_weight": prior.rerank_weight,
        "retrieval": [asdict(row) for row in rows],
        "fit": asdict(prior.config),
    }


def report_lines(report: dict[str, Any], stages: Mapping[str, float]) -> Iterator[str]:
    """The same as text, for a terminal 100 characters wide; with the seconds of each stage, which no file keeps: equal
    priors are equal files."""
    fit, encoder, judged = report["fit"], report["encoder"], report["judged"]
    left = ", ".join(f"{count} {reason}" for reason, count in report["left_out"].items())
    yield f"{counted(report['objects'], 'object')}{f' ({left} left out)' if left else ''}"
    if report["banked"] < report["objects"]:
        least = _percent(fit["min_occlusion"])
        yield f"{report['banked']} of them, of which at least {least} is hidden, are what the bank is made from"
    yield from _class_lines(report["classes"], fit["slots"])
    yield ""
    yield (
        f"judged on {counted(judged['objects'], 'held-out object')} of {counted(judged['images'], 'image')}, more than"
        f" {_percent(judged['min_occlusion'])} of each hidden; goals in brackets"
    )
    dead = encoder["dead_channels"]
    yield (
        f"encoder E, {fit['encoder']} numbers   reconstruction IoU amodal {_show(encoder['iou_amodal'])} (0.95),"
        f" visible {_show(encoder['iou_visible'])} (0.90); dead channels: {', '.join(map(str, dead)) or 'none'}"
    )
    for name, goal in (("own", "0.95"), ("retrieved", "0.93")):
        flow = report["flow"][name]
        yield (
            f"flow S^f, {name + ' amodal mask':<21}  IoU {_show(flow['iou28'])} at 28 and {_show(flow['iou14'])} at 14"
            f" ({goal}); moved {_percent(flow['moved'])}, folded {_percent(flow['folded'])} (10 %)"
        )
    covered = "undefined, as nothing is hidden"
    if report["coverage"] is not None:
        covered = f"{_percent(report['coverage'])} of hidden pixels lie under annotated objects"
    yield f"coverage                        {covered}"
    yield f"weight of inconsistency         {report['rerank_weight']:g} (0: re-ranking would not help here)"
    yield ""
    yield from _table_lines([Row(**row) for row in report["retrieval"]], fit["k"])
    yield ""
    spent = ", ".join(f"{stage} {seconds:.0f}" for stage, seconds in stages.items())
    yield f"{sum(stages.values()):.0f} seconds of fitting ({spent})"


def _class_lines(classes: list[dict[str, Any]], slots: int) -> Iterator[str]:
    absent = [entry["name"] for entry in classes if not entry["objects"]]
    if len(classes) <= _LISTED:
        width = max(len(entry["name"]) for entry in classes)
        yield f"{'class':<{width}}  objects  slots"
        for entry in classes:
            if entry["objects"]:
                more = slots - entry["objects"]
                how = f"{more} of them augmented" if more > 0 else "medoids" if more < 0 else "every object"
                yield f"{entry['name']:<{width}}  {entry['objects']:>7}  {slots:>5}  {how}"
    else:
        full = sum(entry["objects"] > slots for entry in classes)
        yield (
            f"{counted(len(classes) - len(absent), 'class')} with {counted(slots, 'slot')} each: {full} of medoids,"
            f" {len(classes) - len(absent) - full} filled up with augmented objects"
        )
    if absent:
        names = ", ".join(absent[:10]) + (f" and {len(absent) - 10} more" if len(absent) > 10 else "")
        yield f"no objects, so no prior: {names}"


def _table_lines(rows: list[Row], k: int) -> Iterator[str]:
    width = max(len(row.name) for row in rows)
    yield f"{counted(k, 'prior')} for each object, retrieved with its annotated visible mask"
    yield f"{'retrieval':<{width}}  {'box IoU':>8}  {'of median':>9}  {'shape IoU':>9}  {'objects':>7}"
    yield "-" * (width + 41)
    for row in rows:
        yield (
            f"{row.name:<{width}}  {_show(row.box):>8}  {_show(row.median):>9}  {_show(row.shape):>9}  {row.objects:>7}"
        )
    yield (
        "box IoU: mean of the prior-expanded boxes with the amodal box; of median: one box, of the median delta;"
        " shape IoU: majority vote of the amodal masks"
    )


def _encoder_quality(prior: Prior, objects: PriorInstances) -> dict[str, Any]:
    seen = key_masks(objects, prior.config)
    if not len(objects):
        return {"iou_amodal": None, "iou_visible": None, "dead_channels": []}
    return {
        "iou_amodal": reconstruction_iou(prior.encoder, objects.amodal),
        "iou_visible": reconstruction_iou(prior.encoder, seen),
        "dead_channels": dead_channels(prior.encoder, torch.cat([objects.amodal, seen])),
    }


def _flow_qualities(prior: Prior, judged: Judged) -> dict[str, dict[str, float | None]]:
    """Quality of the flow to an object's own amodal mask and to retrieved ones; both queries as in use."""
    objects = judged.objects.take(torch.arange(min(len(judged), FLOW_LIMIT)))
    if not len(objects):
        return {name: dict.fromkeys(("iou28", "iou14", "moved", "folded")) for name in ("own", "retrieved")}
    seen = objects.visible.float()
    images = objects.image_ids if judged.exclude else None
    found = prior.search(seen, objects.boxes, objects.labels, prior.config.k, exclude_images=images)
    # A different neighbour for each object, so that near and far ones are judged alike.
    turn = torch.arange(len(objects))
    retrieved = found.amodal[turn, turn % prior.config.k]
    there = retrieved.flatten(1).any(dim=1)
    pairs = {"own": (seen, objects.amodal.float()), "retrieved": (seen[there], retrieved[there])}
    return {
        name: asdict(flow_quality(prior.solve(visible, amodal, halved=False), visible, amodal))
        for name, (visible, amodal) in pairs.items()
    }


def _show(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"
