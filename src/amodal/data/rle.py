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
    """Decoded runs of M masks: ``values`` int64 [N], ``offsets`` int64 [M + 1], ``faults`` int8 [M] (0: sound)."""

    values: Ints
    offsets: Ints
    faults: npt.NDArray[np.int8]


def check_size(size: Any, height: int, width: int) -> None:
    """Raises ValueError unless ``size`` is the two integers ``[height, width]`` of the image, each in 1 to 65536."""
    if not isinstance(size, Sequence) or isinstance(size, (str, bytes)) or len(size) != 2:
        raise ValueError(f"size is {_short(size)}, must be [height, width]")
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
    """Runs of one compressed string, int64; raises ValueError with the reason."""
    data = np.frombuffer(counts_bytes(counts), np.uint8)
    runs = decompress_batch(data, np.array([0, len(data)], np.int64))
    if runs.faults[0]:
        raise ValueError(FAULTS[int(runs.faults[0])])
    return runs.values


def compress(runs: Ints) -> bytes:
    """COCO's compressed counts of one mask's runs (int64)."""
    return compress_batch(runs, np.array([0, len(runs)], np.int64))[0].tobytes()


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


def area(rle: Mapping[str, Any]) -> int:
    """Object pixels of a checked RLE."""
    return int(parse_counts(rle["counts"])[1::2].sum())


def to_box(rle: Mapping[str, Any]) -> npt.NDArray[np.float64]:
    """float64 [4] xyxy pixel edges of a checked RLE's mask; zeros for an empty one."""
    runs = parse_counts(rle["counts"])
    offsets = np.array([0, len(runs)], np.int64)
    _, boxes = measure_batch(Runs(runs, offsets, np.zeros(1, np.int8)), np.array([rle["size"][0]], np.int64))
    return boxes.reshape(4)


def canonical_runs(runs: Ints) -> Ints:
    """The same mask without zero runs after the first."""
    if not (runs[1:] == 0).any():
        return runs
    ends = np.cumsum(runs)
    keep = runs > 0
    value = (np.arange(len(runs)) & 1).astype(bool)[keep]
    ends = ends[keep]
    last = np.append(value[1:] != value[:-1], True)
    merged = np.diff(ends[last], prepend=0)
    return np.concatenate([[0], merged]).astype(np.int64) if value[0] else merged.astype(np.int64)


def decompress_batch(data: Bytes, offsets: Ints) -> Runs:
    """Runs of M compressed strings that lie behind each other in ``data`` (uint8), with a fault code for each.

    A faulty mask keeps runs of no meaning (so that offsets stay simple); look at ``faults`` before using them. Sums are
    not checked here, see :func:`check_batch`.
    """
    count = len(offsets) - 1
    faults = np.zeros(count, np.int8)
    lengths = np.diff(offsets)
    faults[lengths == 0] = NO_RUNS
    if len(data) == 0:
        return Runs(np.zeros(0, np.int64), np.zeros(count + 1, np.int64), faults)
    value = data - np.uint8(48)
    _mark(faults, offsets, np.flatnonzero(value > 63), BAD_CHARACTER)
    ends = (value & 32) == 0
    filled = np.flatnonzero(lengths > 0)
    last = offsets[filled + 1] - 1
    faults[filled[~ends[last] & (faults[filled] == OK)]] = TRUNCATED
    ends[last] = True  # a broken chain must not run into the next mask
    stop = np.flatnonzero(ends)
    start = np.concatenate([[0], stop[:-1] + 1])
    chars = stop - start + 1
    _mark(faults, offsets, start[chars > _MAX_CHARS], TOO_LONG)
    numbers = _read_numbers(value, start, stop, np.minimum(chars, _MAX_CHARS))
    run_offsets = np.searchsorted(start, offsets).astype(np.int64)
    return Runs(_undo_differences(numbers, run_offsets), run_offsets, faults)


def _read_numbers(value: Bytes, start: Ints, stop: Ints, chars: Ints) -> Ints:
    numbers = (value[start] & 31).astype(np.int64)
    for place in range(1, int(chars.max())):
        longer = np.flatnonzero(chars > place)
        numbers[longer] |= (value[start[longer] + place] & 31).astype(np.int64) << (5 * place)
    negative = (value[stop] & 16) != 0
    numbers[negative] -= np.int64(1) << (5 * chars[negative])
    return numbers


def _undo_differences(numbers: Ints, offsets: Ints) -> Ints:
    """Adds to each run from the fourth on the run two before, in every mask."""
    place = np.arange(len(numbers)) - np.repeat(offsets[:-1], np.diff(offsets))
    runs = numbers.copy()
    for parity in (1, 2):  # runs 1, 3, 5, ... and 2, 4, 6, ...; run 0 stands alone
        chain = np.flatnonzero((place & 1 == parity & 1) & (place > 0))
        total = np.cumsum(numbers[chain])
        first = place[chain] == parity
        base = (total - numbers[chain])[first]
        runs[chain] = total - np.repeat(base, np.diff(np.append(np.flatnonzero(first), len(chain))))
    return runs


