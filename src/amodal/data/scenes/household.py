"""Shape families of things from a house: cup, key, bottle, umbrella, pear, mushroom.

Each takes dice and returns parts; outlines vary within a family, but a part of one tells much about the rest.
"""

from __future__ import annotations

import math

from amodal.data.scenes.dice import Dice
from amodal.data.scenes.outlines import Ring, box, curve, ellipse, hole, moved, profile, ring, smooth, stroke
from amodal.data.scenes.paint import Part, mixed, shade, texture
from amodal.data.scenes.palette import INK, PAPER, coat, metal, near, vivid


def cup(dice: Dice) -> list[Part]:
    """A mug or tea cup: bowl, handle with a hole, rim with the dark inside."""
    top, height = dice.uniform(0.27, 0.34), dice.uniform(0.52, 0.78)
    foot, belly = top * dice.uniform(0.6, 1.0), dice.uniform(-0.02, 0.05)
    y0, y1 = -height / 2, height / 2
    colour = vivid(dice)
    reach, tall, thick = dice.uniform(0.15, 0.22), height * dice.uniform(0.24, 0.33), dice.uniform(0.055, 0.085)
    middle = y0 + height * dice.uniform(0.4, 0.52)
    edge = (top + foot) / 2 + belly - 0.02
    grip = [ellipse(edge, middle, reach, tall), hole(ellipse(edge, middle, reach - thick, tall - thick))]
    bend = 0.055
    bowl = profile(
        [(y0, top), (y0 + height * 0.35, top * 0.65 + foot * 0.35 + belly), (y1 - height * 0.15, foot + belly * 0.8),
         (y1 - 0.01, foot * 0.86), (y1 + bend * 0.5, foot * 0.45), (y1 + bend * 0.6, 0.0)]
    )  # fmt: skip
    rim = ellipse(0, y0, top, bend)
    parts = [
        Part(tuple(grip), shade(colour, 0.95), 0.03, 0.4),
        Part((bowl, rim), colour, 0.13, 0.45, coat(dice, colour, 0.35)),
        Part((rim,), shade(colour, 1.2), 0.0),
        Part((ellipse(0, y0 + 0.006, top - 0.028, bend - 0.017),), shade(colour, 0.4), 0.0, marking=True),
    ]
    if dice.chance(0.6):
        drink = dice.pick([(70.0, 40.0, 22.0), (150.0, 88.0, 30.0), (225.0, 214.0, 196.0)])
        parts.append(Part((ellipse(0, y0 + 0.016, top - 0.05, bend - 0.026),), drink, 0.0, marking=True))
    if dice.chance(0.5):
        band = y0 + height * dice.uniform(0.62, 0.8)
        stripe = ring(
            [
                *curve([(-0.5, band), (0, band + 0.045), (0.5, band)]),
                *curve([(0.5, band + 0.07), (0, band + 0.115), (-0.5, band + 0.07)]),
            ]
        )
        inner = ring([(x, min(max(y, y0), y1)) for x, y in stripe])
        parts.append(Part((inner,), mixed(PAPER, vivid(dice), dice.uniform(0, 0.6)), 0.0, marking=True))
    return parts


def _bow(dice: Dice, size: float) -> tuple[list[Ring], list[Ring]]:
    """The grip of a key round the origin: its outlines and the holes in it."""
    kind = dice.whole(0, 3)
    if kind == 0:
        inner = size * dice.uniform(0.45, 0.65)
        return [ellipse(0, 0, size, size)], [ellipse(0, 0, inner, inner)]
    if kind == 1:
        return [box(-size * 0.9, -size, size * 0.9, size, size * 0.4)], [
            ellipse(-size * 0.35, 0, size * 0.25, size * 0.5)
        ]
    if kind == 2:
        k = size * 0.58
        spots = [(-k * 0.9, 0.0), (0.1 * k, -k * 0.95), (0.1 * k, k * 0.95)]
        return [ellipse(x, y, k, k) for x, y in spots], [ellipse(x, y, k * 0.5, k * 0.5) for x, y in spots]
    sides = dice.whole(5, 8)
    corners = [
        (size * 1.05 * math.cos(2 * math.pi * i / sides), size * 1.05 * math.sin(2 * math.pi * i / sides))
        for i in range(sides)
    ]
    return [ring(corners)], [ellipse(0, 0, size * 0.45, size * 0.45)]


