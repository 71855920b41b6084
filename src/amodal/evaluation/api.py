"""The functions behind ``amodal.evaluate`` and the report: files in, numbers out."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

import numpy as np

from amodal.evaluation.coco import MAX_DETECTIONS
from amodal.evaluation.matches import Match
from amodal.evaluation.metrics import Evaluation

if TYPE_CHECKING:
    from amodal.data.results import ResultSet
    from amodal.data.store import AnnotationSet

_LOW_SCORE = 0.1


def evaluate(
    gt: str | PathLike[str] | AnnotationSet,
    results: str | PathLike[str] | Sequence[Mapping[str, Any]],
    *,
    trust_bbox: bool = False,
    vrsp_compat: bool = False,
    per_class: bool = False,
    schema: str = "auto",
) -> dict[str, Any]:
    """Every metric of one set of results, as ``metrics.json`` holds them: percent, None where undefined.

    Args:
        gt: annotation file in any known schema, or an annotation set.
        results: results file (a JSON list), or the list itself.
        trust_bbox: take the truth's amodal boxes from the file instead of from the masks.
        vrsp_compat: leave visible rates of the truth above 1 unclamped, as VRSP's evaluation does.
        per_class: add ``"per_class"``: the same numbers for each class, by name.
        schema: schema of the annotation file; "auto" recognises it by the keys of its annotations.

    Returns:
        ``{"mask": {...}, "box": {...}, "visible": {...}, "images": n, "instances": n, "coverage": share}``.

    Raises:
        DataError: a file is damaged, or a result names an unknown image or category, has a bad score, box or mask, or
            lacks the visible mask that others have.

    Warns:
        UserWarning: the results look cut at a score threshold, which costs AP.
    """
    return prepare(gt, results, trust_bbox=trust_bbox, vrsp_compat=vrsp_compat, schema=schema).metrics(per_class)


def prepare(
    gt: str | PathLike[str] | AnnotationSet,
    results: str | PathLike[str] | Sequence[Mapping[str, Any]],
    *,
    trust_bbox: bool = False,
    vrsp_compat: bool = False,
    schema: str = "auto",
) -> Evaluation:
    """Reads both sides once, for metrics, levels, curves and matches of the same results; see :func:`evaluate`."""
    from amodal.data.reader import load
    from amodal.data.results import load_results

    annotations = load(fspath(gt), schema=schema) if isinstance(gt, (str, PathLike)) else gt
    detections = load_results(fspath(results) if isinstance(results, PathLike) else results, annotations)
    threshold = _cut_at(detections)
    if threshold is not None:
        warnings.warn(
            f"no result scores below {threshold:.2f}: were they cut at a threshold? AP wants all of them "
            "(score > 0.05, up to 100 an image)",
            UserWarning,
            stacklevel=3,
        )
    return Evaluation(annotations, detections, trust_bbox=trust_bbox, vrsp_compat=vrsp_compat)


def matches(
    gt: str | PathLike[str] | AnnotationSet, results: str | PathLike[str] | Sequence[Mapping[str, Any]]
) -> list[Match]:
    """What became of every object: greedy matching within a class at score >= 0.5 and mask IoU >= 0.5."""
    return prepare(gt, results).matches


def _cut_at(detections: ResultSet) -> float | None:
    """The lowest score, where it is so high that the results must have been cut at a threshold; else None."""
    if not len(detections):
        return None
    lowest = float(detections.scores.min())
    # Where an image has all that may count, its lower scores were cut by that and not by a threshold.
    full = np.bincount(detections.image_index).max() >= MAX_DETECTIONS
    return lowest if lowest > _LOW_SCORE and not full else None
