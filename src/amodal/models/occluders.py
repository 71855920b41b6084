"""What else lies in a region's box: the occluder masks that BCNet and AISFormer are trained on, and their loss."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import box_iou

from amodal.models.losses import mask_term
from amodal.structures import LossTerm, RoIs

NEAR = 0.05
"""Least IoU of another object's visible box with an object's amodal box, for the other to count as in its way."""


def occluder_targets(rois: RoIs, boxes: Tensor, size: int = 28) -> Tensor:
    """Union of the other objects' visible masks in the frames of boxes, from the annotations of the batch.

    An object counts where its visible box meets the amodal box of the region's object with an IoU above :data:`NEAR`.
    So this is whatever else is there, not only what lies in front: the order of objects is not used.

    Args:
        rois: R regions with ground truth.
        boxes: float32 [R, 4], xyxy pixels of the network image; frame of each crop.
        size: cells a side.

    Returns:
        float32 [R, size, size], 0 or 1.

    Raises:
        ValueError: the regions carry no ground truth.
    """
    if rois.targets is None or rois.gt_index is None:
        raise ValueError("these regions carry no ground truth")
    masks = boxes.new_zeros(len(rois), size, size)
    for rows, targets in zip(rois.per_image(), rois.targets, strict=True):
        own = rois.gt_index[rows]
        near = box_iou(targets.boxes[own], targets.visible_boxes) > NEAR
        near[torch.arange(len(own), device=own.device), own] = False
        near &= ~targets.ignore  # A crowd is no single object.
        region, other = torch.nonzero(near, as_tuple=True)
        crops = targets.visible.crop(other, boxes[rows[region]], size)
        masks.index_add_(0, rows[region], crops)
    return (masks > 0).float()


def occluder_term(logits: Tensor, target: Tensor, rois: RoIs, masks: Tensor | None = None) -> LossTerm:
    """Binary cross-entropy of occluder masks: regions with an occluder, and as many of each image's first ones.

    Most regions have none, and would teach the head to answer nothing. In the released code the second half is as many
    rows from the start of the *batch*; here it is a rule of each image, so that a batch is the sum of its parts.

    Args:
        logits: float [R, S, S].
        target: float32 [R, S, S], 0 or 1.
        rois: the R regions.
        masks: float32 [R, S, S], that say which regions have an occluder; None: ``target``.
    """
    there = (target if masks is None else masks).flatten(1).any(dim=1).float()
    weight = there.clone()
    for rows in rois.per_image():
        weight[rows[: int(there[rows].sum())]] += 1
    term = mask_term(logits, target, weight=weight)
    return LossTerm(term.total, weight.sum() * float(logits.shape[-1] * logits.shape[-2]))
