"""Sampling of proposals for training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from amodal.draws import Draws, Purpose, choose_balanced
from amodal.models.matching import match
from amodal.structures import RoIs, Targets

Sampler = Callable[[list[Tensor], list[Targets], list[tuple[int, int]], Draws], tuple[RoIs, Tensor]]
"""(proposals, targets, sizes, draws) -> what :func:`sample_rois` returns."""


def sample_rois(
    proposals: list[Tensor],
    targets: list[Targets],
    sizes: list[tuple[int, int]],
    draws: Draws,
    *,
    fg_iou: float,
    batch_per_image: int,
    positive_fraction: float,
) -> tuple[RoIs, Tensor]:
    """Choose the regions that one step trains on.

    Args:
        proposals: float32 [P, 4] an image, xyxy pixels; the objects' own boxes are appended here, crowds left out.
        targets: ground truth of each image.
        sizes: (height, width) of each image without padding.
        draws: chooses.
        fg_iou: a proposal is positive from this IoU with an object on, background below it.
        batch_per_image: most regions of an image.
        positive_fraction: largest share of positives among them.

    Returns:
        The sampled regions, image by image, positives first; labels and gt_index are -1 for background. And bool [S],
        which of them are positive.
    """
    boxes, batch, index, positive = [], [], [], []
    for image, (found, target) in enumerate(zip(proposals, targets, strict=True)):
        # The first proposals of a training hit hardly anything; the objects' own boxes are there from the start.
        candidates = torch.cat([found, target.boxes[~target.ignore]])
        # One bound for both: what is no object is background, nothing lies between.
        matches = match(candidates, target, fg_iou, fg_iou)
        chosen, background = choose_balanced(
            matches.positive,
            matches.negative,
            batch_per_image,
            positive_fraction,
            draws.stream(target.image_id, Purpose.PROPOSALS),
        )
        rows = torch.cat([chosen, background])
        boxes.append(candidates[rows])
        batch.append(torch.full_like(rows, image))
        index.append(torch.cat([matches.gt_index[chosen], torch.full_like(background, -1)]))
        positive.append(torch.arange(len(rows), device=rows.device) < len(chosen))
    gt_index, is_object = torch.cat(index), torch.cat(positive)
    labels = [
        torch.where(rows >= 0, _read(target.labels, rows), -1) for rows, target in zip(index, targets, strict=True)
    ]
    sampled = RoIs(
        boxes=torch.cat(boxes),
        batch=torch.cat(batch),
        labels=torch.cat(labels),
        scores=torch.ones(len(gt_index), device=gt_index.device),
        image_sizes=sizes,
        decoded=torch.cat(boxes),
        gt_index=gt_index,
        targets=targets,
        draws=draws,
    )
    return sampled, is_object


def sought(targets: Targets, detects: Literal["amodal", "visible"]) -> Targets:
    """Ground truth as proposals and box head see it: ``boxes`` are the boxes that a system detects.

    Visible boxes are known of every object. Those without a visible pixel are no objects then, and no background.
    """
    if detects == "amodal":
        return targets
    boxes = targets.visible_boxes
    hidden = (boxes[:, 2:] <= boxes[:, :2]).any(dim=1)
    # Of a visible box that is sought nothing is unknown.
    known = torch.ones_like(targets.amodal_known)
    return replace(targets, boxes=boxes, amodal_known=known, ignore=targets.ignore | hidden)


def select(rois: RoIs, rows: Tensor) -> RoIs:
    """The regions ``rows`` (int64 or bool [R])."""
    return RoIs(
        boxes=rois.boxes[rows],
        batch=rois.batch[rows],
        labels=rois.labels[rows],
        scores=rois.scores[rows],
        image_sizes=rois.image_sizes,
        decoded=rois.decoded[rows],
        gt_index=None if rois.gt_index is None else rois.gt_index[rows],
        targets=rois.targets,
        draws=rois.draws,
        shared=None if rois.shared is None else rois.shared[rows],
    )


def _read(values: Tensor, rows: Tensor) -> Tensor:
    """``values[rows]``, anything where rows is -1, also if there are no values."""
    return values[rows] if len(values) else torch.full_like(rows, -1)
