"""AM head of PGExp: the region's features, expanded by flow or joined by retrieved masks (Sec. 3.3, Eq. 6).

What follows, four convolutions, a deconvolution and the predictor, is the mask head that every set has
(``amodal_head``); the parts here make the map that it works on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from amodal.methods.pgexp.squeeze import Gate, make_squeeze
from amodal.methods.pgexp.values import Box, Recalled, Seen
from amodal.models.pooler import Pooler
from amodal.priors.flow import warp

Aggregate = Literal["concat", "attention"]


class PlainMap(nn.Module):
    """``mask_expansion: plain``: F^e alone.

    Args:
        pool_size: S, cells of the pooled map, a side.
    """

    def __init__(self, pool_size: int) -> None:
        super().__init__()
        self.pooler = Pooler(pool_size)

    def forward(self, features: Mapping[str, Tensor], seen: Seen, box: Box, recalled: Recalled | None) -> Tensor:
        """The map that the amodal mask is predicted from.

        Args:
            features: pyramid levels.
            seen: R regions.
            box: their B^a.
            recalled: K priors of each, with flows where those are used; None: there are none.

        Returns:
            float [R, C, S, S] in the frames B^a.
        """
        pooled: Tensor = self.pooler(features, box.boxes, seen.rois.batch)
        return pooled if recalled is None else self.expand(pooled, recalled)

    def expand(self, pooled: Tensor, recalled: Recalled) -> Tensor:
        """What becomes of F^e, float [R, C, S, S], with K priors; here it stays."""
        return pooled


class FlowExpansion(PlainMap):
    """``mask_expansion: prior``: features of the visible region, moved by K flows, beside those of the whole region.

    Args:
        channels: C of the pyramid.
        pool_size: S.
        aggregate, k: how K maps become one.
        recompute: make each warped map anew in the backward pass instead of keeping K of them.
    """

    def __init__(self, channels: int, pool_size: int, aggregate: Aggregate, k: int, recompute: bool = False) -> None:
        super().__init__(pool_size)
        self.squeeze = make_squeeze(aggregate, channels, k, recompute)
        self.fuse = nn.Conv2d(2 * channels, channels, 1)
        _pass_through(self.fuse, channels)

    def expand(self, pooled: Tensor, recalled: Recalled) -> Tensor:
        flows = recalled.flows
        if flows is None:
            raise ValueError("the flow expansion needs flows")
        # Warp what is seen and nothing else (Eq. 6): a flow fetches from the visible part alone.
        seen = pooled * F.avg_pool2d(recalled.query[:, None], 2).to(pooled)
        expanded = self.squeeze(lambda k: warp(seen, flows[:, k]), recalled)
        return F.relu(self.fuse(torch.cat([expanded, pooled], dim=1)))


class MaskExpansion(PlainMap):
    """``mask_expansion: masks``: the K retrieved amodal masks themselves beside the features, as Xiao et al. have it.

    Args:
        channels: C of the pyramid.
        pool_size: S.
        aggregate, k: how K masks become one map.
    """

    def __init__(self, channels: int, pool_size: int, aggregate: Aggregate, k: int) -> None:
        super().__init__(pool_size)
        self.gate = Gate() if aggregate == "attention" else None
        self.fuse = nn.Conv2d((k if self.gate is None else 1) + channels, channels, 1)
        _pass_through(self.fuse, channels)

    def expand(self, pooled: Tensor, recalled: Recalled) -> Tensor:
        # 28 cells to the 14 of the features.
        small = F.avg_pool2d(recalled.amodal, 2)
        if self.gate is not None:
            small = (small * self.gate(recalled)[..., None, None]).sum(dim=1, keepdim=True)
        return F.relu(self.fuse(torch.cat([small.to(pooled), pooled], dim=1)))


def _pass_through(fuse: nn.Conv2d, channels: int) -> None:
    """Initialise so that the region's own features, the last C inputs, pass unchanged and the others are added to them.

    So the mask head, fresh or from a checkpoint without expansion, starts on features as it knows them.
    """
    nn.init.kaiming_normal_(fuse.weight, mode="fan_in", nonlinearity="relu")
    with torch.no_grad():
        fuse.weight[:, -channels:, 0, 0] = torch.eye(channels)
    if fuse.bias is not None:
        nn.init.zeros_(fuse.bias)
