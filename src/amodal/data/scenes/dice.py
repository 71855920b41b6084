"""Random numbers for drawn scenes, the same on every machine and in every numpy release.

numpy promises a stable bit stream but not stable `integers`, `choice` or `permutation`; so only the
53-bit uniform numbers of PCG64 are used, and everything else is made from them here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")


class Dice:
    """A stream of random decisions that depends on `key` alone, such as `(seed, scene index)`."""

    def __init__(self, *key: int) -> None:
        self._generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(list(key))))

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """A number in [low, high)."""
        return low + (high - low) * float(self._generator.random())

    def whole(self, low: int, high: int) -> int:
        """A whole number in low..high, both ends included."""
        return min(high, low + int(self.uniform() * (high - low + 1)))

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self.uniform() < probability

    def pick(self, options: Sequence[T]) -> T:
        """One of the options, all equally likely."""
        return options[self.whole(0, len(options) - 1)]

    def sign(self) -> int:
        """-1 or 1."""
        return 1 if self.chance(0.5) else -1

    def shuffled(self, options: Sequence[T]) -> list[T]:
        """The options in random order."""
        keys = [self.uniform() for _ in options]
        return [options[i] for i in sorted(range(len(options)), key=keys.__getitem__)]

    def field(self, *shape: int) -> NDArray[np.float32]:
        """float32 array of the given shape with independent numbers in [0, 1)."""
        return self._generator.random(shape).astype(np.float32)
