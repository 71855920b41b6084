"""Fig. 5: what the prior of an object looks like. From plain arrays; who makes them does not matter here.

:func:`rows_of` gives the pictures of an object (:class:`amodal.viz.explanation.Explanation`) in rows with headings and
captions, which the report sets as a page and :func:`figure` as one image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from amodal.errors import printable
from amodal.viz.explanation import BoxPriors, Explanation, Floats, FlowPriors, Reranked, Truth
from amodal.viz.instances import label_font
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


@dataclass
class Row:
    """Pictures that belong together.

    Attributes:
        heading: words and their colours; they are the legend at once.
        panels: uint8 [h, w, 3] each.
        captions: one a panel.
    """

    heading: list[tuple[str, Color]]
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
    captions = ["picture", f"estimate{score}"]
    if truth is not None:
        whole = np.array([0, 0, truth.amodal.shape[1], truth.amodal.shape[0]], float)
        panels.append(masks_panel(view, image, truth.box, truth.amodal, whole, truth.visible, whole))
        captions.append("truth")
    heading = [("Estimate and truth:", INK), ("filled: seen, hatched: hidden", INK)]
    return Row(heading, panels, captions)


def _box_row(
    view: View, explanation: Explanation, found: BoxPriors, image: Pixels | None, truth: Truth | None, top: int
) -> Row:
    heading = [("Regression transformations:", INK), ("visible box", BLUE), ("prior-expanded box", RED)]
    if truth is not None:
        heading.append(("dashed: true amodal box", INK))
    panels, captions = [], []
    for rank in _there(found.distance, top):
        box = found.boxes[rank]
        known = None if truth is None else truth.box
        panels.append(
            box_panel(view, image, explanation.visible, explanation.frame, explanation.visible_box, box, known)
        )
        iou = "" if known is None else f", box IoU {box_iou(box, known):.2f}"
        captions.append(f"{_rank(rank)}, distance {found.distance[rank]:.2f}{iou}")
    return Row(heading, panels, captions)


def _flow_row(found: FlowPriors, top: int, side: int) -> Row:
    heading = [("Flow transformations:", INK), ("visible mask", BLUE), ("retrieved amodal mask", RED)]
    if found.flows is None:
        heading[0] = ("Retrieved shapes:", INK)
    else:
        heading.append(("arrows: expansion", GREY))
    ranks = _there(found.distance, top)
    flows = [None if found.flows is None else found.flows[rank] for rank in ranks]
    panels = [
        flow_panel(found.visible, found.amodal[rank], flow, found.box, side)
        for rank, flow in zip(ranks, flows, strict=True)
    ]
    return Row(heading, panels, [f"{_rank(rank)}, distance {found.distance[rank]:.2f}" for rank in ranks])


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
        heading = [(f"Re-ranking, {what} ({count} of {int(there.sum())}):", INK)]
        if not rows:
            heading += [("seen", BLUE), ("seen, not in the candidate", FAINT), ("hidden by others", GREEN)]
            heading += [("hidden by nothing", RED), ("others", GREY)]
        panels = [
            candidate_panel(view, image, seen, others, shapes[rank], found.boxes[rank]) for rank in ranks.tolist()
        ]
        captions = [
            f"candidate {rank + 1}, distance {found.distance[rank]:.2f}, inconsistency {found.inconsistency[rank]:.2f}"
            for rank in ranks.tolist()
        ]
        rows.append(Row(heading, panels, captions))
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


_GAP, _MARGIN, _TITLE, _HEADING, _CAPTION = 14, 22, 22, 16, 13


def figure(rows: Sequence[Row], title: str, *, subtitle: str = "", side: int = 300) -> Pixels:
    """Rows of one object as one picture, uint8 [H, W, 3], on white.

    Args:
        rows: as :func:`rows_of` gives them, of panels at most ``side`` pixels long.
        title: first line.
        subtitle: second line.
        side: pixels of a cell.
    """
    columns = max((len(row.panels) for row in rows), default=1)
    width = max(columns, TOP) * (side + _GAP) - _GAP + 2 * _MARGIN
    heights = [max(panel.shape[0] for panel in row.panels) for row in rows]
    top = _MARGIN + round(1.5 * _TITLE) + (round(1.7 * _CAPTION) if subtitle else 0)
    extra = round(2.6 * _HEADING) + round(1.9 * _CAPTION)
    page = Image.new("RGB", (width, top + sum(heights) + len(rows) * extra + _MARGIN), (255, 255, 255))
    pen = ImageDraw.Draw(page)
    pen.text((_MARGIN, _MARGIN), printable(title), font=label_font(_TITLE), fill=INK)
    if subtitle:
        pen.text(
            (_MARGIN, _MARGIN + round(1.5 * _TITLE)),
            printable(subtitle),
            font=label_font(_CAPTION),
            fill=(95, 100, 108),
        )
    for row, height in zip(rows, heights, strict=True):
        _heading(pen, row.heading, top + _HEADING)
        top += round(2.6 * _HEADING)
        for column, (panel, caption) in enumerate(zip(row.panels, row.captions, strict=True)):
            left = _MARGIN + column * (side + _GAP) + (side - panel.shape[1]) // 2
            page.paste(Image.fromarray(panel), (left, top + (height - panel.shape[0]) // 2))
            pen.text(
                (_MARGIN + column * (side + _GAP) + side / 2, top + height + 5),
                caption,
                font=label_font(_CAPTION),
                fill=(70, 75, 82),
                anchor="ma",
            )
        top += height + round(1.9 * _CAPTION)
    return np.asarray(page)


def _heading(pen: ImageDraw.ImageDraw, words: Sequence[tuple[str, Color]], top: int) -> None:
    """Words behind each other, those of a colour behind a dot of it."""
    left, font = float(_MARGIN), label_font(_HEADING)
    for text, color in words:
        if color != INK:
            pen.ellipse((left, top + 4, left + 11, top + 15), fill=color)
            left += 17
        pen.text((left, top), text, font=font, fill=INK)
        left += pen.textlength(text, font=font) + _HEADING
