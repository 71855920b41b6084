"""Fitting the flow solver S^f (Sec. 3.1): no true flow exists, so the warped visible mask is compared with the amodal
mask, and the flow is kept smooth, ordered, and at rest where nothing has to move."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from amodal.data.store import OCCLUDED
from amodal.priors.flow import FlowNet, halve, warp
from amodal.priors.types import PriorInstances

_BATCH = 96
_RATE = 1e-3
_OCCLUDED_SHARE = 2 / 3  # of the pairs, where there are occluded objects: more than their turn
_JITTERED = 0.5  # share of the visible masks that are shifted, scaled, eroded or dilated
_ERASED = 0.3  # share of the visible masks of which one more occluder takes a part
_COARSE, _MARGIN = 2.0, 0.1  # weight of the halved grid; how far from one half its blocks shall be
_APART, _MENDABLE = 0.05, 0.3  # cells; wanted distance of neighbours' sources, largest miss of it that counts
_SMOOTH, _ORDER, _REST, _SMALL = 0.01, 1.0, 0.2, 0.001  # weights of the regularisers beside the two mask losses


def fit_flow(
    instances: PriorInstances,
    *,
    steps: int,
    seed: int,
    neighbours: Tensor | None = None,
    neighbour_share: float = 0.25,
    progress: bool = False,
) -> FlowNet:
    """Fits S^f on pairs of a visible mask, often jittered, and an amodal mask.

    Args:
        instances: training objects.
        steps: optimiser steps (Adam) of 96 pairs.
        seed: of initialisation, pairs and jitter.
        neighbours: int64 [N, J], rows of each object's retrieved neighbours; null: the objects' own amodal masks only.
        neighbour_share: share of the pairs whose amodal mask is a neighbour's, which is what S^f sees in use.
        progress: show a progress bar.

    Returns:
        The network in evaluation mode, frozen. Without objects it is the closed form that it starts from.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = FlowNet()
    if len(instances):
        optimiser = torch.optim.Adam(net.parameters(), lr=_RATE)
        total = max(steps, 2)
        # A rise of exactly one step would divide by its length of 0.
        rise = max(0.1, 1.5 / total)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _RATE, total_steps=total, pct_start=rise)
        occluded = (instances.occlude_rate > OCCLUDED).nonzero()[:, 0]
        for _ in tqdm(range(steps), desc="flow", unit="step", leave=False, disable=None if progress else True):
            rows = _draw_rows(len(instances), occluded, generator)
            visible = jitter(instances.visible[rows].float(), generator)
            # Not jittered: in use the visible mask is an estimate, the amodal one a training object's.
            whose = _draw_partners(rows, neighbours, neighbour_share, generator)
            amodal = instances.amodal[whose].float()
            optimiser.zero_grad()
            flow_loss(net(visible, amodal), visible, amodal).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
    return net.eval().requires_grad_(False)


def flow_loss(flow: Tensor, visible: Tensor, amodal: Tensor) -> Tensor:
    """L1 between warped visible and amodal mask, a hinge on the halved grid, and four regularisers.

    The hinge asks blocks to fall on the right side of one half. L1 there would ask for whole blocks at the edge of what
    is visible too, and shift blocks that need not move. The regularisers are total variation; cells in the amodal mask
    whose order is reversed; cells in both masks that move by more than one cell; and the flow's length. They are in
    cells, so that their weights hold for any grid. L1 rather than cross-entropy, since clamped cross-entropy has no
    gradient at all where a hard mask is not moved yet.

    Args:
        flow: float [N, 2, S, S].
        visible: float [N, S, S], 0 or 1.
        amodal: float [N, S, S], 0 or 1.

    Returns:
        float scalar.
    """
    seen, whole = visible[:, None], amodal[:, None]
    fine = (warp(seen, flow) - whole).abs().mean()
    # The branch multiplies and warps features on the halved grid (Eq. 6), so a block's half decides what is seen of it.
    side = torch.where(F.avg_pool2d(whole, 2) >= 0.5, 1.0, -1.0)
    coarse = F.relu(_MARGIN - side * (warp(F.avg_pool2d(seen, 2), halve(flow)) - 0.5)).mean()
    cells = flow * (flow.shape[-1] / 2)
    # Without these a quarter of the visible pixels wanders: the masks agree, and the features are scrambled.
    smooth = cells.diff(dim=2).abs().mean() + cells.diff(dim=3).abs().mean()
    across = _reversed(cells[:, 0].diff(dim=2)) * amodal[:, :, 1:] * amodal[:, :, :-1]
    down = _reversed(cells[:, 1].diff(dim=1)) * amodal[:, 1:] * amodal[:, :-1]
    # The root of 0 has an infinite slope, and resting cells are exactly 0.
    length = (cells.square().sum(dim=1) + 1e-8).sqrt()
    rest = (F.relu(length - 1) * visible * amodal).mean()
    order = across.mean() + down.mean()
    return fine + _COARSE * coarse + _SMOOTH * smooth + _ORDER * order + _REST * rest + _SMALL * length.mean()


