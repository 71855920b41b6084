from __future__ import annotations

import pytest

from amodal.errors import ConfigError
from amodal.train.order import DataOrder, MicroBatches


def test_every_pass_shows_every_image_once() -> None:
    order = DataOrder(size=7, seed=3, batch_size=4)
    seen = [image for step in range(7) for image, _ in order.step(step)]
    for first in range(0, 28, 7):
        assert sorted(seen[first : first + 7]) == list(range(7))
    assert seen[:7] != seen[7:14], "two passes must differ"


def test_function_of_seed_and_position() -> None:
    forwards, backwards = DataOrder(50, 1, 8), DataOrder(50, 1, 8)
    first = [forwards.step(step) for step in range(20)]
    assert [backwards.step(step) for step in reversed(range(20))] == first[::-1]
    assert DataOrder(50, 2, 8).step(0) != first[0]
    assert [position for _, position in first[3]] == list(range(24, 32))
    # The stream is the same for every batch size.
    assert [pair for step in range(4) for pair in DataOrder(50, 1, 4).step(step)] == first[0] + first[1]


def test_frozen_order() -> None:
    """A change of the stream would break the resuming of runs; this order must stay."""
    assert [image for image, _ in DataOrder(6, 0, 6).step(0)] == FROZEN


FROZEN = [3, 2, 5, 4, 0, 1]


@pytest.mark.parametrize(("world", "accumulate"), [(1, 1), (2, 1), (1, 4), (2, 2), (4, 2)])
def test_the_global_batch_does_not_depend_on_the_split(world: int, accumulate: int) -> None:
    order = DataOrder(30, 5, 8)
    shares = [list(MicroBatches(DataOrder(30, 5, 8), 2, 6, accumulate, rank, world)) for rank in range(world)]
    assert all(len(share) == 4 * accumulate for share in shares)
    for step in range(2, 6):
        rows = slice((step - 2) * accumulate, (step - 1) * accumulate)
        together = [pair for share in shares for micro in share[rows] for pair in micro]
        assert together == order.step(step)
        assert all(len(micro) == 8 // world // accumulate for share in shares for micro in share[rows])


def test_uneven_split_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"batch_size is 8, must be a multiple of accumulate \(3\) times processes \(1\)"
    ):
        MicroBatches(DataOrder(30, 5, 8), 0, 1, 3, 0, 1)
