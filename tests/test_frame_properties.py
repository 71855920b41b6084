"""What must hold for any boxes: pasting, cropping, resampling and tight boxes against each other."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from amodal.frames import crop_masks, paste, resample, tight_boxes

SIDE = 48
COORDINATE = st.floats(-20, SIDE + 20, allow_nan=False, width=32)


@st.composite
def boxes(draw: st.DrawFn) -> Tensor:
    """float32 [N, 4] with sides of at least half a pixel, anywhere around a 48 x 48 image."""
    corners = draw(st.lists(st.tuples(COORDINATE, COORDINATE), min_size=1, max_size=4))
    extents = draw(st.lists(st.tuples(st.floats(0.5, 60), st.floats(0.5, 60)), min_size=4, max_size=4))
    rows = [[x, y, x + w, y + h] for (x, y), (w, h) in zip(corners, extents, strict=False)]
    return torch.tensor(rows, dtype=torch.float32)


@given(boxes())
@settings(max_examples=60, deadline=None)
def test_a_full_mask_pastes_within_its_box(box: Tensor) -> None:
    pasted = paste(torch.ones(len(box), 8, 8), box, SIDE, SIDE)
    centre = torch.arange(SIDE) + 0.5
    inside_x = (centre >= box[:, :1]) & (centre <= box[:, 2:3])
    inside_y = (centre >= box[:, 1:2]) & (centre <= box[:, 3:4])
    assert not (pasted & ~(inside_y[:, :, None] & inside_x[:, None, :])).any()


@given(boxes(), st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_flipping_the_picture_flips_the_paste(box: Tensor, seed: int) -> None:
    # A random field never lies on the threshold, where rounding would decide.
    masks = torch.rand(len(box), 7, 7, generator=torch.Generator().manual_seed(seed))
    mirrored = torch.stack([SIDE - box[:, 2], box[:, 1], SIDE - box[:, 0], box[:, 3]], dim=1)
    one = paste(masks, box, SIDE, SIDE).flip(2)
    two = paste(masks.flip(2), mirrored, SIDE, SIDE)
    assert (one != two).sum() <= 1 + 0.001 * one.numel()


@given(boxes(), st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_resampling_into_the_own_box_changes_nothing(box: Tensor, seed: int) -> None:
    masks = torch.rand(len(box), 9, 9, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(resample(masks, box, box, 9), masks, atol=2e-3, rtol=0)


@given(boxes(), st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_tight_boxes_lie_inside_and_are_stable(box: Tensor, seed: int) -> None:
    masks = torch.rand(len(box), 6, 6, generator=torch.Generator().manual_seed(seed)) * 1.2 - 0.4
    tight = tight_boxes(masks, box)
    slack = 1e-3
    assert (tight[:, :2] >= box[:, :2] - slack).all()
    assert (tight[:, 2:] <= box[:, 2:] + slack).all()
    assert (tight[:, 2:] > tight[:, :2]).all()


@given(boxes())
@settings(max_examples=60, deadline=None)
def test_area_fractions_add_up_to_the_part_inside_the_image(box: Tensor) -> None:
    everything = torch.ones(1, SIDE, SIDE, dtype=torch.bool)
    cells = crop_masks(everything, torch.zeros(len(box), dtype=torch.int64), box, 10, soft=True)
    width = (box[:, 2].clamp(0, SIDE) - box[:, 0].clamp(0, SIDE)) / (box[:, 2] - box[:, 0])
    height = (box[:, 3].clamp(0, SIDE) - box[:, 1].clamp(0, SIDE)) / (box[:, 3] - box[:, 1])
    torch.testing.assert_close(cells.mean(dim=(1, 2)), width * height, atol=1e-4, rtol=0)
