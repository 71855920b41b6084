"""Masks of a file's entries: each read as far as its own object allows, then all of them checked at once."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from amodal.data import rle
from amodal.data.polygons import far_outside, polygon_pieces, rasterize_batch, to_float
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


@dataclass
class Outlines:
    """Polygons of some of the masks of a chunk.

    Attributes:
        rows: which masks they are, ascending.
        pieces: how many polygons each of these masks has.
        lengths: how many numbers each polygon has.
        points: these numbers, x and y by turns, as the bytes of float64.
    """

    rows: list[int] = field(default_factory=list)
    pieces: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    points: list[bytes] = field(default_factory=list)

    def add(self, row: int, polygons: Sequence[Sequence[float]]) -> None:
        """One mask; integers beyond all floats become infinite."""
        self.rows.append(row)
        self.pieces.append(len(polygons))
        for polygon in polygons:
            self.lengths.append(len(polygon))
            try:
                # In half the time of numpy's ways from a list to an array.
                self.points.append(struct.pack(f"{len(polygon)}d", *polygon))
            except struct.error:  # an integer beyond all floats
                self.points.append(struct.pack(f"{len(polygon)}d", *map(to_float, polygon)))


@dataclass
class Unread:
    """M masks as the file has them, before anything but their types is checked.

    Attributes:
        count: M.
        rles: rows that are RLEs.
        counts: their compressed counts.
        sizes: what they say of their own size, (h, w); only where that is not checked yet.
        outlines: the other rows.
    """

    count: int
    rles: list[int] = field(default_factory=list)
    counts: list[bytes] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    outlines: Outlines = field(default_factory=Outlines)

    def add_rles(self, rows: list[int], sizes: list[tuple[int, int]], counts: list[str]) -> None:
        """RLEs that are not checked yet; raises ValueError for counts that are not ASCII."""
        self.rles += rows
        self.sizes += sizes
        self.counts += map(str.encode, counts, repeat("ascii"))

    def absent(self) -> list[int]:
        """Rows without a mask, ascending."""
        return sorted({*range(self.count)}.difference(self.rles, self.outlines.rows))

    def fits(self, sizes: rle.Ints) -> bool:
        """Whether RLEs have the ``sizes`` int64 [M, 2] of their images, and polygons three points or more."""
        own = list(map(tuple, sizes[self.rles].tolist()))
        return self.sizes == own and all(length >= 6 and length % 2 == 0 for length in set(self.outlines.lengths))


def read_masks(objects: Sequence[Any], sizes: rle.Ints) -> Masks:
    """Reads and checks RLEs (compressed or as list of runs) and polygons of images of ``sizes`` int64 [M, 2] (h, w)."""
    faults: dict[int, str] = {}
    degenerate: dict[int, int] = {}
    unread = Unread(len(objects))
    for row, (obj, size) in enumerate(zip(objects, sizes.tolist(), strict=True)):
        try:
            if isinstance(obj, dict):
                unread.counts.append(_read_rle(obj, size))
                unread.rles.append(row)
            else:
                polygons, dropped = polygon_pieces(obj)
                unread.outlines.add(row, polygons)
                if dropped:
                    degenerate[row] = dropped
        except ValueError as error:  # noqa: PERF203 - each mask fails for itself
            faults[row] = str(error)
    return check_masks(unread, sizes, faults, degenerate)


def check_masks(unread: Unread, sizes: rle.Ints, faults: dict[int, str], degenerate: dict[int, int]) -> Masks:
    """Checks masks of images of ``sizes`` int64 [M, 2] (h, w).

    ``faults`` and ``degenerate``, as in :class:`Masks`, are what is known of them so far.
    """
    counts = [b""] * unread.count
    for row, one in zip(unread.rles, unread.counts, strict=True):
        counts[row] = one
    _draw_outlines(unread.outlines, sizes, counts, faults)
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


def _draw_outlines(outlines: Outlines, sizes: rle.Ints, counts: list[bytes], faults: dict[int, str]) -> None:
    """Checks where the polygons lie, all at once, and rasterises them into ``counts``."""
    if not outlines.rows:
        return
    rows = np.array(outlines.rows, np.int64)
    owner = np.repeat(rows, outlines.pieces)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(outlines.lengths, dtype=np.int64)])
    points = np.frombuffer(b"".join(outlines.points), np.float64)
    far = owner[far_outside(points, offsets, sizes[owner])]
    for row in np.unique(far).tolist():
        height, width = sizes[row].tolist()
        faults[row] = f"a polygon has a coordinate far outside the image of {height} x {width} or not finite"
    sound = rows[~np.isin(rows, far)] if len(far) else rows
    for row, one in zip(sound.tolist(), rasterize_batch(points, offsets, owner, sound, sizes), strict=True):
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
