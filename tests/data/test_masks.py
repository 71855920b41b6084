"""InstanceMasks against dense masks that are transformed pixel by pixel."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from amodal import frames
from amodal.data.masks import InstanceMasks


def blobs(seed: int, count: int = 4, height: int = 30, width: int = 41) -> np.ndarray:
    """Random boxes and discs, some of them touching the border, one empty."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    out = []
    for _ in range(count):
        cx, cy, r = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(3, 12)
        out.append((x - cx) ** 2 + 1.7 * (y - cy) ** 2 < r**2)
    out[-1] = np.zeros((height, width), bool)
    return np.stack(out)


def random_boxes(seed: int, count: int, height: int, width: int) -> torch.Tensor:
    """Boxes on eighths of pixels, so that float32 arithmetic on them is exact."""
    rng = np.random.default_rng(seed)
    low = rng.uniform(-3, [width - 5, height - 5], (count, 2))
    size = rng.uniform(2, [width, height], (count, 2))
    return torch.tensor(np.round(np.concatenate([low, low + size], 1) * 8) / 8, dtype=torch.float32)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_crop_equals_the_crop_of_dense_masks(seed: int, soft: bool) -> None:
    dense = blobs(seed)
    boxes = random_boxes(seed, 20, 30, 41)
    index = torch.arange(20) % 4
    got = InstanceMasks.from_dense(dense).crop(index, boxes, 8, soft)
    want = frames.crop_masks(torch.from_numpy(dense), index, boxes, 8, soft)
    assert torch.equal(got, want)


@pytest.mark.parametrize("axes", [(0,), (1,), (0, 1)])
def test_flip_then_crop_equals_the_crop_of_flipped_masks(axes: tuple[int, ...]) -> None:
    dense = blobs(1)
    masks = InstanceMasks.from_dense(dense)
    flipped = dense
    for axis in axes:
        masks = masks.with_view(masks.view.flip(axis))
        flipped = np.flip(flipped, 2 - axis).copy()
    boxes = random_boxes(5, 24, 30, 41)
    index = torch.arange(24) % 4
    for soft in (False, True):
        got = masks.crop(index, boxes, 8, soft)
        want = frames.crop_masks(torch.from_numpy(flipped), index, boxes, 8, soft)
        assert torch.allclose(got, want, atol=1e-6)


def test_crop_of_the_view_cuts_masks_off() -> None:
    dense = blobs(2)
    top, left, height, width = 7, 11, 15, 20
    masks = InstanceMasks.from_dense(dense)
    masks = masks.with_view(masks.view.crop(top, left, height, width))
    cut = torch.from_numpy(dense[:, top : top + height, left : left + width].copy())
    boxes = random_boxes(3, 24, height, width)
    index = torch.arange(24) % 4
    for soft in (False, True):
        assert torch.equal(masks.crop(index, boxes, 8, soft), frames.crop_masks(cut, index, boxes, 8, soft))
    areas, tight = masks.measure()
    assert areas.tolist() == cut.sum((1, 2)).tolist()
    for mask, box in zip(cut.numpy(), tight, strict=True):
        ys, xs = np.nonzero(mask)
        want = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1] if len(xs) else [0, 0, 0, 0]
        assert box.tolist() == want


def test_crop_then_pad_then_flip_equals_dense() -> None:
    dense = blobs(3)
    masks = InstanceMasks.from_dense(dense)
    view = masks.view.crop(4, 6, 20, 25).crop(-3, -2, 26, 31).flip(0)
    padded = np.pad(dense[:, 4:24, 6:31], ((0, 0), (3, 3), (2, 4)))[:, :, ::-1].copy()
    boxes = random_boxes(9, 24, 26, 31)
    index = torch.arange(24) % 4
    for soft in (False, True):
        got = masks.with_view(view).crop(index, boxes, 8, soft)
        want = frames.crop_masks(torch.from_numpy(padded), index, boxes, 8, soft)
        assert torch.allclose(got, want, atol=1e-6)