def _reversed(change: Tensor) -> Tensor:
    """By how many cells neighbours miss their order; no more than what corrections can mend."""
    return F.relu(_APART - 1 - change).clamp(max=_MENDABLE)


def jitter(visible: Tensor, generator: torch.Generator) -> Tensor:
    """Visible masks as an estimate could be: float [N, S, S], 0 or 1, in and out; none becomes empty."""
    count, size = visible.shape[:2]
    changed = _resized(visible, generator)
    # All draws are made for all masks, so that what one mask is never changes what the next ones get.
    draw = torch.rand(count, 4, generator=generator)
    grown = F.max_pool2d(changed[:, None], 3, 1, 1)[:, 0]
    # Padding of max_pool2d is -inf, on both sides of the sign: the frame's edge neither grows nor erodes a mask.
    shrunk = -F.max_pool2d(-changed[:, None], 3, 1, 1)[:, 0]
    kind = draw[:, 0, None, None]
    changed = torch.where(kind < 0.25, grown, torch.where(kind > 0.75, shrunk, changed))
    visible = _unless_empty(visible, changed, draw[:, 1] < _JITTERED)
    centres = (torch.arange(size) * 2 + 1) / size - 1
    angle = draw[:, 2, None, None] * (2 * torch.pi)
    # A straight occluder from any side, whose edge lies a tenth before the frame's middle to three tenths beyond it.
    edge = torch.rand(count, 1, 1, generator=generator) * 0.8 - 0.2
    kept = angle.cos() * centres + angle.sin() * centres[:, None] < edge
    return _unless_empty(visible, visible * kept, draw[:, 3] < _ERASED)


def _resized(visible: Tensor, generator: torch.Generator) -> Tensor:
    """Masks scaled by up to a tenth and shifted by up to a twentieth of the frame."""
    count, size = visible.shape[:2]
    change = torch.rand(count, 2, 2, generator=generator) * 0.2 - 0.1
    matrix = torch.cat([torch.diag_embed(1 + change[..., 0]), change[..., 1:]], dim=2)
    grid = F.affine_grid(matrix, [count, 1, size, size], align_corners=False)
    return (F.grid_sample(visible[:, None], grid, align_corners=False)[:, 0] >= 0.5).float()


def _unless_empty(old: Tensor, new: Tensor, chosen: Tensor) -> Tensor:
    return torch.where((chosen & new.flatten(1).any(dim=1))[:, None, None], new, old)


def _draw_rows(count: int, occluded: Tensor, generator: torch.Generator) -> Tensor:
    rows = torch.randint(count, (_BATCH,), generator=generator)
    if len(occluded):
        preferred = round(_BATCH * _OCCLUDED_SHARE)
        rows[:preferred] = occluded[torch.randint(len(occluded), (preferred,), generator=generator)]
    return rows


def _draw_partners(rows: Tensor, neighbours: Tensor | None, share: float, generator: torch.Generator) -> Tensor:
    """Whose amodal mask each visible mask shall become."""
    if neighbours is None or neighbours.shape[1] == 0:
        return rows
    draw = torch.rand(len(rows), generator=generator)
    column = torch.randint(neighbours.shape[1], (len(rows),), generator=generator)
    return torch.where(draw < share, neighbours[rows, column], rows)
