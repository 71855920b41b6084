"""Flows: the closed form against a slow loop, warping by hand, the network's start."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from amodal.priors.flow import FlowNet, halve, nearest_flow, warp
from amodal.priors.flow_quality import flow_quality


def random_masks(count: int, size: int, seed: int, fill: float = 0.3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    draw = torch.rand(2, count, size, size, generator=generator) < fill
    return draw[0].float(), draw[1].float()


def slow_nearest(visible: Tensor, amodal: Tensor) -> Tensor:
    """One pair, one cell at a time, every block compared, straight from the rules."""
    half = visible.shape[0] // 2
    share = {(i, j): visible[2 * j : 2 * j + 2, 2 * i : 2 * i + 2].mean().item() for i, j in cells(half)}
    enough = min(max(max(share.values()), 0.25), 0.5)
    flow = torch.zeros(2, 2 * half, 2 * half)
    for i, j in cells(half):
        wanted = amodal[2 * j : 2 * j + 2, 2 * i : 2 * i + 2]
        want = wanted.mean().item()

        def cost(block: tuple[int, int], want: float = want, i: int = i, j: int = j) -> float:
            have = share.get(block, 0.0)
            if (have >= enough) != (want >= 0.5):
                return math.inf
            extra = {1.0: 48 * (1 - have), 0.5: 30 * (have == 1), 0.75: 30 * (have == 1), 0.25: 30 * (have == 0)}
            return (block[0] - i) ** 2 + (block[1] - j) ** 2 + extra.get(want, 0)

        stays = cost((i, j)) < math.inf and not (want == 0.25 and share[i, j] == 0)
        around = [(x, y) for y in range(-1, half + 1) for x in range(-1, half + 1)]
        source = (i, j) if stays else min(around, key=cost)
        for x, y in cells(2):
            right = [cell for cell in cells(2) if value(visible, source, cell) == wanted[y, x]]
            taken = min(right or [(x, y)], key=lambda cell: abs(cell[0] - x) + abs(cell[1] - y))
            place: tuple[float, float] = taken
            if not stays and want == 1 and share.get(source, 0.0) == 1:
                place = (0.5, 0.5)
            step = torch.tensor([2 * (source[0] - i) + place[0] - x, 2 * (source[1] - j) + place[1] - y])
            flow[:, 2 * j + y, 2 * i + x] = step * (1 if place == taken else 0.96) / half
    return flow


def cells(size: int) -> list[tuple[int, int]]:
    return [(x, y) for y in range(size) for x in range(size)]


def value(visible: Tensor, block: tuple[int, int], cell: tuple[int, int]) -> float:
    x, y = 2 * block[0] + cell[0], 2 * block[1] + cell[1]
    inside = 0 <= x < visible.shape[1] and 0 <= y < visible.shape[0]
    return visible[y, x].item() if inside else 0.0


@pytest.mark.parametrize("fill", [0.01, 0.1, 0.5, 0.9])
def test_closed_form_equals_a_slow_loop(fill: float) -> None:
    visible, amodal = random_masks(8, 12, seed=3, fill=fill)
    visible[:4] = (visible[:4] + blob(12, 5)).clamp(max=1)  # full blocks too
    amodal[2:6] = (amodal[2:6] + blob(12, 9)).clamp(max=1)
    expected = torch.stack(
        [slow_nearest(*pair) if pair[0].any() else torch.zeros(2, 12, 12) for pair in zip(visible, amodal, strict=True)]
    )
    assert torch.allclose(nearest_flow(visible, amodal), expected, atol=1e-6)


def blob(size: int, width: int) -> Tensor:
    mask = torch.zeros(size, size)
    mask[1 : 1 + width, 2 : 2 + width] = 1
    return mask


def test_closed_form_by_hand() -> None:
    visible, amodal = torch.zeros(1, 4, 6), torch.zeros(1, 4, 6)
    visible[0, :2, :2] = 1
    visible[0, 3, 0] = 1
    amodal[0, :2] = 1
    flow = nearest_flow(visible, amodal)
    # a cell is a third of a unit in x; two hidden blocks fetch from near the middle of the visible one
    assert torch.allclose(flow[0, 0, 0] * 3, torch.tensor([0.0, 0.0, -1.5, -2.5, -3.5, -4.5]) * 0.96)
    # a cell is half a unit in y
    assert torch.allclose(flow[0, 1, :2, 2:] * 2, torch.tensor([[0.5] * 4, [-0.5] * 4]) * 0.96)
    # the surplus cell in the corner takes the hidden one of its block above it
    assert (flow[0, :, 3, 0] * torch.tensor([3, 2])).tolist() == [0.0, -1.0]
    assert flow[0, :, 2].count_nonzero() == 0
    assert torch.allclose(warp(visible[:, None], flow)[:, 0], amodal, atol=1e-5)


def test_closed_form_is_right_on_both_grids_and_keeps_order() -> None:
    y, x = torch.meshgrid(torch.arange(28) - 13.5, torch.arange(28) - 13.5, indexing="ij")
    amodal = ((x / 13) ** 2 + (y / 11) ** 2 < 1).float()
    visible = torch.stack([amodal * (x + 0.4 * y < 0), amodal * ((x - 5) ** 2 + y**2 > 90)])
    whole = amodal.expand(2, -1, -1)
    quality = flow_quality(nearest_flow(visible, whole), visible, whole)
    start = flow_quality(torch.zeros(2, 2, 28, 28), visible, whole)
    assert start.iou28 < 0.7
    assert quality.iou28 > 0.99
    assert quality.iou14 > 0.95
    assert quality.moved < 0.05
    assert quality.folded < 0.08


def test_nothing_visible_gives_no_flow() -> None:
    empty = torch.zeros(2, 28, 28)
    amodal = torch.ones(2, 28, 28)
    net = FlowNet()
    for parameter in net.predict.parameters():
        torch.nn.init.ones_(parameter)
    for flow in (nearest_flow(empty, amodal), net(empty, amodal)):
        assert flow.shape == (2, 2, 28, 28)
        assert not flow.any()
    some = empty.clone()
    some[1, 4, 4] = 1
    flow = net(some, amodal)
    assert not flow[0].any()
    assert flow[1].any()


def test_no_pairs() -> None:
    none = torch.zeros(0, 28, 28)
    for flow in (nearest_flow(none, none), FlowNet()(none, none)):
        assert flow.shape == (0, 2, 28, 28)
    assert warp(torch.zeros(0, 3, 14, 14), torch.zeros(0, 2, 14, 14)).shape == (0, 3, 14, 14)


def test_warp_of_a_known_flow() -> None:
    features = torch.arange(12.0).reshape(1, 1, 3, 4)
    flow = torch.zeros(1, 2, 3, 4)
    flow[0, 0, 0, 0] = 2 / 4  # one cell to the right
    flow[0, 1, 0, 1] = 2 / 3 * 2  # two cells down
    flow[0, 0, 1, 0] = 2 / 4 * 1.25  # between the second and the third cell
    flow[0, 0, 1, 3] = 2 / 4 * 0.5  # half outside
    flow[0, 1, 2, 2] = 2 / 3  # outside
    expected = torch.tensor([[1.0, 9.0, 2.0, 3.0], [5.25, 5.0, 6.0, 3.5], [8.0, 9.0, 0.0, 11.0]])
    assert torch.allclose(warp(features, flow)[0, 0], expected, atol=1e-5)


def test_warp_moves_all_channels_alike_and_lets_gradients_through() -> None:
    features = torch.rand(2, 3, 14, 14, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    flow = torch.rand(2, 2, 14, 14, generator=torch.Generator().manual_seed(1)) * 0.4 - 0.2
    features.requires_grad_()
    warped = warp(features, flow)
    assert warped.dtype == torch.float64
    assert torch.allclose(warped[:, 1], warp(features[:, 1:2], flow)[:, 0])
    (gradient,) = torch.autograd.grad(warped.sum(), features)
    # what a cell gives away in all: the weights with which it is read, by the transpose of the map
    assert torch.allclose((gradient * features).sum(), warped.sum())


def test_halving_keeps_the_values_of_a_flow() -> None:
    flow = torch.tensor([[0.0, 0.2, 1.0, 1.0], [0.4, 0.2, 1.0, 1.0]]).repeat(2, 1, 1)[None]
    assert torch.allclose(halve(flow), torch.tensor([0.2, 1.0]).expand(1, 2, 1, 2))
    shift = torch.full((1, 2, 28, 28), 2 / 14)  # one cell of the coarse grid, two of the fine one
    features = torch.rand(1, 1, 14, 14)
    assert torch.allclose(warp(features, halve(shift))[0, 0, :-1, :-1], features[0, 0, 1:, 1:], atol=1e-5)


def test_a_new_network_is_the_closed_form_and_can_leave_it() -> None:
    visible, amodal = random_masks(3, 28, seed=1)
    net = FlowNet()
    first = nearest_flow(visible, amodal)
    assert torch.equal(net(visible, amodal), first)
    net(visible, amodal).sum().backward()
    gradients = [layer.weight.grad for layer in net.predict if isinstance(layer, torch.nn.Conv2d)]
    assert [gradient is not None and bool(gradient.any()) for gradient in gradients] == [True] * 3


def test_the_network_has_the_size_that_was_decided() -> None:
    assert 0.1e6 <= sum(weight.numel() for weight in FlowNet().parameters()) <= 0.3e6
