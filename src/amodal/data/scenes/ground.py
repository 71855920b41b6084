"""Grounds that the things lie on: boards, cloth, sand, tiles, marble, a printed sheet, moss, plain paper."""

from __future__ import annotations

import math

import numpy as np

from amodal.data.scenes.dice import Dice
from amodal.data.scenes.paint import Colour, hsv, mixed, shade
from amodal.data.scenes.palette import PAPER, near, vivid
from amodal.data.scenes.raster import Floats, noise, upsampled


def _ramp(values: Floats, colours: list[Colour]) -> Floats:
    """float32[H, W, 3]: 0..1 values along a row of colours."""
    table = np.array(colours, np.float32)
    at = np.minimum(np.maximum(values, np.float32(0)), np.float32(1)) * np.float32(len(colours) - 1)
    low = np.minimum(at.astype(np.int64), len(colours) - 2)
    share = (at - low.astype(np.float32))[..., None]
    out: Floats = table.take(low, axis=0) + share * (table[1:] - table[:-1]).take(low, axis=0)
    return out


def _grid(size: int, turn: float) -> tuple[Floats, Floats]:
    """Coordinates in picture lengths, turned by `turn` radians."""
    line = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(size)
    x, y = np.meshgrid(line, line)
    cos, sin = np.float32(math.cos(turn)), np.float32(math.sin(turn))
    return x * cos + y * sin, y * cos - x * sin


def _boards(dice: Dice, size: int) -> Floats:
    colour = near(dice, 0.08, 0.02, 0.42, 0.62)
    count = dice.whole(3, 7)
    streaks = noise(dice, size, size, (dice.whole(22, 40), 2.0), 3)
    out = _ramp(streaks, [shade(colour, 0.62), colour, shade(colour, 1.25)])
    y = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * np.float32(count / size)
    board = y.astype(np.int64)
    tone = np.float32(0.82) + dice.field(count + 1)[board] * np.float32(0.36)
    gap = np.abs(y - board.astype(np.float32) - np.float32(0.5))
    tone = np.where(gap > 0.5 - 0.012 * count / 2, tone * np.float32(0.45), tone)
    out = out * tone[:, None, None]
    return np.ascontiguousarray(out.transpose(1, 0, 2)) if dice.chance(0.5) else out


def _cloth(dice: Dice, size: int) -> Floats:
    base = mixed(vivid(dice), PAPER, dice.uniform(0.0, 0.5))
    other = mixed(vivid(dice), PAPER, dice.uniform(0.2, 0.8))
    u, v = _grid(size, dice.uniform(-0.6, 0.6))
    count = np.float32(dice.uniform(4, 10))
    band = ((u * count) % 1 < 0.5).astype(np.float32) + ((v * count) % 1 < 0.5).astype(np.float32)
    out = _ramp(band * np.float32(0.5 if dice.chance(0.6) else 0.0), [base, mixed(base, other, 0.5), other])
    weave = np.abs((u * np.float32(90)) % 1 - np.float32(0.5)) + np.abs((v * np.float32(90)) % 1 - np.float32(0.5))
    folds = noise(dice, size, size, (3, 3), 2)
    tone: Floats = np.float32(0.7) + weave * np.float32(0.2) + folds * np.float32(0.36)
    return np.asarray(out * tone[..., None], np.float32)


def _sand(dice: Dice, size: int) -> Floats:
    colour = near(dice, dice.pick([0.1, 0.08, 0.6, 0.55]), 0.03, 0.25, 0.68)
    waves = noise(dice, size, size, (5, 5), 5)
    grains = dice.field(size, size)
    return _ramp(waves * np.float32(0.7) + grains * np.float32(0.3), [shade(colour, 0.5), colour, shade(colour, 1.35)])


