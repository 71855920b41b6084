"""Seeded choices: which size, which anchors, which proposals.

Every choice is a pure function of (seed, step, image id, purpose). So an image gets the same samples whichever process
or micro-batch it is in, and a resumed run continues exactly without any saved random state.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor


class Purpose(IntEnum):
    """What a random stream is for; streams of different purposes are independent."""

    SIZE = 0
    ANCHORS = 1
    PROPOSALS = 2
    JITTER = 3
    DROPOUT = 4


@dataclass(frozen=True)
class Draws:
    """Source of the random streams of one training step.

    Attributes:
        seed: of the run, >= 0.
        step: optimiser step, >= 0.
    """

    seed: int = 0
    step: int = 0

    def stream(self, image_id: int, purpose: Purpose, layer: int = 0) -> np.random.Generator:
        """The stream of one image (any integer id) for one purpose, and of one of several places that have it."""
        key = [self.seed, self.step, image_id & 0xFFFFFFFFFFFFFFFF, int(purpose)]
        return np.random.default_rng([*key, layer] if layer else key)


def choose_balanced(
    positive: Tensor, negative: Tensor, count: int, positive_fraction: float, stream: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Sample candidates at random, with a limited share of positives; negatives fill what positives leave.

    Args:
        positive, negative: bool [M], which candidates are which; the rest is never chosen.
        count: how many to choose at most.
        positive_fraction: largest share of positives in ``count``.
        stream: the random stream.

    Returns:
        int64 row numbers of the chosen positives and of the chosen negatives, each ascending.
    """
    positives = _choose(positive, int(count * positive_fraction), stream)
    return positives, _choose(negative, count - len(positives), stream)


def _choose(candidate: Tensor, most: int, stream: np.random.Generator) -> Tensor:
    rows = torch.nonzero(candidate).flatten()
    if len(rows) <= most:
        return rows
    chosen = np.sort(stream.choice(len(rows), size=most, replace=False, shuffle=False))
    return rows[torch.from_numpy(chosen).to(rows.device)]