def key(dice: Dice) -> list[Part]:
    """A key: bow with holes, shaft with a collar, bit with teeth."""
    colour, size = metal(dice), dice.uniform(0.15, 0.21)
    outer, holes = _bow(dice, size)
    centre = -0.5 + size
    half = dice.uniform(0.028, 0.042)
    end = 0.5
    # Between the rings of a clover the shaft has to reach the middle of the bow.
    shaft = box(centre + size * (0.0 if len(outer) > 1 else 0.7), -half, end, half, half)
    rings = [*[moved(r, centre) for r in outer]]
    teeth = []
    x, side = end - 0.03, 1
    for _ in range(dice.whole(2, 4)):
        wide, deep = dice.uniform(0.04, 0.075), dice.uniform(0.07, 0.16)
        teeth.append(box(x - wide, 0.0, x, side * (half + deep)))
        x -= wide + dice.uniform(0.012, 0.035)
    collar = centre + size + dice.uniform(0.02, 0.06)
    relief = 0.022
    shine = texture(dice, "clouds", shade(colour, 0.62), 0.15, 0.6, 0.6)
    return [
        Part(tuple(teeth), shade(colour, 0.93), relief, 0.5, shine),
        Part((shaft,), colour, relief, 0.7, shine),
        Part((box(collar, -half * 1.9, collar + 0.03, half * 1.9, 0.012),), shade(colour, 1.1), relief, 0.6),
        Part((*rings, *[hole(moved(h, centre)) for h in holes]), colour, 0.035, 0.7, shine),
    ]


def bottle(dice: Dice) -> list[Part]:
    """A bottle: body, shoulder, neck, cap, label, level of the liquid."""
    wide, neck = dice.uniform(0.13, 0.2), dice.uniform(0.042, 0.065)
    shoulder, throat = dice.uniform(-0.16, 0.05), 0.0
    throat = shoulder - dice.uniform(0.08, 0.2)
    waist = wide * dice.uniform(0.82, 1.0)
    body = profile(
        [(-0.44, neck), (throat, neck * 1.1), ((throat + shoulder) / 2, (wide + neck) * 0.5), (shoulder, wide),
         (0.2, waist), (0.42, wide), (0.485, wide * 0.85), (0.5, wide * 0.4), (0.5, 0.0)]
    )  # fmt: skip
    colour = near(dice, dice.pick([0.36, 0.1, 0.55, 0.07, 0.97, 0.22]), 0.04, 0.55, 0.58)
    label = mixed(PAPER, vivid(dice), dice.uniform(0.0, 0.5))
    low, high = shoulder + dice.uniform(0.04, 0.1), dice.uniform(0.28, 0.38)
    level = throat + dice.uniform(0.0, 0.12)
    parts = [
        Part((body,), colour, 0.1, 0.8, texture(dice, "clouds", shade(colour, 1.2), 0.2, 0.6, 0.4)),
        Part(
            (box(-neck * 0.62, throat - 0.03, -neck * 0.2, shoulder + 0.05, 0.02),),
            shade(colour, 1.35),
            0.0,
            marking=True,
        ),
        Part((box(-0.3, level, 0.3, low),), shade(colour, 0.6), 0.06, 0.3, marking=True),
        Part((box(-0.3, low, 0.3, high),), label, 0.0, 0.0, coat(dice, label, 0.5), marking=True),
        Part((ellipse(0, (low + high) / 2, wide * 0.55, (high - low) * 0.3),), vivid(dice), 0.0, marking=True),
        Part((box(-neck * 1.25, -0.5, neck * 1.25, -0.41, 0.015),), vivid(dice), 0.025, 0.4),
    ]
    return parts


def umbrella(dice: Dice) -> list[Part]:
    """An open umbrella from the side: canopy of panels with a scalloped hem, tip, stick, hooked grip."""
    half, dome, panels = dice.uniform(0.42, 0.5), dice.uniform(0.3, 0.46), dice.whole(4, 7)
    hem = -0.02
    first = vivid(dice)
    second = mixed(vivid(dice), PAPER, 0.3) if dice.chance(0.65) else shade(first, 0.8)
    lean = dice.uniform(1.7, 2.5)

    def line(share: float) -> list[tuple[float, float]]:
        """A rib from the top to the hem at `share` -1..1 of the width."""
        return [
            (half * share * math.sin(t * math.pi / 16), hem - dome * math.cos(t * math.pi / 16) ** (2 / lean))
            for t in range(9)
        ]

    parts = []
    hook = dice.uniform(0.05, 0.075)
    grip = [(0.0, hem - dome * 0.5), (0.0, 0.42)] + [
        (hook - hook * math.cos(a), 0.42 + hook * math.sin(a)) for a in (0.5, 1.0, 1.57, 2.1, 2.7, 3.2)
    ]
    parts.append(Part((stroke(curve(grip), 0.028),), near(dice, 0.08, 0.03, 0.5, 0.5), 0.014, 0.4))
    parts.append(Part((stroke([(0.0, hem - dome - 0.05), (0.0, hem - dome + 0.03)], 0.022),), INK, 0.01))
    edges = [math.sin((k / panels - 0.5) * math.pi) for k in range(panels + 1)]
    for k in range(panels):
        a, b = edges[k], edges[k + 1]
        left, right = line(a), line(b)
        sag = 0.05 * (b - a) / (2 / panels)
        arc = [(half * (a + (b - a) * t), hem - sag * math.sin(t * math.pi)) for t in (0.2, 0.4, 0.6, 0.8)]
        panel = ring([*left, *arc, *reversed(right)])
        parts.append(Part((panel,), first if k % 2 else second, 0.05, 0.25))
    return parts


