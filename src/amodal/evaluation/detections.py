"""Results as the evaluation wants them: columns in the order of the results list, and checked masks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from amodal.data import rle
from amodal.data.store import MaskBuffer
from amodal.evaluation.coco import MAX_DETECTIONS, Floats, Ints

if TYPE_CHECKING:
    from amodal.data.store import AnnotationSet

_LOW_SCORE = 0.1


@dataclass(frozen=True)
class Detections:
    """D detections.

    Attributes:
        image_index: int64 [D], index into the truth's images.
        labels: int64 [D], index into the truth's classes.
        scores: float64 [D].
        boxes: float64 [D, 4], amodal xywh in pixels of the image.
        sizes: int64 [D, 2], height and width of the image of each.
        amodal: D checked masks.
        visible: D checked masks; None for a system that has no visible masks.
    """

    image_index: Ints
    labels: Ints
    scores: Floats
    boxes: Floats
    sizes: Ints
    amodal: MaskBuffer
    visible: MaskBuffer | None

    def __len__(self) -> int:
        return len(self.scores)

    @cached_property
    def amodal_runs(self) -> rle.Runs:
        return rle.decompress_batch(self.amodal.data, self.amodal.offsets)

    def amodal_rle(self, row: int) -> dict[str, Any]:
        """RLE of one amodal mask."""
        return {"size": self.sizes[row].tolist(), "counts": self.amodal.counts(row)}

    def visible_rle(self, row: int) -> dict[str, Any]:
        """RLE of one visible mask; only where ``visible`` is not None."""
        assert self.visible is not None
        return {"size": self.sizes[row].tolist(), "counts": self.visible.counts(row)}

    def mask_boxes(self) -> Floats:
        """Tight boxes of the amodal masks, float64 [D, 4] xywh; zeros for an empty mask."""
        boxes = rle.measure_batch(self.amodal_runs, self.sizes[:, 0])[1]
        return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)

    def visible_rates(self) -> Floats:
        """Visible rate |V and A| / |A| as each detection predicts it, float64 [D].

        0, which no level ignores, for an empty amodal mask (it is a false positive) and for a system without visible
        masks.
        """
        if self.visible is None:
            return np.zeros(len(self))
        shared = rle.intersection_batch(self.amodal_runs, rle.decompress_batch(self.visible.data, self.visible.offsets))
        areas = rle.measure_batch(self.amodal_runs, self.sizes[:, 0])[0]
        return shared / np.maximum(areas, 1)


def cut_at(detections: Detections, images: int) -> float | None:
    """The lowest score, where it is so high that the results must have been cut at a threshold; else None."""
    if not len(detections):
        return None
    lowest = float(detections.scores.min())
    full = np.bincount(detections.image_index, minlength=images) >= MAX_DETECTIONS
    return lowest if lowest > _LOW_SCORE and not full.any() else None


def read_detections(
    results: str | PathLike[str] | Sequence[Mapping[str, Any]], annotations: AnnotationSet
) -> Detections:
    """INTERIM"""
    if isinstance(results, (str, PathLike)):
        with open(results) as f:
            results = json.load(f)
    images = {int(v): i for i, v in enumerate(annotations.image_ids)}
    classes = {int(v): i for i, v in enumerate(annotations.category_ids)}
    index = np.array([images[r["image_id"]] for r in results], np.int64)
    sizes = np.stack([annotations.heights, annotations.widths], 1).astype(np.int64)[index].reshape(-1, 2)

    def masks(key):
        return MaskBuffer.pack([rle.check_rle(r[key], *s)["counts"] for r, s in zip(results, sizes.tolist())])

    return Detections(
        index,
        np.array([classes[r["category_id"]] for r in results], np.int64),
        np.array([r["score"] for r in results], np.float64),
        np.array([r["bbox"] for r in results], np.float64).reshape(-1, 4),
        sizes,
        masks("segmentation"),
        masks("visible_mask") if all("visible_mask" in r for r in results) else None,
    )
