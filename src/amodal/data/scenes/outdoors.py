"""Shape families of things from outdoors: fish, car, leaf, sailboat, house, rocket."""

from __future__ import annotations

import math

from amodal.data.scenes.dice import Dice
from amodal.data.scenes.outlines import Ring, box, curve, ellipse, hole, profile, ring, smooth, stroke
from amodal.data.scenes.paint import Part, mixed, shade, texture
from amodal.data.scenes.palette import INK, PAPER, coat, near, vivid

GLASS = (168.0, 205.0, 226.0)


def fish(dice: Dice) -> list[Part]:
    """A fish that looks left: body, tail, fins, eye, gill, coat of scales or bars."""
    half, deep = dice.uniform(0.3, 0.35), dice.uniform(0.13, 0.24)
    peak, stem = dice.uniform(-0.14, 0.0), deep * dice.uniform(0.22, 0.34)
    nose = -0.5
    tail = nose + 2 * half
    body = smooth(
        [(nose, 0.02), (nose + 0.1, -deep * 0.62), (peak, -deep), (peak + 0.2, -deep * 0.7), (tail, -stem),
         (tail + 0.03, 0), (tail, stem), (peak + 0.2, deep * 0.72), (peak, deep * 0.95), (nose + 0.1, deep * 0.6)]
    )  # fmt: skip
    colour = vivid(dice)
    fin = mixed(colour, vivid(dice), dice.uniform(0.3, 1.0))
    rays = texture(dice, "stripes", shade(fin, 0.7), 0.035, 0.2, 0.6)
    span, notch = deep * dice.uniform(0.75, 1.2), dice.uniform(-0.03, 0.11)
    fork = smooth(
        [
            (tail - 0.03, -stem * 0.7),
            (0.42, -span * 0.8),
            (0.5, -span),
            (0.5 - notch, 0),
            (0.5, span),
            (0.42, span * 0.8),
            (tail - 0.03, stem * 0.7),
        ],
        4,
    )
    rise = deep * dice.uniform(0.45, 0.85)
    back = smooth(
        [
            (peak - 0.1, -deep * 0.8),
            (peak + 0.02, -deep - rise),
            (peak + 0.17, -deep - rise * 0.75),
            (peak + 0.26, -deep * 0.45),
            (peak + 0.05, -deep * 0.6),
        ],
        4,
    )
    under = smooth(
        [
            (peak + 0.02, deep * 0.75),
            (peak + 0.1, deep + rise * 0.7),
            (peak + 0.2, deep + rise * 0.5),
            (peak + 0.22, deep * 0.5),
        ],
        4,
    )
    eye = (nose + dice.uniform(0.1, 0.14), -deep * 0.25)
    size = deep * dice.uniform(0.17, 0.24)
    gill = nose + 0.23
    side = smooth([(gill + 0.04, 0.0), (gill + 0.17, -0.025), (gill + 0.2, 0.05), (gill + 0.13, 0.085)], 4)
    scales = dice.pick(["stripes", "stripes", "dots", "dots", "clouds"])
    look = texture(
        dice,
        scales,
        mixed(vivid(dice), PAPER, 0.3),
        dice.uniform(0.07, 0.2),
        dice.uniform(-0.3, 0.3),
        dice.uniform(0.6, 0.95),
    )
    return [
        Part((fork,), fin, 0.02, 0.1, rays),
        Part((back, under), fin, 0.02, 0.1, rays),
        Part((body,), colour, 0.1, 0.5, look),
        Part(
            (stroke(curve([(gill, -deep * 0.55), (gill + 0.045, 0), (gill, deep * 0.55)]), 0.016),),
            shade(colour, 0.5),
            0.0,
            marking=True,
        ),
        Part((side,), shade(fin, 0.9), 0.015, 0.1, marking=True),
        Part((ellipse(*eye, size, size),), (246.0, 244.0, 235.0), 0.0, marking=True),
        Part((ellipse(eye[0] - size * 0.2, eye[1], size * 0.58, size * 0.58),), INK, 0.01, 0.6, marking=True),
        Part(
            (stroke([(nose - 0.01, deep * 0.2), (nose + 0.055, deep * 0.24)], 0.014),),
            shade(colour, 0.4),
            0.0,
            marking=True,
        ),
    ]


