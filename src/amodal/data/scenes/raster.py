"""Coverage of pixels by outlines, blurs and smooth noise, in arithmetic that every machine does alike.

Only + - * / sqrt floor and comparisons touch pixels (no sin, exp or pow, whose last digits differ between processors).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from amodal.data.scenes.dice import Dice
from amodal.data.scenes.outlines import Ring

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]

# Sub-rows per pixel row; along x the coverage is exact.
SUBROWS = 4


def coverage(rings: Sequence[Ring], height: int, width: int) -> Floats:
    """Share of each pixel that lies inside the rings (non-zero winding).

    Args:
        rings: closed outlines in pixels; pixel (row i, column j) spans [j, j+1) x [i, i+1).
        height: rows of the window.
        width: columns of the window.

    Returns:
        float32[height, width] in 0..1.
    """
    start = np.concatenate(rings)
    stop = np.concatenate([corner for outline in rings for corner in (outline[1:], outline[:1])])
    # Corners on a grid of 1/256 pixel: differences in the last digit of sin and cos vanish here.
    start, stop = np.round(start * 256) / 256, np.round(stop * 256) / 256
    down = stop[:, 1] > start[:, 1]
    top = np.where(down[:, None], start, stop)
    bottom = np.where(down[:, None], stop, start)
    rows = height * SUBROWS
    first = np.clip(np.ceil(top[:, 1] * SUBROWS - 0.5), 0, rows).astype(np.int64)
    last = np.clip(np.ceil(bottom[:, 1] * SUBROWS - 0.5), 0, rows).astype(np.int64)
    count = last - first
    edge = np.repeat(np.arange(len(count)), count)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + first[edge]
    rise = np.where(bottom[:, 1] > top[:, 1], bottom[:, 1] - top[:, 1], 1.0)
    slope = (bottom[:, 0] - top[:, 0]) / rise
    x = np.clip(top[edge, 0] + ((row + 0.5) / SUBROWS - top[edge, 1]) * slope[edge], 0.0, float(width))
    column = np.floor(x)
    share = x - column
    turn = np.where(down, 1.0, -1.0)[edge]
    cell = row * (width + 2) + column.astype(np.int64)
    steps = np.bincount(cell, turn * (1 - share), rows * (width + 2))
    steps += np.bincount(cell + 1, turn * share, rows * (width + 2))
    winding = np.abs(np.cumsum(steps.reshape(rows, width + 2), axis=1)[:, :width])
    inside = np.minimum(winding, 1.0).reshape(height, SUBROWS, width)
    total = (inside[:, 0] + inside[:, 1]) + (inside[:, 2] + inside[:, 3])
    return np.asarray(total / SUBROWS, dtype=np.float32)


def blur(values: Floats, radius: int, passes: int = 2) -> Floats:
    """Box blur, `passes` times, of float32[H, W] in 0..1; zero outside. Whole-number sums, so exact."""
    if radius < 1:
        return values
    side = 2 * radius + 1
    height, width = values.shape
    tall = np.zeros((height + side, width), np.int32)
    wide = np.zeros((height, width + side), np.int32)
    whole = np.round(values * 4096).astype(np.int32)
    for _ in range(passes):
        np.cumsum(whole, axis=0, out=tall[radius + 1 : radius + 1 + height])
        tall[radius + 1 + height :] = tall[radius + height]
        whole = (tall[side:] - tall[:-side]) // side
        np.cumsum(whole, axis=1, out=wide[:, radius + 1 : radius + 1 + width])
        wide[:, radius + 1 + width :] = wide[:, radius + width, None]
        whole = (wide[:, side:] - wide[:, :-side]) // side
    return whole.astype(np.float32) / np.float32(4096)


def _ease(t: Floats) -> Floats:
    return t * t * (3 - 2 * t)


def upsampled(lattice: Floats, height: int, width: int) -> Floats:
    """float32[height, width] smooth surface through the lattice values, corners at the corners."""
    rows, columns = lattice.shape
    y = (np.arange(height, dtype=np.float32) + np.float32(0.5)) * np.float32((rows - 1) / height)
    x = (np.arange(width, dtype=np.float32) + np.float32(0.5)) * np.float32((columns - 1) / width)
    i, j = np.minimum(y.astype(np.int64), rows - 2), np.minimum(x.astype(np.int64), columns - 2)
    v, u = _ease(y - i.astype(np.float32))[:, None], _ease(x - j.astype(np.float32))[None, :]
    tall = lattice[i] * (1 - v) + lattice[i + 1] * v
    out: Floats = tall[:, j] * (1 - u) + tall[:, j + 1] * u
    return out


def noise(dice: Dice, height: int, width: int, cells: tuple[float, float], octaves: int = 4) -> Floats:
    """Cloudy noise in about 0..1, float32[height, width].

    Args:
        dice: where the lattice values come from.
        height: rows.
        width: columns.
        cells: lattice cells down and across for the coarsest octave; each octave doubles them.
        octaves: how many are added, each at half the strength of the one before.
    """
    total = np.zeros((height, width), np.float32)
    weight, reach = 1.0, 0.0
    for k in range(octaves):
        rows, columns = max(1, round(cells[0] * 2**k)), max(1, round(cells[1] * 2**k))
        if k and (rows > height or columns > width):
            break
        total += np.float32(weight) * upsampled(dice.field(rows + 1, columns + 1), height, width)
        reach += weight
        weight *= 0.5
    return total / np.float32(reach)


def sampled(lattice: Floats, u: Floats, v: Floats) -> Floats:
    """The lattice, repeated without end, read smoothly at columns u and rows v (same shape)."""
    rows, columns = lattice.shape
    j, i = np.floor(u), np.floor(v)
    s, t = _ease(u - j), _ease(v - i)
    left, upper = j.astype(np.int64) % columns, i.astype(np.int64) % rows
    right, lower = (left + 1) % columns, (upper + 1) % rows
    top = lattice[upper, left] * (1 - s) + lattice[upper, right] * s
    bottom = lattice[lower, left] * (1 - s) + lattice[lower, right] * s
    out: Floats = top * (1 - t) + bottom * t
    return out
