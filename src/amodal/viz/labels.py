"""Where the labels of a picture go: inside it, off each other, and off the objects, small ones above all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_GRID = 256
"""Cells of a cover's longer side at most: what a label hides need not be known to the pixel."""
_RINGS = (0.0, 0.6, 1.6, 3.0, 5.0)
"""Distances from its box that a label tries, in heights of the label."""
_NEAR = 0.3
"""Distance from its box, in heights of the label, above which a line leads back to the box."""
_LABEL, _GROUND, _OWN, _AWAY, _LINE = 6.0, 0.5, 0.15, 0.06, 0.04
"""Costs: of lying wholly on other labels, on objects, inside its own box, a height away, and of needing a line."""


class Cover:
    """Where the objects of a picture are, and how much of an object a rectangle would hide."""

    def __init__(self, height: int, width: int) -> None:
        """
        Args:
            height, width: pixels of the picture.
        """
        self._step = max(1, -(-max(height, width) // _GRID))
        self._size = (height, width)
        shape = (-(-height // self._step), -(-width // self._step))
        self._there, self._worth = np.zeros(shape), np.zeros(shape)
        self._sums: tuple[Floats, Floats] | None = None

    def add(self, rows: slice, columns: slice, mask: npt.NDArray[np.bool_]) -> None:
        """Takes in an object whose mask, bool [h, w], lies at these rows and columns of the picture."""
        area = int(np.count_nonzero(mask))
        if not area:
            return
        step = self._step
        top, left = rows.start // step, columns.start // step
        edges = [
            np.maximum(np.arange(side.start // step, -(-side.stop // step)) * step - side.start, 0)
            for side in (rows, columns)
        ]
        pixels = np.add.reduceat(np.add.reduceat(mask, edges[0], 0, dtype=np.int32), edges[1], 1)
        part = slice(top, top + pixels.shape[0]), slice(left, left + pixels.shape[1])
        self._there[part] = np.maximum(self._there[part], pixels)
        self._worth[part] += pixels / area
        self._sums = None

    def hidden(self, rectangles: Floats, scale: float = 1.0) -> tuple[Floats, Floats]:
        """What rectangles [K, 4], xyxy pixels of the picture times ``scale``, would lie on.

        Returns:
            Pixels of the rectangles that hold an object (times ``scale`` squared), and shares of objects that are under
            them, summed over the objects; [K] each.
        """
        if self._sums is None:
            there, worth = (np.pad(one, ((1, 0), (1, 0))).cumsum(0).cumsum(1) for one in (self._there, self._worth))
            self._sums = there, worth
        corners = rectangles / (scale * self._step)
        there, worth = (_box_sums(sums, corners) for sums in self._sums)
        return there * scale**2, worth


def _box_sums(sums: Floats, corners: Floats) -> Floats:
    """Sums of a map inside rectangles xyxy [K, 4] in cells, from its cumulative sums; a cut cell counts in part."""
    height, width = sums.shape

    def at(x: Floats, y: Floats) -> Floats:
        x, y = np.clip(x, 0, width - 1), np.clip(y, 0, height - 1)
        left, top = np.minimum(x.astype(int), max(width - 2, 0)), np.minimum(y.astype(int), max(height - 2, 0))
        right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
        u, v = x - left, y - top
        upper = sums[top, left] * (1 - u) + sums[top, right] * u
        lower = sums[bottom, left] * (1 - u) + sums[bottom, right] * u
        found: Floats = upper * (1 - v) + lower * v
        return found

    x0, y0, x1, y1 = corners.T
    inside: Floats = at(x1, y1) - at(x0, y1) - at(x1, y0) + at(x0, y0)
    return inside


def place(
    boxes: Floats,
    sizes: Sequence[tuple[float, float]],
    picture: tuple[int, int],
    cover: Cover | None = None,
    scale: float = 1.0,
) -> list[tuple[int, int]]:
    """Top-left corners of the labels of N boxes.

    Each label tries places around its box (above it first), then farther away, then inside, and takes the one that
    hides the least: other labels, objects (a small one counts more, as more of it would be gone), its own box. It is
    always inside the picture if it fits there at all. Labels of small boxes choose first, as they have the least room.

    Args:
        boxes: [N, 4] xyxy in pixels of the picture.
        sizes: N (width, height) of the labels in pixels.
        picture: (width, height) in pixels.
        cover: where the objects are; None: only boxes and labels count.
        scale: pixels of the picture a pixel of the cover.
    """
    taken = np.zeros((0, 4))
    corners = [(0, 0)] * len(sizes)
    for row in np.argsort((boxes[:, 2:] - boxes[:, :2]).prod(1), kind="stable").tolist():
        width, height = sizes[row]
        options = _inside(_options(boxes[row], width, height), width, height, picture)
        rectangles = np.concatenate([options, options + np.array((width, height))], axis=1)
        area = max(width * height, 1.0)
        away = _distance(rectangles, boxes[row]) / max(height, 1.0)
        cost = _LABEL * _covered(rectangles, taken) / area + _OWN * _covered(rectangles, boxes[row][None]) / area
        cost += _AWAY * away + _LINE * (away > _NEAR)
        if cover is not None:
            ground, shares = cover.hidden(rectangles, scale)
            cost += _GROUND * ground / area + shares
        best = int(np.argmin(cost.round(6)))
        taken = np.concatenate([taken, rectangles[best : best + 1]])
        corners[row] = (int(options[best, 0]), int(options[best, 1]))
    return corners


def leader(box: Floats, rectangle: Floats) -> tuple[float, float, float, float] | None:
    """The line (x, y, x, y) from a label to its box, both xyxy [4]; None where the label is next to it or inside."""
    if float(_distance(rectangle[None], box)[0]) <= _NEAR * float(rectangle[3] - rectangle[1]):
        return None
    middle = (rectangle[:2] + rectangle[2:]) / 2
    end = np.clip(middle, box[:2], np.maximum(box[2:], box[:2]))
    start = np.clip(end, rectangle[:2], rectangle[2:])
    return float(start[0]), float(start[1]), float(end[0]), float(end[1])


def _options(box: Floats, width: float, height: float) -> Floats:
    """Corners of a label around a box, ring by ring, then inside it."""
    x0, y0, x1, y1 = box
    found = []
    for ring in _RINGS:
        gap = ring * height
        left, right, top, bottom = x0 - width - gap, x1 + gap, y0 - height - gap, y1 + gap
        # Along each side, its corners first; all the way round on the outer rings, which start beside the box.
        starts = (x0, x1 - width, (x0 + x1 - width) / 2, *((left, right) if ring else ()))
        levels = (y0, y1 - height, (y0 + y1 - height) / 2)
        found += [(x, y) for y in (top, bottom) for x in starts]
        found += [(x, y) for x in (right, left) for y in levels]
    found += [(x, y) for y in (y0, y1 - height, (y0 + y1 - height) / 2) for x in (x0, x1 - width)]
    return np.array(found)


def _inside(options: Floats, width: float, height: float, picture: tuple[int, int]) -> Floats:
    room = np.maximum(np.array(picture) - (width, height) - 1, 0)
    return np.clip(options, 0, room).round()


def _distance(rectangles: Floats, box: Floats) -> Floats:
    """Between rectangles [K, 4] and a box [4], pixels; 0 where they touch."""
    gaps = np.maximum(np.maximum(box[:2] - rectangles[:, 2:], rectangles[:, :2] - box[2:]), 0)
    found: Floats = np.hypot(gaps[:, 0], gaps[:, 1])
    return found


def _covered(rectangles: Floats, taken: Floats) -> Floats:
    """How many square pixels of ``taken`` [T, 4] each of ``rectangles`` [K, 4] covers."""
    low = np.maximum(rectangles[:, None, :2], taken[None, :, :2])
    high = np.minimum(rectangles[:, None, 2:], taken[None, :, 2:])
    overlap: Floats = (high - low).clip(0).prod(axis=2).sum(axis=1)
    return overlap
