"""S^f and T^f (Sec. 3.1, Eq. 3 and 6): a flow that turns a visible mask into an amodal mask, and warping by it.

A flow is float [N, 2, H, W], channels (x, y), on the grid of the *amodal* mask and backward: it says where a cell of
the amodal mask fetches from. Its unit is half a side of the frame ([-1, 1] across it), so a flow may be read on a grid
of another size without rescaling its values. The arrows of Fig. 5 (visible point to amodal point) are its negative.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_CHUNK = 128  # pairs whose distances the closed-form solver holds at once
_FAR = 1e4  # cells; farther than anything in a grid


class FlowNet(nn.Module):
    """S^f (Eq. 3): a small FlowNet (Dosovitskiy et al., ICCV 2015) on two stacked masks.

    An encoder halves the grid three times (28, 14, 7, 4 cells a side), a decoder comes back with skips, and each of its
    levels corrects the flow of the coarser one. The corrections start at zero: a new network leaves masks as they are.

    Args:
        widths: channels at 28, 14, 7 and 4 cells a side.
    """

    def __init__(self, widths: tuple[int, int, int, int] = (16, 32, 64, 64)) -> None:
        super().__init__()
        self.widths = widths
        self.stem = nn.Conv2d(2, widths[0], 3, padding=1)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(widths))
        self.inner = nn.ModuleList(nn.Conv2d(b, b, 3, padding=1) for b in widths[1:])
        self.up = nn.ModuleList(nn.Conv2d(b + a + 2, a, 3, padding=1) for a, b in pairwise(widths))
        self.predict = nn.ModuleList(nn.Conv2d(c, 2, 3, padding=1, bias=False) for c in widths)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, a=0.1)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        for weight in self.predict.parameters():
            nn.init.zeros_(weight)

    def levels(self, visible: Tensor, amodal: Tensor) -> list[Tensor]:
        """The flows of all levels, coarse to fine, each float32 [N, 2, S, S]; arguments as for :meth:`forward`."""
        skips = [F.leaky_relu(self.stem(torch.stack([visible, amodal], dim=1)), 0.1)]
        for down, inner in zip(self.down, self.inner, strict=True):
            skips.append(F.leaky_relu(inner(F.leaky_relu(down(skips[-1]), 0.1)), 0.1))
        features = skips[-1]
        flows: list[Tensor] = [self.predict[-1](features)]
        for level in reversed(range(len(self.up))):
            size = skips[level].shape[-2:]
            flow = F.interpolate(flows[-1], size=size, mode="bilinear", align_corners=False)
            coarse = F.interpolate(features, size=size, mode="bilinear", align_corners=False)
            features = F.leaky_relu(self.up[level](torch.cat([coarse, skips[level], flow], dim=1)), 0.1)
            flows.append(flow + self.predict[level](features))
        seen = visible.flatten(1).any(dim=1)[:, None, None, None]
        return [torch.where(seen, flow, 0.0) for flow in flows]

    def forward(self, visible: Tensor, amodal: Tensor) -> Tensor:
        """The flow between two masks in one frame.

        Args:
            visible: float [N, 28, 28], visible mask, 0 or 1.
            amodal: float [N, 28, 28], amodal mask that it shall become, 0 or 1.

        Returns:
            float32 [N, 2, 28, 28], backward flow; 0 where the visible mask is empty.
        """
        return self.levels(visible, amodal)[-1]


def nearest_flow(visible: Tensor, amodal: Tensor) -> Tensor:
    """S^f in closed form: every cell takes the nearest cell of the kind that it needs.

    Inside the amodal mask that is the nearest visible cell, outside it the nearest cell that is not visible, where the
    frame is surrounded by such cells. A cell that already is what it should be stays. Of equally near cells the left
    one is taken, of these the upper one.

    Args:
        visible: float or bool [N, H, W], a cell is visible at 0.5 or above.
        amodal: float or bool [N, H, W], likewise.

    Returns:
        float32 [N, 2, H, W], backward flow; 0 where the visible mask is empty.
    """
    seen, whole = visible >= 0.5, amodal >= 0.5
    flow = torch.zeros(len(seen), 2, *seen.shape[1:], device=seen.device)
    for start in range(0, len(seen), _CHUNK):
        part = slice(start, start + _CHUNK)
        flow[part] = _nearest(seen[part], whole[part])
    return flow


def warp(features: Tensor, flow: Tensor) -> Tensor:
    """T^f (Eq. 6): features fetched from where a backward flow points.

    Args:
        features: float [N, C, H, W].
        flow: float [N, 2, H, W], on the same grid, in units of half the frame's side.

    Returns:
        float [N, C, H, W] of the features' dtype, bilinear between cell centres, 0 outside the frame. Differentiable in
        both.
    """
    height, width = features.shape[-2:]
    x = (torch.arange(width, device=flow.device, dtype=torch.float32) * 2 + 1) / width - 1
    y = (torch.arange(height, device=flow.device, dtype=torch.float32) * 2 + 1) / height - 1
    grid = torch.stack([x + flow[:, 0], y[:, None] + flow[:, 1]], dim=-1)
    # half precision is too coarse for coordinates
    warped = F.grid_sample(features.float(), grid.float(), mode="bilinear", padding_mode="zeros", align_corners=False)
    return warped.to(features.dtype)


def halve(flow: Tensor) -> Tensor:
    """A flow on a grid with half the cells a side: 2 x 2 means, values unchanged since they are in units of the frame.

    Args:
        flow: float [N, 2, H, W], H and W even.

    Returns:
        float [N, 2, H / 2, W / 2].
    """
    return F.avg_pool2d(flow, 2)


def _nearest(seen: Tensor, whole: Tensor) -> Tensor:
    """The closed form for a few pairs, bool [N, H, W] each."""
    size = torch.tensor([seen.shape[2], seen.shape[1]], device=seen.device)
    padded = F.pad(~seen, (1, 1, 1, 1), value=True)
    offset = torch.where(whole[:, None], _offsets(seen), _offsets(padded)[:, :, 1:-1, 1:-1])
    wrong = (seen != whole) & seen.flatten(1).any(dim=1)[:, None, None]
    return torch.where(wrong[:, None], offset * (2 / size)[:, None, None], 0.0)


def _offsets(wanted: Tensor) -> Tensor:
    """float32 [N, 2, H, W], (x, y) in cells from each cell to the nearest wanted one; any value where none is wanted.

    Exact and separable: first the nearest wanted row of every column, then the best column.
    """
    height, width = wanted.shape[1:]
    rows = torch.arange(height, device=wanted.device, dtype=torch.float32)
    columns = torch.arange(width, device=wanted.device, dtype=torch.float32)
    apart = (rows[:, None] - rows).abs()[None, :, :, None]
    missing = torch.where(wanted, 0.0, _FAR)[:, None]
    vertical, row = (apart + missing).min(dim=2)
    across = (columns[:, None] - columns).square()
    column = (across + vertical.square()[:, :, None]).argmin(dim=3)
    dy = row.gather(2, column) - rows[:, None]
    return torch.stack([column - columns, dy], dim=1)
