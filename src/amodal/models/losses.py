"""Mask targets and loss terms that the branches share."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from amodal.structures import LossTerm, RoIs, Targets


def mask_targets(
    rois: RoIs, part: Literal["amodal", "visible"], boxes: Tensor, size: int = 28, soft: bool = False
) -> Tensor:
    """The matched objects' masks in the frames of boxes.

    Args:
        rois: R regions with ground truth.
        part: which mask.
        boxes: float32 [R, 4], xyxy pixels of the network image; frame of each crop.
        size: cells a side.
        soft: area fractions instead of 0 / 1.

    Returns:
        float32 [R, size, size], 0 to 1.
    """
    masks = boxes.new_zeros(len(rois), size, size)
    for rows, index, targets in _matched(rois):
        source = targets.amodal if part == "amodal" else targets.visible
        masks[rows] = source.crop(index, boxes[rows], size, soft)
    return masks


def matched(rois: RoIs, name: str) -> Tensor:
    """[R, ...], a tensor field of :class:`Targets` read at each region's matched object."""
    parts = _matched(rois)
    values = torch.cat([getattr(targets, name)[index] for _, index, targets in parts])
    # Regions of an image need not stand together; argsort of the permutation brings them back into their order.
    return values[torch.cat([rows for rows, _, _ in parts]).argsort()]


def mask_term(logits: Tensor, target: Tensor, keep: Tensor | None = None, weight: Tensor | None = None) -> LossTerm:
    """Binary cross-entropy, averaged over the cells of the regions that count.

    Args:
        logits: float [R, S, S].
        target: float32 [R, S, S], 0 to 1.
        keep: bool [R], regions that count; None: all.
        weight: float [R], what each region's cells are multiplied by, without gradient; the mean is still one over
            cells, not over weights (VRSP). None: 1.
    """
    # A sum over thousands of cells is too much for half precision.
    loss = F.binary_cross_entropy_with_logits(logits.float(), target, reduction="none")
    if weight is not None:
        loss = loss * weight.detach().to(loss)[:, None, None]
    cells = float(logits.shape[-1] * logits.shape[-2])
    if keep is None:
        return LossTerm(loss.sum(), loss.new_tensor(len(logits) * cells))
    return LossTerm((loss * keep[:, None, None]).sum(), keep.sum() * cells)


def amodal_mask_term(logits: Tensor, rois: RoIs, boxes: Tensor, soft: bool, weight: Tensor | None = None) -> LossTerm:
    """:func:`mask_term` of amodal masks in the frames ``boxes``; objects without a known amodal mask do not count."""
    target = mask_targets(rois, "amodal", boxes, logits.shape[-1], soft)
    return mask_term(logits, target, matched(rois, "amodal_known"), weight)


def visible_mask_term(logits: Tensor, rois: RoIs, boxes: Tensor, soft: bool, weight: Tensor | None = None) -> LossTerm:
    """:func:`mask_term` of visible masks in the frames ``boxes``."""
    return mask_term(logits, mask_targets(rois, "visible", boxes, logits.shape[-1], soft), None, weight)


def _matched(rois: RoIs) -> list[tuple[Tensor, Tensor, Targets]]:
    """(rows of the regions, rows of their objects, targets) of each image."""
    if rois.targets is None or rois.gt_index is None:
        raise ValueError("these regions carry no ground truth")
    return [(rows, rois.gt_index[rows], targets) for rows, targets in zip(rois.per_image(), rois.targets, strict=True)]
