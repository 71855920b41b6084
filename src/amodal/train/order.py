"""Which images a step sees: a pure function of (seed, step), whatever the number of processes and micro-batches."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from amodal.errors import ConfigError


class DataOrder:
    """Endless passes over the data, each in its own order.

    Position p of the stream belongs to pass ``p // size``; a step takes ``batch_size`` positions in a row, so a batch
    may span two passes.
    """

    def __init__(self, size: int, seed: int, batch_size: int) -> None:
        self.size = size
        self.seed = seed
        self.batch_size = batch_size
        self._passes: dict[int, NDArray[np.int64]] = {}

    def step(self, step: int) -> list[tuple[int, int]]:
        """(image number from 0 to ``size`` - 1, position) for all of step ``step``'s batch."""
        first = step * self.batch_size
        return [(self.at(position), position) for position in range(first, first + self.batch_size)]

    def at(self, position: int) -> int:
        """The image number at a position of the stream."""
        number, offset = divmod(position, self.size)
        if number not in self._passes:
            # A batch may span two passes, so two orders are kept.
            self._passes = {key: value for key, value in self._passes.items() if key >= number - 1}
            generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([self.seed, number])))
            self._passes[number] = generator.permutation(self.size)
        return int(self._passes[number][offset])


class MicroBatches:
    """One process's share of the stream, as a batch sampler: lists of (image number, position).

    Args:
        order: the stream.
        start, stop: steps, ``stop`` excluded.
        accumulate: micro-batches a step.
        rank, world: this process and their number.

    Raises:
        ConfigError: the batch does not split evenly.
    """

    def __init__(self, order: DataOrder, start: int, stop: int, accumulate: int, rank: int, world: int) -> None:
        if order.batch_size % (accumulate * world):
            rule = f"a multiple of accumulate ({accumulate}) times processes ({world})"
            raise ConfigError(f"batch_size is {order.batch_size}, must be {rule}")
        self.order, self.start, self.stop = order, start, stop
        self.accumulate, self.rank, self.world = accumulate, rank, world

    def __len__(self) -> int:
        return (self.stop - self.start) * self.accumulate

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        share = self.order.batch_size // self.world
        micro = share // self.accumulate
        for step in range(self.start, self.stop):
            mine = self.order.step(step)[self.rank * share : (self.rank + 1) * share]
            for first in range(0, share, micro):
                yield mine[first : first + micro]
