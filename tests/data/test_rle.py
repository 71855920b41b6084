"""The numpy codec against a slow pure-Python decoder, pycocotools and properties that need no oracle."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask

from amodal.data import rle

MASKS = st.tuples(st.integers(1, 40), st.integers(1, 40)).flatmap(lambda shape: arrays(bool, shape))
PAIRS = st.tuples(st.integers(1, 12), st.integers(1, 12)).flatmap(
    lambda shape: st.tuples(arrays(bool, shape), arrays(bool, shape))
)

FAST = settings(max_examples=60, deadline=None, derandomize=True)


def slow_counts(text: str) -> list[int]:
    """COCO's compressed counts, one character at a time."""
    counts: list[int] = []
    position = 0
    while position < len(text):
        value, shift = 0, 0
        while True:
            char = ord(text[position]) - 48
            position += 1
            value |= (char & 31) << shift
            shift += 5
            if not char & 32:
                break
        if char & 16:
            value -= 1 << shift
        if len(counts) > 2:
            value += counts[-2]
        counts.append(value)
    return counts


def slow_mask(counts: list[int], height: int, width: int) -> np.ndarray:
    flat = [bool(number % 2) for number, run in enumerate(counts) for _ in range(run)]
    return np.array([[flat[x * height + y] for x in range(width)] for y in range(height)], bool)


def batch(masks: list[np.ndarray]) -> rle.Runs:
    counts = [rle.encode(mask)["counts"].encode() for mask in masks]
    offsets = np.cumsum([0, *map(len, counts)])
    return rle.decompress_batch(np.frombuffer(b"".join(counts), np.uint8), offsets)


def measure(mask: np.ndarray) -> tuple[int, list[float]]:
    areas, boxes = rle.measure_batch(batch([mask]), np.array([len(mask)]))
    return int(areas[0]), boxes[0].tolist()


def test_hand_worked() -> None:
    mask = np.array([[0, 1, 1], [1, 1, 0]], bool)  # column-major: 0 1 | 1 1 | 1 0
    assert rle.mask_runs(mask).tolist() == [1, 4, 1]
    assert rle.encode(mask) == {"size": [2, 3], "counts": "141"}
    assert measure(mask) == (4, [0, 0, 3, 2])


@FAST
@given(MASKS)
def test_encode_as_pycocotools_and_decode_as_the_slow_decoder(mask: np.ndarray) -> None:
    ours = rle.encode(mask)
    theirs = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert ours["counts"] == theirs["counts"].decode()
    np.testing.assert_array_equal(slow_mask(slow_counts(ours["counts"]), *mask.shape), mask)
    np.testing.assert_array_equal(rle.decode(ours), mask)


@FAST
@given(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=12).filter(any))
def test_compress_and_parse_any_run_lengths(runs: list[int]) -> None:
    text = rle.compress(np.array(runs, np.int64)).decode()
    assert slow_counts(text) == runs
    np.testing.assert_array_equal(rle.parse_counts(text), rle.canonical_runs(np.array(runs)))


@FAST
@given(st.lists(st.integers(0, 3), min_size=1, max_size=30).filter(lambda runs: sum(runs) > 0))
def test_zero_runs_become_canonical_and_the_mask_stays(runs: list[int]) -> None:
    total = sum(runs)
    checked = rle.check_rle({"size": [1, total], "counts": runs}, 1, total)
    np.testing.assert_array_equal(rle.decode(checked), slow_mask(runs, 1, total))
    assert 0 not in slow_counts(checked["counts"].decode())[1:]
    packed = rle.compress(np.array(runs, np.int64))
    loose = rle.decompress_batch(np.frombuffer(packed, np.uint8), np.array([0, len(packed)])).loose
    assert loose.tolist() == ([0] if 0 in runs[1:] else [])


@FAST
@given(st.lists(MASKS, max_size=6))
def test_batch_measures_each_mask_by_itself(masks: list[np.ndarray]) -> None:
    runs = batch(masks)
    areas, boxes = rle.measure_batch(runs, np.array([len(mask) for mask in masks], np.int64))
    assert not rle.check_batch(runs, np.array([mask.size for mask in masks], np.int64)).any()
    for mask, area, box in zip(masks, areas, boxes, strict=True):
        y, x = np.nonzero(mask)
        expected = [x.min(), y.min(), x.max() + 1, y.max() + 1] if len(x) else [0, 0, 0, 0]
        assert area == mask.sum()
        assert box.tolist() == expected


@FAST
@given(st.lists(PAIRS, min_size=1, max_size=5))
def test_intersection(pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    first, second = zip(*pairs, strict=True)
    shared = rle.intersection_batch(batch(list(first)), batch(list(second)))
    assert shared.tolist() == [int((a & b).sum()) for a, b in pairs]


@FAST
@given(MASKS)
def test_flipped_mask_has_the_flipped_box(mask: np.ndarray) -> None:
    area, (x0, y0, x1, y1) = measure(mask)
    width = mask.shape[1]
    assert measure(mask[:, ::-1]) == (area, [width - x1, y0, width - x0, y1] if mask.any() else [0, 0, 0, 0])


@FAST
@given(st.binary(max_size=40), st.integers(1, 20), st.integers(1, 20))
def test_any_bytes_are_a_mask_of_the_right_sum_or_a_value_error(counts: bytes, height: int, width: int) -> None:
    try:
        checked = rle.check_rle({"size": [height, width], "counts": counts}, height, width)
    except ValueError:
        return
    assert rle.decode(checked).shape == (height, width)
    assert sum(slow_counts(counts.decode())) == height * width


def test_one_bad_mask_of_a_batch_leaves_its_neighbours_alone() -> None:
    good = rle.encode(np.eye(4, dtype=bool))["counts"].encode()
    parts = [good, good[:-1] + bytes([((good[-1] - 48) | 32) + 48]), good, b"\x20", b"", good]
    offsets = np.cumsum([0, *map(len, parts)])
    runs = rle.decompress_batch(np.frombuffer(b"".join(parts), np.uint8), offsets)
    faults = rle.check_batch(runs, np.full(6, 16))
    assert faults.tolist() == [0, rle.TRUNCATED, 0, rle.BAD_CHARACTER, rle.NO_RUNS, 0]
    for row in (0, 2, 5):
        assert runs.runs(row).tolist() == rle.mask_runs(np.eye(4, dtype=bool)).tolist()


def test_dimensions() -> None:
    with pytest.raises(ValueError, match="two dimensions"):
        rle.encode(np.zeros((2, 2, 2), bool))
