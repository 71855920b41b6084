"""S^f and T^f (Sec. 3.1, Eq. 3 and 6): a flow that turns a visible mask into an amodal mask, and warping by it.

A flow is float [N, 2, H, W], channels (x, y), on the grid of the *amodal* mask and backward: it says where a cell of
the amodal mask fetches from. Its unit is half a side of the frame ([-1, 1] across it), so a flow may be read on a grid
of another size without rescaling its values. The arrows of Fig. 5 (visible point to amodal point) are its negative.
"""

from __future__ import annotations

from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_CHUNK = 128  # pairs whose distances the closed-form solver holds at once
# Squared distance of a block that must not be taken: above any of 34 x 34 blocks (2 * 33^2), and packed with row and
# column (_cheapest) still below 2^24, where float32 stops counting. Hence at most 64 cells a side.
_NEVER = 10_000
_SPREAD = 0.04  # cells between the sources of neighbours that look for the same block, so that they keep their order
_REACH = 0.7  # cells; largest correction along an axis, so that none moves a cell by more than about one
# Squared blocks that a walk to a fully visible / to an edge block may be longer. Whole numbers, for quarters of a block
# too, or the packing would mix cost with row.
_FULL, _EDGE = 48, 30


class FlowNet(nn.Module):
    """S^f (Eq. 3): a small FlowNet (Dosovitskiy et al., ICCV 2015) on two masks and a first flow between them.

    The first flow is the closed form (:func:`nearest_flow`). An encoder-decoder reads both masks, that flow and the
    mask warped by it, and corrects it by less than a cell, at three levels (4, 7 and 14 blocks a side), with
    skips. Corrections start at zero, so a new network is the closed form. A network without a first flow has to learn
    to find visible cells far away, at which it stays behind: IoU 0.92 and 0.88 on the two grids after a minute's fit.

    Args:
        widths: channels at 14, 7 and 4 blocks a side.
    """

    def __init__(self, widths: tuple[int, int, int] = (24, 48, 48)) -> None:
        super().__init__()
        self.widths = widths
        fine, middle, coarse = widths
        self.stem = _conv(5 * 4, fine)
        self.down7 = nn.Sequential(_conv(fine, middle, stride=2), _conv(middle, middle))
        self.down4 = nn.Sequential(_conv(middle, coarse, stride=2), _conv(coarse, coarse))
        self.lateral4 = nn.Conv2d(coarse, middle, 1)
        self.lateral7 = nn.Conv2d(middle, fine, 1)
        self.up7 = _conv(middle, middle)
        self.up14 = _conv(fine, fine)
        self.predict = nn.ModuleList(nn.Conv2d(width, 2, 3, padding=1) for width in (coarse, middle, fine))
        # Zero, so that training starts at the closed form; the features before it are not, so that gradients flow.
        for parameter in self.predict.parameters():
            nn.init.zeros_(parameter)
        for parameter in self.parameters():
            if parameter.ndim == 4:  # twice as fast on a CPU
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)

    def forward(self, visible: Tensor, amodal: Tensor) -> Tensor:
        """The flow between two masks in one frame.

        Args:
            visible: float [N, 28, 28], visible mask, 0 or 1.
            amodal: float [N, 28, 28], amodal mask that it shall become, 0 or 1.

        Returns:
            float32 [N, 2, 28, 28], backward flow; 0 where the visible mask is empty.
        """
        first = nearest_flow(visible, amodal)
        if len(first) == 0:
            return first
        seen = torch.stack([visible, amodal], dim=1)
        # -1 and 1: the layers' zero padding is neither visible nor hidden, and masks have the flow's scale.
        masks = torch.cat([seen * 2 - 1, warp(visible[:, None], first) * 2 - 1, first], dim=1)
        # Blocks at once: the flow is used on 14 x 14 (Eq. 6), and a layer costs a quarter there.
        blocks = F.pixel_unshuffle(masks, 2).contiguous(memory_format=torch.channels_last)
        at14 = self.stem(blocks)
        at7 = self.down7(at14)
        at4 = self.down4(at7)
        back7 = self.up7(at7 + _resize(self.lateral4(at4), 7))
        back14 = self.up14(at14 + _resize(self.lateral7(back7), 14))
        correction = _resize(self.predict[0](at4), 7) + self.predict[1](back7)
        cells = _resize(_resize(correction, 14) + self.predict[2](back14), 28)
        # Slope 1 at zero: a small correction is what was asked for, a large one cannot scramble the features.
        flow: Tensor = first + (_REACH * torch.tanh(cells / _REACH)) * (2 / 28)
        return torch.where(visible.flatten(1).any(dim=1)[:, None, None, None], flow, 0.0)


