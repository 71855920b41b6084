"""Flows: the closed form against a slow loop, warping by hand, the network's start."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from amodal.priors.flow import FlowNet, halve, nearest_flow, warp


def random_masks(count: int, size: int, seed: int, fill: float = 0.3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    draw = torch.rand(2, count, size, size, generator=generator) < fill
    return draw[0].float(), draw[1].float()


def slow_nearest(visible: Tensor, amodal: Tensor) -> Tensor:
    """One cell at a time, every candidate compared; candidates in the order left to right, then down."""
    size = visible.shape[-1]
    flow = torch.zeros(len(visible), 2, size, size)
    for n in range(len(visible)):
        seen = visible[n] >= 0.5
        if not seen.any():
            continue
        for y in range(size):
            for x in range(size):
                whole = bool(amodal[n, y, x] >= 0.5)
                if bool(seen[y, x]) == whole:
                    continue
                around = range(-1, size + 1)
                inside = [(i, j) for i in around for j in around if 0 <= i < size and 0 <= j < size]
                seen_cells = {(i, j) for i, j in inside if seen[j, i]}
                candidates = [(i, j) for i in around for j in around if ((i, j) in seen_cells) == whole]
                best = min(candidates, key=lambda cell: (cell[0] - x) ** 2 + (cell[1] - y) ** 2)
                flow[n, :, y, x] = torch.tensor([best[0] - x, best[1] - y]) * 2 / size
    return flow


@pytest.mark.parametrize("fill", [0.05, 0.3, 0.9])
def test_closed_form_equals_a_slow_loop(fill: float) -> None:
    visible, amodal = random_masks(6, 8, seed=3, fill=fill)
    assert torch.equal(nearest_flow(visible, amodal), slow_nearest(visible, amodal))


def test_closed_form_by_hand() -> None:
    visible, amodal = torch.zeros(1, 4, 4), torch.zeros(1, 4, 4)
    visible[0, 1, 0] = 1
    visible[0, 3, 0] = 1
    amodal[0, 1, :3] = 1
    flow = nearest_flow(visible, amodal)
    # the object's third cell fetches from two cells to the left; a cell is half a unit of the frame
    assert flow[0, 0, 1].tolist() == [0.0, -0.5, -1.0, 0.0]
    # the surplus cell in the corner takes the nearest hidden cell: one step outside the frame, to the left
    assert flow[0, :, 3, 0].tolist() == [-0.5, 0.0]
    assert flow.count_nonzero() == 3
    assert torch.equal(warp(visible[:, None], flow)[:, 0], amodal)


@pytest.mark.parametrize("shape", [(5, 28, 28), (3, 14, 14), (200, 28, 28)])
def test_closed_form_makes_the_amodal_mask_of_any_pair(shape: tuple[int, int, int]) -> None:
    visible, amodal = random_masks(shape[0], shape[1], seed=0)
    assert torch.equal(warp(visible[:, None], nearest_flow(visible, amodal))[:, 0].round(decimals=3), amodal)


def test_nothing_visible_gives_no_flow() -> None:
    empty = torch.zeros(2, 28, 28)
    amodal = torch.ones(2, 28, 28)
    net = FlowNet()
    torch.nn.init.ones_(net.predict[0].weight)
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


def test_a_new_network_leaves_masks_as_they_are() -> None:
    visible, amodal = random_masks(3, 28, seed=1)
    net = FlowNet()
    assert not net(visible, amodal).any()
    assert torch.allclose(warp(visible[:, None], net(visible, amodal))[:, 0], visible, atol=1e-5)


def test_the_network_has_the_size_that_was_decided() -> None:
    assert 0.1e6 <= sum(weight.numel() for weight in FlowNet().parameters()) <= 0.3e6
