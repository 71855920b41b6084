"""The object classes of drawn scenes, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from amodal.data.scenes import household, outdoors
from amodal.data.scenes.dice import Dice
from amodal.data.scenes.paint import Part


@dataclass(frozen=True)
class Family:
    """How one class is drawn.

    Attributes:
        parts: makes one member of the family.
        lean: objects turn by up to this many radians either way from upright.
        squeeze: range of the width factor that is applied on top of the family's own variation.
    """

    parts: Callable[[Dice], list[Part]]
    lean: float
    squeeze: tuple[float, float] = (0.88, 1.12)


FAMILIES: dict[str, Family] = {
    "cup": Family(household.cup, 0.5),
    "fish": Family(outdoors.fish, 0.9),
    "car": Family(outdoors.car, 0.35, (0.9, 1.05)),
    "key": Family(household.key, 3.1416, (0.95, 1.05)),
    "leaf": Family(outdoors.leaf, 3.1416, (0.8, 1.2)),
    "mushroom": Family(household.mushroom, 0.5),
    "bottle": Family(household.bottle, 0.9, (0.9, 1.15)),
    "umbrella": Family(household.umbrella, 0.7),
    "sailboat": Family(outdoors.sailboat, 0.3),
    "pear": Family(household.pear, 0.6),
    "house": Family(outdoors.house, 0.2),
    "rocket": Family(outdoors.rocket, 0.9),
}

CLASS_NAMES: tuple[str, ...] = tuple(FAMILIES)
