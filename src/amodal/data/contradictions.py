"""Annotations that cannot all be true: objects that lie on each other, each of them wholly visible."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from amodal.data import rle
from amodal.data.problems import Problem
from amodal.data.store import AnnotationSet, MaskBuffer
from amodal.errors import counted

SHARE = 0.05  # of the smaller of two objects; outlines that touch share their border
PIXELS = 8


def overlaps(data: AnnotationSet) -> Iterator[Problem]:
    """A warning for each image in which objects overlap that are all annotated as wholly visible.

    Instances of one class with the very same mask are left to the search for duplicates.
    """
    whole = ~data.crowd & data.amodal_known & (data.occlude_rate == 0)
    for image, number in enumerate(data.image_ids.tolist()):
        rows = np.arange(data.first[image], data.first[image + 1])
        pairs = _touching(data, rows[whole[rows]])
        if not len(pairs):
            continue
        shared = rle.intersection_batch(_runs(data.amodal.take(pairs[:, 0])), _runs(data.amodal.take(pairs[:, 1])))
        smaller = data.amodal_area[pairs].min(axis=1)
        found = [
            place
            for place in np.flatnonzero((shared > PIXELS) & (shared > SHARE * smaller)).tolist()
            if not _are_twins(data, *pairs[place].tolist())
        ]
        if found:
            first, second = data.annotation_ids[pairs[found[0]]].tolist()
            part = shared[found[0]] / smaller[found[0]]
            more = f"; so do {counted(len(found) - 1, 'more pair')} of this image" if len(found) > 1 else ""
            text = (
                f"annotations {first} and {second} share {shared[found[0]]} pixels ({part:.0%} of the smaller one), and"
            )
            yield Problem("overlap", "warning", number, first, f"{text} both claim to be wholly visible{more}")


def _touching(data: AnnotationSet, rows: rle.Ints) -> rle.Ints:
    """Pairs int64 [P, 2] of ``rows`` whose boxes overlap; row by row, as all pairs at once could be too many."""
    boxes = data.amodal_boxes[rows]
    found = [np.zeros((0, 2), np.int64)]
    for place in range(len(rows) - 1):
        later = boxes[place + 1 :]
        low, high = np.maximum(later[:, :2], boxes[place, :2]), np.minimum(later[:, 2:], boxes[place, 2:])
        others = rows[place + 1 :][(low < high).all(axis=1)]
        found.append(np.stack([np.full(len(others), rows[place]), others], axis=1))
    return np.concatenate(found)


def _runs(masks: MaskBuffer) -> rle.Runs:
    return rle.decompress_batch(masks.data, masks.offsets)


def _are_twins(data: AnnotationSet, first: int, second: int) -> bool:
    same_mask = data.amodal.counts(first) == data.amodal.counts(second)
    return bool(same_mask and data.labels[first] == data.labels[second])
