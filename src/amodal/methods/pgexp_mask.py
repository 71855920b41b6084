"""AM head of PGExp: the region's features, expanded by flow or joined by retrieved masks (Sec. 3.3, Eq. 6).

What follows, four convolutions, a deconvolution and the predictor, is the mask head that every set has
(``amodal_head``); the parts here stand before it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from amodal.config_methods import PGExpConfig
from amodal.methods.pgexp_squeeze import Gate, make_squeeze
from amodal.priors.flow import warp


class FlowExpansion(nn.Module):
    """``mask_expansion: prior``: features of the visible region, moved by K flows, beside those of the whole region.

    Args:
        channels: C of the pyramid.
        config: K and how the K maps become one.
    """

    def __init__(self, channels: int, config: PGExpConfig) -> None:
        super().__init__()
        self.squeeze = make_squeeze(config.aggregate, channels, config.k, config.checkpoint)
        self.fuse = nn.Conv2d(2 * channels, channels, 1)
        _pass_through(self.fuse, channels)

    def forward(self, pooled: Tensor, visible: Tensor, flows: Tensor, cues: Tensor) -> Tensor:
        """The map that the amodal mask is predicted from.

        Args:
            pooled: F^e, float [N, C, S, S] in the frames B^a.
            visible: M^{v,e}, float32 [N, 2S, 2S], probabilities in the frames B^a, without gradient.
            flows: T^f, float32 [N, K, 2, S, S], backward, [-1, 1] across the frame.
            cues: float32 [N, K, 3], see :mod:`amodal.methods.pgexp_squeeze`.

        Returns:
            float [N, C, S, S].
        """
        seen = pooled * F.avg_pool2d(visible[:, None], 2).to(pooled)
        expanded = self.squeeze(lambda k: warp(seen, flows[:, k]), cues)
        return F.relu(self.fuse(torch.cat([expanded, pooled], dim=1)))


class MaskExpansion(nn.Module):
    """``mask_expansion: masks``: the K retrieved amodal masks themselves beside the features, as Xiao et al. have it.

    Args:
        channels: C of the pyramid.
        config: K and how the K masks become one map.
    """

    def __init__(self, channels: int, config: PGExpConfig) -> None:
        super().__init__()
        self.gate = Gate() if config.aggregate == "attention" else None
        self.fuse = nn.Conv2d((config.k if self.gate is None else 1) + channels, channels, 1)
        _pass_through(self.fuse, channels)

    def forward(self, pooled: Tensor, masks: Tensor, cues: Tensor) -> Tensor:
        """The map that the amodal mask is predicted from.

        Args:
            pooled: F^e, float [N, C, S, S] in the frames B^a.
            masks: float32 [N, K, 2S, 2S], 0 or 1, retrieved amodal masks.
            cues: float32 [N, K, 3], see :mod:`amodal.methods.pgexp_squeeze`.

        Returns:
            float [N, C, S, S].
        """
        small = F.avg_pool2d(masks, 2)
        if self.gate is not None:
            small = (small * self.gate(cues)[..., None, None]).sum(dim=1, keepdim=True)
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
