"""Polygon masks: checked here, then rasterised by pycocotools."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from amodal.data import rle
from amodal.errors import kind_of

# Coordinates may lie this many image sides outside the image, since objects that it cuts off do. A rasteriser walks
# along the outline: with 2e8 or infinity pycocotools crashes, and its relatives never return.
MARGIN = 4

Floats = npt.NDArray[np.float64]
_NUMBERS = {int, float}


def polygon_pieces(obj: Any) -> tuple[list[Sequence[float]], int]:
    """The polygons of one mask as flat lists (x0, y0, x1, y1, ...), and how many degenerate pieces fell away.

    ``obj`` is a list of such lists or one flat list. A piece of fewer than three points covers nothing and is left out.
    Raises ValueError with the reason for anything but numbers, an odd count of them, or deeper nesting. Where the
    points lie is not looked at, see :func:`far_outside`.
    """
    if not isinstance(obj, (list, tuple)):
        raise ValueError(f"a mask is an RLE or a list of polygons, not {kind_of(obj)}")
    pieces = [obj] if obj and not isinstance(obj[0], (list, tuple)) else obj
    kept: list[Sequence[float]] = []
    for piece in pieces:
        if not isinstance(piece, (list, tuple)):
            raise ValueError(f"a polygon is a list of numbers, not {kind_of(piece)}")
        # By type, which leaves out bool. pycocotools makes an empty mask of null or text, without a word.
        if not _NUMBERS.issuperset(map(type, piece)):
            wrong = next(value for value in piece if type(value) not in _NUMBERS)
            raise ValueError(f"a polygon holds {kind_of(wrong)}, must hold numbers only")
        if len(piece) % 2:
            raise ValueError(f"a polygon has {len(piece)} numbers, must have x and y of each point")
        # pycocotools would read four numbers as a box (x, y, w, h).
        if len(piece) >= 6:
            kept.append(piece)
    return kept, len(pieces) - len(kept)


def far_outside(points: Floats, offsets: rle.Ints, sizes: rle.Ints) -> npt.NDArray[np.bool_]:
    """bool [P]: which of P polygons leave the image (``sizes`` int64 [P, 2]) by more than four sides or are not finite.

    ``points`` is float64, polygon ``p`` being ``points[offsets[p]:offsets[p + 1]]``; none is empty.
    """
    if not len(sizes):
        return np.zeros(0, bool)
    side = sizes.max(1)
    low, high = np.minimum.reduceat(points, offsets[:-1]), np.maximum.reduceat(points, offsets[:-1])
    inside: npt.NDArray[np.bool_] = (low >= -MARGIN * side) & (high <= (MARGIN + 1) * side)
    return ~inside  # NaN compares false


def rasterize_batch(points: Floats, offsets: rle.Ints, owner: rle.Ints, rows: rle.Ints, sizes: rle.Ints) -> list[bytes]:
    """Compressed counts of the masks ``rows`` (ascending), each the union of its checked polygons.

    ``owner`` int64 [P] names the row of each polygon (ascending); ``sizes`` int64 [M, 2] holds every row's (h, w). A
    row without polygons gives the empty mask.
    """
    first, last = np.searchsorted(owner, rows), np.searchsorted(owner, rows, side="right")
    polygons = [points[begin:end] for begin, end in pairwise(offsets.tolist())]
    if len(rows) and (last - first == 1).all():
        return _rasterize_each([polygons[place] for place in first.tolist()], sizes[rows])
    result = []
    for row, begin, end in zip(rows.tolist(), first.tolist(), last.tolist(), strict=True):
        height, width = sizes[row].tolist()
        # pycocotools' union of nothing has the size 0 x 0.
        if begin == end:
            result.append(rle.compress(np.array([height * width])))
            continue
        parts = coco_mask.frPyObjects(polygons[begin:end], height, width)
        result.append((parts[0] if len(parts) == 1 else coco_mask.merge(parts))["counts"])
    return result


def _rasterize_each(polygons: list[Floats], sizes: rle.Ints) -> list[bytes]:
    """Compressed counts of each polygon in an image of its own ``sizes`` int64 [P, 2]; equal ones in one call."""
    ends = [*(np.flatnonzero((sizes[1:] != sizes[:-1]).any(1)) + 1).tolist(), len(polygons)]
    result: list[bytes] = []
    for end in ends:
        group = coco_mask.frPyObjects(polygons[len(result) : end], *sizes[len(result)].tolist())
        result += [one["counts"] for one in group]
    return result


def to_float(number: float) -> float:
    """The number as a float; infinite for integers beyond all floats."""
    try:
        return float(number)
    except OverflowError:
        return math.inf
