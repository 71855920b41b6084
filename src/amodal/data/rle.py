"""Run-length masks in numpy: a codec and the checks that every foreign RLE passes before a C library sees it.

An RLE is COCO's: ``{"size": [h, w], "counts": ...}`` with column-major runs that alternate between background and
object and start with background; ``counts`` is a list of integers or COCO's compressed string (characters 48 to 111,
five bits each, lowest first, bit 32 says that more follow; from the fourth run on a run is stored as the difference to
the run two before). Bad ones crash or hang pycocotools and its relatives or make them return uninitialised memory, so
nothing here trusts a size, a sum or a character. The ``*_batch`` functions do the same for the masks of a whole file at
once: M masks lie behind each other in one flat array, ``offsets`` (int64 [M + 1]) says where each begins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

# pycocotools multiplies the sides in 32 bits: 65536 x 65536 becomes 0, and decoding writes where nothing was allocated.
MAX_SIDE = 2**16
MAX_PIXELS = 2**31 - 1
_MAX_CHARS = 7  # of one run: 31 bits and a sign

OK, BAD_CHARACTER, TRUNCATED, TOO_LONG, NEGATIVE, BAD_SUM, NO_RUNS = range(7)
FAULTS = {
    BAD_CHARACTER: "counts hold a character that no RLE has (allowed: ASCII 48 to 111)",
    TRUNCATED: "counts end in the middle of a number (truncated string)",
    TOO_LONG: "counts hold a number of more than 31 bits",
    NEGATIVE: "counts hold a negative run",
    BAD_SUM: "runs do not add up to height x width",
    NO_RUNS: "counts are empty",
}


class Runs(NamedTuple):
    """Decoded runs of M masks.

    Attributes:
        pairs: int64 [P, 2], (background, object) runs of all masks in order; a last background run is paired with 0.
        offsets: int64 [M + 1], first pair of each mask.
        faults: int8 [M], 0 for sound ones; a faulty mask's pairs mean nothing.
        loose: int64 [L], rows of masks that are not canonical: a run beyond the first is zero.
    """

    pairs: Ints
    offsets: Ints
    faults: npt.NDArray[np.int8]
    loose: Ints

    def runs(self, row: int) -> Ints:
        """Canonical runs (int64) of one mask."""
        return canonical_runs(self.pairs[self.offsets[row] : self.offsets[row + 1]].ravel())


def check_size(size: Any, height: int, width: int) -> None:
    """Raises ValueError unless ``size`` is the two integers ``[height, width]`` of the image, each in 1 to 65536."""
    if not isinstance(size, Sequence) or isinstance(size, (str, bytes)) or len(size) != 2:
        raise ValueError(f"size is {_short(size)}, must be [height, width]")
    # True is an int in Python.
    if any(isinstance(side, bool) or not isinstance(side, (int, np.integer)) for side in size):
        raise ValueError(f"size is {_short(size)}, must be two integers")
    check_image_size(height, width)
    if size[0] != height or size[1] != width:
        swapped = ", height and width are swapped" if (size[1], size[0]) == (height, width) else ""
        raise ValueError(f"size [{_short(size[0])}, {_short(size[1])}] is not the image's [{height}, {width}]{swapped}")


def check_image_size(height: int, width: int) -> None:
    """Raises ValueError unless both sides lie in 1 to 65536 and the product below 2^31."""
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE and height * width <= MAX_PIXELS):
        raise ValueError(f"size [{_short(height)}, {_short(width)}] is out of range (sides 1 to {MAX_SIDE})")


def check_rle(obj: Any, height: int, width: int) -> dict[str, Any]:
    """The mask ``obj`` of an image of ``height`` x ``width`` pixels as ``{"size": [h, w], "counts": bytes}``.

    The counts come back compressed and canonical (no zero runs but the first). Raises ValueError with the reason.
    """
    if not isinstance(obj, Mapping) or "size" not in obj or "counts" not in obj:
        raise ValueError(f"{_short(obj)} is no RLE (an object with size and counts)")
    # Against the image, not against itself: with swapped sides the sum is right and every tool decodes garbage.
    check_size(obj["size"], height, width)
    counts = obj["counts"]
    runs = parse_counts(counts) if isinstance(counts, (str, bytes)) else _check_list(counts)
    fault = _fault_of(runs, height * width)
    if fault:
        raise ValueError(_sum_message(runs, height, width) if fault == BAD_SUM else FAULTS[fault])
    return {"size": [height, width], "counts": compress(canonical_runs(runs))}


def counts_bytes(counts: str | bytes) -> bytes:
    """The compressed counts as bytes; raises ValueError for characters outside ASCII."""
    try:
        return counts.encode("ascii") if isinstance(counts, str) else counts
    except UnicodeEncodeError:
        raise ValueError(FAULTS[BAD_CHARACTER]) from None


def parse_counts(counts: str | bytes) -> Ints:
    """Canonical runs of one compressed string, int64; raises ValueError with the reason."""
    data = np.frombuffer(counts_bytes(counts), np.uint8)
    runs = decompress_batch(data, np.array([0, len(data)], np.int64))
    if runs.faults[0]:
        raise ValueError(FAULTS[int(runs.faults[0])])
    return runs.runs(0)


def compress(runs: Ints) -> bytes:
    """COCO's compressed counts of one mask's runs (int64, none negative)."""
    numbers = np.array(runs, np.int64)
    # From the untouched runs: differences of differences would be another code.
    numbers[3:] -= runs[1:-2]
    magnitude = np.where(numbers < 0, ~numbers, numbers)
    group = np.arange(_MAX_CHARS)
    # 16, not 32: the highest bit of the last group is the sign.
    chars = 1 + (magnitude[:, None] >= 16 << (5 * group[:-1])).sum(1)
    bits = (numbers[:, None] >> (5 * group)) & 31
    more = (group < chars[:, None] - 1) * 32
    text: Bytes = (bits + more + 48).astype(np.uint8)[group < chars[:, None]]
    return text.tobytes()


def encode(mask: npt.ArrayLike) -> dict[str, Any]:
    """The RLE of a bool mask [H, W], its counts as a string (ready for JSON)."""
    dense = np.asarray(mask)
    if dense.ndim != 2:
        raise ValueError(f"a mask has two dimensions, not {dense.ndim}")
    height, width = dense.shape
    check_image_size(height, width)
    return {"size": [height, width], "counts": compress(mask_runs(dense.astype(bool))).decode("ascii")}


def mask_runs(mask: Mask) -> Ints:
    """Canonical runs (int64) of a bool mask [H, W]."""
    # Column by column, as COCO has it from MATLAB.
    flat = np.asarray(mask, bool).ravel(order="F")
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(edges, prepend=0, append=flat.size)
    return np.concatenate([[0], runs]).astype(np.int64) if flat[0] else runs.astype(np.int64)


def decode(rle: Mapping[str, Any]) -> Mask:
    """The bool mask [H, W] of an RLE; raises ValueError where the RLE is not sound."""
    size = rle.get("size")
    if not isinstance(size, Sequence) or len(size) != 2:
        raise ValueError(f"size is {_short(size)}, must be [height, width]")
    checked = check_rle(rle, size[0], size[1])
    return runs_mask(parse_counts(checked["counts"]), size[0], size[1])


def runs_mask(runs: Ints, height: int, width: int) -> Mask:
    """The bool mask [height, width] of checked runs."""
    values = np.zeros(len(runs), bool)
    values[1::2] = True
    return np.repeat(values, runs).reshape(width, height).T


def canonical_runs(runs: Ints) -> Ints:
    """The same mask without zero runs after the first."""
    if (runs[1:] > 0).all():
        return runs
    keep = runs > 0
    value = (np.arange(len(runs)) & 1).astype(bool)[keep]
    last = np.append(value[1:] != value[:-1], np.ones(min(len(value), 1), bool))
    # Runs around a zero run are one; pycocotools' box is wrong where they are left apart.
    merged = np.diff(np.cumsum(runs)[keep][last], prepend=0)
    return np.concatenate([np.zeros(int(value[:1].sum()), np.int64), merged])


def decompress_batch(data: Bytes, offsets: Ints) -> Runs:
    """Runs of M compressed strings that lie behind each other in ``data`` (uint8), with a fault code for each.

    Only the strings are checked here, not what the runs add up to; see :func:`check_batch`.
    """
    lengths = np.diff(offsets)
    faults = np.where(lengths == 0, NO_RUNS, OK).astype(np.int8)
    if len(data) == 0:
        return Runs(np.zeros((0, 2), np.int64), np.zeros(len(offsets), np.int64), faults, np.zeros(0, np.int64))
    # Below 48 this wraps to above 63, so that one comparison finds both ends.
    value = data - np.uint8(48)
    if value.max() > 63:
        _mark(faults, offsets, np.flatnonzero(value > 63), BAD_CHARACTER)
    ends = value < 32
    filled = np.flatnonzero(lengths)
    last = offsets[filled + 1] - 1
    faults[filled[~ends[last] & (faults[filled] == OK)]] = TRUNCATED
    ends[last] = True  # a broken chain must not run into the next mask
    stop = np.flatnonzero(ends)
    start = np.empty_like(stop)
    start[0], start[1:] = 0, stop[:-1] + 1
    chars = stop - start + 1
    longest = int(chars.max())
    if longest > _MAX_CHARS:
        _mark(faults, offsets, start[chars > _MAX_CHARS], TOO_LONG)
    # Capped, so that no shift leaves 64 bits; what is longer is marked above, its number means nothing.
    numbers = _read_numbers(value, stop, chars, min(longest, _MAX_CHARS))
    pairs, pair_offsets, loose = _pair(numbers, np.diff(np.searchsorted(stop, offsets)))
    return Runs(pairs, pair_offsets, faults, loose)


def _read_numbers(value: Bytes, stop: Ints, chars: Ints, longest: int) -> Ints:
    """Numbers int64, each from its last character backwards: that one holds the highest bits, and the sign."""
    last = value[stop]
    numbers = (last & 31).astype(np.int64) - ((last & 16).astype(np.int64) << 1)
    if longest > 1:  # all at once, since so many have two; where there is one, what stands before is not used
        np.copyto(numbers, numbers << 5 | (value[stop - 1] & 31), where=chars > 1)
    for group in range(2, longest):
        todo = np.flatnonzero(chars > group)
        numbers[todo] = numbers[todo] << 5 | (value[stop[todo] - group] & 31)
    return numbers


def _pair(numbers: Ints, counts: Ints) -> tuple[Ints, Ints, Ints]:
    """Undoes the differences; ``counts`` int64 [M] numbers belong to each mask. Pairs, their offsets, loose rows."""
    sizes = (counts + 1) // 2
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
    pairs = np.zeros((int(offsets[-1]), 2), np.int64)
    # After an odd number of runs there is no object behind the last background.
    no_run = offsets[np.flatnonzero(counts & 1) + 1] - 1
    there = np.ones_like(pairs, bool)
    there[no_run, 1] = False
    pairs[there] = numbers
    some = np.flatnonzero(sizes)
    head = offsets[some]
    first = pairs[head, 0]  # the first run is no start of a chain: that of background begins with the third
    # One sum over the whole file, less what each mask begins with; should it wrap round, the difference wraps back.
    total = np.cumsum(pairs, axis=0)
    base = total[head] - pairs[head]
    base[:, 0] += first
    total -= np.repeat(base, sizes[some], axis=0)
    total[head, 0] = first
    total[no_run, 1] = 0
    zero = total == 0
    zero[head, 0] = zero[no_run, 1] = False
    loose = np.searchsorted(offsets, np.flatnonzero(zero.any(1)), side="right") - 1 if zero.any() else head[:0]
    return total, offsets, np.unique(loose)


def check_batch(runs: Runs, pixels: Ints) -> npt.NDArray[np.int8]:
    """Fault codes int8 [M] of masks whose images have ``pixels`` (int64 [M]) = height x width."""
    faults = runs.faults.copy()
    # Before the sums, in which a negative run can hide.
    if len(runs.pairs) and runs.pairs.min() < 0:
        _mark(faults, runs.offsets, np.flatnonzero((runs.pairs < 0).any(1)), NEGATIVE)
    sums = segment_sums(runs.pairs[:, 0] + runs.pairs[:, 1], runs.offsets)
    faults[(faults == OK) & (sums != pixels)] = BAD_SUM
    return faults


def measure_batch(runs: Runs, heights: Ints) -> tuple[Ints, npt.NDArray[np.float64]]:
    """Areas int64 [M] and boxes float64 [M, 4] (xyxy pixel edges, zeros where empty) of checked masks."""
    areas = segment_sums(runs.pairs[:, 1], runs.offsets)
    boxes = np.zeros((len(heights), 4))
    some = np.flatnonzero(areas)
    if not len(some):
        return areas, boxes
    # In float64, where all of these numbers and quotients are exact or stay below the next whole number: dividing
    # integers is slow.
    length = runs.pairs[:, 1].astype(np.float64)
    height = np.repeat(heights.astype(np.float64), np.diff(runs.offsets))
    last = segment_cumsum(runs.pairs[:, 0] + runs.pairs[:, 1], runs.offsets) - 1.0
    start = last + 1.0 - length
    x_first, x_last = np.floor(start / height), np.floor(last / height)
    y_first, y_last = start - x_first * height, last - x_last * height
    # A run that goes on in the next column touches the last row of one and the first of the other.
    wraps = np.flatnonzero(x_last > x_first)
    y_first[wraps], y_last[wraps] = 0, height[wraps] - 1
    empty = np.flatnonzero(length == 0)
    for edge, neutral in ((x_first, np.inf), (y_first, np.inf), (x_last, -np.inf), (y_last, -np.inf)):
        edge[empty] = neutral
    segments = runs.offsets[some]  # the pairs of empty masks in between are neutral
    boxes[some, 0] = np.minimum.reduceat(x_first, segments)
    boxes[some, 1] = np.minimum.reduceat(y_first, segments)
    boxes[some, 2] = np.maximum.reduceat(x_last, segments) + 1
    boxes[some, 3] = np.maximum.reduceat(y_last, segments) + 1
    return areas, boxes


def intersection_batch(first: Runs, second: Runs) -> Ints:
    """Pixels int64 [M] in both masks of each pair; the pairs have equal sizes and are checked."""
    if not len(second.pairs):
        return np.zeros(len(first.offsets) - 1, np.int64)
    # One long axis for all masks, since their sizes are equal in both. What the second masks cover up to a place rises
    # by one a pixel on their runs and not at all between them, and every number is exact in float64.
    covered = second.pairs.copy()
    covered[:, 0] = 0
    edges = np.cumsum(first.pairs.ravel())
    until = np.interp(edges, np.cumsum(second.pairs.ravel()), np.cumsum(covered.ravel()))
    return segment_sums((until[1::2] - until[0::2]).astype(np.int64), first.offsets)


def segment_sums(values: Ints, offsets: Ints) -> Ints:
    """Sums int64 [M] of the segments of a flat array; 0 for an empty segment."""
    # Not reduceat, which does not know empty segments.
    total = np.concatenate([np.zeros(1, np.int64), np.cumsum(values)])
    sums: Ints = total[offsets[1:]] - total[offsets[:-1]]
    return sums


def segment_cumsum(values: Ints, offsets: Ints) -> Ints:
    """Cumulative sums that start anew in each segment."""
    total = np.cumsum(values)
    base = np.concatenate([np.zeros(1, np.int64), total])[offsets[:-1]]
    result: Ints = total - np.repeat(base, np.diff(offsets))
    return result


def _mark(faults: npt.NDArray[np.int8], offsets: Ints, positions: Ints, fault: int) -> None:
    """Sets ``fault`` for the masks that own these positions and are sound so far."""
    owners = np.searchsorted(offsets, np.unique(positions), side="right") - 1
    faults[owners[faults[owners] == OK]] = fault


def _check_list(counts: Any) -> Ints:
    if isinstance(counts, np.ndarray):
        if counts.ndim != 1 or counts.dtype.kind not in "iu":
            raise ValueError("counts must be integers")
        return counts.astype(np.int64)
    if not isinstance(counts, (list, tuple)):
        raise ValueError(f"counts are {_short(counts)}, must be a string or a list of integers")
    # Floats are refused, too: pycocotools cuts them to integers and says nothing.
    if any(isinstance(run, (bool, np.bool_)) or not isinstance(run, (int, np.integer)) for run in counts):
        raise ValueError("counts must be integers")
    # Before numpy sees them, which has no answer but OverflowError to more than 64 bits.
    if any(not -MAX_PIXELS <= run <= MAX_PIXELS for run in counts):
        raise ValueError(FAULTS[TOO_LONG])
    return np.array(counts, np.int64)


def _fault_of(runs: Ints, pixels: int) -> int:
    if not len(runs):
        return NO_RUNS
    if (runs < 0).any():
        return NEGATIVE
    return OK if int(runs.sum()) == pixels else BAD_SUM


def _sum_message(runs: Ints, height: int, width: int) -> str:
    return f"runs add up to {int(runs.sum())}, not to {height} x {width} = {height * width}"


def _short(value: Any, limit: int = 40) -> str:
    if isinstance(value, int) and abs(value) > 10**18:
        return "a number of more than 18 digits"
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