def _wheel(x: float, y: float, size: float, dice: Dice) -> list[Part]:
    rim = size * dice.uniform(0.52, 0.68)
    return [
        Part((ellipse(x, y, size, size),), INK, 0.025, 0.2),
        Part((ellipse(x, y, rim, rim),), (186.0, 188.0, 194.0), 0.02, 0.5, marking=True),
        Part((ellipse(x, y, rim * 0.35, rim * 0.35),), (90.0, 92.0, 98.0), 0.0, marking=True),
    ]


def car(dice: Dice) -> list[Part]:
    """A car from the side, front to the left: body, cabin (saloon, hatch, van, pickup), windows, wheels, lights."""
    kind = dice.pick(["saloon", "hatch", "van", "pickup"])
    wheel = dice.uniform(0.085, 0.11)
    belt, roof = dice.uniform(-0.06, -0.02), dice.uniform(-0.25, -0.2) - (0.05 if kind == "van" else 0.0)
    sill = 0.13
    x0, x1 = {"saloon": (-0.26, 0.38), "hatch": (-0.24, 0.46), "van": (-0.4, 0.48), "pickup": (-0.24, 0.1)}[kind]
    rake, tail = dice.uniform(0.1, 0.17), {"saloon": 0.14, "hatch": 0.07, "van": 0.02, "pickup": 0.03}[kind]
    bonnet = belt + dice.uniform(0.0, 0.04)
    colour = vivid(dice)
    hull = smooth(
        [(-0.5, sill - 0.02), (-0.5, bonnet + 0.08), (-0.46, bonnet + 0.02), (x0, belt), (0.4, belt),
         (0.49, belt + 0.02),
         (0.5, sill - 0.03), (0.48, sill), (0.2, sill + 0.005), (-0.2, sill + 0.005), (-0.48, sill)], 4
    )  # fmt: skip
    cabin = ring(
        [
            (x0, belt + 0.04),
            (x0 + rake * 0.9, roof + 0.015),
            (x0 + rake * 1.15, roof),
            (x1 - tail * 1.2, roof),
            (x1 - tail * 0.9, roof + 0.015),
            (x1, belt + 0.04),
        ]
    )
    gap, frame = 0.022, 0.03
    a, b = x0 + rake + gap * 0.6, x1 - tail - gap * 0.6
    post = (a + b) / 2 + dice.uniform(-0.04, 0.04)
    top, low = roof + frame, belt - 0.004
    slant = rake * 0.85
    panes: list[Ring] = [
        ring([(a - slant * 0.72, low), (a + 0.012, top), (post - gap / 2, top), (post - gap / 2, low)]),
        ring([(post + gap / 2, low), (post + gap / 2, top), (b - 0.01, top), (b + tail * 0.65, low)]),
    ]
    front, rear = -0.5 + dice.uniform(0.17, 0.21), 0.5 - dice.uniform(0.17, 0.21)
    door = stroke([(post, low), (post, sill - 0.03)], 0.009)
    parts = [
        Part((cabin,), shade(colour, 1.03 if dice.chance(0.7) else 0.5), 0.03, 0.4),
        Part((hull,), colour, 0.05, 0.6, texture(dice, "clouds", shade(colour, 0.85), 0.3, 0.6, 0.4)),
        Part(tuple(panes), mixed(GLASS, INK, dice.uniform(0.0, 0.55)), 0.02, 0.7, marking=True),
        Part((door,), shade(colour, 0.55), 0.0, marking=True),
        Part(
            (stroke([(post + 0.035, belt + 0.045), (post + 0.075, belt + 0.045)], 0.012),),
            shade(colour, 0.45),
            0.0,
            marking=True,
        ),
        Part((box(-0.5, sill - 0.035, 0.5, sill + 0.01),), shade(colour, 0.5), 0.0, marking=True),
        Part((ellipse(-0.475, bonnet + 0.075, 0.03, 0.022),), (255.0, 240.0, 190.0), 0.01, 0.6, marking=True),
        Part((box(0.465, belt + 0.035, 0.51, belt + 0.085, 0.01),), (205.0, 40.0, 40.0), 0.0, marking=True),
        Part(
            (ellipse(front, sill, wheel * 1.22, wheel * 1.22), ellipse(rear, sill, wheel * 1.22, wheel * 1.22)),
            shade(colour, 0.35),
            0.0,
            marking=True,
        ),
    ]
    if dice.chance(0.3):
        parts.insert(3, Part((box(-0.5, belt + 0.07, 0.5, belt + 0.11),), PAPER, 0.0, marking=True))
    return [*parts, *_wheel(front, sill, wheel, dice), *_wheel(rear, sill, wheel, dice)]


