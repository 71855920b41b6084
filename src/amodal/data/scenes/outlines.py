"""Closed outlines (rings, float64[P, 2] of x, y) from which objects are put together.

Unit: the object's own length, about 1; y points down. All rings run in the same direction; `hole` turns one round.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Ring = NDArray[np.float64]
Points = Sequence[tuple[float, float]]


def ring(points: Points | Ring) -> Ring:
    """Corner points as a ring in the common direction."""
    out = np.asarray(points, dtype=np.float64)
    after = np.concatenate([out[1:], out[:1]])
    area = (out[:, 0] * after[:, 1] - out[:, 1] * after[:, 0]).sum()
    return out if area >= 0 else out[::-1]


def hole(outline: Ring) -> Ring:
    """The same ring the other way round: cuts its inside out of the rings it lies in."""
    return outline[::-1]


def ellipse(cx: float, cy: float, rx: float, ry: float, turn: float = 0.0, corners: int = 36) -> Ring:
    """An ellipse with half axes rx, ry, turned by `turn` radians."""
    cos, sin = math.cos(turn), math.sin(turn)
    points = []
    for k in range(corners):
        x, y = rx * math.cos(2 * math.pi * k / corners), ry * math.sin(2 * math.pi * k / corners)
        points.append((cx + x * cos - y * sin, cy + x * sin + y * cos))
    return ring(points)


def curve(points: Points, steps: int = 6, closed: bool = False) -> list[tuple[float, float]]:
    """A Catmull-Rom curve through the points, `steps` pieces between neighbours."""
    n = len(points)
    out: list[tuple[float, float]] = []
    for i in range(n if closed else n - 1):
        p = [points[(i + k) % n] if closed else points[min(max(i + k, 0), n - 1)] for k in (-1, 0, 1, 2)]
        for s in range(steps):
            t = s / steps
            weights = (-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2)
            out.append(
                (
                    sum(w * q[0] for w, q in zip(weights, p, strict=True)) / 2,
                    sum(w * q[1] for w, q in zip(weights, p, strict=True)) / 2,
                )
            )
    if not closed:
        out.append(points[-1])
    return out


def smooth(points: Points, steps: int = 6) -> Ring:
    """A rounded ring through the points."""
    return ring(curve(points, steps, closed=True))


def box(x0: float, y0: float, x1: float, y1: float, radius: float = 0.0) -> Ring:
    """An upright rectangle with rounded corners."""
    r = min(radius, (x1 - x0) / 2, (y1 - y0) / 2)
    if r <= 0:
        return ring([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
    points = []
    for cx, cy, start in ((x1 - r, y1 - r, 0), (x0 + r, y1 - r, 1), (x0 + r, y0 + r, 2), (x1 - r, y0 + r, 3)):
        for k in range(7):
            angle = (start + k / 6) * math.pi / 2
            points.append((cx + r * math.cos(angle), cy + r * math.sin(angle)))
    return ring(points)


def stroke(points: Points, width: float | Callable[[float], float]) -> Ring:
    """A line drawn with a pen: `width` in units, or a function of the position 0..1 along the line; round ends."""
    pen = width if callable(width) else (lambda _: width)
    path = np.asarray(points, dtype=np.float64)
    step = np.gradient(path, axis=0)
    length = np.sqrt(step[:, 0] * step[:, 0] + step[:, 1] * step[:, 1]) + 1e-12
    normal = np.stack([-step[:, 1] / length, step[:, 0] / length], axis=1)
    half = np.array([pen(k / (len(path) - 1)) / 2 for k in range(len(path))])[:, None]
    left, right = path + normal * half, path - normal * half
    end = _cap(path[-1], step[-1] / length[-1], float(half[-1, 0]))
    start = _cap(path[0], -step[0] / length[0], float(half[0, 0]))
    return ring(np.concatenate([left[::-1], start, right, end]))


def _cap(centre: Ring, ahead: Ring, radius: float) -> Ring:
    """Half a circle round the end of a pen line, from its left side (seen along `ahead`) to its right."""
    side = np.array([-ahead[1], ahead[0]])
    angles = [math.pi * (0.5 - k / 6) for k in range(1, 6)]
    turned = [centre + radius * (math.cos(a) * ahead - math.sin(a) * side) for a in angles]
    return np.array(turned)


def profile(rows: Points, steps: int = 5) -> Ring:
    """A shape that is the same left and right of x = 0; rows of (y, half width) from top to bottom."""
    side = curve([(half, y) for y, half in rows], steps)
    return ring([*side, *[(-x, y) for x, y in reversed(side)]])


def moved(outline: Ring, dx: float = 0.0, dy: float = 0.0, turn: float = 0.0, scale: float = 1.0) -> Ring:
    """The ring scaled, turned by `turn` radians about the origin, then shifted."""
    cos, sin = math.cos(turn) * scale, math.sin(turn) * scale
    x, y = outline[:, 0], outline[:, 1]
    return np.stack([x * cos - y * sin + dx, x * sin + y * cos + dy], axis=1)
