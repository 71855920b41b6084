"""COCO average precision on plain arrays: grouping, IoUs, matching. No annotation files here.

The greedy matching itself is faster-coco-eval's, which gives pycocotools' numbers; what is ours is that one run serves
every occlusion level. COCO ignores what lies outside an "area range": one number for each object and detection, two
bounds. Here an object's number is *minus* its visible rate and a detection's *plus* its own, so that the lower bound
touches objects only and the upper one detections only, and every rule about occlusion is one :class:`Range`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from faster_coco_eval import COCOeval_faster
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Masks = Callable[[int], dict[str, Any]]

IOU_THRESHOLDS: Floats = np.linspace(0.5, 0.95, 10)
RECALLS: Floats = np.linspace(0.0, 1.0, 101)
MAX_DETECTIONS = 100


class Range(NamedTuple):
    """Which visible rates count; both bounds are inclusive.

    Attributes:
        objects: an object with a larger rate is ignored (and so is the detection that it takes).
        detections: an *unmatched* detection whose own rate is larger is ignored instead of being a false positive.
    """

    objects: float = math.inf
    detections: float = math.inf


class Group(NamedTuple):
    """One image and class that has both objects and detections: slices into ``Pairing.gt_rows`` and ``dt_rows``."""

    image: int
    label: int
    gt: slice
    dt: slice


@dataclass(frozen=True)
class Pairing:
    """Objects and detections sorted by (image, class).

    Attributes:
        images, classes: how many there are.
        gt_rows: int64 [G], rows of the objects, within a group by id.
        dt_rows: int64 [D], rows of the detections, within a group by falling score (ties in the given order), at most
            ``MAX_DETECTIONS`` a group.
        gt_keys, dt_keys: int64 [G], [D], ``image * classes + label`` of each.
        groups: the groups that have both.
    """

    images: int
    classes: int
    gt_rows: Ints
    dt_rows: Ints
    gt_keys: Ints
    dt_keys: Ints
    groups: list[Group]

    def rows(self) -> Iterator[tuple[Group, Ints, Ints]]:
        """Each group with the rows of its objects and of its detections."""
        for group in self.groups:
            yield group, self.gt_rows[group.gt], self.dt_rows[group.dt]


def pair(images: int, classes: int, gt_keys: Ints, gt_ids: Ints, dt_keys: Ints, scores: Floats) -> Pairing:
    """Group objects and detections by image and class.

    Args:
        images, classes: how many there are.
        gt_keys, dt_keys: int64 [G], [D], image index * ``classes`` + class index.
        gt_ids: int64 [G], order of the objects within a group; ids rather than places in a file, so that numbers do
            not hang on the order in which annotations were written.
        scores: float64 [D].
    """
    gt_rows = np.lexsort((gt_ids, gt_keys))
    # Two stable sorts: by image and class, therein by score, ties as they were given. That is pycocotools' order.
    by_score = np.argsort(-scores, kind="stable")
    dt_rows = by_score[np.argsort(dt_keys[by_score], kind="stable")]
    gt_keys, dt_keys = gt_keys[gt_rows], dt_keys[dt_rows]
    # Place in its group; keys are sorted, so a search finds where each group begins.
    rank = np.arange(len(dt_keys)) - np.searchsorted(dt_keys, dt_keys, side="left")
    dt_rows, dt_keys = dt_rows[rank < MAX_DETECTIONS], dt_keys[rank < MAX_DETECTIONS]
    common = np.intersect1d(gt_keys, dt_keys)
    starts = [np.searchsorted(keys, common, side="left").tolist() for keys in (gt_keys, dt_keys)]
    ends = [np.searchsorted(keys, common, side="right").tolist() for keys in (gt_keys, dt_keys)]
    groups = [
        Group(key // classes, key % classes, slice(g0, g1), slice(d0, d1))
        for key, g0, g1, d0, d1 in zip(common.tolist(), starts[0], ends[0], starts[1], ends[1], strict=True)
    ]
    return Pairing(images, classes, gt_rows, dt_rows, gt_keys, dt_keys, groups)


def mask_ious(pairing: Pairing, gt: Masks, dt: Masks, crowd: Bools) -> list[Floats]:
    """IoU of every detection with every object of its group; for a crowd intersection over the detection's area.

    Args:
        gt, dt: row -> *checked* RLE dictionary.
        crowd: bool [G].

    Returns:
        for each group float64 [detections, objects].
    """
    found = []
    for _, gt_rows, dt_rows in pairing.rows():
        objects = [gt(row) for row in gt_rows.tolist()]
        detections = [dt(row) for row in dt_rows.tolist()]
        found.append(coco_mask.iou(detections, objects, crowd[gt_rows].astype(np.uint8).tolist()))
    return found


def box_ious(pairing: Pairing, gt: Floats, dt: Floats, crowd: Bools) -> list[Floats]:
    """As :func:`mask_ious` for boxes [G, 4] and [D, 4], xywh in pixels as COCO files write them."""
    found = []
    for _, gt_rows, dt_rows in pairing.rows():
        iscrowd = crowd[gt_rows].astype(np.uint8).tolist()
        found.append(coco_mask.iou(dt[dt_rows], gt[gt_rows], iscrowd))
    return found


@dataclass(frozen=True)
class Curves:
    """What matching gives, -1 where a class has no object that counts (COCO's convention).

    Attributes:
        precision: float64 [10 IoUs, 101 recalls, classes, ranges], interpolated.
        recall: float64 [10 IoUs, classes, ranges], at 100 detections an image and class.
    """

    precision: Floats
    recall: Floats

    def ap(self, range_index: int = 0, iou: int | None = None, label: int | None = None) -> float | None:
        """Average precision in percent, None where undefined.

        Args:
            range_index: which of the ranges that were matched.
            iou: an index into ``IOU_THRESHOLDS``; None: mean over all of them.
            label: one class; None: mean over the classes that have objects.
        """
        values = self.precision[..., range_index]
        values = values if iou is None else values[iou : iou + 1]
        return _percent(values if label is None else values[:, :, label])

    def ar(self, range_index: int = 0, label: int | None = None) -> float | None:
        """Average recall in percent, over the ten IoUs (and the classes, where no ``label`` is given)."""
        values = self.recall[..., range_index]
        return _percent(values if label is None else values[:, label])


def _percent(values: Floats) -> float | None:
    defined = values[values > -1]
    return 100.0 * float(defined.mean()) if defined.size else None


class Table:
    """Objects and detections as the matcher keeps them; built once, matched against several sets of IoUs.

    The matcher works on a grid of images and classes. Classes do not touch each other, so the images that hold
    something of a class are numbered anew for each class, and classes of about as many images share a grid: its size
    goes by the pairs that hold something, not by images times classes.

    Args:
        pairing: the grouping.
        gt_rate: float64 [G], visible rate of each object (any number where no range looks at it).
        gt_ignore: bool [G], objects that are neither found nor missed.
        crowd: bool [G]; crowds take any number of detections, and are ignored.
        scores: float64 [D].
        dt_rate: float64 [D], visible rate of each detection as it predicts it; 0: never ignored.
    """

    def __init__(
        self, pairing: Pairing, gt_rate: Floats, gt_ignore: Bools, crowd: Bools, scores: Floats, dt_rate: Floats
    ) -> None:
        self._pairing = pairing
        self._matcher = _Matcher(iouType="bbox")
        params = self._matcher.params
        params.maxDets, params.iouThrs, params.recThrs = [MAX_DETECTIONS], IOU_THRESHOLDS, RECALLS
        pairs = np.union1d(pairing.gt_keys, pairing.dt_keys)
        slots, self._grids = _slots(pairs, pairing.classes)
        self._slots = dict(zip(pairs.tolist(), slots.tolist(), strict=True))
        rows = pairing.gt_rows
        ignore = (gt_ignore | crowd)[rows].astype(int)
        objects = [pairing.gt_keys, (-gt_rate)[rows], ignore, crowd[rows].astype(int)]
        for number, (key, area, ignored, is_crowd) in enumerate(zip(*(c.tolist() for c in objects), strict=True)):
            # Identity 0 would read as "not matched" in COCO's tables.
            record = {"id": number + 1, "area": area, "ignore": ignored, "iscrowd": is_crowd}
            self._matcher.gt_dataset.append(self._slots[key], key % pairing.classes, record)
        rows = pairing.dt_rows
        found = [pairing.dt_keys, dt_rate[rows], scores[rows]]
        for number, (key, area, score) in enumerate(zip(*(c.tolist() for c in found), strict=True)):
            record = {"id": number + 1, "area": area, "score": score}
            self._matcher.dt_dataset.append(self._slots[key], key % pairing.classes, record)

    def match(self, ious: list[Floats], ranges: Sequence[Range] = (Range(),)) -> Curves:
        """Match under each range; ``ious`` are aligned with the pairing's groups."""
        classes = self._pairing.classes
        self._matcher.given = {
            (self._slots[group.image * classes + group.label], group.label): values.tolist()
            for group, values in zip(self._pairing.groups, ious, strict=True)
        }
        params = self._matcher.params
        params.areaRng = [[-limit.objects, limit.detections] for limit in ranges]
        precision = np.full((len(IOU_THRESHOLDS), len(RECALLS), classes, len(ranges)), -1.0)
        recall = np.full((len(IOU_THRESHOLDS), classes, len(ranges)), -1.0)
        for labels, images in self._grids:
            params.catIds, params.imgIds = labels, list(range(images))
            self._matcher.evaluate()
            self._matcher.accumulate()
            precision[:, :, labels] = self._matcher.eval["precision"][..., 0]
            recall[:, labels] = self._matcher.eval["recall"][..., 0]
        return Curves(precision, recall)


def _slots(pairs: Ints, classes: int) -> tuple[Ints, list[tuple[list[int], int]]]:
    """Numbers for the images of each class, from 0 in the order of the images, and the grids that hold them.

    Args:
        pairs: int64 [P], ascending, image * ``classes`` + label of all that holds something.

    Returns:
        int64 [P]; for each grid its labels, ascending, and its count of images, at most twice that of each label's own.
    """
    labels = pairs % max(classes, 1)
    counts = np.bincount(labels, minlength=classes)
    by_label = np.argsort(labels, kind="stable")
    slots = np.empty_like(pairs)
    slots[by_label] = np.arange(len(pairs)) - np.repeat(np.cumsum(counts) - counts, counts)
    sizes = np.ceil(np.log2(np.maximum(counts, 1))).astype(int)
    grids = []
    for size in np.unique(sizes[counts > 0]).tolist():
        members = np.flatnonzero((sizes == size) & (counts > 0))
        grids.append((members.tolist(), int(counts[members].max())))
    return slots, grids


class _Matcher(COCOeval_faster):  # type: ignore[misc]
    """faster-coco-eval's matching on IoUs and numbers that are given, not read from annotation dictionaries."""

    given: dict[tuple[int, int], list[list[float]]]

    def _prepare(self) -> None:
        self._nonempty_iou_pairs = self.given.keys()

    def computeIoU(self, imgId: int, catId: int) -> list[list[float]]:
        return self.given.get((imgId, catId), [])