def nearest_flow(visible: Tensor, amodal: Tensor) -> Tensor:
    """S^f in closed form: what is hidden takes the nearest visible part, first by blocks of 2 x 2 cells, then by cells.

    The flow is used on blocks (:func:`halve`), where the plain offset to the nearest visible cell is poor: it takes
    half-empty blocks at the mask's edge, and the offsets of a block's cells disagree. So each block looks for the
    nearest block like itself (:func:`_nearest_blocks`), and then each of its cells for the nearest cell of the right
    kind in there; a fully hidden block takes the middle of a fully visible one.

    Args:
        visible: float or bool [N, H, W], a cell is visible at 0.5 or above; H and W even, at most 64.
        amodal: float or bool [N, H, W], likewise.

    Returns:
        float32 [N, 2, H, W], backward flow; 0 where the visible mask is empty.
    """
    flow = torch.zeros(len(visible), 2, *visible.shape[1:], device=visible.device)
    for start in range(0, len(visible), _CHUNK):
        part = slice(start, start + _CHUNK)
        flow[part] = _nearest((visible[part] >= 0.5).float(), (amodal[part] >= 0.5).float())
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
    # Cell centres are (i + 0.5) / size of the frame, as in RoIAlign (aligned). With align_corners=True one flow would
    # point to other places on 14 than on 28 cells.
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


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """3 x 3 convolution with LeakyReLU 0.1."""
    conv = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1)
    nn.init.kaiming_normal_(conv.weight, a=0.1)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return nn.Sequential(conv, nn.LeakyReLU(0.1, inplace=True))


def _resize(features: Tensor, size: int) -> Tensor:
    return F.interpolate(features, size=(size, size), mode="bilinear", align_corners=False)


