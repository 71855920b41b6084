"""Masks of a file's entries: each read as far as its own object allows, then all of them checked at once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from amodal.data import rle
from amodal.data.polygons import coordinates, far_outside, polygon_pieces, rasterize_batch
from amodal.data.store import MaskBuffer


class Masks(NamedTuple):
    """M checked masks.

    Attributes:
        buffer: the masks, canonical; empty ones where faulty.
        runs: their runs.
        faults: row -> reason.
        degenerate: row -> polygon pieces of fewer than three points, which are left out.
    """

    buffer: MaskBuffer
    runs: rle.Runs
    faults: dict[int, str]
    degenerate: dict[int, int]


def read_masks(objects: Sequence[Any], sizes: rle.Ints) -> Masks:
    """Reads and checks RLEs (compressed or as list of runs) and polygons of images of ``sizes`` int64 [M, 2] (h, w)."""
    faults: dict[int, str] = {}
    degenerate: dict[int, int] = {}
    counts = [b""] * len(objects)
    outlines: dict[int, list[Sequence[float]]] = {}
    for row, (obj, size) in enumerate(zip(objects, sizes.tolist(), strict=True)):
        try:
            if isinstance(obj, dict):
                counts[row] = _read_rle(obj, size)
            else:
                outlines[row], dropped = polygon_pieces(obj)
                if dropped:
                    degenerate[row] = dropped
        except ValueError as error:  # noqa: PERF203 - each mask fails for itself
            faults[row] = str(error)
    _read_outlines(outlines, sizes, counts, faults)
    return _check(counts, sizes[:, 0] * sizes[:, 1], faults, degenerate)


def without_hidden(masks: Masks, hidden: dict[int, Any], key: str, sizes: rle.Ints) -> Masks:
    """``masks`` with those rows that ``hidden`` names cut down by the hidden mask that stands there.

    Args:
        masks: M masks.
        hidden: row -> RLE or polygons of the part to take away.
        key: what the file calls it.
        sizes: int64 [M, 2], (h, w) of the images.
    """
    rows = list(hidden)
    cut = read_masks(list(hidden.values()), sizes[rows])
    faults = {**masks.faults, **{rows[place]: f"from {key}: {reason}" for place, reason in cut.faults.items()}}
    counts = [masks.buffer.counts(row) for row in range(len(masks.buffer))]
    for place, row in enumerate(rows):
        if row not in faults:
            size = sizes[row].tolist()
            rest = {"size": size, "counts": rle.compress(_complement(cut.runs.runs(place)))}
            both = coco_mask.merge([{"size": size, "counts": counts[row]}, rest], intersect=True)
            counts[row] = both["counts"]
    buffer = MaskBuffer.pack(counts)
    degenerate = {**masks.degenerate, **{rows[place]: pieces for place, pieces in cut.degenerate.items()}}
    return Masks(buffer, rle.decompress_batch(buffer.data, buffer.offsets), faults, degenerate)


def _complement(runs: rle.Ints) -> rle.Ints:
    """Runs of everything outside a mask: they begin with what is not in it."""
    return runs[1:] if runs[0] == 0 else np.concatenate([np.zeros(1, np.int64), runs])


def _read_rle(obj: dict[str, Any], size: list[int]) -> bytes:
    counts, own = obj.get("counts"), obj.get("size")
    # Anything but the usual form goes the slow way, which has a message for each fault. The runs of the usual one are
    # checked with all others at once.
    if not isinstance(counts, (str, bytes)) or type(own) is not list:
        checked: bytes = rle.check_rle(obj, *size)["counts"]
        return checked
    if own != size or type(own[0]) is not int or type(own[1]) is not int:
        rle.check_size(own, *size)
    return rle.counts_bytes(counts)


def _read_outlines(
    outlines: dict[int, list[Sequence[float]]], sizes: rle.Ints, counts: list[bytes], faults: dict[int, str]
) -> None:
    """Checks where the polygons lie, all at once, and rasterises them into ``counts``."""
    if not outlines:
        return
    rows = np.array(list(outlines), np.int64)
    pieces = list(chain.from_iterable(outlines.values()))
    owner = np.repeat(rows, [len(own) for own in outlines.values()])
    lengths = np.fromiter(map(len, pieces), np.int64, len(pieces))
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    points = coordinates(pieces, int(offsets[-1]))
    for row in np.unique(owner[far_outside(points, offsets, sizes[owner])]).tolist():
        height, width = sizes[row].tolist()
        faults[row] = f"a polygon has a coordinate far outside the image of {height} x {width} or not finite"
    sound = np.array([row not in faults for row in rows.tolist()], bool)
    done = rasterize_batch(points, offsets, owner, rows[sound], sizes)
    for row, one in zip(rows[sound].tolist(), done, strict=True):
        counts[row] = one


def _check(counts: list[bytes], pixels: rle.Ints, faults: dict[int, str], degenerate: dict[int, int]) -> Masks:
    # An empty mask of the right size stands for a faulty one, so that all rows can be measured at once.
    for row in faults:
        counts[row] = rle.compress(pixels[row : row + 1])
    buffer = MaskBuffer.pack(counts)
    runs = rle.decompress_batch(buffer.data, buffer.offsets)
    codes = rle.check_batch(runs, pixels)
    again = {row: rle.compress(runs.runs(row)) for row in runs.loose.tolist() if not codes[row]}
    for row in np.flatnonzero(codes).tolist():
        faults[row] = rle.FAULTS[int(codes[row])]
        again[row] = rle.compress(pixels[row : row + 1])
    if again:
        buffer = MaskBuffer.pack([again.get(row, one) for row, one in enumerate(counts)])
        runs = rle.decompress_batch(buffer.data, buffer.offsets)
    return Masks(buffer, runs, faults, degenerate)
