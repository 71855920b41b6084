"""S^r and T^r against hand-worked numbers and against each other."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from amodal.priors.boxes import MAX_LOG_SCALE, box_deltas, expand_boxes, median_deltas


def box(*corners: float) -> Tensor:
    return torch.tensor([corners], dtype=torch.float32)


def test_deltas_of_a_box_worked_by_hand() -> None:
    # Visible: centre (20, 30), 20 x 40. Amodal: centre (25, 20), 30 x 80.
    deltas = box_deltas(box(10, 10, 30, 50), box(10, -20, 40, 60))
    expected = torch.tensor([[5 / 20, -10 / 40, math.log(1.5), math.log(2)]])
    torch.testing.assert_close(deltas, expected)


def test_a_box_expanded_by_hand() -> None:
    # Half a width to the right, doubled in height: centre (30, 30), 20 x 80.
    expanded = expand_boxes(torch.tensor([[0.5, 0, 0, math.log(2)]]), box(10, 10, 30, 50))
    torch.testing.assert_close(expanded, box(20, -10, 40, 70))


def test_no_deltas_no_change() -> None:
    seen = box(3.25, 4.5, 1900.125, 77.75)
    assert torch.equal(box_deltas(seen, seen), torch.zeros(1, 4))
    assert torch.equal(expand_boxes(torch.zeros(1, 4), seen), seen)


POSITION, SIDE = st.floats(-50, 1500, width=32), st.floats(0.5, 500, width=32)


@given(st.tuples(POSITION, POSITION, SIDE, SIDE), st.tuples(POSITION, POSITION, SIDE, SIDE))
@settings(max_examples=150, deadline=None)
def test_expansion_undoes_the_solver(first: tuple[float, ...], second: tuple[float, ...]) -> None:
    visible, amodal = (box(x, y, x + w, y + h) for x, y, w, h in (first, second))
    growth = (amodal[:, 2:] - amodal[:, :2]) / (visible[:, 2:] - visible[:, :2])
    # Also for boxes that are far from each other: one ulp of a shift of R pixels is R / 2^23.
    reach = float((visible - amodal).abs().max())
    if growth.max() < math.exp(MAX_LOG_SCALE):
        error = (expand_boxes(box_deltas(visible, amodal), visible) - amodal).abs().max()
        assert error <= max(1e-4, 4 * reach / 2**23)


def test_objects_at_most_sixty_times_larger_return_within_a_ten_thousandth_of_a_pixel() -> None:
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(500, 2, generator=generator) * 600
    amodal = torch.cat([low, low + 20 + torch.rand(500, 2, generator=generator) * 300], dim=1)
    cuts = torch.rand(500, 4, generator=generator) * 0.45
    sides = (amodal[:, 2:] - amodal[:, :2]).repeat(1, 2)
    visible = amodal + cuts * sides * torch.tensor([1, 1, -1, -1])
    assert (expand_boxes(box_deltas(visible, amodal), visible) - amodal).abs().max() <= 1e-4


def test_growth_is_clamped() -> None:
    grown = expand_boxes(torch.tensor([[0.0, 0.0, 20.0, 20.0]]), box(0, 0, 16, 32))
    torch.testing.assert_close(grown, box(8 - 500, 16 - 1000, 8 + 500, 16 + 1000))


def test_boxes_are_clipped_each_to_its_own_image() -> None:
    deltas = torch.tensor([0.0, 0.0, math.log(10), math.log(10)])
    boxes = box(10, 20, 30, 40).expand(2, 4)
    sizes = torch.tensor([[50.0, 90.0], [200.0, 40.0]])
    expected = torch.tensor([[0.0, 0, 90, 50], [0, 0, 40, 130]])
    torch.testing.assert_close(expand_boxes(deltas, boxes, sizes), expected)


def test_k_priors_expand_one_box_an_object() -> None:
    deltas = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[0.0, 0, 10, 20], [5, 5, 6, 9], [40, 30, 90, 70]])
    sizes = torch.tensor([[60.0, 80.0], [12.0, 7.0], [100.0, 100.0]])
    together = expand_boxes(deltas, boxes[:, None], sizes[:, None])
    for row in range(3):
        for k in range(5):
            alone = expand_boxes(deltas[row, k], boxes[row], sizes[row])
            assert torch.equal(together[row, k], alone)


def test_boxes_without_area_stay_finite() -> None:
    flat, whole = box(7, 3, 7, 3), box(0, 0, 400, 2)
    deltas = box_deltas(torch.cat([flat, whole]), torch.cat([whole, flat]))
    assert deltas.isfinite().all()
    assert expand_boxes(deltas, torch.cat([flat, whole])).isfinite().all()
    assert torch.equal(expand_boxes(deltas[:1], flat), flat)


def test_no_boxes() -> None:
    empty = torch.zeros(0, 4)
    assert box_deltas(empty, empty).shape == (0, 4)
    assert expand_boxes(torch.zeros(0, 8, 4), empty[:, None], torch.zeros(0, 1, 2)).shape == (0, 8, 4)


def test_median_by_hand_without_missing_priors() -> None:
    deltas = torch.tensor([[[0.1, 0.0, 3.0, 1.0], [0.3, 0.0, 1.0, 2.0], [0.2, 4.0, 2.0, 0.0], [9.0, 9.0, 9.0, 9.0]]])
    assert torch.allclose(median_deltas(deltas), torch.tensor([[0.25, 2.0, 2.5, 1.5]]))
    there = torch.tensor([[True, True, True, False]])
    assert torch.allclose(median_deltas(deltas, there), torch.tensor([[0.2, 0.0, 2.0, 1.0]]))
    assert torch.equal(median_deltas(deltas, ~torch.ones(1, 4, dtype=torch.bool)), torch.zeros(1, 4))
    assert median_deltas(torch.zeros(0, 8, 4)).shape == (0, 4)
