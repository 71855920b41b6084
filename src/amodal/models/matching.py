"""Which ground-truth object a box stands for, with crowds neither object nor background."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import box_iou

from amodal.structures import Targets

_IGNORED_SHARE = 0.5  # a box with this much of its area inside an ignored one is not background


@dataclass
class Match:
    """What M boxes match.

    Attributes:
        gt_index: int64 [M], row of the best object in the targets; 0 where there is none.
        positive, negative: bool [M]; boxes that are neither take no part.
    """

    gt_index: Tensor
    positive: Tensor
    negative: Tensor


def match(boxes: Tensor, targets: Targets, fg_iou: float, bg_iou: float, *, force: bool = False) -> Match:
    """Match boxes with the objects of an image.

    Args:
        boxes: float32 [M, 4], xyxy pixels.
        targets: G objects of the image.
        fg_iou: a box is positive from this IoU with an amodal box on.
        bg_iou: a box is negative below this IoU with every amodal box.
        force: every object also gets the boxes with its highest IoU, however low (anchors, Faster R-CNN Sec. 3.1.2).
    """
    objects = torch.nonzero(~targets.ignore).flatten()
    if len(objects) == 0:
        none = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
        return Match(none.long(), none, ~none & ~_in_ignored(boxes, targets))
    iou = box_iou(targets.boxes[objects], boxes)
    best, row = iou.max(dim=0)
    positive = best >= fg_iou
    if force:
        # All that share the highest IoU, as anchors on a grid often do. An object that meets no box has an IoU of 0
        # with every one, and would otherwise claim them all.
        highest = iou.max(dim=1, keepdim=True).values
        positive = positive | ((iou == highest) & (highest > 0)).any(dim=0)
    negative = (best < bg_iou) & ~positive & ~_in_ignored(boxes, targets)
    return Match(objects[row], positive, negative)


def _in_ignored(boxes: Tensor, targets: Targets) -> Tensor:
    """bool [M], boxes that lie mostly inside one ignored object's box."""
    ignored = targets.boxes[targets.ignore]
    if len(ignored) == 0:
        return torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    low = torch.maximum(boxes[:, None, :2], ignored[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], ignored[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(dim=2)
    area = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=1).clamp(min=1e-6)
    return (shared / area[:, None] >= _IGNORED_SHARE).any(dim=1)
