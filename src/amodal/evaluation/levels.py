"""AP by occlusion level and precision-recall curves, for the report."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from amodal.evaluation import coco
from amodal.evaluation.coco import IOU_THRESHOLDS, RECALLS
from amodal.evaluation.metrics import Evaluation
from amodal.evaluation.occlusion import BINS, bin_of


@dataclass(frozen=True)
class Level:
    """Amodal mask AP over the objects of one range of hidden shares.

    Attributes:
        low, high: hidden share of the amodal area, ``low <= share < high`` (the last level includes ``high``).
        objects: how many objects lie in it.
        ap: percent, None without objects. Only the truth decides (as in AP-occ-gt): detections that take an object of
            another level are ignored, those that take none are false positives.
    """

    low: float
    high: float
    objects: int
    ap: float | None


@dataclass(frozen=True)
class Curve:
    """Precision over recall at one IoU, both 0 to 1: 101 points, interpolated, mean over classes with objects."""

    iou: float
    recall: list[float]
    precision: list[float]


def levels(evaluation: Evaluation) -> list[Level]:
    """Amodal mask AP for hidden shares of 0-5, 5-15, 15-30, 30-50 and 50-85 %."""
    bins = bin_of(evaluation.rates)
    scores = evaluation.detections.scores
    found = []
    for place, (low, high) in enumerate(BINS):
        ignored = evaluation.ignored | (bins != place)
        # Rates of 0 for all detections: none is ignored for what it says of itself.
        table = coco.Table(
            evaluation.pairing, evaluation.rates, ignored, evaluation.crowd, scores, np.zeros(len(scores))
        )
        ap = table.match(evaluation.mask_ious).ap()
        found.append(Level(low, high, int(np.count_nonzero(~ignored)), ap))
    return found


def pr_curves(evaluation: Evaluation, ious: tuple[float, ...] = (0.5, 0.75)) -> list[Curve]:
    """Precision-recall curves of the amodal masks; ``ious`` out of .50, .55 ... .95. Empty without objects."""
    precision = evaluation.table.match(evaluation.mask_ious).precision[..., 0]
    present = precision[0, 0] > -1
    if not present.any():
        return []
    # The thresholds are sums of steps, and not equal to 0.75 to the last bit.
    places = [int(np.argmin(np.abs(IOU_THRESHOLDS - iou))) for iou in ious]
    means = [precision[place][:, present].mean(axis=1) for place in places]
    return [Curve(iou, RECALLS.tolist(), mean.tolist()) for iou, mean in zip(ious, means, strict=True)]
