"""At which size pictures are drawn, and how that is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np

from amodal.errors import counted, require

TARGET_SIDE = 900
"""Pixels of the longer side towards which small pictures are enlarged."""

_LISTED = 3  # sizes of pictures that are told one by one


def auto_scale(height: int, width: int) -> int:
    """By how much a picture of this size (pixels) is enlarged, 1 to 8, so that hatching and text can be read."""
    return int(np.clip(round(TARGET_SIDE / max(height, width, 1)), 1, 8))


def drawn_size(height: int, width: int, side: int) -> tuple[int, int, int]:
    """(height, width) that a picture is reduced to before it is drawn on, and the whole factor it is enlarged by.

    Args:
        height, width: pixels of the picture.
        side: pixels of the longer side at most; 0: the picture's own size.
    """
    longest = max(height, width)
    if not side:
        return height, width, 1
    if longest <= side:
        return height, width, min(auto_scale(height, width), side // longest)
    return max(1, round(height * side / longest)), max(1, round(width * side / longest)), 1


def drawn_scale(height: int, width: int, side: int) -> float:
    """Pixels drawn for a pixel of the picture; see :func:`drawn_size`."""
    small_height, small_width, scale = drawn_size(height, width, side)
    return scale * max(small_height, small_width) / max(height, width)


def drawn_at(sizes: Iterable[tuple[int, int]], side: int) -> str:
    """``drawn at 0.42 of 4000 x 3000 px``, ``4 times 256 x 256 px``, at their own size ``640 x 480 px``.

    Of pictures of several sizes each with its number, the most frequent first.

    Args:
        sizes: (height, width) of the pictures; at least one.
        side: as in :func:`drawn_size`.
    """
    counts = Counter(sizes).most_common()
    texts = [
        f"{_scale(drawn_scale(*size, side))}{size[1]} x {size[0]} px"
        + (f" ({counted(count, 'picture')})" if len(counts) > 1 else "")
        for size, count in counts[:_LISTED]
    ]
    more = len(counts) - _LISTED
    return f"drawn at {', '.join(texts)}" + (f", and {counted(more, 'other size')}" if more > 0 else "")


def check_draw_size(side: int) -> None:
    """Refuses a negative ``--draw-size`` with a :class:`~amodal.errors.ConfigError`."""
    require(side >= 0, "--draw-size", side, "0 (each picture's own size) or more")


def _scale(factor: float) -> str:
    if factor >= 1:
        return f"{factor:g} times " if factor > 1 else ""
    return (f"{factor:.2g}" if factor < 0.1 else f"{factor:.2f}".rstrip("0").rstrip(".")) + " of "
