"""Pooling of regions from the feature pyramid, every box from its own level."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

from amodal.models.backbone import LEVELS

_CANONICAL_SIZE = 224.0  # pixels; a box of this size is pooled from the level of stride 16 (FPN paper, Eq. 1)
_CANONICAL_LEVEL = 2


def pyramid_level(boxes: Tensor) -> Tensor:
    """int64 [R], index into :data:`LEVELS` for boxes float32 [R, 4] in pixels (FPN paper, Eq. 1)."""
    extent = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0)
    size = extent.prod(dim=1).sqrt()
    # The small number keeps the logarithm of a box without area finite.
    level = torch.floor(_CANONICAL_LEVEL + torch.log2(size / _CANONICAL_SIZE + 1e-6))
    return level.clamp(0, len(LEVELS) - 1).long()


class Pooler(nn.Module):
    """ROIAlign with ``aligned=True`` and 2 x 2 samples a cell: values stand at the cell centres ``(i + 0.5) / size``.

    Attributes:
        size: cells a side.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, features: Mapping[str, Tensor], boxes: Tensor, batch: Tensor) -> Tensor:
        """Pooled maps.

        Args:
            features: levels "0" to "3" (strides 4 to 32), float [B, C, H, W]; others are not read.
            boxes: float32 [R, 4], xyxy pixels of the padded network image.
            batch: int64 [R], image of each box.

        Returns:
            float [R, C, size, size], in the order of ``boxes``.
        """
        regions = torch.cat([batch[:, None].to(boxes), boxes], dim=1)
        level = pyramid_level(boxes)
        order, pooled = [], []
        for index, name in enumerate(LEVELS):
            rows = torch.nonzero(level == index).flatten()
            # The first level is pooled without boxes, too: no regions must still give a tensor, with shape and graph.
            if len(rows) == 0 and index > 0:
                continue
            order.append(rows)
            # in single precision: coordinates in bfloat16 would be off by whole cells
            pooled.append(roi_align(features[name].float(), regions[rows], self.size, 0.25 / 2**index, 2, True))
        # argsort of a permutation is its inverse: back into the order of the boxes.
        return torch.cat(pooled)[torch.cat(order).argsort()].to(features["0"].dtype)
