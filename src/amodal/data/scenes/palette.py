"""Colours and coats shared by the shape families."""

from __future__ import annotations

from amodal.data.scenes.dice import Dice
from amodal.data.scenes.paint import Colour, Texture, hsv, mixed, shade, texture

INK: Colour = (34.0, 31.0, 36.0)
PAPER: Colour = (240.0, 236.0, 226.0)


def vivid(dice: Dice) -> Colour:
    """Any hue from muted to strong, or a neutral; pure greens and purples are held back, as paints hold them back."""
    if dice.chance(0.14):
        return hsv(dice.uniform(), dice.uniform(0.02, 0.15), dice.uniform(0.3, 0.95))
    hue = dice.uniform()
    loud = max(0.0, 1 - abs(hue - 0.33) * 6) + max(0.0, 1 - abs(hue - 0.8) * 6)
    return hsv(hue, dice.uniform(0.35, 0.82) * (1 - 0.4 * loud), dice.uniform(0.5, 0.92) * (1 - 0.12 * loud))


def near(dice: Dice, hue: float, spread: float, saturation: float, value: float) -> Colour:
    """A colour round a hue (in turns)."""
    return hsv(
        (hue + dice.uniform(-spread, spread)) % 1.0,
        min(1.0, saturation * dice.uniform(0.75, 1.2)),
        min(1.0, value * dice.uniform(0.75, 1.15)),
    )


def metal(dice: Dice) -> Colour:
    """Brass, steel, copper or painted metal."""
    kind = dice.whole(0, 3)
    if kind == 0:
        return near(dice, 0.125, 0.015, 0.55, 0.82)
    if kind == 1:
        return near(dice, 0.6, 0.05, 0.1, 0.72)
    return near(dice, 0.055, 0.02, 0.55, 0.75) if kind == 2 else hsv(dice.uniform(), 0.5, 0.7)


def coat(dice: Dice, base: Colour, plain: float = 0.3) -> Texture:
    """A random coat for a body: mostly soft clouds, else a printed pattern."""
    if dice.chance(plain):
        return texture(dice, "clouds", shade(base, 0.75), 0.12, 0.6, 0.6)
    other = mixed(vivid(dice), PAPER if dice.chance(0.5) else base, dice.uniform(0.1, 0.6))
    kind = dice.pick(["stripes", "stripes", "dots", "checks", "clouds"])
    turn = dice.pick([0.0, 1.5708, dice.uniform(0, 3.1)])
    return texture(dice, kind, other, dice.uniform(0.09, 0.22), turn, dice.uniform(0.6, 0.95))