def compress_batch(values: Ints, offsets: Ints) -> tuple[Bytes, Ints]:
    """Compressed counts of M masks' runs, one flat uint8 array, and their offsets int64 [M + 1]."""
    place = np.arange(len(values)) - np.repeat(offsets[:-1], np.diff(offsets))
    numbers = values.astype(np.int64)
    later = np.flatnonzero(place > 2)
    numbers[later] -= values[later - 2]
    magnitude = np.where(numbers < 0, ~numbers, numbers)
    chars = np.ones(len(numbers), np.int64)
    for place_bits in range(4, 34, 5):
        chars += magnitude >= (1 << place_bits)
    ends = np.cumsum(chars)
    out = np.zeros(int(ends[-1]) if len(ends) else 0, np.uint8)
    begin = ends - chars
    for step in range(_MAX_CHARS):
        todo = np.flatnonzero(chars > step)
        if not len(todo):
            break
        bits = (numbers[todo] >> (5 * step)) & 31
        more = (chars[todo] > step + 1) * 32
        out[begin[todo] + step] = bits + more + 48
    return out, np.concatenate([[0], ends])[offsets]


def check_batch(runs: Runs, pixels: Ints) -> npt.NDArray[np.int8]:
    """Fault codes int8 [M] of masks whose images have ``pixels`` (int64 [M]) = height x width."""
    faults = runs.faults.copy()
    _mark(faults, runs.offsets, np.flatnonzero(runs.values < 0), NEGATIVE)
    sums = segment_sums(runs.values, runs.offsets)
    faults[(faults == OK) & (sums != pixels)] = BAD_SUM
    return faults


def measure_batch(runs: Runs, heights: Ints) -> tuple[Ints, npt.NDArray[np.float64]]:
    """Areas int64 [M] and boxes float64 [M, 4] (xyxy pixel edges, zeros where empty) of checked masks."""
    count = len(heights)
    lengths = np.diff(runs.offsets)
    place = np.arange(len(runs.values)) - np.repeat(runs.offsets[:-1], lengths)
    owner = np.repeat(np.arange(count), lengths)
    ends = segment_cumsum(runs.values, runs.offsets)
    pick = np.flatnonzero((place & 1 == 1) & (runs.values > 0))
    areas = np.zeros(count, np.int64)
    boxes = np.zeros((count, 4))
    if not len(pick):
        return areas, boxes
    length, end, owner = runs.values[pick], ends[pick], owner[pick]
    height = heights[owner]
    x_first, y_first = np.divmod(end - length, height)
    x_last, y_last = np.divmod(end - 1, height)
    wraps = x_last > x_first
    firsts = np.flatnonzero(np.diff(owner, prepend=-1))
    some = owner[firsts]
    areas[some] = np.add.reduceat(length, firsts)
    boxes[some, 0] = x_first[firsts]
    boxes[some, 1] = np.minimum.reduceat(np.where(wraps, 0, y_first), firsts)
    boxes[some, 2] = np.maximum.reduceat(x_last, firsts) + 1
    boxes[some, 3] = np.maximum.reduceat(np.where(wraps, height - 1, y_last), firsts) + 1
    return areas, boxes


def intersection_batch(first: Runs, second: Runs) -> Ints:
    """Pixels int64 [M] in both masks of each pair; the pairs have equal sizes and are checked."""
    ends = np.cumsum(second.values)  # one long axis for all masks: bases add up because sizes are equal
    place = np.arange(len(second.values)) - np.repeat(second.offsets[:-1], np.diff(second.offsets))
    inside = place & 1
    covered = np.cumsum(second.values * inside)
    starts = ends - second.values
    before = covered - second.values * inside

    def covered_until(position: Ints) -> Ints:
        run = np.minimum(np.searchsorted(ends, position, side="right"), len(ends) - 1)
        result: Ints = before[run] + (position - starts[run]) * inside[run]
        return result

    own_ends = np.cumsum(first.values)
    odd = (np.arange(len(first.values)) - np.repeat(first.offsets[:-1], np.diff(first.offsets))) & 1
    pick = np.flatnonzero(odd)
    shared = np.zeros(len(first.values), np.int64)
    shared[pick] = covered_until(own_ends[pick]) - covered_until(own_ends[pick] - first.values[pick])
    return segment_sums(shared, first.offsets)


def segment_sums(values: Ints, offsets: Ints) -> Ints:
    """Sums int64 [M] of the segments of a flat array; 0 for an empty segment."""
    total = np.concatenate([[0], np.cumsum(values)])
    sums: Ints = total[offsets[1:]] - total[offsets[:-1]]
    return sums


def segment_cumsum(values: Ints, offsets: Ints) -> Ints:
    """Cumulative sums that start anew in each segment."""
    total = np.cumsum(values)
    base = np.concatenate([[0], total])[offsets[:-1]]
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
    if any(isinstance(run, (bool, np.bool_)) or not isinstance(run, (int, np.integer)) for run in counts):
        raise ValueError("counts must be integers")
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
