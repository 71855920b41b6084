"""Scenes in which parametric objects lie over each other, with exact whole and visible masks.

A scene is a pile: ground, litter, then annotated objects and unannotated clutter one above the other. Everything is
drawn as a sprite whose mask is exactly the set of pixels it changes, shadows aside.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from amodal.data.scenes.clutter import LITTER, OCCLUDERS
from amodal.data.scenes.dice import Dice
from amodal.data.scenes.families import CLASS_NAMES, FAMILIES
from amodal.data.scenes.ground import daylight, ground
from amodal.data.scenes.paint import Light, Pose, Sprite, blend, cast_shadow, render
from amodal.data.scenes.raster import Bools


@dataclass(frozen=True)
class SceneSettings:
    """What scenes look like. Lengths are shares of the side of the square picture.

    Attributes:
        size: side of the picture, pixels.
        classes: how many classes appear, the first ones of CLASS_NAMES.
        objects: least and most annotated objects that are tried.
        object_size: least and greatest length of an object.
        clutter: least and most unannotated things among the objects.
        litter: least and most small things under all objects.
        crowding: probability that an object is put next to one that is there already.
        max_rate: objects more hidden than this are moved or left out.
        min_inside: least share of an object inside the frame.
        min_visible: least visible area, share of the squared side.
        tries: places that are tried before a thing is left out.
    """

    size: int = 256
    classes: int = 8
    objects: tuple[int, int] = (2, 8)
    object_size: tuple[float, float] = (0.1, 0.45)
    clutter: tuple[int, int] = (0, 3)
    litter: tuple[int, int] = (0, 9)
    crowding: float = 0.8
    max_rate: float = 0.85
    min_inside: float = 0.4
    min_visible: float = 0.0008
    tries: int = 20


# Frozen: published numbers name these. A change of what they draw gets a new name.
SETTINGS: dict[str, SceneSettings] = {"scenes-v1": SceneSettings()}


@dataclass(frozen=True)
class Scene:
    """One drawn scene; objects from the lowest to the topmost.

    Attributes:
        image: uint8[H, W, 3], RGB.
        amodal: bool[N, H, W], whole objects cut by the frame only.
        visible: bool[N, H, W], what is left of them under objects and clutter above.
        labels: class of each object, position in CLASS_NAMES.
    """

    image: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
    amodal: Bools
    visible: Bools
    labels: list[int]


@dataclass(frozen=True)
class Thing:
    """A sprite at its place; `label` is None for clutter."""

    sprite: Sprite
    row: int
    column: int
    label: int | None
    height: float

    def mask(self, size: int) -> Bools:
        """bool[size, size]: the pixels that drawing it changes."""
        out = np.zeros((size, size), np.bool_)
        top, left = max(0, self.row), max(0, self.column)
        inside = self.sprite.mask[max(0, -self.row) :, max(0, -self.column) :][
            : size - top if top < size else 0, : size - left if left < size else 0
        ]
        out[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
        return out


@dataclass
class Pile:
    """The things placed so far, their areas whole and visible, and per pixel which of them is on top (-1: none)."""

    settings: SceneSettings
    things: list[Thing] = field(default_factory=list)
    areas: list[int] = field(default_factory=list)
    seen: list[int] = field(default_factory=list)
    owner: np.ndarray[tuple[int, ...], np.dtype[np.int16]] = field(init=False)

    def __post_init__(self) -> None:
        self.owner = np.full((self.settings.size, self.settings.size), -1, np.int16)

    def add(self, thing: Thing) -> bool:
        """Puts the thing on top unless that hides an object too much or leaves too little of the thing in the frame."""
        size, settings = self.settings.size, self.settings
        mask = thing.mask(size)
        area = int(mask.sum())
        if area < settings.min_visible * size * size * (1 if thing.label is None else 2):
            return False
        if thing.label is not None and area < settings.min_inside * int(thing.sprite.mask.sum()):
            return False
        lost = np.bincount(self.owner[mask].astype(np.int64) + 1, minlength=len(self.things) + 1)[1:].tolist()
        seen = [before - gone for before, gone in zip(self.seen, lost, strict=True)]
        for other, whole, left in zip(self.things, self.areas, seen, strict=True):
            if other.label is None:
                continue
            if left < (1 - settings.max_rate) * whole or left < settings.min_visible * size * size:
                return False
        self.owner[mask] = len(self.things)
        self.seen = [*seen, area]
        self.things.append(thing)
        self.areas.append(area)
        return True


def _light(dice: Dice) -> Light:
    angle = dice.uniform(-2.9, -0.24)
    warm = dice.uniform(-0.07, 0.09)
    return Light(math.cos(angle), math.sin(angle), dice.uniform(0.3, 0.5), (1 + warm, 1 + warm * 0.2, 1 - warm))


def _object_sprite(dice: Dice, label: int, light: Light, settings: SceneSettings) -> tuple[Sprite, float]:
    family = FAMILIES[CLASS_NAMES[label]]
    low, high = settings.object_size
    # The larger of two throws: small objects are there, but rarer.
    length = low + (high - low) * max(dice.uniform(), dice.uniform())
    pose = Pose(
        length * settings.size, dice.uniform(-family.lean, family.lean), dice.chance(0.5), dice.uniform(*family.squeeze)
    )
    return render(family.parts(dice), pose, light), length


def _clutter_sprite(dice: Dice, light: Light, settings: SceneSettings, litter: bool) -> tuple[Sprite, float]:
    maker, low, high = dice.pick(LITTER if litter else OCCLUDERS)
    length = dice.uniform(low, high)
    pose = Pose(length * settings.size, dice.uniform(-math.pi, math.pi), dice.chance(0.5))
    return render(maker(dice), pose, light), min(length, 0.2)


def _place(dice: Dice, pile: Pile, sprite: Sprite, label: int | None, height: float) -> None:
    """Tries places for a sprite, near objects that are there or anywhere, and puts it on top of the pile."""
    size = pile.settings.size
    targets = [thing for thing in pile.things if thing.label is not None]
    for _ in range(pile.settings.tries):
        edge = 0.0 if targets or label is None else 0.14
        x, y = dice.uniform(edge, 1 - edge) * size, dice.uniform(edge, 1 - edge) * size
        if targets and (label is None or dice.chance(pile.settings.crowding)):
            target = dice.pick(targets)
            tall, wide = target.sprite.alpha.shape
            reach = 0.3 if label is None else 0.42
            x = (
                target.column
                + wide / 2
                + dice.uniform(-reach, reach) * (wide + (0 if label is None else sprite.alpha.shape[1] * 0.6))
            )
            y = (
                target.row
                + tall / 2
                + dice.uniform(-reach, reach) * (tall + (0 if label is None else sprite.alpha.shape[0] * 0.6))
            )
        row, column = math.floor(y - sprite.alpha.shape[0] / 2), math.floor(x - sprite.alpha.shape[1] / 2)
        if pile.add(Thing(sprite, row, column, label, height)):
            return


def compose(dice: Dice, light: Light, settings: SceneSettings) -> Pile:
    """The pile of one scene: litter at the bottom, objects and clutter mixed above it."""
    pile = Pile(settings)
    for _ in range(dice.whole(*settings.litter)):
        sprite, height = _clutter_sprite(dice, light, settings, litter=True)
        _place(dice, pile, sprite, None, height * 0.5)
    objects = dice.whole(*settings.objects)
    kinds = [True] * (objects - 1) + [False] * dice.whole(*settings.clutter)
    # The lowest of the mixed things is an object: clutter below all objects hides nothing.
    for is_object in [True, *dice.shuffled(kinds)]:
        if is_object:
            label = dice.whole(0, settings.classes - 1)
            sprite, height = _object_sprite(dice, label, light, settings)
            _place(dice, pile, sprite, label, height)
        else:
            sprite, height = _clutter_sprite(dice, light, settings, litter=False)
            _place(dice, pile, sprite, None, height)
    return pile


def paint(dice: Dice, pile: Pile, light: Light) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """uint8[size, size, 3]: the pile on its ground, lit, with the noise of a camera."""
    size = pile.settings.size
    canvas = ground(dice, size) * np.array(light.tint, np.float32)
    lit = daylight(dice, size, (light.x, light.y))
    strength = dice.uniform(0.3, 0.5)
    grain = (dice.field(size, size) + dice.field(size, size) - 1) * np.float32(dice.uniform(1.5, 5.0))
    for thing in pile.things:
        reach = thing.height * size * 0.1
        offset = (round(-light.y * reach), round(-light.x * reach))
        softness = max(1, round(reach * 0.45))
        alpha = thing.sprite.alpha
        cast_shadow(canvas, alpha, thing.row, thing.column, offset, softness, strength)
        cast_shadow(canvas, alpha, thing.row, thing.column, (0, 0), max(1, round(size / 170)), strength * 0.6)
        blend(canvas, alpha, thing.sprite.rgb, thing.row, thing.column)
    canvas = canvas * lit[..., None] + grain[..., None]
    return np.floor(np.minimum(np.maximum(canvas, np.float32(0)), np.float32(255)) + np.float32(0.5)).astype(np.uint8)


def draw(seed: int, index: int, settings: SceneSettings) -> Scene:
    """Draws scene `index` of a seed; the same arguments give the same pixels on every machine.

    Args:
        seed: 0 or more.
        index: 0 or more; scenes do not depend on each other.
        settings: what the scene looks like.
    """
    dice = Dice(seed, index)
    light = _light(dice)
    pile = compose(dice, light, settings)
    image = paint(dice, pile, light)
    objects = [(k, thing) for k, thing in enumerate(pile.things) if thing.label is not None]
    amodal = np.zeros((len(objects), settings.size, settings.size), np.bool_)
    visible = np.zeros_like(amodal)
    for n, (k, thing) in enumerate(objects):
        amodal[n], visible[n] = thing.mask(settings.size), pile.owner == k
    return Scene(image, amodal, visible, [thing.label for _, thing in objects if thing.label is not None])
