"""Frames: hand-worked values, and slow or foreign references."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align

from amodal.frames import crop_masks, paste, resample, tight_boxes


def _noise(seed: int, *shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def _random_boxes(seed: int, count: int, height: int, width: int) -> Tensor:
    """Boxes of all sizes that also reach beyond the image."""
    corner = _noise(seed, count, 2) * torch.tensor([width, height]) * 1.2 - 0.1 * width
    extent = _noise(seed + 1, count, 2) * torch.tensor([width, height]) + 0.3
    return torch.cat([corner, corner + extent], dim=1)


def _zero(count: int) -> Tensor:
    return torch.zeros(count, dtype=torch.int64)


def test_hard_crop_of_a_pixel_aligned_box_of_the_same_size_copies_the_pixels() -> None:
    masks = _noise(0, 3, 20, 24) > 0.5
    boxes = torch.tensor([[4.0, 6.0, 12.0, 14.0], [0.0, 0.0, 8.0, 8.0], [16.0, 12.0, 24.0, 20.0]])
    crops = crop_masks(masks, torch.tensor([2, 0, 1]), boxes, size=8)
    for crop, owner, (x0, y0, x1, y1) in zip(crops, [2, 0, 1], boxes.int().tolist(), strict=True):
        assert torch.equal(crop.bool(), masks[owner, y0:y1, x0:x1])


def test_hard_crop_half_a_pixel_beside_the_mask_keeps_ties_as_mask() -> None:
    masks = torch.zeros(1, 6, 6)
    masks[0, :, 2:4] = 1  # columns 2 and 3
    box = torch.tensor([[0.5, 1.0, 4.5, 5.0]])  # cells 0.5-1.5, 1.5-2.5, 2.5-3.5, 3.5-4.5
    # sample pairs (0.75, 1.25), (1.75, 2.25), (2.75, 3.25), (3.75, 4.25) against a ramp from 0 at 1.5 to 1 at 2.5
    assert crop_masks(masks, _zero(1), box, size=4)[0, 0].tolist() == [0.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("size", [1, 7, 28])
def test_hard_crop_takes_the_samples_of_roi_align(size: int) -> None:
    masks = (F.avg_pool2d(_noise(3, 4, 45, 61), 5, 1, 2) > 0.5).float()
    boxes, index = _random_boxes(4, 200, 45, 61), torch.arange(200) % 4
    reference = roi_align(masks[:, None], torch.cat([index[:, None], boxes], 1), size, 1.0, 2, True)[:, 0]
    ours = crop_masks(masks.bool(), index, boxes, size)
    decided = (reference - 0.5).abs() > 1e-4  # the rest are ties, where rounding decides
    assert decided.float().mean() > 0.9
    assert torch.equal(ours[decided], (reference[decided] > 0.5).float())


def test_crops_outside_the_image_are_empty() -> None:
    masks = torch.ones(1, 10, 10)
    outside = torch.tensor([[-20.0, -20.0, -5.0, -5.0], [12.0, 0.0, 30.0, 9.0]])
    for soft in (False, True):
        assert crop_masks(masks, _zero(2), outside, 4, soft).sum() == 0
    half = torch.tensor([[-10.0, 0.0, 10.0, 10.0]])
    for soft in (False, True):
        assert crop_masks(masks, _zero(1), half, 4, soft)[0, 0].tolist() == [0, 0, 1, 1]


def test_soft_crop_by_hand() -> None:
    masks = torch.zeros(1, 4, 4)
    masks[0, 1, 1] = 1  # the square [1, 2] x [1, 2]
    crop = crop_masks(masks, _zero(1), torch.tensor([[0.5, 0.0, 3.5, 4.0]]), size=2, soft=True)
    # cells are 1.5 wide, 2 high: the left one spans x 0.5-2 and holds the whole pixel
    assert torch.allclose(crop, torch.tensor([[[1 / 3, 0.0], [0.0, 0.0]]]))
    assert crop_masks(masks, _zero(1), torch.tensor([[1.0, 1.0, 1.0, 3.0]]), 2, True).sum() == 0


def test_soft_crop_equals_overlap_areas_counted_pixel_by_pixel() -> None:
    masks = _noise(5, 2, 9, 11) > 0.4
    boxes, index = _random_boxes(6, 12, 9, 11), torch.arange(12) % 2
    ours = crop_masks(masks, index, boxes, size=3, soft=True)
    for r, (x0, y0, x1, y1) in enumerate(boxes.tolist()):
        width, height = (x1 - x0) / 3, (y1 - y0) / 3
        for row in range(3):
            for column in range(3):
                left, top = x0 + column * width, y0 + row * height
                area = 0.0
                for y, x in torch.nonzero(masks[index[r]]).tolist():
                    across = max(0.0, min(left + width, x + 1) - max(left, x))
                    down = max(0.0, min(top + height, y + 1) - max(top, y))
                    area += across * down
                assert ours[r, row, column].item() == pytest.approx(area / (width * height), abs=1e-5)


def test_soft_crop_is_exact_far_from_the_origin_of_a_large_image() -> None:
    masks = torch.ones(1, 3000, 2000, dtype=torch.bool)
    masks[0, 2901, 1901] = False
    crop = crop_masks(masks, _zero(1), torch.tensor([[1900.0, 2900.0, 1904.0, 2904.0]]), size=1, soft=True)
    assert crop.item() == pytest.approx(15 / 16, abs=1e-6)


@pytest.mark.parametrize("soft", [False, True])
def test_crop_moves_with_a_horizontal_flip(soft: bool) -> None:
    masks = F.avg_pool2d(_noise(7, 1, 40, 50), 5, 1, 2) > 0.5
    boxes = (_random_boxes(8, 30, 40, 50) * 4).round() / 4
    flipped = torch.stack([50 - boxes[:, 2], boxes[:, 1], 50 - boxes[:, 0], boxes[:, 3]], 1)
    one = crop_masks(masks, _zero(30), boxes, 8, soft)
    two = crop_masks(masks.flip(-1), _zero(30), flipped, 8, soft).flip(-1)
    assert ((one - two).abs() > 1e-5).float().mean() < 2e-3  # ties of hard masks may round differently


def test_crop_of_no_boxes() -> None:
    for soft in (False, True):
        assert crop_masks(torch.ones(2, 5, 5), _zero(0), torch.zeros(0, 4), 28, soft).shape == (0, 28, 28)


def test_resample_keeps_single_precision_under_autocast() -> None:
    masks, boxes = torch.rand(3, 28, 28), torch.tensor([[3.0, 4.0, 40.0, 30.0]]).expand(3, 4)
    target = boxes + torch.tensor([1.3, -2.0, 4.0, 0.7])
    expected = resample(masks, boxes, target, 28)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(resample(masks, boxes, target, 28), expected)


def test_resample_to_the_same_frame_is_the_identity() -> None:
    masks, boxes = _noise(9, 5, 28, 28), _random_boxes(10, 5, 100, 100)
    assert torch.allclose(resample(masks, boxes, boxes, 28), masks, atol=1e-4)


def test_resample_by_hand() -> None:
    mask = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    source = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
    shifted = torch.tensor([[1.0, 0.0, 3.0, 2.0]])  # one cell to the right: column 1, then nothing
    assert torch.allclose(resample(mask, source, shifted, 2), torch.tensor([[[2.0, 0.0], [4.0, 0.0]]]))
    half = torch.tensor([[0.5, 0.5, 1.5, 1.5]])  # one cell around the middle: the mean of all four
    assert torch.allclose(resample(mask, source, half, 1), torch.tensor([[[2.5]]]))


def test_resample_reads_as_grid_sample_does() -> None:
    masks, source, target = _noise(11, 40, 28, 28), _random_boxes(12, 40, 90, 90), _random_boxes(14, 40, 90, 90)
    unit = (torch.arange(14) + 0.5) / 14
    grids = []
    for (sx0, sy0, sx1, sy1), (tx0, ty0, tx1, ty1) in zip(source.tolist(), target.tolist(), strict=True):
        x = ((tx0 + unit * (tx1 - tx0)) - sx0) / (sx1 - sx0) * 2 - 1
        y = ((ty0 + unit * (ty1 - ty0)) - sy0) / (sy1 - sy0) * 2 - 1
        grids.append(torch.stack([x.expand(14, 14), y[:, None].expand(14, 14)], dim=-1))
    reference = F.grid_sample(masks[:, None], torch.stack(grids), align_corners=False, padding_mode="zeros")[:, 0]
    assert reference.abs().sum() > 100
    assert torch.allclose(resample(masks, source, target, 14), reference, atol=1e-3)


def test_resample_from_a_box_without_area_is_zero_and_gradients_pass() -> None:
    masks = torch.ones(1, 4, 4, requires_grad=True)
    box = torch.tensor([[2.0, 2.0, 2.0, 5.0]])
    out = resample(masks, box, box, 4)
    assert out.sum() == 0
    out.sum().backward()
    assert masks.grad is not None
    assert torch.isfinite(masks.grad).all()


def test_paste_undoes_a_crop_of_a_pixel_aligned_box() -> None:
    masks = _noise(15, 6, 30, 40) > 0.5
    boxes = torch.tensor([[8.0, 4.0, 22.0, 18.0]]).expand(6, 4)
    pasted = paste(crop_masks(masks, torch.arange(6), boxes, 14), boxes, 30, 40)
    assert torch.equal(pasted[:, 4:18, 8:22], masks[:, 4:18, 8:22])
    assert pasted.sum() == masks[:, 4:18, 8:22].sum()


def test_paste_by_hand_at_the_border_and_between_pixels() -> None:
    full = torch.ones(1, 2, 2)
    pasted = paste(full, torch.tensor([[-1.0, -1.0, 2.0, 2.0]]), 4, 4)[0]
    assert pasted.int().tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0] * 4, [0] * 4]
    # centres at 0.5 and 3.5 are on the edge of the box, where the grid fades to one half: still >= 0.5
    assert paste(full, torch.tensor([[0.5, 0.0, 3.5, 4.0]]), 4, 4)[0, 1].tolist() == [True] * 4
    assert paste(full * 0.9, torch.tensor([[0.5, 0.0, 3.5, 4.0]]), 4, 4)[0, 1].tolist() == [False, True, True, False]


def test_paste_reads_as_grid_sample_does_over_the_whole_image() -> None:
    masks, boxes = F.avg_pool2d(_noise(16, 60, 28, 28), 5, 1, 2), _random_boxes(17, 60, 37, 53)
    x, y = torch.arange(53) + 0.5, torch.arange(37) + 0.5
    grids = [
        torch.stack(
            [
                ((x - x0) / (x1 - x0) * 2 - 1).expand(37, 53),
                ((y - y0) / (y1 - y0) * 2 - 1)[:, None].expand(37, 53),
            ],
            dim=-1,
        )
        for x0, y0, x1, y1 in boxes.tolist()
    ]
    values = F.grid_sample(masks[:, None], torch.stack(grids), align_corners=False, padding_mode="zeros")[:, 0]
    for threshold in (0.5, 0.2):
        decided = (values - threshold).abs() > 1e-4
        pasted = paste(masks, boxes, 37, 53, threshold)
        assert pasted.any()
        assert torch.equal(pasted[decided], (values >= threshold)[decided])


def test_paste_of_odd_boxes() -> None:
    boxes = torch.tensor(
        [
            [3.0, 3.0, 3.0, 8.0],
            [5.0, 5.0, 2.0, 2.0],
            [-1e9, -1e9, 1e9, 1e9],
            [50.0, 50.0, 60.0, 60.0],
            [1.0, 1.0, 1.6, 1.6],
        ]
    )
    pasted = paste(torch.ones(5, 28, 28), boxes, 10, 12)
    assert pasted.flatten(1).sum(1).tolist() == [0, 0, 120, 0, 1]
    assert paste(torch.zeros(0, 28, 28), torch.zeros(0, 4), 10, 12).shape == (0, 10, 12)
    assert paste(torch.ones(1, 28, 28), torch.full((1, 4), float("nan")), 10, 12).sum() == 0


def test_paste_moves_with_a_horizontal_flip() -> None:
    masks, boxes = F.avg_pool2d(_noise(18, 20, 28, 28), 5, 1, 2), _random_boxes(19, 20, 40, 50)
    flipped = torch.stack([50 - boxes[:, 2], boxes[:, 1], 50 - boxes[:, 0], boxes[:, 3]], 1)
    one, two = paste(masks, boxes, 40, 50), paste(masks.flip(-1), flipped, 40, 50).flip(-1)
    assert (one != two).float().mean() < 1e-3


def test_tight_boxes_by_hand() -> None:
    masks = torch.zeros(3, 4, 4)
    masks[0, 1:3, 2] = 0.5
    masks[1] = 1.0
    boxes = torch.tensor([[10.0, 20.0, 18.0, 40.0], [0.0, 0.0, 4.0, 4.0], [1.5, 2.5, 3.5, 4.5]])
    expected = torch.tensor([[14.0, 25.0, 16.0, 35.0], [0.0, 0.0, 4.0, 4.0], [1.5, 2.5, 3.5, 4.5]])
    assert torch.allclose(tight_boxes(masks, boxes), expected)


def test_tight_box_of_a_pasted_mask_covers_its_pixels_within_a_cell() -> None:
    masks, boxes = torch.zeros(30, 28, 28), _random_boxes(20, 30, 60, 60).clamp(5, 55)
    boxes[:, 2:] = boxes[:, :2] + 20
    for n, (a, b, c, d) in enumerate((_noise(21, 30, 4) * 13).int().tolist()):
        masks[n, a : 14 + b, c : 14 + d] = 1
    pasted, tight = paste(masks, boxes, 90, 90), tight_boxes(masks, boxes)
    for mask, box in zip(pasted, tight, strict=True):
        rows, columns = torch.nonzero(mask.any(1)).flatten(), torch.nonzero(mask.any(0)).flatten()
        found = torch.stack([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
        assert (found - box).abs().max() <= 1.0
