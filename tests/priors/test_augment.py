"""Augmentation: in pixels, both masks together, in the frames of the new boxes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from amodal.priors.augment import augment, draw_matrices, transform
from amodal.priors.boxes import box_deltas
from amodal.priors.types import PriorInstances


def objects(amodal: Tensor, visible: Tensor, own: Tensor, boxes: Tensor, seen: Tensor) -> PriorInstances:
    count = len(boxes)
    rows = torch.arange(count)
    return PriorInstances(
        amodal, visible, own, boxes, seen, torch.zeros(count).long(), torch.full((count,), 0.25), rows + 7, rows + 90
    )


def bar(width: float, height: float) -> PriorInstances:
    """A full rectangle whose left half is seen, its box at (10, 20)."""
    full = torch.ones(1, 28, 28, dtype=torch.bool)
    left = full.clone()
    left[:, :, 14:] = False
    box = torch.tensor([[10.0, 20.0, 10.0 + width, 20.0 + height]])
    half = torch.tensor([[10.0, 20.0, 10.0 + width / 2, 20.0 + height]])
    return objects(full, left, full, box, half)


def rotation(degrees: float) -> Tensor:
    angle = math.radians(degrees)
    rows = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    return torch.tensor([rows], dtype=torch.float64)


def blobs(count: int, seed: int = 0) -> PriorInstances:
    """Ellipses with a random part cut off to the right, in boxes of any aspect."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(28.0) - 13.5, torch.arange(28.0) - 13.5, indexing="ij")
    amodal = ((x**2 + y**2) <= 14**2).expand(count, -1, -1)
    cut = torch.randint(8, 28, (count, 1, 1), generator=generator)
    visible = amodal & (torch.arange(28) < cut)
    low, side = torch.rand(count, 2, generator=generator) * 50, torch.rand(count, 2, generator=generator) * 80 + 10
    boxes = torch.cat([low, low + side], dim=1)
    seen = boxes.clone()
    seen[:, 2] = boxes[:, 0] + side[:, 0] * cut[:, 0, 0] / 28
    stretched = (((torch.arange(28)[None] + 0.5) * cut[:, 0] / 28).long())[:, None].expand(-1, 28, -1)
    return objects(amodal, visible, visible.gather(2, stretched), boxes, seen)


def test_the_identity_changes_nothing() -> None:
    before = blobs(20)
    after = transform(before, torch.eye(2, dtype=torch.float64).expand(20, 2, 2))
    for name in ("amodal", "visible", "own"):
        assert torch.equal(getattr(after, name), getattr(before, name)), name
    torch.testing.assert_close(after.boxes, before.boxes)
    torch.testing.assert_close(after.visible_boxes, before.visible_boxes)


def test_a_flip_mirrors_masks_and_deltas() -> None:
    before = blobs(20)
    after = transform(before, torch.tensor([[-1.0, 0.0], [0.0, 1.0]], dtype=torch.float64).expand(20, 2, 2))
    for name in ("amodal", "visible", "own"):
        assert torch.equal(getattr(after, name), getattr(before, name).flip(2)), name
    mirrored = box_deltas(before.visible_boxes, before.boxes) * torch.tensor([-1.0, 1.0, 1.0, 1.0])
    torch.testing.assert_close(box_deltas(after.visible_boxes, after.boxes), mirrored, atol=1e-5, rtol=1e-5)


def test_a_quarter_turn_swaps_the_sides_of_a_long_object() -> None:
    after = transform(bar(80, 20), rotation(90))
    # About the centre (50, 30); +x becomes +y: the seen left half comes to lie above.
    torch.testing.assert_close(after.boxes, torch.tensor([[40.0, -10.0, 60.0, 70.0]]), atol=1e-4, rtol=0)
    torch.testing.assert_close(after.visible_boxes, torch.tensor([[40.0, -10.0, 60.0, 30.0]]), atol=1e-4, rtol=0)
    assert after.amodal.all()
    assert after.own.all()
    assert after.visible[:, :14].all()
    assert not after.visible[:, 14:].any()