def leaf(dice: Dice) -> list[Part]:
    """A leaf on its stalk: from narrow to round, smooth, toothed or lobed; midrib and side veins."""
    wide, belly = dice.uniform(0.17, 0.34), dice.uniform(0.75, 1.25)
    kind, count = dice.whole(0, 2), dice.whole(5, 8)
    depth = (0.0, 0.12, 0.4)[kind]
    teeth = (0, 3 * count, count)[kind]
    start, tip = 0.3, -0.5
    length = start - tip

    def width(t: float) -> float:
        base = wide * (math.sin(math.pi * t**belly) ** 0.8 if 0 < t < 1 else 0.0)
        wave = (t * teeth / 2) % 1.0
        return base * (1 - depth * (wave if kind == 1 else abs(2 * wave - 1) ** 1.5))

    bend = dice.uniform(-0.07, 0.07)

    def axis(t: float) -> float:
        return bend * math.sin(math.pi * t)

    side = [(k / 48, width(k / 48)) for k in range(49)]
    blade = ring(
        [
            *[(axis(t) + w, start - length * t) for t, w in side],
            *[(axis(t) - w, start - length * t) for t, w in reversed(side)],
        ]
    )
    hue = dice.pick([0.3, 0.27, 0.22, 0.12, 0.06, 0.0])
    colour = near(dice, hue, 0.025, 0.62, 0.68)
    vein = mixed(shade(colour, 1.3), PAPER, 0.25) if dice.chance(0.6) else shade(colour, 0.6)
    veins = [
        stroke(curve([(axis(t), start - length * t) for t in (0.0, 0.25, 0.5, 0.75, 0.97)]), lambda t: 0.018 - 0.01 * t)
    ]
    for k in range(1, count):
        t = 0.06 + 0.8 * k / count
        y = start - length * t
        reach = width(min(1.0, t + 0.12)) * 0.86
        for s in (-1, 1):
            path = [(axis(t), y), (axis(t) + s * reach * 0.5, y - 0.05), (axis(t) + s * reach, y - 0.115)]
            veins.append(stroke(curve(path, 3), 0.009))
    stalk = stroke(
        curve([(0, start - 0.04), (bend * 0.4, 0.4), (bend * 1.4 + dice.uniform(-0.05, 0.05), 0.5)]),
        lambda t: 0.022 + 0.014 * t,
    )
    return [
        Part((stalk,), shade(colour, 0.72), 0.012, 0.1),
        Part((blade,), colour, 0.05, 0.3, texture(dice, "clouds", near(dice, hue, 0.05, 0.6, 0.5), 0.14, 0.6, 0.8)),
        Part(tuple(veins), vein, 0.0, marking=True),
    ]


