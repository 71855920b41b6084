"""Fig. 5: what the prior of an object looks like. From plain arrays; who makes them does not matter here.

:func:`rows_of` gives the pictures of an object (:class:`amodal.viz.explanation.Explanation`) in rows with keys,
explanations and captions, which the report sets as a page and :func:`amodal.viz.prior_figure.figure` as one image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from amodal.viz.explanation import BoxPriors, Explanation, Floats, FlowPriors, Reranked, Truth
from amodal.viz.prior_panels import (
    BLUE,
    FAINT,
    GREEN,
    GREY,
    INK,
    RED,
    Color,
    Pixels,
    View,
    box_panel,
    candidate_panel,
    flow_panel,
    image_panel,
    masks_panel,
    place,
    view_around,
)

HIDDEN = (0.15, 0.85)
"""Hidden share, least and largest, of the objects whose priors are shown: little to see in others."""

TOP = 3
"""Priors of each kind that are shown."""

VISIBLY = 0.15
"""Growth from which an expansion is seen at a glance; see :func:`growth`."""

_DISTANCE = "Distance: between the codes of the two visible parts; it has no unit, smaller is more alike."


def choose_shown(hidden: npt.ArrayLike, count: int) -> list[int]:
    """Positions of the objects whose priors are shown: hidden as much as :data:`HIDDEN` says, at even steps.

    Args:
        hidden: [N], hidden share of each object, 0 to 1.
        count: how many at most; 0: all.
    """
    low, high = HIDDEN
    share = np.asarray(hidden, dtype=np.float64)
    fits = np.flatnonzero((share >= low) & (share <= high))
    steps = np.linspace(0, len(fits) - 1, min(count or len(fits), len(fits))).round().astype(int)
    chosen: list[int] = fits[steps].tolist()
    return chosen


def growth(explanation: Explanation) -> float:
    """How much the nearest priors add to the visible part of an object, as a share; 0: nothing, or nothing retrieved.

    The larger of two: by how much the prior-expanded box is larger than the visible box, and which share of the
    retrieved shape is not visible.
    """
    found = [0.0]
    boxes, flows = explanation.boxes, explanation.flows
    if boxes is not None and _there(boxes.distance, 1):
        found.append(_larger(boxes.boxes[_there(boxes.distance, 1)[0]], explanation.visible_box))
    if flows is not None and _there(flows.distance, 1):
        found.append(_new(flows.amodal[_there(flows.distance, 1)[0]], flows.visible))
    return max(found)


def _larger(box: Floats, visible: Floats) -> float:
    """By which share of its area a box xyxy [4] is larger than another."""
    area = float((visible[2:] - visible[:2]).clip(1e-6).prod())
    return float((box[2:] - box[:2]).clip(0).prod()) / area - 1


def _new(amodal: Floats, visible: Floats) -> float:
    """Share of a shape that is not visible; masks [S, S] in one frame."""
    whole = amodal >= 0.5
    return float((whole & (visible < 0.5)).sum() / max(int(whole.sum()), 1))


Mark = Literal["", "dot", "frame", "dashed", "arrow", "fill"]


class Key(NamedTuple):
    """Words of a heading, behind a mark in their colour where they explain one; the first of a row is its title."""

    text: str
    color: Color = INK
    mark: Mark = ""


@dataclass
class Row:
    """Pictures that belong together.

    Attributes:
        heading: title and keys.
        note: what is shown, and the units of the captions' numbers.
        panels: uint8 [h, w, 3] each.
        captions: one a panel.
    """

    heading: list[Key]
    note: str
    panels: list[Pixels]
    captions: list[str]


def rows_of(
    explanation: Explanation, image: Pixels | None, truth: Truth | None = None, *, top: int = TOP, side: int = 300
) -> list[Row]:
    """The pictures of one object; rows for which there is nothing to show are left out.

    Args:
        explanation: the object.
        image: uint8 [H, W, 3]; None: a plain ground.
        truth: the annotated object; None where it is unknown.
        top: priors a row.
        side: pixels of a panel's longer side.
    """
    known = (explanation.visible_box, explanation.amodal_box, None if truth is None else truth.box)
    boxes = np.stack([box for box in known if box is not None])
    size = None if image is None else (image.shape[0], image.shape[1])
    rows = []
    if explanation.amodal is not None and image is not None:
        rows.append(_estimate_row(view_around(boxes, size, side), explanation, image, truth))
    if explanation.boxes is not None:
        view = view_around(np.concatenate([boxes, explanation.boxes.boxes[:top]]), size, side)
        rows.append(_box_row(view, explanation, explanation.boxes, image, truth, top))
    if explanation.flows is not None:
        rows.append(_flow_row(explanation.flows, top, side))
    if explanation.reranked is not None:
        rows += _rerank_rows(explanation, explanation.reranked, image, top, side)
    return [row for row in rows if row.panels]


def _estimate_row(view: View, explanation: Explanation, image: Pixels, truth: Truth | None) -> Row:
    assert explanation.amodal is not None
    assert explanation.amodal_box is not None
    box, frame = explanation.amodal_box, explanation.frame
    score = "" if explanation.score is None else f", score {explanation.score:.2f}"
    panels = [
        image_panel(view, image),
        masks_panel(view, image, box, explanation.amodal, box, explanation.visible, frame),
    ]
    captions = ["picture", f"prediction{score}"]
    if truth is not None:
        whole = np.array([0, 0, truth.amodal.shape[1], truth.amodal.shape[0]], float)
        panels.append(masks_panel(view, image, truth.box, truth.amodal, whole, truth.visible, whole))
        captions.append("truth")
    heading = [Key("Prediction and truth:")]
    return Row(heading, "Filled: visible part. Hatched: hidden part. Thin frame: amodal box.", panels, captions)


def _box_row(
    view: View, explanation: Explanation, found: BoxPriors, image: Pixels | None, truth: Truth | None, top: int
) -> Row:
    seen = explanation.visible_box
    heading = [Key("Regression transformations:"), Key(f"visible box{_overlap(seen, truth)}", BLUE, "frame")]
    heading.append(Key("the same, expanded as a training object's", RED, "frame"))
    note = (
        "Each picture: one training object of this class whose visible part looks similar. What its visible box lacked "
        f"of its amodal box is added here. {_DISTANCE}"
    )
    if truth is not None:
        heading.append(Key("true amodal box", INK, "dashed"))
        note += " IoU: with the true amodal box, 0 to 1."
    panels, captions = [], []
    for rank in _there(found.distance, top):
        box = found.boxes[rank]
        known = None if truth is None else truth.box
        panels.append(box_panel(view, image, explanation.visible, explanation.frame, seen, box, known))
        larger = f"{100 * _larger(box, seen):+.0f} % area"
        captions.append(f"{_rank(rank)}: {larger}{_overlap(box, truth)}, distance {found.distance[rank]:.2f}")
    return Row(heading, note, panels, captions)


def _overlap(box: Floats, truth: Truth | None) -> str:
    """A box's IoU with the true amodal box, in words to append; nothing where that is unknown."""
    return "" if truth is None else f", IoU {box_iou(box, truth.box):.2f}"