def pear(dice: Dice) -> list[Part]:
    """An apple or pear: body between round and long, stem, leaf, spots."""
    long = dice.uniform(0.0, 1.0)
    wide = 0.4 - 0.08 * long
    top = -0.3 - 0.04 * long
    body = profile(
        [(top + 0.03 * (1 - long), 0.0), (top, 0.06 + 0.04 * (1 - long)), (top + 0.07, wide * (0.72 - 0.42 * long)),
         (-0.05 + 0.04 * long, wide * (1.02 - 0.36 * long)), (0.16 + 0.05 * long, wide),
         (0.36, wide * 0.78), (0.45, wide * 0.4), (0.45, 0.0)]
    )  # fmt: skip
    colour = near(dice, dice.pick([0.0, 0.12, 0.2, 0.28]), 0.03, 0.7, 0.82)
    lean = dice.uniform(-0.08, 0.08)
    stem = curve([(0, top + 0.05), (lean * 0.3, top - 0.06), (lean, top - 0.15)])
    leaf = moved(
        smooth([(0, 0), (0.09, -0.06), (0.24, 0), (0.09, 0.06)]),
        lean * 0.25 - 0.015,
        top - 0.05,
        dice.uniform(-0.9, 0.2),
    )
    blush = near(dice, 0.02, 0.04, 0.7, 0.8)
    parts = [
        Part((stroke(stem, lambda t: 0.03 + 0.018 * t),), (92.0, 62.0, 36.0), 0.012, 0.1),
        Part((body,), colour, 0.16, 0.6, texture(dice, "clouds", mixed(colour, blush, 0.7), 0.3, 0.6, 0.9)),
        Part((ellipse(0, top + 0.06, 0.07, 0.03),), shade(colour, 0.62), 0.0, marking=True),
    ]
    if dice.chance(0.75):
        parts.append(Part((leaf,), near(dice, 0.3, 0.03, 0.6, 0.55), 0.025, 0.2))
    return parts


def mushroom(dice: Dice) -> list[Part]:
    """A mushroom: domed cap with spots, gills below, swelling stem, sometimes a skirt."""
    half, dome = dice.uniform(0.34, 0.5), dice.uniform(0.26, 0.46)
    brim = -0.5 + dome
    point = dice.uniform(0.55, 0.95)
    cap = smooth(
        [(-half, brim), (-half * 0.8, brim - dome * 0.6), (-half * 0.35 * point, -0.48), (half * 0.35 * point, -0.48),
         (half * 0.8, brim - dome * 0.6), (half, brim),
         (half * 0.6, brim + 0.075), (0, brim + 0.1), (-half * 0.6, brim + 0.075)]
    )  # fmt: skip
    stalk, swell = dice.uniform(0.07, 0.12), dice.uniform(1.0, 1.9)
    bottom = dice.uniform(0.36, 0.5)
    stem = profile(
        [
            (brim, stalk),
            ((brim + bottom) / 2, stalk * 1.05),
            (bottom - 0.07, stalk * swell),
            (bottom, stalk * swell * 0.6),
            (bottom, 0.0),
        ]
    )
    flesh = near(dice, 0.1, 0.03, 0.18, 0.88)
    colour = near(dice, dice.pick([0.0, 0.06, 0.1, 0.04, 0.95]), 0.03, 0.66, 0.75)
    parts = [
        Part((stem,), flesh, 0.07, 0.1, texture(dice, "grain", shade(flesh, 0.8), 0.1, 1.57, 0.7)),
        Part((cap,), colour, 0.13, 0.35, texture(dice, "clouds", shade(colour, 0.7), 0.2, 0.6, 0.6)),
        Part(
            (ellipse(0, brim + 0.05, half * 0.72, 0.045),),
            shade(flesh, 0.62),
            0.0,
            texture=texture(dice, "stripes", shade(flesh, 0.45), 0.03, 0.0, 0.7),
            marking=True,
        ),
    ]
    if dice.chance(0.4):
        low = brim + 0.15
        parts.insert(
            1,
            Part(
                (
                    ring(
                        [
                            (-stalk, low - 0.05),
                            (stalk, low - 0.05),
                            (stalk * 1.7, low + 0.05),
                            (0, low + 0.075),
                            (-stalk * 1.7, low + 0.05),
                        ]
                    ),
                ),
                shade(flesh, 1.05),
                0.02,
            ),
        )
    if dice.chance(0.65):
        pale = mixed(PAPER, colour, dice.uniform(0, 0.3))
        spots = []
        for k in range(dice.whole(4, 8)):
            x = half * dice.uniform(-0.75, 0.75)
            lift = 1 - (x / half) ** 2
            size = dice.uniform(0.025, 0.06)
            spots.append(ellipse(x, brim - dome * lift * dice.uniform(0.15, 0.8) + 0.01 * k % 0.02, size * 1.2, size))
        parts.append(Part(tuple(spots), pale, 0.015, 0.2, marking=True))
    return parts