def _nearest(visible: Tensor, amodal: Tensor) -> Tensor:
    """The closed form for a few pairs, float 0 or 1 [N, H, W] each. Cells of a block are numbered row by row."""
    height, width = visible.shape[1:]
    # The border is one empty block: what must show nothing can always fetch from outside the frame.
    cells = F.pixel_unshuffle(F.pad(visible, (2, 2, 2, 2))[:, None], 2)
    wanted = F.pixel_unshuffle(amodal[:, None], 2)
    step = _nearest_blocks(cells.mean(dim=1), wanted.mean(dim=1))
    rows = torch.arange(1, height // 2 + 1, device=visible.device)[:, None]
    columns = torch.arange(1, width // 2 + 1, device=visible.device)
    block = (rows + step[:, 1]) * (width // 2 + 2) + columns + step[:, 0]
    there = cells.flatten(2).gather(2, block.flatten(1)[:, None].expand(-1, 4, -1)).view_as(wanted)

    x, y = torch.tensor([[0, 1, 0, 1], [0, 0, 1, 1]], device=visible.device)
    pattern = (there * torch.tensor([1, 2, 4, 8], device=visible.device)[:, None, None]).sum(dim=1, keepdim=True)
    owner = torch.arange(4, device=visible.device)[:, None, None]
    taken = _best_cells(x, y)[owner, wanted.long(), pattern.long()]
    # Neighbouring blocks often share a source; cell by cell they would read it as 0 1 0 1, backwards at every second
    # step. So all take its middle, and _SPREAD sets them apart in their own order.
    whole = ((there + wanted).amin(dim=1, keepdim=True) == 2) & step.any(dim=1)[:, None]
    inside = torch.stack([torch.where(whole, 0.5, at[taken]) - at[:, None, None] for at in (x, y)], dim=1)
    offset = step[:, :, None] * 2 + inside
    flow = F.pixel_shuffle(torch.where(whole[:, None], offset * (1 - _SPREAD), offset).flatten(1, 2), 2)
    scale = torch.tensor([2 / width, 2 / height], device=visible.device)[:, None, None]
    return torch.where(visible.flatten(1).any(dim=1)[:, None, None, None], flow * scale, 0.0)


def _best_cells(x: Tensor, y: Tensor) -> Tensor:
    """int64 [4, 2, 16]: for each cell of a block, what it wants and what another block's cells are, the cell to take.

    The nearest one in place of those that are as wanted; the same place if none is. ``x``, ``y``: places, int64 [4].
    """
    apart = (x[:, None] - x).abs() + (y[:, None] - y).abs()
    cells = torch.arange(16, device=x.device)[:, None] >> torch.arange(4, device=x.device) & 1
    fault = cells != torch.arange(2, device=x.device)[:, None, None]
    # 9: more than the largest distance in a block (2), so that any fitting cell goes before every other one.
    return (apart[:, None, None] + fault * 9).argmin(dim=3)


def _nearest_blocks(visible: Tensor, amodal: Tensor) -> Tensor:
    """For each block the nearest one that suits it.

    A block that is visible (half of it or more) where it should be, or not where it should not be, suits itself. Else
    a block of the object's inside takes a visible one, the fuller the better; a block of its edge takes one of its own
    side of one half, rather another edge block; a block outside takes one that is not visible. If no block is half
    visible, the fullest ones count as visible.

    Args:
        visible: float [N, h + 2, w + 2], visible share of each block, with a border of empty blocks.
        amodal: float [N, h, w], wanted share.

    Returns:
        int64 [N, 2, h, w], (x, y) steps in blocks; of equally near ones the upper, of these the left one.
    """
    # At least a quarter, so that in an empty mask no block counts as visible.
    enough = visible.flatten(1).amax(dim=1).clamp(0.25, 0.5)[:, None, None]
    seen = visible >= enough
    costs = [
        torch.where(seen, _FULL * (1 - visible), _NEVER),
        torch.where(seen, _EDGE * (visible == 1), _NEVER),
        torch.where(seen, _NEVER, _EDGE * (visible == 0)),
        torch.where(seen, _NEVER, 0),
    ]
    kind = torch.where(amodal == 1, 0, torch.where(amodal >= 0.5, 1, torch.where(amodal > 0, 2, 3)))
    step = _cheapest(torch.stack(costs, dim=1).float(), kind)
    own = visible[:, 1:-1, 1:-1]
    suits = (own >= enough) == (amodal >= 0.5)
    # An empty block of the edge is on the right side of one half, yet would lose its cells: it looks for another.
    return torch.where((suits & ~((kind == 2) & (own == 0)))[:, None], 0, step)


def _cheapest(costs: Tensor, kind: Tensor) -> Tensor:
    """int64 [N, 2, h, w], steps to the block of least squared distance + cost; costs float [N, 4, h + 2, w + 2].

    Exact and separable: the best row of every column, then the best column. Cost, row and column are packed into one
    whole number that float32 holds, so that one fast minimum finds all three.
    """
    height, width = costs.shape[-2:]
    rows = torch.arange(height, device=costs.device, dtype=torch.float32)
    columns = torch.arange(width, device=costs.device, dtype=torch.float32)
    down = (rows[1:-1, None] - rows).square()[..., None] * height + rows[:, None]
    across = (columns[1:-1, None] - columns).square() * (height * width) + columns
    # running minima over slices: several times as fast as amin over a short axis
    best = reduce(torch.minimum, [torch.add(down[:, r], costs[:, :, r, None], alpha=height) for r in range(height)])
    packed = reduce(torch.minimum, [torch.add(across[:, c], best[..., c, None], alpha=width) for c in range(width)])
    chosen = packed.gather(1, kind[:, None])[:, 0].long()
    dx = chosen % width - torch.arange(1, width - 1, device=costs.device)
    dy = chosen // width % height - torch.arange(1, height - 1, device=costs.device)[:, None]
    return torch.stack([dx, dy], dim=1)
