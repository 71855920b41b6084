"""Things that are in the way but belong to no class: planks, ropes, stones, grass, twigs, paper, tape, coins."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from amodal.data.scenes.dice import Dice
from amodal.data.scenes.outlines import Ring, box, curve, ellipse, hole, moved, ring, smooth, stroke
from amodal.data.scenes.paint import Part, mixed, shade, texture
from amodal.data.scenes.palette import INK, PAPER, metal, near, vivid


def plank(dice: Dice) -> list[Part]:
    """A wooden slat or painted bar, long enough to cross much of the picture."""
    half = dice.uniform(0.028, 0.06)
    colour = near(dice, 0.08, 0.03, 0.5, 0.6) if dice.chance(0.7) else vivid(dice)
    grain = texture(dice, "grain", shade(colour, 0.62), 0.05, 0.0, 0.8)
    nails = tuple(ellipse(x, 0.0, 0.009, 0.009) for x in (-0.45, 0.45))
    return [
        Part((box(-0.5, -half, 0.5, half, 0.008),), colour, 0.014, 0.1, grain),
        Part(nails, (96.0, 94.0, 92.0), 0.005, 0.3, marking=True),
    ]


def rope(dice: Dice) -> list[Part]:
    """A rope or cable in a loose wave."""
    colour = near(dice, 0.1, 0.03, 0.4, 0.75) if dice.chance(0.6) else mixed(vivid(dice), INK, 0.4)
    points = [(-0.5 + k / 5, dice.uniform(-0.12, 0.12)) for k in range(6)]
    twist = texture(dice, "stripes", shade(colour, 0.6), 0.028, 0.8, 0.7)
    return [Part((stroke(curve(points, 8), dice.uniform(0.022, 0.045)),), colour, 0.014, 0.2, twist)]


def stone(dice: Dice) -> list[Part]:
    """A rounded stone, speckled."""
    flat = dice.uniform(0.3, 0.5)
    corners = dice.whole(6, 9)
    points = []
    for k in range(corners):
        angle, reach = 2 * math.pi * k / corners, dice.uniform(0.8, 1.0)
        points.append((0.5 * reach * math.cos(angle), flat * reach * math.sin(angle)))
    colour = near(dice, dice.pick([0.08, 0.6, 0.1]), 0.04, 0.16, 0.58)
    return [Part((smooth(points),), colour, 0.16, 0.15, texture(dice, "clouds", shade(colour, 0.62), 0.07, 0.5, 0.9))]


def grass(dice: Dice) -> list[Part]:
    """A tuft of blades that rise from one foot."""
    parts = []
    hue = dice.pick([0.27, 0.23, 0.14])
    for _ in range(dice.whole(7, 12)):
        foot, lean = dice.uniform(-0.1, 0.1), dice.uniform(-0.4, 0.4)
        high = dice.uniform(0.55, 0.98)
        path = curve([(foot, 0.5), (foot + lean * 0.3, 0.5 - high * 0.55), (foot + lean, 0.5 - high)], 6)
        blade = stroke(path, partial(_tapered, dice.uniform(0.035, 0.06)))
        parts.append(Part((blade,), near(dice, hue, 0.03, 0.6, 0.5), 0.018, 0.15))
    return parts


def _tapered(width: float, t: float) -> float:
    return width * (1.02 - t)


def twig(dice: Dice) -> list[Part]:
    """A fir twig: a stem with needles on both sides."""
    bend = dice.uniform(-0.12, 0.12)
    colour = near(dice, 0.36, 0.04, 0.5, 0.42)
    needles: list[Ring] = []
    for k in range(22):
        x = -0.42 + 0.9 * k / 22
        y = bend * (1 - (2 * x) ** 2)
        reach = 0.15 * (1.15 - abs(x + 0.1))
        for side in (-1, 1):
            tip = (x + 0.07, y + side * reach * dice.uniform(0.85, 1.1))
            needles.append(
                stroke([(x, y), ((x + tip[0]) / 2 - 0.008, (y + tip[1]) / 2), tip], lambda t: 0.024 - 0.016 * t)
            )
    stem = stroke(curve([(x / 8, bend * (1 - (x / 4) ** 2)) for x in range(-4, 5)], 3), 0.024)
    return [
        Part((stem,), (104.0, 74.0, 50.0), 0.01),
        Part(tuple(needles), colour, 0.012, 0.1, texture(dice, "clouds", shade(colour, 1.35), 0.1, 0.4, 0.8)),
    ]


def paper(dice: Dice) -> list[Part]:
    """A sheet of paper or card with one torn side and printed lines."""
    high = dice.uniform(0.28, 0.45)
    torn = [(-0.5 + k / 12, -high + dice.uniform(-0.035, 0.035)) for k in range(13)]
    colour = mixed(PAPER, vivid(dice), dice.uniform(0.0, 0.45))
    lines = tuple(
        box(-0.4, y * high, dice.uniform(0.05, 0.4), y * high + 0.018) for y in (-0.6, -0.35, -0.1, 0.15, 0.4, 0.65)
    )
    return [
        Part(
            (ring([*torn, (0.5, high), (-0.5, high)]),),
            colour,
            0.008,
            0.0,
            texture(dice, "clouds", shade(colour, 0.86), 0.25, 0.3, 0.8),
        ),
        Part(lines, mixed(colour, INK, 0.55), 0.0, marking=True),
    ]


def tape(dice: Dice) -> list[Part]:
    """A flat strip of patterned ribbon with notched ends."""
    half, colour = dice.uniform(0.05, 0.085), vivid(dice)
    strip = ring([(-0.5, -half), (0.5, -half), (0.46, 0.0), (0.5, half), (-0.5, half), (-0.46, 0.0)])
    look = texture(
        dice,
        dice.pick(["stripes", "dots", "checks"]),
        mixed(vivid(dice), PAPER, 0.4),
        dice.uniform(0.06, 0.12),
        0.7854,
        0.85,
    )
    return [Part((strip,), colour, 0.012, 0.3, look)]


def washer(dice: Dice) -> list[Part]:
    """A metal ring or a coin."""
    colour = metal(dice)
    rings = [ellipse(0, 0, 0.5, 0.5)]
    if dice.chance(0.5):
        rings.append(hole(ellipse(0, 0, 0.24, 0.24)))
    return [
        Part(tuple(rings), colour, 0.09, 0.6),
        Part((ellipse(0, 0, 0.4, 0.4), hole(ellipse(0, 0, 0.34, 0.34))), shade(colour, 0.75), 0.0, marking=True),
    ]


def crayon(dice: Dice) -> list[Part]:
    """A crayon with a paper sleeve."""
    colour = vivid(dice)
    return [
        Part((box(-0.5, -0.05, 0.36, 0.05, 0.01),), colour, 0.04, 0.3),
        Part((ring([(0.36, -0.042), (0.48, -0.014), (0.48, 0.014), (0.36, 0.042)]),), shade(colour, 0.85), 0.03, 0.3),
        Part((box(-0.42, -0.06, 0.28, 0.06),), mixed(colour, PAPER, 0.55), 0.0, marking=True),
    ]


def shard(dice: Dice) -> list[Part]:
    """A chip of something: three to five straight sides."""
    corners = dice.whole(3, 5)
    angles = [2 * math.pi * (k + dice.uniform(-0.25, 0.25)) / corners for k in range(corners)]
    return [Part((moved(ring([(math.cos(a), math.sin(a)) for a in angles]), scale=0.5),), vivid(dice), 0.05, 0.3)]


Maker = Callable[[Dice], list[Part]]

# Large enough to hide a good part of an object, with the range of their length as a share of the picture.
OCCLUDERS: tuple[tuple[Maker, float, float], ...] = (
    (plank, 0.55, 1.3),
    (plank, 0.55, 1.3),
    (rope, 0.5, 1.1),
    (stone, 0.12, 0.26),
    (grass, 0.25, 0.5),
    (grass, 0.25, 0.5),
    (twig, 0.3, 0.6),
    (paper, 0.16, 0.34),
    (tape, 0.3, 0.8),
)

# Small things that lie about on the ground, under all objects.
LITTER: tuple[tuple[Maker, float, float], ...] = (
    (stone, 0.03, 0.09),
    (washer, 0.03, 0.07),
    (crayon, 0.1, 0.2),
    (shard, 0.03, 0.08),
    (rope, 0.2, 0.6),
    (twig, 0.15, 0.4),
    (paper, 0.1, 0.35),
    (tape, 0.15, 0.4),
)
