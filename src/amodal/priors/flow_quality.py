"""How well a flow does its work: IoU of the warped mask, cells that needlessly move, cells that change order."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from amodal.priors.flow import halve, warp

_SLACK = 1e-3  # cells; rounding


@dataclass
class FlowQuality:
    """Quality of the flows of N pairs.

    Attributes:
        iou28: mean IoU of the warped visible mask, cut at 0.5, with the amodal mask, on the masks' grid.
        iou14: the same on the halved grid: 2 x 2 means of the visible mask, warped by the halved flow, cut at 0.5, with
            the 2 x 2 means of the amodal mask, cut at 0.5.
        moved: share of the cells in both masks that fetch from more than one cell away.
        folded: share of the pairs of neighbouring cells in the amodal mask (left and right, upper and lower) that fetch
            in reversed order.
    """

    iou28: float
    iou14: float
    moved: float
    folded: float


def flow_quality(flow: Tensor, visible: Tensor, amodal: Tensor) -> FlowQuality:
    """Measures flows.

    Args:
        flow: float [N, 2, H, W], backward flow (see :mod:`amodal.priors.flow`); H and W even.
        visible: float or bool [N, H, W], a cell is in the mask at 0.5 or above.
        amodal: float or bool [N, H, W], likewise, what the visible mask shall become.

    Returns:
        Means over the pairs, or over all cells or pairs of cells; IoU 1 and shares 0 where there is nothing to count.
    """
    seen, whole = (visible >= 0.5).float()[:, None], (amodal >= 0.5).float()[:, None]
    size = torch.tensor([flow.shape[3], flow.shape[2]], device=flow.device)[:, None, None]
    cells = flow * (size / 2)
    moved = (cells.norm(dim=1, keepdim=True) > 1 + _SLACK)[(seen * whole) > 0]
    across = (cells[:, 0].diff(dim=2) < -1 - _SLACK)[(whole[:, 0, :, 1:] * whole[:, 0, :, :-1]) > 0]
    down = (cells[:, 1].diff(dim=1) < -1 - _SLACK)[(whole[:, 0, 1:] * whole[:, 0, :-1]) > 0]
    return FlowQuality(
        iou28=_iou(warp(seen, flow), whole),
        iou14=_iou(warp(F.avg_pool2d(seen, 2), halve(flow)), F.avg_pool2d(whole, 2)),
        moved=_share(moved),
        folded=_share(torch.cat([across, down])),
    )


def _iou(warped: Tensor, wanted: Tensor) -> float:
    """Mean IoU of float [N, 1, H, W] with each other, cut at 0.5 (bilinear weights may miss it by rounding)."""
    a, b = (warped >= 0.5 - _SLACK).flatten(1), (wanted >= 0.5).flatten(1)
    either = (a | b).sum(dim=1)
    iou = torch.where(either > 0, (a & b).sum(dim=1) / either.clamp(min=1), 1.0)
    return float(iou.mean()) if len(iou) else 1.0


def _share(flags: Tensor) -> float:
    return float(flags.float().mean()) if flags.numel() else 0.0
