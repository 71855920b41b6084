"""At which size pictures are drawn, and how it is told."""

from __future__ import annotations

import pytest

from amodal.errors import ConfigError
from amodal.viz.scale import check_draw_size, drawn_at, drawn_scale, drawn_size


@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [
        ((3000, 4000), 1680, "drawn at 0.42 of 4000 x 3000 px"),
        ((3000, 4000), 2000, "drawn at 0.5 of 4000 x 3000 px"),
        ((3000, 4000), 0, "drawn at 4000 x 3000 px"),
        ((256, 256), 2000, "drawn at 4 times 256 x 256 px"),
        ((256, 200), 600, "drawn at 2 times 200 x 256 px"),
        ((10, 40000), 200, "drawn at 0.005 of 40000 x 10 px"),
    ],
)
def test_the_scale_is_told_with_the_size_it_is_of(size: tuple[int, int], side: int, expected: str) -> None:
    assert drawn_at([size], side) == expected
    height, width, scale = drawn_size(*size, side)
    assert max(height, width) * scale == pytest.approx(drawn_scale(*size, side) * max(size))


def test_pictures_of_several_sizes() -> None:
    sizes = [(100, 200)] * 2 + [(1000, 2000)] * 3
    assert drawn_at(sizes, 1000) == "drawn at 0.5 of 2000 x 1000 px (3 pictures), 4 times 200 x 100 px (2 pictures)"
    many = [(100, 100 + k) for k in range(8)]
    assert drawn_at(many, 50).endswith(" (1 picture), and 5 other sizes")


def test_sizes_are_not_negative() -> None:
    check_draw_size(0)
    with pytest.raises(ConfigError, match="--draw-size is -3, must be 0"):
        check_draw_size(-3)
