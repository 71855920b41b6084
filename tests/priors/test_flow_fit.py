"""Fitting and measuring flows: values by hand, and a fit that really moves."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from amodal.priors.flow import FlowNet, nearest_flow, warp
from amodal.priors.flow_fit import fit_flow, flow_loss, jitter
from amodal.priors.flow_quality import flow_quality
from amodal.priors.types import PriorInstances


def discs(count: int, seed: int) -> PriorInstances:
    """Ellipses that fill their frames, most of them cut by a straight edge."""
    generator = torch.Generator().manual_seed(seed)
    place = (torch.arange(28) * 2 + 1) / 28 - 1
    power = torch.rand(count, 1, 1, generator=generator) * 2 + 1.5
    amodal = place.abs() ** power + place[:, None].abs() ** power < 1
    angle, edge = torch.rand(2, count, 1, 1, generator=generator)
    cut = (angle * 6.3).cos() * place + (angle * 6.3).sin() * place[:, None] < edge * 1.2 - 0.3
    visible = amodal & cut
    none = torch.zeros(count, 4)
    ids = torch.arange(count)
    rate = 1 - visible.flatten(1).sum(dim=1) / amodal.flatten(1).sum(dim=1)
    return PriorInstances(amodal, visible, visible, none, none, ids * 0, rate, ids, ids)


def pair(visible: list[list[int]], amodal: list[list[int]]) -> tuple[Tensor, Tensor]:
    return torch.tensor([visible]).float(), torch.tensor([amodal]).float()


def test_quality_by_hand() -> None:
    visible, amodal = pair([[1, 1, 0, 0], [1, 1, 0, 0]], [[1, 1, 1, 0], [1, 1, 0, 0]])
    quality = flow_quality(torch.zeros(1, 2, 2, 4), visible, amodal)
    assert quality.iou28 == pytest.approx(4 / 5)
    assert quality.iou14 == 1.0  # a quarter of the second block is less than half
    assert (quality.moved, quality.folded) == (0.0, 0.0)

    flow = torch.zeros(1, 2, 2, 4)
    flow[0, 0, 0, 2] = -2 / 4 * 1.5  # the hidden cell fetches between its left neighbours: in reversed order
    flow[0, 1, 1, 1] = -1.6  # a seen cell, 1.6 cells up and so out of the frame: before the one above it
    quality = flow_quality(flow, visible, amodal)
    assert quality.iou28 == pytest.approx(4 / 5)  # one cell won, one lost
    assert quality.moved == pytest.approx(1 / 4)
    assert quality.folded == pytest.approx(2 / 5)  # three pairs side by side, two above each other


def test_quality_on_the_halved_grid() -> None:
    visible = torch.zeros(1, 4, 4)
    visible[0, :, :2] = 1
    amodal = torch.ones(1, 4, 4)
    flow = torch.zeros(1, 2, 4, 4)
    flow[0, 0, :, 2] = -1 / 2  # one cell to the left: from the last visible column
    flow[0, 0, :, 3] = -1  # two cells
    quality = flow_quality(flow, visible, amodal)
    assert quality.iou28 == 1.0
    assert quality.iou14 == 1.0  # the mean, 0.75 of a block, reads 0.75 of the visible one
    flow[0, 0, :, 3] = -3 / 4
    flow[0, 0, :, 2] = 0
    assert flow_quality(flow, visible, amodal).iou14 == 0.5  # 0.375 of a block


def test_quality_where_there_is_nothing_to_count() -> None:
    empty = torch.zeros(1, 4, 4)
    for masks in ((empty, empty), (empty[:0], empty[:0])):
        quality = flow_quality(torch.zeros(len(masks[0]), 2, 4, 4), *masks)
        assert (quality.iou28, quality.iou14, quality.moved, quality.folded) == (1.0, 1.0, 0.0, 0.0)


def test_loss_by_hand() -> None:
    visible, amodal = pair([[1, 0], [1, 0]], [[1, 1], [1, 1]])
    flow = torch.zeros(1, 2, 2, 2)
    # half of the cells are wrong; the one block is half seen, 0.1 short of what is wanted
    assert flow_loss(flow, visible, amodal).item() == pytest.approx(0.5 + 2 * 0.1, abs=1e-4)
    flow[0, 0, :, 1] = -1  # a cell is a whole unit: the right column fetches the left one
    smooth, length = 0.01 * 0.5, 0.001 * 0.5
    order = 1.0 * 0.05  # both columns fetch from the same place
    # the block reads at a quarter of a block to the left
    assert flow_loss(flow, visible, amodal).item() == pytest.approx(
        0 + 2 * (0.6 - 0.5 * 0.75) + smooth + length + order, abs=1e-4
    )
    flow[0, 0, :, 0] = 2  # the left column: two cells to the right, outside; far from its order, which counts as 0.3
    assert flow_loss(flow, visible, amodal).item() == pytest.approx(
        0.5 + 2 * (0.6 - 0.5 * 0.75) + 0.015 + 0.0015 + 0.3 + 0.2 * 0.5, abs=1e-4
    )


def test_hard_masks_at_rest_have_a_gradient() -> None:
    masks = discs(16, seed=0)
    flow = torch.zeros(16, 2, 28, 28, requires_grad=True)
    flow_loss(flow, masks.visible.float(), masks.amodal.float()).backward()
    assert flow.grad is not None
    occluded = masks.occlude_rate > 0.15
    assert flow.grad.flatten(1).any(dim=1)[occluded].all()
    shift = -torch.sign(flow.grad) * 0.02
    visible = masks.visible.float()[:, None]
    before = (visible[:, 0] - masks.amodal.float()).abs().mean()
    assert (warp(visible, shift)[:, 0] - masks.amodal.float()).abs().mean() < before


def test_a_fit_improves_on_the_closed_form() -> None:
    train, test = discs(128, seed=1), discs(64, seed=2)
    rows = torch.arange(128)
    neighbours = torch.stack([(rows + 1) % 128, (rows + 2) % 128], dim=1)
    net = fit_flow(train, steps=25, seed=3, neighbours=neighbours, neighbour_share=0.5)
    visible, amodal = test.visible.float(), test.amodal.float()
    with torch.no_grad():
        before = flow_loss(nearest_flow(visible, amodal), visible, amodal)
        after = flow_loss(net(visible, amodal), visible, amodal)
    assert after < before
    assert not any(parameter.requires_grad for parameter in net.parameters())


def test_a_fit_repeats_itself() -> None:
    masks = discs(32, seed=1)
    first, second = (fit_flow(masks, steps=2, seed=3).state_dict() for _ in range(2))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize("steps", [1, 2, 9, 10, 11, 20])
def test_any_number_of_steps_is_a_fit(steps: int) -> None:
    net = fit_flow(discs(8, seed=0), steps=steps, seed=0)
    assert all(torch.isfinite(value).all() for value in net.parameters())


def test_a_fit_on_nothing_is_the_closed_form() -> None:
    net = fit_flow(discs(0, seed=0), steps=3, seed=0)
    masks = discs(4, seed=1)
    visible, amodal = masks.visible.float(), masks.amodal.float()
    assert torch.equal(net(visible, amodal), nearest_flow(visible, amodal))


def test_random_state_is_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit_flow(discs(4, seed=0), steps=1, seed=9)
    assert torch.equal(torch.rand(3), expected)


def test_jitter_keeps_masks_binary_and_never_empty() -> None:
    visible = discs(200, seed=4).visible.float()
    visible[0] = 0
    visible[1] = 0
    visible[1, 3, 3] = 1
    jittered = jitter(visible, torch.Generator().manual_seed(0))
    assert set(jittered.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(jittered.flatten(1).any(dim=1), visible.flatten(1).any(dim=1))
    changed = (jittered != visible).flatten(1).any(dim=1).float().mean()
    assert 0.5 < changed < 0.8  # half are shaken, three in ten cut, of which some not in the mask


def test_a_network_is_frozen_for_use_and_ready_to_load() -> None:
    net = fit_flow(discs(4, seed=0), steps=2, seed=0)
    other = FlowNet(net.widths)
    other.load_state_dict(net.state_dict())
    masks = discs(4, seed=1)
    assert torch.equal(
        other(masks.visible.float(), masks.amodal.float()), net(masks.visible.float(), masks.amodal.float())
    )
    assert not net.training
