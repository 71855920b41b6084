"""What else is seen: the visible masks of other objects, which may hide what a prior adds.

In training these are the annotated visible masks. In test they are the predicted ones of detections that are sure
enough and no duplicates of the object itself. Crowds are no evidence, since their masks are loose.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from amodal.data.masks import InstanceMasks
from amodal.data.store import AnnotationSet
from amodal.frames import resample
from amodal.structures import RoIs

SIZE = 56
"""Cells a side of the evidence: a context box is larger than an object's."""
MIN_SCORE = 0.3
"""Least score of a detection that serves as evidence."""
DUPLICATE = 0.5
"""From this visible-mask IoU on, two detections are taken for the same object."""
_CHUNK = 1024  # pairs of objects resampled at a time: 13 MB


def truth_evidence(rois: RoIs, context: Tensor, size: int = SIZE) -> Tensor:
    """Union of the annotated visible masks of the other objects of each region's image.

    Args:
        rois: R regions with ground truth.
        context: float32 [R, 4], xyxy pixels of the network's image.
        size: S, cells a side.

    Returns:
        float32 [R, S, S], 0 or 1, in the frames ``context``.

    Raises:
        ValueError: the regions have no ground truth.
    """
    if rois.targets is None or rois.gt_index is None:
        raise ValueError("regions without ground truth have no annotated evidence")
    device = context.device
    boxes = [target.visible_boxes.to(device) for target in rois.targets]
    every = [target.visible.crop(torch.arange(len(b)), b, size) for target, b in zip(rois.targets, boxes, strict=True)]
    counts = torch.tensor([len(b) for b in boxes], device=device)
    image = torch.repeat_interleave(torch.arange(len(boxes), device=device), counts)
    own = (counts.cumsum(0) - counts)[rois.batch] + rois.gt_index
    crowd = torch.cat([target.ignore for target in rois.targets]).to(device)
    may = (rois.batch[:, None] == image) & (own[:, None] != torch.arange(len(image), device=device)) & ~crowd
    return _union(torch.cat(every), torch.cat(boxes), may, context, size)


def predicted_evidence(
    rois: RoIs, visible_probs: Tensor, context: Tensor, size: int = SIZE, *, keep: Tensor | None = None
) -> Tensor:
    """Union of the predicted visible masks of the other detections of each region's image.

    Args:
        rois: R detections.
        visible_probs: float [R, h, w], their visible masks in frame B^o (``rois.boxes``).
        context: float32 [R, 4], xyxy pixels of the network's image.
        size: S, cells a side.
        keep: bool [R], detections that may serve as evidence at all; None: every one.

    Returns:
        float32 [R, S, S], 0 or 1, in the frames ``context``. Detections below :data:`MIN_SCORE` and duplicates of the
        object (:data:`DUPLICATE`) are left out.
    """
    probs = visible_probs.float()
    sure = rois.scores >= MIN_SCORE
    if keep is not None:
        sure = sure & keep.to(sure.device)
    other = ~torch.eye(len(rois), dtype=torch.bool, device=sure.device)
    may = (rois.batch[:, None] == rois.batch) & other & sure
    may &= ~_duplicates(probs, rois.boxes, may)
    return _union(probs, rois.boxes, may, context, size)


def annotated_evidence(annotations: AnnotationSet, annotation_ids: Tensor, context: Tensor, size: int = SIZE) -> Tensor:
    """Union of the annotated visible masks of the other objects in the image of each annotation.

    Args:
        annotations: the annotation file.
        annotation_ids: int64 [R], ids in the file.
        context: float32 [R, 4], xyxy pixels of the annotated image.
        size: S, cells a side.

    Returns:
        float32 [R, S, S], 0 or 1, on the CPU, in the frames ``context``.
    """
    order = np.argsort(annotations.annotation_ids, kind="stable")
    queries = order[np.searchsorted(annotations.annotation_ids, annotation_ids.numpy(), sorter=order)]
    image = annotations.image_index[queries]
    rows = np.concatenate([np.zeros(0, int), *(np.array(annotations.rows(int(i)), int) for i in np.unique(image))])
    rows = rows[~annotations.crowd[rows] & (annotations.visible_area[rows] > 0)]
    boxes = torch.from_numpy(annotations.visible_boxes[rows].astype(np.float32))
    masks = torch.zeros(len(rows), size, size)
    for number in np.unique(image):
        here = np.flatnonzero(annotations.image_index[rows] == number)
        source = InstanceMasks.from_annotations(annotations, rows[here], "visible", image=int(number))
        masks[here] = source.crop(torch.arange(len(here)), boxes[here], size)
    may = (image[:, None] == annotations.image_index[rows]) & (queries[:, None] != rows)
    return _union(masks, boxes, torch.from_numpy(may), context, size)


def _duplicates(probs: Tensor, boxes: Tensor, may: Tensor) -> Tensor:
    """bool [R, R], pairs among ``may`` whose visible masks [R, h, w] overlap by an IoU of :data:`DUPLICATE` or more."""
    seen = probs >= 0.5
    cell = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=1) / (seen.shape[1] * seen.shape[2])
    area = seen.sum(dim=(1, 2)) * cell
    # Much larger or smaller masks cannot reach the IoU, so few pairs are left to be resampled.
    near = torch.minimum(area[:, None], area) >= DUPLICATE * torch.maximum(area[:, None], area)
    same = torch.zeros_like(may)
    first, second = torch.nonzero(may & near & _meet(boxes, boxes) & (area > 0), as_tuple=True)
    for a, b in zip(torch.split(first, _CHUNK), torch.split(second, _CHUNK), strict=True):
        moved = resample(probs[b], boxes[b], boxes[a], probs.shape[-1]) >= 0.5
        shared = (moved & seen[a]).sum(dim=(1, 2)) * cell[a]
        same[a, b] = shared >= DUPLICATE * (area[a] + area[b] - shared)
    return same


def _union(masks: Tensor, boxes: Tensor, may: Tensor, context: Tensor, size: int) -> Tensor:
    """Union float32 [R, size, size], in the frames ``context`` [R, 4], of the masks [E, h, w] that ``may`` allows.

    Masks are cut at 0.5 after resampling from ``boxes`` [E, 4], as for pasting; ``may`` is bool [R, E].
    """
    count = context.new_zeros(len(context), size, size)
    region, evidence = torch.nonzero(may & _meet(context, boxes), as_tuple=True)
    for r, e in zip(torch.split(region, _CHUNK), torch.split(evidence, _CHUNK), strict=True):
        inside = resample(masks[e], boxes[e], context[r], size) >= 0.5
        count.index_add_(0, r, inside.to(count))
    return (count > 0).to(count)


def _meet(a: Tensor, b: Tensor) -> Tensor:
    """bool [N, M], boxes [N, 4] and [M, 4] that have some area in common."""
    low = torch.maximum(a[:, None, :2], b[:, :2])
    high = torch.minimum(a[:, None, 2:], b[:, 2:])
    return (high > low).all(dim=-1)
