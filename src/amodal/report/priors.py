"""The report's section on expansion priors: what a few objects retrieved, and what re-ranking kept and threw away."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from amodal.data.images import read_image
from amodal.errors import DataError, one_line
from amodal.evaluation.matches import Match
from amodal.evaluation.metrics import Evaluation
from amodal.report.pictures import data_uri
from amodal.viz.explanation import Explanation, Truth
from amodal.viz.prior_panels import INK, Pixels
from amodal.viz.priors import HIDDEN, Row, choose_shown, find_box, rows_of

OBJECTS = 4
"""Objects that the report explains."""
_SIDE = 380

Explain = Callable[[Pixels], list[Explanation]]


@dataclass
class PriorCase:
    """One object of the report.

    Attributes:
        match: the object and its detection.
        explanation: of that detection.
        image: uint8 [H, W, 3].
        truth: the object.
    """

    match: Match
    explanation: Explanation
    image: Pixels
    truth: Truth


def explain_cases(evaluation: Evaluation, images: Path, explain: Explain) -> list[PriorCase]:
    """A few found objects, at even steps through the set and not the best ones, with what they retrieved.

    Args:
        evaluation: truth and results.
        images: folder that the truth's file names are relative to.
        explain: what became of an image uint8 [H, W, 3]: its detections, explained.

    Objects of an image that cannot be read are left out.
    """
    truth = evaluation.annotations
    cases = []
    for match in choose_explained(evaluation.matches):
        index = int(truth.image_index[match.row])
        size = int(truth.heights[index]), int(truth.widths[index])
        try:
            image = read_image(images, truth.file_names[index], size=size, image_id=int(truth.image_ids[index]))
        except DataError:
            continue  # The report's pictures say which, and why.
        # The class and the amodal box tell which of the image's explanations is the detection's.
        box = evaluation.detections.boxes[match.detection]
        found = find_box(explain(image), truth.class_names[match.label], box)
        if found is not None:
            known = Truth(truth.amodal_boxes[match.row], truth.amodal_mask(match.row), truth.visible_mask(match.row))
            cases.append(PriorCase(match, found, image, known))
    return cases


def choose_explained(matches: Sequence[Match], count: int = OBJECTS) -> list[Match]:
    """Found objects that are hidden by 15 to 85 %, at even steps; all found ones where none is."""
    found = [match for match in matches if match.detection is not None]
    chosen = choose_shown([1 - match.rate for match in found], count)
    if chosen or not found:
        return [found[position] for position in chosen]
    steps = np.linspace(0, len(found) - 1, min(count, len(found))).round().astype(int)
    return [found[step] for step in steps.tolist()]


def priors_section(evaluation: Evaluation, cases: Sequence[PriorCase]) -> str:
    """Markup of the section; empty without cases."""
    body = "".join(_shown(evaluation, case) for case in cases)
    if not body:
        return ""
    reranked = any(case.explanation.reranked is not None for case in cases)
    note = (
        "Training objects whose visible part looks like that of the detection, nearest first, and how they say that it "
        "goes on: by boxes, and by a flow from the visible part to the whole shape."
    )
    if reranked:
        note += (
            " Re-ranking keeps the candidates that agree best with what else is seen: what a candidate adds must be "
            "hidden by something."
        )
    note += f" Found objects hidden by {100 * HIDDEN[0]:.0f} to {100 * HIDDEN[1]:.0f} %, at even steps."
    return f'<section><h2>Expansion priors</h2><p class="note">{note}</p>{body}</section>'


def _shown(evaluation: Evaluation, case: PriorCase) -> str:
    """Markup of one object; what is wrong with its pictures is said in their place."""
    try:
        return _case(evaluation, case)
    except Exception as fault:
        what = f"annotation {case.match.annotation_id}, not shown: {one_line(fault)}"
        return f'<article class="prior"><p class="note">{escape(what)}</p></article>'


def _case(evaluation: Evaluation, case: PriorCase) -> str:
    rows = rows_of(case.explanation, case.image, case.truth, side=_SIDE)
    if not any(row.panels for row in rows[1:]):
        return ""  # A class that the bank does not know has nothing to show.
    truth, match = evaluation.annotations, case.match
    name = escape(case.explanation.name)
    where = escape(truth.file_names[int(truth.image_index[match.row])])
    told = f"{100 * (1 - match.rate):.0f} % hidden, mask IoU {match.iou:.2f}"
    head = f'<h3>{name}, {told}</h3><p class="soft where">{where}, annotation {match.annotation_id}</p>'
    return f'<article class="prior">{head}{"".join(_row(row, name) for row in rows)}</article>'


def _row(row: Row, name: str) -> str:
    """One row of pictures under its legend."""
    words = "".join(
        f"<li>{escape(text)}</li>"
        if color == INK
        else f'<li><i style="background:#{bytes(color).hex()}"></i>{escape(text)}</li>'
        for text, color in row.heading
    )
    what = escape(row.heading[0][0].rstrip(":"))
    figures = "".join(
        f'<figure><img src="{data_uri(panel)}" alt="{what} of a {name}: {escape(caption)}" loading="lazy">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
        for panel, caption in zip(row.panels, row.captions, strict=True)
    )
    strip = f'<div class="strip" role="group" tabindex="0" aria-label="{what} of a {name}">{figures}</div>'
    return f'<ul class="key">{words}</ul>{strip}'