def test_rescaled_crop_reads_the_annotated_pixels() -> None:
    """A crop after resizing is the crop of the box scaled back: here the reference loops over cells in plain Python."""
    dense = blobs(4)
    scaled = InstanceMasks.from_dense(dense).rescale(2.5, 1.5)
    box = torch.tensor([[10.0, 6.0, 70.0, 33.0]])
    got = scaled.crop(torch.tensor([0]), box, 6, soft=True)[0]
    fine = np.repeat(np.repeat(dense[0], 20, 0), 20, 1)  # 20 samples a pixel
    x0, y0, x1, y1 = 4, 4, 28, 22
    for r in range(6):
        for c in range(6):
            rows = slice(round(20 * (y0 + (y1 - y0) * r / 6)), round(20 * (y0 + (y1 - y0) * (r + 1) / 6)))
            columns = slice(round(20 * (x0 + (x1 - x0) * c / 6)), round(20 * (x0 + (x1 - x0) * (c + 1) / 6)))
            assert float(got[r, c]) == pytest.approx(fine[rows, columns].mean(), abs=1e-5)


def test_overlap_counts_common_pixels_in_the_window() -> None:
    first, second = blobs(5), blobs(6)
    a, b = InstanceMasks.from_dense(first), InstanceMasks.from_dense(second)
    view = a.view.crop(5, 5, 20, 20)
    got = a.with_view(view).overlap(b.with_view(view))
    assert got.tolist() == (first & second)[:, 5:25, 5:25].sum((1, 2)).tolist()
    assert a.overlap(b).tolist() == (first & second).sum((1, 2)).tolist()


def test_no_boxes_and_no_masks() -> None:
    masks = InstanceMasks.from_dense(np.zeros((0, 5, 6), bool))
    assert len(masks) == 0
    assert masks.crop(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4)).shape == (0, 28, 28)
    empty = InstanceMasks.from_dense(np.zeros((1, 5, 6), bool))
    assert empty.crop(torch.tensor([0, 0]), torch.tensor([[0.0, 0, 5, 5]] * 2)).sum() == 0


def test_pickle_leaves_decoded_pixels_behind_and_only_used_masks_are_decoded() -> None:
    masks = InstanceMasks.from_dense(blobs(7))
    before = len(pickle.dumps(masks))
    masks.crop(torch.tensor([1]), torch.tensor([[0.0, 0, 20, 20]]))
    assert set(masks._decoded) == {1}
    assert len(pickle.dumps(masks)) == before
    again = pickle.loads(pickle.dumps(masks))
    box = torch.tensor([[2.0, 1, 23, 21]])
    assert torch.equal(again.crop(torch.tensor([0]), box), masks.crop(torch.tensor([0]), box))


def test_select_keeps_masks_and_their_decoded_pieces() -> None:
    dense = blobs(8)
    masks = InstanceMasks.from_dense(dense)
    masks.measure()
    picked = masks.select([2, 0])
    box = torch.tensor([[0.0, 0, 41, 30]]).repeat(2, 1)
    want = frames.crop_masks(torch.from_numpy(dense), torch.tensor([2, 0]), box)
    assert torch.equal(picked.crop(torch.tensor([0, 1]), box), want)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1000),
    steps=st.lists(st.tuples(st.sampled_from(["flip", "crop", "pad"]), st.integers(0, 10**6)), max_size=6),
)
def test_any_chain_of_flips_crops_and_pads_equals_dense(seed: int, steps: list[tuple[str, int]]) -> None:
    dense = blobs(seed)
    masks = InstanceMasks.from_dense(dense)
    view = masks.view
    for kind, draw in steps:
        rng = np.random.default_rng(draw)
        height, width = dense.shape[1:]
        if kind == "flip":
            axis = int(rng.integers(2))
            view, dense = view.flip(axis), np.flip(dense, 2 - axis)
        elif kind == "crop":
            h, w = int(rng.integers(1, height + 1)), int(rng.integers(1, width + 1))
            top, left = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
            view, dense = view.crop(top, left, h, w), dense[:, top : top + h, left : left + w]
        else:
            top, left, bottom, right = rng.integers(0, 4, 4).tolist()
            view = view.crop(-top, -left, height + top + bottom, width + left + right)
            dense = np.pad(dense, ((0, 0), (top, bottom), (left, right)))
    dense = np.ascontiguousarray(dense)
    assert view.canvas == dense.shape[:0:-1]
    moved = masks.with_view(view)
    areas, _ = moved.measure()
    assert areas.tolist() == dense.sum((1, 2)).tolist()
    boxes = random_boxes(seed, 12, 30, 41)
    index = torch.arange(12) % 4
    for soft in (False, True):
        want = frames.crop_masks(torch.from_numpy(dense), index, boxes, 8, soft)
        assert torch.allclose(moved.crop(index, boxes, 8, soft), want, atol=1e-6)