def _flow_row(found: FlowPriors, top: int, side: int) -> Row:
    heading = [Key("Flow transformations:"), Key("visible", BLUE, "dot")]
    heading.append(Key("shape of a training object", RED, "dot"))
    note = (
        "The amodal box as a grid; a dot is a cell, blue on red where the visible part and the shape of a similar "
        "training object meet, small and blue where less than half of it is visible."
    )
    if found.flows is None:
        heading[0] = Key("Retrieved shapes:")
    else:
        heading.append(Key("how the visible part grows into it", GREY, "arrow"))
        note += " An arrow starts where the flow takes from and ends in the cell it fills, which is hidden."
    note += f" {_DISTANCE}"
    ranks = _there(found.distance, top)
    flows = [None if found.flows is None else found.flows[rank] for rank in ranks]
    panels = [
        flow_panel(found.visible, found.amodal[rank], flow, found.box, side)
        for rank, flow in zip(ranks, flows, strict=True)
    ]
    captions = [
        f"{_rank(rank)}: {100 * _new(found.amodal[rank], found.visible):.0f} % of it hidden, "
        f"distance {found.distance[rank]:.2f}"
        for rank in ranks
    ]
    return Row(heading, note, panels, captions)


def _rerank_rows(explanation: Explanation, found: Reranked, image: Pixels | None, top: int, side: int) -> list[Row]:
    """The nearest candidates that were kept, and the nearest ones that were not."""
    there = np.isfinite(found.distance)
    chosen = {
        "kept": np.flatnonzero(there & found.kept)[:top],
        "thrown away": np.flatnonzero(there & ~found.kept)[:top],
    }
    shown = np.concatenate(list(chosen.values()))
    around = np.concatenate([found.boxes[shown], explanation.visible_box[None]])
    view = view_around(around, None if image is None else image.shape[:2], side)
    seen = place(explanation.visible[None], explanation.frame[None], view)[0]
    others = place(found.others[None], found.context[None], view)[0]
    shapes = dict(zip(shown.tolist(), place(found.amodal[shown], found.boxes[shown], view), strict=True))
    rows: list[Row] = []
    for what, ranks in chosen.items():
        count = int((there & (found.kept if what == "kept" else ~found.kept)).sum())
        heading = [Key(f"Re-ranking, {what} ({count} of {int(there.sum())}):")]
        note = ""
        if not rows:
            heading += [Key("visible", BLUE, "fill"), Key("visible, not in the candidate", FAINT, "fill")]
            heading += [Key("hidden by an occluder", GREEN, "fill"), Key("hidden by nothing", RED, "fill")]
            heading += [Key("other objects", GREY, "fill")]
            note = (
                "Candidates that agree best with what else is visible stay: what one adds must be hidden by an "
                f"occluder. Inconsistency: 0 (agrees with everything) to 2. {_DISTANCE}"
            )
        panels = [
            candidate_panel(view, image, seen, others, shapes[rank], found.boxes[rank]) for rank in ranks.tolist()
        ]
        captions = [
            f"candidate {rank + 1}: inconsistency {found.inconsistency[rank]:.2f}, distance {found.distance[rank]:.2f}"
            for rank in ranks.tolist()
        ]
        rows.append(Row(heading, note, panels, captions))
    return rows


def _there(distance: Floats, top: int) -> list[int]:
    """Positions of the first ``top`` slots that are not missing."""
    found: list[int] = np.flatnonzero(np.isfinite(distance))[:top].tolist()
    return found


def _rank(position: int) -> str:
    return "nearest" if position == 0 else f"no. {position + 1}"


def box_iou(first: Floats, second: Floats) -> float:
    """Intersection over union of two boxes xyxy [4]; 0 where both have no area."""
    low, high = np.maximum(first[:2], second[:2]), np.minimum(first[2:], second[2:])
    shared = float((high - low).clip(0).prod())
    areas = sum(float((box[2:] - box[:2]).clip(0).prod()) for box in (first, second))
    return shared / (areas - shared) if areas > shared else 0.0


def find_box(explained: Sequence[Explanation], name: str, box: Floats, least: float = 0.5) -> Explanation | None:
    """The explanation of this class whose amodal box overlaps ``box`` [4] most; None below an IoU of ``least``."""
    best, best_iou = None, least
    for one in explained:
        iou = box_iou(one.amodal_box, box) if one.name == name and one.amodal_box is not None else 0.0
        if iou >= best_iou and (best is None or iou > best_iou):
            best, best_iou = one, iou
    return best
