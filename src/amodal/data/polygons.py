"""Polygon masks: checked here, then rasterised by pycocotools."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

MARGIN = 4.0  # coordinates may lie this many image sides outside the image

Polygons = list[npt.NDArray[np.float64]]


def check_polygons(obj: Any, height: int, width: int) -> tuple[Polygons, int]:
    """The polygons of one mask, float64 [2 n] (x0, y0, x1, y1, ...) each, and how many degenerate pieces fell away.

    ``obj`` is a list of flat coordinate lists or one flat list. A piece of fewer than three points covers nothing and
    is left out. Raises ValueError with the reason for an odd count, a coordinate that is no finite number or lies
    further than four image sides outside, or deeper nesting.
    """
    if not isinstance(obj, (list, tuple)):
        raise ValueError("segmentation is neither an RLE nor a list of polygons")
    pieces = [obj] if obj and not isinstance(obj[0], (list, tuple)) else obj
    checked = [_check_piece(piece, height, width) for piece in pieces]
    kept = [piece for piece in checked if len(piece) >= 6]
    return kept, len(checked) - len(kept)


def _check_piece(piece: Any, height: int, width: int) -> npt.NDArray[np.float64]:
    if not isinstance(piece, (list, tuple)):
        raise ValueError("a polygon is a list of numbers")
    for value in piece:
        if type(value) is not float and type(value) is not int:
            raise ValueError(f"a polygon holds {_kind(value)}, must hold numbers only")
    if len(piece) % 2:
        raise ValueError(f"a polygon has {len(piece)} numbers, must have x and y of each point")
    limit = MARGIN * max(height, width)
    if piece and not (min(piece) >= -limit and max(piece) <= limit + max(height, width) and _finite(piece)):
        raise ValueError(f"a polygon has a coordinate far outside the image of {height} x {width} or not finite")
    return np.array(piece, np.float64)


def _finite(piece: Sequence[float]) -> bool:
    return math.isfinite(math.fsum(piece))


def _kind(value: Any) -> str:
    return "null" if value is None else f"a {type(value).__name__}"


def rasterize(polygons: Polygons, height: int, width: int) -> bytes:
    """Compressed counts of the union of checked polygons; an empty list gives the empty mask."""
    if not polygons:
        polygons = [np.full(6, -1.0)]
    parts = coco_mask.frPyObjects([piece.tolist() for piece in polygons], height, width)
    merged: bytes = (parts[0] if len(parts) == 1 else coco_mask.merge(parts))["counts"]
    return merged