def sailboat(dice: Dice) -> list[Part]:
    """A sailing boat: hull, mast, main sail, jib, pennant."""
    half, deck = dice.uniform(0.36, 0.48), dice.uniform(0.2, 0.27)
    keel = 0.46
    hull = ring(
        [
            *curve([(-half, deck - 0.02), (0, deck + 0.03), (half, deck - 0.03)]),
            *curve(
                [
                    (half, deck - 0.03),
                    (half * 0.72, keel - 0.04),
                    (half * 0.4, keel),
                    (-half * 0.5, keel),
                    (-half * 0.82, keel - 0.06),
                    (-half, deck - 0.02),
                ]
            ),
        ]
    )
    mast, top = dice.uniform(-0.1, 0.06), -0.5
    foot = deck - 0.05
    back, fore = half * dice.uniform(0.75, 1.0), half * dice.uniform(0.6, 0.95)
    belly = dice.uniform(0.03, 0.1)
    main = ring(
        [
            *curve([(mast + 0.002, top + 0.04), (mast + back * 0.5 + belly, (top + foot) * 0.4), (mast + back, foot)]),
            *curve([(mast + back, foot), (mast + back * 0.5, foot + 0.02), (mast + 0.002, foot)]),
        ]
    )
    high = top + dice.uniform(0.05, 0.2)
    jib = ring(
        [
            *curve(
                [
                    (mast - 0.002, high),
                    (mast - fore * 0.5 - belly * 0.6, (high + foot) * 0.45),
                    (mast - fore, foot + 0.01),
                ]
            ),
            *curve([(mast - fore, foot + 0.01), (mast - fore * 0.5, foot - 0.01), (mast - 0.004, foot - 0.02)]),
        ]
    )
    colour, cloth = vivid(dice), mixed(PAPER, vivid(dice), dice.uniform(0.0, 0.8))
    seams = texture(
        dice, "stripes", mixed(cloth, vivid(dice), 0.6), dice.uniform(0.12, 0.3), 1.45, dice.uniform(0.2, 0.9)
    )
    flag = ring([(mast, top - 0.005), (mast + 0.1, top + 0.022), (mast, top + 0.05)])
    return [
        Part((jib,), shade(cloth, 0.93), 0.06, 0.1),
        Part((main,), cloth, 0.07, 0.1, seams),
        Part((stroke([(mast, top), (mast, deck + 0.05)], 0.022),), (120.0, 84.0, 52.0), 0.01, 0.2),
        Part((flag,), vivid(dice), 0.0),
        Part((hull,), colour, 0.06, 0.4, texture(dice, "grain", shade(colour, 0.7), 0.16, 0.0, 0.7)),
        Part(
            (stroke(curve([(-half, deck + 0.045), (0, deck + 0.085), (half, deck + 0.035)]), 0.028),),
            PAPER,
            0.0,
            marking=True,
        ),
    ]


def house(dice: Dice) -> list[Part]:
    """A house front: wall, gable or hipped roof with eaves, chimney, door, windows in a row."""
    half, eaves = dice.uniform(0.27, 0.38), dice.uniform(-0.16, 0.0)
    top = eaves - dice.uniform(0.24, 0.36)
    bottom = 0.46
    over, ridge = half + dice.uniform(0.05, 0.11), half * dice.pick([0.0, 0.0, 0.35, 0.6])
    roof = ring(
        [
            (-over, eaves + 0.03),
            (-ridge, top),
            (ridge, top),
            (over, eaves + 0.03),
            (over - 0.02, eaves + 0.07),
            (-over + 0.02, eaves + 0.07),
        ]
    )
    wall, tile = (
        mixed(vivid(dice), PAPER, dice.uniform(0.3, 0.75)),
        near(dice, dice.pick([0.02, 0.06, 0.6, 0.95]), 0.03, 0.6, 0.55),
    )
    at = dice.sign() * half * dice.uniform(0.4, 0.62)
    stack = box(at - 0.045, top + 0.02 - dice.uniform(0.0, 0.06), at + 0.045, eaves)
    brick = texture(dice, dice.pick(["checks", "stripes", "clouds"]), shade(wall, 0.82), 0.07, 1.5708, 0.6)
    way = half * dice.uniform(-0.5, 0.5)
    door = box(way - 0.065, 0.2, way + 0.065, bottom, 0.02)
    frames, panes = [], []
    rows = [eaves + 0.16] if eaves > -0.09 else [eaves + 0.14, eaves + 0.38]
    for y in rows:
        for x in (-half * 0.6, half * 0.6) if half < 0.32 else (-half * 0.66, 0.0, half * 0.66):
            if y > 0.1 and abs(x - way) < 0.15:
                continue
            frames.append(box(x - 0.06, y - 0.065, x + 0.06, y + 0.065))
            panes.extend(
                [box(x - 0.048, y - 0.053, x - 0.006, y + 0.053), box(x + 0.006, y - 0.053, x + 0.048, y + 0.053)]
            )
    return [
        Part((stack,), near(dice, 0.03, 0.02, 0.5, 0.55), 0.02, 0.05),
        Part((box(-half, eaves, half, bottom),), wall, 0.04, 0.05, brick),
        Part((roof,), tile, 0.04, 0.1, texture(dice, "stripes", shade(tile, 0.7), 0.055, 1.5708, 0.7)),
        Part(tuple(frames), PAPER, 0.012, 0.1, marking=True),
        Part(tuple(panes), mixed(GLASS, INK, dice.uniform(0.2, 0.7)), 0.0, marking=True),
        Part((door,), vivid(dice), 0.02, 0.2, marking=True),
        Part((ellipse(way + 0.04, 0.34, 0.012, 0.012),), (230.0, 200.0, 90.0), 0.0, marking=True),
    ]


