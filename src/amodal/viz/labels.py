"""Where the labels of a picture go, so that they stay inside it and off each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def place(
    boxes: npt.NDArray[np.float64], sizes: Sequence[tuple[float, float]], picture: tuple[int, int]
) -> list[tuple[int, int]]:
    """Top-left corners of the labels of N boxes, one after the other.

    Each label tries the corners of its box (above it first, then inside, then below) and takes the place that covers
    the least of the labels already placed; it is always inside the picture if it fits there at all.

    Args:
        boxes: [N, 4] xyxy in pixels of the picture.
        sizes: N (width, height) of the labels in pixels.
        picture: (width, height) in pixels.
    """
    taken = np.zeros((0, 4))
    corners = []
    for box, (width, height) in zip(boxes, sizes, strict=True):
        options = _inside(_options(box, width, height), width, height, picture)
        rectangles = np.concatenate([options, options + np.array((width, height))], axis=1)
        best = int(np.argmin(_covered(rectangles, taken)))
        taken = np.concatenate([taken, rectangles[best : best + 1]])
        corners.append((int(options[best, 0]), int(options[best, 1])))
    return corners


def _options(box: npt.NDArray[np.float64], width: float, height: float) -> npt.NDArray[np.float64]:
    x0, y0, x1, y1 = box
    xs = (x0, x1 - width, (x0 + x1 - width) / 2)
    ys = (y0 - height, y0, y1, y1 - height, (y0 + y1 - height) / 2)
    return np.array([(x, y) for y in ys for x in xs])


def _inside(
    options: npt.NDArray[np.float64], width: float, height: float, picture: tuple[int, int]
) -> npt.NDArray[np.float64]:
    room = np.maximum(np.array(picture) - (width, height) - 1, 0)
    return np.clip(options, 0, room).round()


def _covered(rectangles: npt.NDArray[np.float64], taken: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """How many square pixels of ``taken`` [T, 4] each of ``rectangles`` [K, 4] covers."""
    low = np.maximum(rectangles[:, None, :2], taken[None, :, :2])
    high = np.minimum(rectangles[:, None, 2:], taken[None, :, 2:])
    overlap: npt.NDArray[np.float64] = (high - low).clip(0).prod(axis=2).sum(axis=1)
    return overlap
