"""Parts with colour, texture and relief, and their rendering under the light of a scene."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from amodal.data.scenes.dice import Dice
from amodal.data.scenes.outlines import Ring
from amodal.data.scenes.raster import Bools, Floats, blur, coverage, sampled

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Texture:
    """A second colour laid over a part.

    Attributes:
        kind: `stripes`, `dots`, `checks`, `grain` or `clouds`.
        colour: the second colour, 0..255 each.
        period: length of a repeat, in object units.
        turn: direction in radians in the object's frame.
        strength: 0..1, how far towards the second colour.
        lattice: random values behind grain and clouds.
    """

    kind: str
    colour: Colour
    period: float
    turn: float
    strength: float
    lattice: Floats


@dataclass(frozen=True)
class Part:
    """One piece of an object, drawn over the pieces before it.

    Attributes:
        rings: outlines in object units, non-zero winding.
        colour: 0..255 each.
        relief: width of the rounded edge in object units; 0 is flat.
        gloss: 0..1, strength of the highlight.
        texture: optional second colour.
        marking: drawn only where the object already is (eyes, windows, veins), so the silhouette stays.
    """

    rings: tuple[Ring, ...]
    colour: Colour
    relief: float = 0.07
    gloss: float = 0.25
    texture: Texture | None = None
    marking: bool = False


@dataclass(frozen=True)
class Pose:
    """How object units become pixels: mirrored, scaled to `size` pixels per unit, turned by `turn` radians."""

    size: float
    turn: float
    mirror: bool
    squeeze: float = 1.0

    def apply(self, outline: Ring) -> Ring:
        """float64[P, 2] in pixels about the object's origin."""
        x = outline[:, 0] * (-self.size if self.mirror else self.size) * self.squeeze
        y = outline[:, 1] * self.size
        cos, sin = math.cos(self.turn), math.sin(self.turn)
        return np.stack([x * cos - y * sin, x * sin + y * cos], axis=1)

    def back(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Object units of pixel positions about the object's origin."""
        cos, sin = np.float32(math.cos(self.turn) / self.size), np.float32(math.sin(self.turn) / self.size)
        u, v = x * cos + y * sin, y * cos - x * sin
        return u * np.float32((-1 if self.mirror else 1) / self.squeeze), v


@dataclass(frozen=True)
class Light:
    """Where the light stands: unit vector in the image towards it, its height, and the tint of lit surfaces."""

    x: float
    y: float
    contrast: float
    tint: Colour


@dataclass(frozen=True)
class Sprite:
    """A drawn thing on its own small canvas.

    Attributes:
        rgb: float32[h, w, 3] in 0..255.
        alpha: float32[h, w]: coverage where it is at least one half, else 0; the mask is alpha > 0.
        left: column of the canvas, counted from the object's origin.
        top: row of the canvas, counted from the object's origin.
    """

    rgb: Floats
    alpha: Floats
    left: int
    top: int

    @property
    def mask(self) -> Bools:
        """bool[h, w], exactly the pixels that drawing the sprite changes."""
        return self.alpha > 0


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """Colour 0..255 from hue (turns), saturation and value (0..1)."""

    def channel(n: int) -> float:
        k = (n + hue * 6) % 6
        return 255 * (value - value * saturation * max(0.0, min(k, 4 - k, 1.0)))

    return channel(5), channel(3), channel(1)


def mixed(a: Colour, b: Colour, share: float) -> Colour:
    """Colour `share` of the way from a to b."""
    return tuple(p + (q - p) * share for p, q in zip(a, b, strict=True))  # type: ignore[return-value]


def shade(colour: Colour, factor: float) -> Colour:
    """The colour made darker (factor < 1) or lighter, within 0..255."""
    return tuple(min(255.0, c * factor) for c in colour)  # type: ignore[return-value]


def texture(dice: Dice, kind: str, colour: Colour, period: float, turn: float = 0.0, strength: float = 1.0) -> Texture:
    """A texture with its own random lattice."""
    return Texture(kind, colour, period, turn, strength, dice.field(24, 24))


def _clip01(values: Floats) -> Floats:
    return np.minimum(np.maximum(values, np.float32(0)), np.float32(1))


def _pattern(look: Texture, u: Floats, v: Floats, pixels: float) -> Floats:
    """float32 share of the second colour at object coordinates; `pixels` is the repeat's length in pixels."""
    cos, sin = np.float32(math.cos(look.turn) / look.period), np.float32(math.sin(look.turn) / look.period)
    p, q = u * cos + v * sin, v * cos - u * sin
    sharp = np.float32(max(1.0, pixels / 2))
    half = np.float32(0.5)
    if look.kind == "stripes":
        return _clip01((np.abs(2 * (p - np.floor(p)) - 1) - half) * sharp + half)
    if look.kind == "checks":
        a = np.abs(2 * (p - np.floor(p)) - 1) - half
        b = np.abs(2 * (q - np.floor(q)) - 1) - half
        return _clip01(
            np.where((a > 0) == (b > 0), np.float32(1), np.float32(-1)) * np.minimum(np.abs(a), np.abs(b)) * sharp
            + half
        )
    if look.kind == "dots":
        q = q * np.float32(1.15)
        p = p + half * (np.floor(q) % 2)
        a, b = p - np.floor(p) - half, q - np.floor(q) - half
        return _clip01((np.float32(0.3) - np.sqrt(a * a + b * b)) * np.float32(max(2.0, pixels)) + half)
    if look.kind == "grain":
        return sampled(look.lattice, p * np.float32(0.25), q * 2)
    coarse = sampled(look.lattice, p, q)
    return coarse * np.float32(0.65) + sampled(look.lattice, p * np.float32(2.3), q * np.float32(2.3)) * np.float32(
        0.35
    )


def _relief(cover: Floats, radius: int, light: Light, gloss: float) -> tuple[Floats, Floats]:
    """Brightness factor and highlight of a surface that rounds off towards the part's edge."""
    reach = max(1, radius * 4 // 5)
    pad = 2 * reach + 1
    wide = blur(np.pad(cover, pad), reach, passes=3)
    padded = wide[pad - 1 : wide.shape[0] - pad + 1, pad - 1 : wide.shape[1] - pad + 1]
    slope = np.float32(radius + 1)
    dx = (padded[1:-1, 2:] - padded[1:-1, :-2]) * slope
    dy = (padded[2:, 1:-1] - padded[:-2, 1:-1]) * slope
    facing = -(dx * np.float32(light.x) + dy * np.float32(light.y))
    factor = 1 + np.float32(light.contrast) * facing
    # Where the surface leans towards the light by about this much it mirrors the light to the eye.
    off = facing - np.float32(0.62)
    along = dx * np.float32(light.y) - dy * np.float32(light.x)
    spot = _clip01(1 - (off * off * 7 + along * along * 4))
    return np.maximum(factor, np.float32(0.25)), spot * spot * spot * np.float32(gloss * 130)


def _surface(part: Part, u: Floats, v: Floats, pose: Pose) -> Floats:
    """float32[h, w, 3] colours of one part before light falls on it."""
    colour = np.array(part.colour, np.float32)
    if part.texture is not None:
        second = np.array(part.texture.colour, np.float32)
        share = _pattern(part.texture, u, v, part.texture.period * pose.size) * np.float32(part.texture.strength)
        return colour + share[..., None] * (second - colour)
    return np.broadcast_to(colour, (*u.shape, 3))


def _window(outlines: Sequence[Ring]) -> tuple[int, int, int, int]:
    """left, top, right, bottom of the whole pixels round the outlines, with one to spare."""
    points = np.concatenate(outlines)
    low, high = points.min(axis=0), points.max(axis=0)
    return math.floor(low[0]) - 1, math.floor(low[1]) - 1, math.ceil(high[0]) + 1, math.ceil(high[1]) + 1


def render(parts: Sequence[Part], pose: Pose, light: Light) -> Sprite:
    """Draws the parts in order on a canvas of their own."""
    placed = [[pose.apply(outline) for outline in part.rings] for part in parts]
    solid = [outline for part, rings in zip(parts, placed, strict=True) if not part.marking for outline in rings]
    left, top, right, bottom = _window(solid)
    shape = (bottom - top, right - left)
    rgb, alpha = np.zeros((*shape, 3), np.float32), np.zeros(shape, np.float32)
    # Brightness and highlights are kept apart from colour, so that markings take on the form they lie on.
    factor, spot = np.ones(shape, np.float32), np.zeros(shape, np.float32)
    for part, rings in zip(parts, placed, strict=True):
        x0, y0, x1, y1 = _window(rings)
        x0, y0, x1, y1 = max(x0, left), max(y0, top), min(x1, right), min(y1, bottom)
        if x0 >= x1 or y0 >= y1:
            continue
        cover = coverage([outline - (x0, y0) for outline in rings], y1 - y0, x1 - x0)
        x, y = np.meshgrid(*(np.arange(a, b, dtype=np.float32) + np.float32(0.5) for a, b in ((x0, x1), (y0, y1))))
        here = (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))
        share = cover
        if not part.marking:
            alpha[here] = np.maximum(alpha[here], cover)
            share = np.asarray(cover / np.maximum(alpha[here], np.float32(1e-6)), np.float32)
        rgb[here] += share[..., None] * (_surface(part, *pose.back(x, y), pose) - rgb[here])
        if part.relief > 0:
            lit, shine = _relief(cover, max(1, round(part.relief * pose.size)), light, part.gloss)
            if part.marking:
                lit, shine = lit * factor[here], np.maximum(shine, spot[here])
            factor[here] += share * (lit - factor[here])
            spot[here] += share * (shine - spot[here])
        elif not part.marking:
            factor[here] += share * (1 - factor[here])
            spot[here] -= share * spot[here]
    alpha[alpha < 0.5] = 0
    lit_rgb: Floats = (rgb * factor[..., None] + spot[..., None]) * np.array(light.tint, np.float32)
    return Sprite(lit_rgb, alpha, left, top)


def cast_shadow(
    canvas: Floats, alpha: Floats, row: int, column: int, offset: tuple[int, int], softness: int, strength: float
) -> None:
    """Darkens float32[H, W, 3] in place where the sprite at (row, column) keeps the light away.

    Args:
        canvas: the picture so far.
        alpha: float32[h, w] of the sprite.
        row: top row of the sprite in the picture.
        column: left column of the sprite in the picture.
        offset: rows, columns by which the shadow is shifted.
        softness: blur radius, pixels.
        strength: 0..1, share of the light that is taken away in the core.
    """
    pad = 2 * softness + 1
    soft = blur(np.pad(alpha, pad), softness)
    blend(canvas, soft * np.float32(strength), np.float32(0), row - pad + offset[0], column - pad + offset[1])


def blend(canvas: Floats, alpha: Floats, rgb: Floats | np.float32, row: int, column: int) -> None:
    """Lays a picture with an alpha channel over the canvas at (row, column), in place; what lies outside is cut."""
    height, width = canvas.shape[:2]
    y0, x0 = max(0, row), max(0, column)
    y1, x1 = min(height, row + alpha.shape[0]), min(width, column + alpha.shape[1])
    if y0 >= y1 or x0 >= x1:
        return
    part = (slice(y0 - row, y1 - row), slice(x0 - column, x1 - column))
    share = alpha[part][..., None]
    under = canvas[y0:y1, x0:x1]
    over: NDArray[np.float32] | np.float32 = rgb[part] if isinstance(rgb, np.ndarray) else rgb
    canvas[y0:y1, x0:x1] = under * (1 - share) + over * share
