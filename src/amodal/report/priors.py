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
from amodal.viz.prior_panels import Pixels
from amodal.viz.priors import HIDDEN, VISIBLY, Key, Row, choose_shown, find_box, growth, rows_of

OBJECTS = 4
"""Objects that the report explains."""
_SIDE = 380
_TRIED = 16  # further objects that are asked until one expands visibly

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
    """A few found objects with what they retrieved; those whose priors expand visibly come first.

    They are taken at even steps through the set, not the best ones. Where none of them expands visibly, as their hidden
    part hardly matters, the last one gives way to another that does, if one is soon found.

    Args:
        evaluation: truth and results.
        images: folder that the truth's file names are relative to.
        explain: what became of an image uint8 [H, W, 3]: its detections, explained.

    Objects of an image that cannot be read are left out.
    """
    chosen = choose_explained(evaluation.matches)
    cases = [case for match in chosen if (case := _explained(evaluation, images, explain, match)) is not None]
    if cases and not any(growth(case.explanation) >= VISIBLY for case in cases):
        rows = {match.row for match in chosen}
        others = choose_explained([match for match in evaluation.matches if match.row not in rows], _TRIED)
        more = (_explained(evaluation, images, explain, match) for match in others)
        cases[-1] = next((one for one in more if one and growth(one.explanation) >= VISIBLY), cases[-1])
    return sorted(cases, key=lambda case: growth(case.explanation) < VISIBLY)


def _explained(evaluation: Evaluation, images: Path, explain: Explain, match: Match) -> PriorCase | None:
    truth = evaluation.annotations
    index = int(truth.image_index[match.row])
    size = int(truth.heights[index]), int(truth.widths[index])
    try:
        image = read_image(images, truth.file_names[index], size=size, image_id=int(truth.image_ids[index]))
    except DataError:
        return None  # The report's pictures say which, and why.
    # The class and the amodal box tell which of the image's explanations is the detection's.
    box = evaluation.detections.boxes[match.detection]
    found = find_box(explain(image), truth.class_names[match.label], box)
    if found is None:
        return None
    known = Truth(truth.amodal_boxes[match.row], truth.amodal_mask(match.row), truth.visible_mask(match.row))
    return PriorCase(match, found, image, known)


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
    said: set[str] = set()
    body = "".join(_shown(evaluation, case, said) for case in cases)
    if not body:
        return ""
    low, high = (f"{100 * share:.0f}" for share in HIDDEN)
    note = (
        "What the memory bank says about single objects: training objects whose visible part looks like that of the "
        "detection, nearest first, and how they go on behind what hides them: by boxes, and by a flow from the visible "
        f"part to the whole shape. Found objects hidden by {low} to {high} %, at even steps through the set; what "
        "expands visibly comes first."
    )
    return f'<section><h2>Expansion priors</h2><p class="note">{note}</p>{body}</section>'


def _shown(evaluation: Evaluation, case: PriorCase, said: set[str]) -> str:
    """Markup of one object; what is wrong with its pictures is said in their place."""
    try:
        return _case(evaluation, case, said)
    except Exception as fault:
        what = f"annotation {case.match.annotation_id}, not shown: {one_line(fault)}"
        return f'<article class="prior"><p class="note">{escape(what)}</p></article>'


def _case(evaluation: Evaluation, case: PriorCase, said: set[str]) -> str:
    rows = rows_of(case.explanation, case.image, case.truth, side=_SIDE)
    if not any(row.panels for row in rows[1:]):
        return ""  # A class that the bank does not know has nothing to show.
    truth, match = evaluation.annotations, case.match
    name = escape(case.explanation.name)
    where = escape(truth.file_names[int(truth.image_index[match.row])])
    told = f"{100 * (1 - match.rate):.0f} % hidden, mask IoU {match.iou:.2f}"
    head = f'<h3>{name}, {told}</h3><p class="soft where">{where}, annotation {match.annotation_id}</p>'
    return f'<article class="prior">{head}{"".join(_row(row, name, said) for row in rows)}</article>'


def _row(row: Row, name: str, said: set[str]) -> str:
    """One row of pictures under its keys; what explains it is said where it comes first."""
    words = "".join(f"<li>{_mark(key)}{escape(key.text)}</li>" for key in row.heading)
    note = f'<p class="note">{escape(row.note)}</p>' if row.note and row.note not in said else ""
    said.add(row.note)
    what = escape(row.heading[0].text.rstrip(":"))
    figures = "".join(
        f'<figure><img src="{data_uri(panel)}" alt="{what} of a {name}: {escape(caption)}" loading="lazy">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
        for panel, caption in zip(row.panels, row.captions, strict=True)
    )
    strip = f'<div class="strip" role="group" tabindex="0" aria-label="{what} of a {name}">{figures}</div>'
    return f'<ul class="key">{words}</ul>{note}{strip}'


def _mark(key: Key) -> str:
    """The mark of a key, as it is drawn in the pictures."""
    if not key.mark:
        return ""
    color = f"#{bytes(key.color).hex()}"
    shape = {
        "dot": f'<circle cx="11" cy="8" r="6" fill="{color}"/>',
        "frame": f'<rect x="2" y="2" width="18" height="12" fill="none" stroke="{color}" stroke-width="3"/>',
        # Ink on a dark page would not be seen.
        "dashed": '<path d="M0 8h22" stroke="currentColor" stroke-width="2.5" stroke-dasharray="5 3"/>',
        "arrow": f'<path d="M0 8h14" stroke="{color}" stroke-width="2"/><path d="M22 8l-9-5v10z" fill="{color}"/>',
        "fill": f'<rect x="1" y="1" width="20" height="14" fill="{color}"/>',
    }[key.mark]
    return f'<svg viewBox="0 0 22 16" aria-hidden="true">{shape}</svg>'
