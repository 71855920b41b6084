"""One pass over a split with a trained detector: what its branch gets, and the truth of each detection.

The studies of PGExp ask the branch again and again with something put in; backbone, proposals and detections are the
same each time, so they are computed once an image.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou

from amodal.datasets import AmodalDataset
from amodal.evaluation.api import evaluate
from amodal.model import AmodalModel
from amodal.models.rcnn import Regions
from amodal.structures import BranchOutput, RoIs, Targets

THRESHOLD = 0.05  # as amodal test
IOU = 0.5  # least overlap of a detection with the object that it found
KEYS = (("mask", "AP"), ("mask", "AP50"), ("mask", "AP75"), ("mask", "AP-occ"), ("mask", "AP-occ-gt"), ("mask", "mIoU"),
        ("mask", "mIoU-occ"), ("box", "AP"), ("box", "AP-occ"), ("box", "AP-occ-gt"), ("visible", "AP"))  # fmt: skip


@dataclass
class Sample:
    """An image with its R detections, in the frame of the network image.

    Attributes:
        regions: the detections, best first, with the image as the network sees it and its features.
        truth: its objects.
        match: int64 [R], row in ``truth`` of the object that a detection found (:func:`match`), -1 for none.
    """

    regions: Regions
    truth: Targets
    match: Tensor

    @property
    def features(self) -> dict[str, Tensor]:
        """Pyramid levels."""
        return self.regions.features

    @property
    def rois(self) -> RoIs:
        """The detections."""
        return self.regions.rois

    @property
    def found(self) -> Tensor:
        """int64, the detections that found an object."""
        return torch.nonzero(self.match >= 0).flatten()


def match(rois: RoIs, truth: Targets) -> Tensor:
    """int64 [R], for each detection, best score first, the nearest object of its class that is still free, or -1.

    Near is the IoU of B^o with the amodal box; objects without a known amodal shape are left out.
    """
    overlap = box_iou(rois.boxes, truth.boxes)
    overlap[rois.labels[:, None] != truth.labels] = 0
    overlap[:, truth.ignore | ~truth.amodal_known] = 0
    return assign(overlap, rois.scores)


def assign(overlap: Tensor, scores: Tensor) -> Tensor:
    """int64 [R], for each detection, best of ``scores`` [R] first, the object that it overlaps most and that is still
    free, or -1 where ``overlap`` [R, G] is below :data:`IOU` with all of them."""
    overlap, rows = overlap.clone(), torch.full((len(scores),), -1)
    for detection in scores.argsort(descending=True, stable=True).tolist():
        if overlap.shape[1] and float(overlap[detection].max()) >= IOU:
            rows[detection] = overlap[detection].argmax()
            overlap[:, rows[detection]] = 0
    return rows


@torch.no_grad()
def passes(model: AmodalModel, data: AmodalDataset, limit: int | None = None) -> Iterator[Sample]:
    """Every image of ``data`` (the first ``limit``) through backbone and box head.

    The box head's own score threshold holds, as in ``amodal test`` (0.05).
    """
    model.eval()
    for index in range(len(data) if limit is None else min(limit, len(data))):
        image = data.image(index).to(model.device)
        (regions,) = model.regions([image])
        (height, width), (old_height, old_width) = regions.batch.sizes[0], regions.batch.originals[0]
        truth = data.targets(index).rescale(width / old_width, height / old_height)
        yield Sample(regions, truth, match(regions.rois, truth))


def results(model: AmodalModel, sample: Sample, output: BranchOutput, rois: RoIs | None = None) -> list[dict[str, Any]]:
    """Detections of one image in the results format; ``rois`` where their boxes were replaced."""
    regions = sample.regions if rois is None else sample.regions._replace(rois=rois)
    (prediction,) = model.predictions(regions, output)
    kept = prediction[prediction.scores >= THRESHOLD]
    return kept.to_coco(sample.truth.image_id)


def short(data: AmodalDataset, found: list[dict[str, Any]]) -> dict[str, Any]:
    """The metrics that the tables show, ``mask.AP`` and so on, percent; null without a result."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # not cut at a threshold, whatever their lowest score is
        metrics = evaluate(data.annotations, found)
    return {f"{part}.{key}": (metrics.get(part) or {}).get(key) for part, key in KEYS}


def crop(truth: Targets, part: str, rows: Tensor, boxes: Tensor, size: int) -> Tensor:
    """float32 [N, size, size], masks ``part`` ("amodal", "visible") of objects ``rows`` in the frames ``boxes``."""
    source = getattr(truth, part)
    masks: Tensor = source.crop(rows, boxes, size)
    return masks


def uniform(seed: int, image_id: int, count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """float64 [count], the same numbers in 0..1 for the same seed and image."""
    return np.random.default_rng([seed, image_id]).uniform(size=count)


def with_boxes(rois: RoIs, boxes: Tensor) -> RoIs:
    """The same detections at other boxes B^o."""
    return replace(rois, boxes=boxes, decoded=boxes)
