"""Which detection found which object, and how well: mIoU, mIoU-occ, the report's best and worst cases."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from amodal.evaluation.coco import Bools, Floats, Ints, Pairing

MIN_SCORE = 0.5
MIN_IOU = 0.5


@dataclass(frozen=True)
class Match:
    """One object of the truth and what became of it.

    Attributes:
        image_id, annotation_id: as the annotation file writes them.
        row: row in the annotation set.
        label: class index.
        detection: place in the results list, None for a missed object.
        score: of the detection, 0 where there is none.
        iou: IoU of the amodal masks, 0 for a missed object.
        hidden_iou: IoU of the hidden parts (amodal minus visible mask) of truth and detection, 0 for a missed object;
            None where the object has no hidden part or the detection no visible mask.
        rate: visible rate of the object.
    """

    image_id: int
    annotation_id: int
    row: int
    label: int
    detection: int | None
    score: float
    iou: float
    hidden_iou: float | None
    rate: float


def greedy(pairing: Pairing, ious: list[Floats], scores: Floats, ignore: Bools) -> tuple[Ints, Floats]:
    """Greedy matching within each image and class, highest score first, at score and IoU of at least 0.5.

    Args:
        ious: for each group float64 [detections, objects].
        scores: float64 [D].
        ignore: bool [G], objects that are left out.

    Returns:
        the detection row of each object, int64 [G], -1 where missed, and the IoU, float64 [G].
    """
    taken = np.full(len(ignore), -1, np.int64)
    found = np.zeros(len(ignore))
    for (_, gt_rows, dt_rows), values in zip(pairing.rows(), ious, strict=True):
        sure = int(np.count_nonzero(scores[dt_rows] >= MIN_SCORE))
        free = np.where(ignore[gt_rows], -1.0, values[:sure])
        for detection in np.flatnonzero((free >= MIN_IOU).any(axis=1)).tolist():
            best = int(np.argmax(free[detection]))
            if free[detection, best] >= MIN_IOU:
                taken[gt_rows[best]] = dt_rows[detection]
                found[gt_rows[best]] = free[detection, best]
                free[:, best] = -1.0
    return taken, found


def hidden_area(amodal: Any, visible: Any) -> int:
    """Pixels of the amodal mask outside the visible one; both checked RLE dictionaries."""
    return int(coco_mask.area(amodal)) - int(coco_mask.area(coco_mask.merge([amodal, visible], True)))


def hidden_iou(gt: tuple[Any, Any], dt: tuple[Any, Any]) -> float:
    """IoU of two hidden parts, each given as (amodal, visible) checked RLE dictionaries; 0 where both are empty."""
    both = coco_mask.merge([gt[0], dt[0]], True)
    seen = coco_mask.merge([gt[1], dt[1]])
    # Hidden in both: where both have the object, and neither sees it.
    shared = int(coco_mask.area(both)) - int(coco_mask.area(coco_mask.merge([both, seen], True)))
    union = hidden_area(*gt) + hidden_area(*dt) - shared
    return shared / union if union else 0.0


def mean_iou(matches: Sequence[Match]) -> float | None:
    """mIoU in percent over all objects, missed ones at 0; None without objects."""
    # fsum, so that the order of the objects does not show in the last digits.
    return 100.0 * math.fsum(match.iou for match in matches) / len(matches) if matches else None


def mean_hidden_iou(matches: Sequence[Match], largest_rate: float) -> float | None:
    """mIoU-occ in percent: over objects with a hidden part and a visible rate of at most ``largest_rate``."""
    values = [m.hidden_iou for m in matches if m.rate <= largest_rate and m.hidden_iou is not None]
    return 100.0 * math.fsum(values) / len(values) if values else None