def rocket(dice: Dice) -> list[Part]:
    """A toy rocket: pointed body, nose cone, portholes, fins, nozzle, sometimes a flame."""
    wide, low = dice.uniform(0.1, 0.16), dice.uniform(0.26, 0.34)
    body = profile([(-0.5, 0.0), (-0.4, wide * 0.5), (-0.24, wide * 0.9), (0.0, wide), (low, wide * 0.72)])
    colour, accent = mixed(vivid(dice), PAPER, dice.uniform(0.1, 0.7)), vivid(dice)
    reach, root = dice.uniform(0.12, 0.2), dice.uniform(0.0, 0.1)
    fins = [
        ring(
            [
                *curve(
                    [(s * wide * 0.8, root), (s * (wide + reach * 0.7), root + 0.16), (s * (wide + reach), low + 0.1)]
                ),
                (s * wide * 0.6, low),
            ]
        )
        for s in (-1, 1)
    ]
    nozzle = ring(
        [(-wide * 0.5, low - 0.01), (wide * 0.5, low - 0.01), (wide * 0.65, low + 0.055), (-wide * 0.65, low + 0.055)]
    )
    parts = [
        Part((nozzle,), (92.0, 94.0, 102.0), 0.02, 0.4),
        Part(tuple(fins), accent, 0.03, 0.3),
        Part((body,), colour, 0.09, 0.5, coat(dice, colour, 0.6)),
        Part((box(-0.3, -0.6, 0.3, -0.27),), accent, 0.05, 0.4, marking=True),
        Part(
            (smooth([(-0.022, root + 0.04), (0, root - 0.05), (0.022, root + 0.04), (0.02, low), (-0.02, low)]),),
            accent,
            0.012,
            0.2,
            marking=True,
        ),
    ]
    for k in range(dice.whole(1, 2)):
        y = -0.14 + 0.15 * k
        parts.append(
            Part(
                (ellipse(0, y, wide * 0.5, wide * 0.5), hole(ellipse(0, y, wide * 0.34, wide * 0.34))),
                (120.0, 124.0, 134.0),
                0.012,
                0.4,
                marking=True,
            )
        )
        parts.append(Part((ellipse(0, y, wide * 0.34, wide * 0.34),), mixed(GLASS, INK, 0.25), 0.02, 0.6, marking=True))
    if dice.chance(0.7):
        jet = smooth(
            [
                (-wide * 0.5, low + 0.05),
                (-wide * 0.55, low + 0.1),
                (0, 0.5),
                (wide * 0.55, low + 0.1),
                (wide * 0.5, low + 0.05),
            ]
        )
        parts.insert(
            0,
            Part(
                (jet,), (250.0, 150.0, 40.0), 0.03, 0.3, texture(dice, "clouds", (255.0, 230.0, 120.0), 0.1, 0.6, 1.0)
            ),
        )
    return parts