def test_rotation_is_one_in_pixels_not_on_the_square_grid() -> None:
    # 80 x 20 px turned by 30 degrees: sides 80 cos + 20 sin and 80 sin + 20 cos. On the grid both would grow alike.
    after = transform(bar(80, 20), rotation(30))
    width, height = (after.boxes[0, 2:] - after.boxes[0, :2]).tolist()
    cosine, sine = math.cos(math.radians(30)), 0.5
    assert width == pytest.approx(80 * cosine + 20 * sine, abs=1e-3)
    assert height == pytest.approx(80 * sine + 20 * cosine, abs=1e-3)
    # The area in pixels stays 1600, up to the grid's rounding.
    assert float(after.amodal.float().mean()) * width * height == pytest.approx(1600, rel=0.04)
    # The cells of the turned bar, worked out one by one.
    for row in range(28):
        for column in range(28):
            x, y = ((column + 0.5) / 28 - 0.5) * width, ((row + 0.5) / 28 - 0.5) * height
            along, aside = abs(x * cosine + y * sine), abs(-x * sine + y * cosine)
            if max(along - 40, aside - 10) < -2.5:
                assert after.amodal[0, row, column]
            elif max(along - 40, aside - 10) > 2.5:
                assert not after.amodal[0, row, column]


def test_augmented_objects_fill_their_boxes_and_keep_their_source() -> None:
    before = blobs(200)
    after = augment(before, rotate=True, seed=3)
    for mask in (after.amodal, after.own):
        for dim in (1, 2):
            line = mask.any(dim=dim)
            # The outermost cell lines may hold less than half a cell of a tip: in 1.6 % of real amodal masks too.
            assert line[:, :3].any(dim=1).all()
            assert line[:, -3:].any(dim=1).all()
            assert float(line[:, [0, -1]].float().mean()) > 0.85
    assert not (after.visible & ~after.amodal).any()
    assert (after.visible_boxes[:, :2] >= after.boxes[:, :2] - 1e-3).all()
    assert (after.visible_boxes[:, 2:] <= after.boxes[:, 2:] + 1e-3).all()
    # What the amodal frame shows of the visible part lies in the visible box.
    columns = torch.arange(28) + 0.5
    share = (after.visible_boxes[:, ::2] - after.boxes[:, :1]) / (after.boxes[:, 2:3] - after.boxes[:, :1]) * 28
    outside = (columns < share[:, :1] - 1) | (columns > share[:, 1:] + 1)
    assert not (after.visible.any(dim=1) & outside).any()
    for name in ("labels", "occlude_rate", "annotation_ids", "image_ids"):
        assert torch.equal(getattr(after, name), getattr(before, name))
    # A turned ellipse may look the same on the grid, few do.
    assert float((after.amodal != before.amodal).flatten(1).any(dim=1).float().mean()) > 0.9


def test_the_seed_decides() -> None:
    before = blobs(30)
    first, again, other = (augment(before, rotate=False, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.visible, again.visible)
    assert torch.equal(first.boxes, again.boxes)
    assert not torch.equal(first.visible, other.visible)


def test_a_lost_visible_part_is_drawn_again() -> None:
    # A single visible cell, so thin in its own frame that most draws lose it between the cells.
    amodal = torch.ones(60, 28, 28, dtype=torch.bool)
    visible = torch.zeros_like(amodal)
    visible[:, 0, 0] = True
    boxes = torch.tensor([[0.0, 0.0, 56.0, 56.0]]).expand(60, 4)
    seen = torch.tensor([[0.0, 0.0, 2.0, 2.0]]).expand(60, 4)
    before = objects(amodal, visible, torch.ones_like(amodal), boxes, seen)
    draws = draw_matrices(60, rotate=True, generator=torch.Generator().manual_seed(5))
    assert not transform(before, draws).visible.flatten(1).any(dim=1).all()
    after = augment(before, rotate=True, seed=5)
    assert after.visible.flatten(1).any(dim=1).all()


def test_ranges_of_the_draw() -> None:
    generator = torch.Generator().manual_seed(0)
    small = draw_matrices(500, rotate=False, generator=generator)
    # The image of the y axis turns with the angle and the shear: at most 10 degrees and atan(0.1).
    lean = torch.rad2deg(torch.atan2(small[:, 0, 1], small[:, 1, 1])).abs()
    assert 10 < float(lean.max()) < 10 + math.degrees(math.atan(0.1))
    flipped = torch.linalg.det(small) < 0
    assert 200 < int(flipped.sum()) < 300
    free = draw_matrices(500, rotate=True, generator=generator)
    assert int((free[:, 1, 1] < 0).sum()) > 150
