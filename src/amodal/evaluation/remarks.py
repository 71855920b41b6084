"""What a reader of the numbers must know about the two files behind them."""

from __future__ import annotations

import numpy as np

from amodal.data.problems import Count
from amodal.data.store import RATE_TOLERANCE, AnnotationSet
from amodal.evaluation.metrics import Evaluation


def unjudged(evaluation: Evaluation) -> list[Count]:
    """Detections of classes without a single object: no number counts them."""
    truth, labels = evaluation.annotations, evaluation.detections.labels
    objects = np.bincount(truth.labels[~truth.crowd], minlength=len(truth.class_names))
    lost = labels[objects[labels] == 0]
    if not len(lost):
        return []
    names = [truth.class_names[label] for label in np.unique(lost)[:5].tolist()]
    return [Count("detection of a class without an object in the annotations", len(lost), tuple(names))]


def rate_remarks(truth: AnnotationSet) -> list[str]:
    """Where the file's own occlusion rates and those of its masks do not go together."""
    counts = ~truth.crowd & truth.amodal_known
    stored = counts & ~np.isnan(truth.stored_rate)
    with np.errstate(invalid="ignore"):
        off = stored & (np.abs(truth.stored_rate - truth.occlude_rate) > RATE_TOLERANCE)
    remarks = []
    if off.any():
        first = int(np.flatnonzero(off)[0])
        own, masks = truth.stored_rate[first], truth.occlude_rate[first]
        remarks.append(
            f"{int(off.sum())} of {int(stored.sum())} stored occlusion rates differ from those of the masks "
            f"(annotation {truth.annotation_ids[first]}: {own:.3f} stored, {masks:.3f} by masks); the stored ones count"
        )
    if stored.any() and not stored[counts].all():
        remarks.append(
            f"{int(stored.sum())} of {int(counts.sum())} objects have a stored occlusion rate, which counts; the rates "
            "of the others come from their masks"
        )
    return remarks