def _tiles(dice: Dice, size: int) -> Floats:
    first, second = mixed(vivid(dice), PAPER, 0.5), mixed(vivid(dice), PAPER, 0.6)
    u, v = _grid(size, dice.pick([0.0, 0.0, 0.7854, 0.2]))
    count = np.float32(dice.uniform(3, 7))
    p, q = u * count + np.float32(40), v * count + np.float32(40)
    i, j = p.astype(np.int64), q.astype(np.int64)
    tone = dice.field(16, 16)[i % 16, j % 16]
    joint = np.maximum(np.abs(p - i - np.float32(0.5)), np.abs(q - j - np.float32(0.5))) > 0.47
    out = _ramp(
        np.where((i + j) % 2 == 0, np.float32(0.12), np.float32(0.88)) + (tone - np.float32(0.5)) * np.float32(0.2),
        [first, second],
    )
    out = out * (np.float32(0.85) + noise(dice, size, size, (6, 6), 3) * np.float32(0.3))[..., None]
    return np.where(joint[..., None], np.array(shade(second, 0.55), np.float32), out)


def _marble(dice: Dice, size: int) -> Floats:
    base = mixed(PAPER, vivid(dice), dice.uniform(0.0, 0.35)) if dice.chance(0.6) else hsv(dice.uniform(), 0.3, 0.35)
    swirl = noise(dice, size, size, (3, 4), 5)
    vein = np.abs(((swirl * np.float32(dice.uniform(3, 6))) % 1) - np.float32(0.5)) * 2
    vein = vein * vein
    return _ramp(
        vein * np.float32(0.75) + noise(dice, size, size, (4, 4), 4) * np.float32(0.25),
        [base, base, shade(base, 0.85), shade(base, 0.55)],
    )


def _landscape(dice: Dice, size: int) -> Floats:
    """Several colours run into each other as in a blurred photograph."""
    grey: Colour = (128.0, 126.0, 122.0)
    key = vivid(dice)
    colours = [shade(mixed(mixed(vivid(dice), key, 0.45), grey, 0.4), dice.uniform(0.45, 1.2)) for _ in range(4)]
    cloud = noise(dice, size, size, (dice.whole(2, 5), dice.whole(2, 5)), 6)
    return _ramp((cloud - np.float32(0.5)) * np.float32(1.9) + np.float32(0.5), colours)


def _moss(dice: Dice, size: int) -> Floats:
    colour = near(dice, dice.pick([0.25, 0.3, 0.12]), 0.03, 0.5, 0.42)
    coarse, fine = noise(dice, size, size, (6, 6), 3), noise(dice, size, size, (48, 48), 3)
    return _ramp(coarse * np.float32(0.45) + fine * np.float32(0.55), [shade(colour, 0.35), colour, shade(colour, 1.5)])


def _paper(dice: Dice, size: int) -> Floats:
    a, b = mixed(vivid(dice), PAPER, dice.uniform(0.2, 0.7)), mixed(vivid(dice), PAPER, dice.uniform(0.2, 0.7))
    slope = upsampled(dice.field(2, 2), size, size)
    return _ramp(slope + (noise(dice, size, size, (24, 24), 3) - np.float32(0.5)) * np.float32(0.15), [a, b])


GROUNDS = (_boards, _cloth, _sand, _tiles, _marble, _landscape, _moss, _paper)


def ground(dice: Dice, size: int) -> Floats:
    """One of the grounds, float32[size, size, 3] in 0..255, not yet lit."""
    return dice.pick(GROUNDS)(dice, size)


def daylight(dice: Dice, size: int, toward: tuple[float, float]) -> Floats:
    """float32[size, size] brightness: falls off away from the light, sometimes dappled as under a tree.

    Args:
        dice: random decisions.
        size: side of the picture, pixels.
        toward: unit vector (x, y) to the light.
    """
    x, y = _grid(size, 0.0)
    fall = (x - np.float32(0.5)) * np.float32(toward[0]) + (y - np.float32(0.5)) * np.float32(toward[1])
    lit = np.float32(dice.uniform(0.86, 1.06)) + fall * np.float32(dice.uniform(0.1, 0.45))
    if dice.chance(0.3):
        leaves = noise(dice, size, size, (5, 5), 3)
        edge = np.minimum(np.maximum((leaves - np.float32(0.48)) * 9, np.float32(0)), np.float32(1))
        lit = lit * (1 - np.float32(dice.uniform(0.15, 0.38)) * edge)
    return lit
