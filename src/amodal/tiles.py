"""Large pictures: predicted tile by tile, and as a whole for what is larger than a tile, with one NMS over all."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchvision.ops import batched_nms

from amodal.errors import ConfigError
from amodal.prediction import PER_OBJECT, Prediction

Pixels = npt.NDArray[np.uint8]
Detect = Callable[[Sequence[Pixels]], list[Prediction]]
Window = tuple[int, int, int, int]

SMALLEST = 32
"""Pixels of a tile's side at least; a detector's coarsest map has cells of this size."""
_MOST_OVERLAP = 0.9
_BORDER = 0.01  # of the tile's side: a box that comes as near as that to an inner border is cut off by it
_COVERED = 0.5  # share of a cut box in another detection of its class above which the two are one object


@dataclass(frozen=True)
class Tiling:
    """How a picture is cut.

    Attributes:
        size: pixels of a tile's side; a picture that is no larger in either direction is not cut.
        overlap: least share of its side that a tile has in common with the next one.
        batch: tiles that go through the network together.

    Raises:
        ConfigError: a value is out of bounds.
    """

    size: int
    overlap: float = 0.25
    batch: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.size, int) or self.size < SMALLEST:
            raise ConfigError(
                f"tile is {self.size}, must be a whole number of pixels, {SMALLEST} or more (0: no tiles)"
            )
        if not 0 <= self.overlap <= _MOST_OVERLAP:
            nearest = 0 if self.overlap < 0 else _MOST_OVERLAP
            raise ConfigError(f"tile_overlap is {self.overlap}, must be 0 to {_MOST_OVERLAP}; the nearest is {nearest}")

    @staticmethod
    def of(size: int, overlap: float, batch: int) -> Tiling | None:
        """The tiling of these values; None where ``size`` is 0. Raises ConfigError, then too, for a bad overlap."""
        checked = Tiling(size or SMALLEST, overlap, batch)
        return checked if size else None

    def windows(self, height: int, width: int) -> list[Window]:
        """(left, top, right, bottom) of each tile, row by row, all of one size and inside the picture."""
        tops, lefts = self._starts(height), self._starts(width)
        tall, wide = min(self.size, height), min(self.size, width)
        return [(left, top, left + wide, top + tall) for top in tops for left in lefts]

    def _starts(self, length: int) -> list[int]:
        """Evenly spread, so that the last tile is no narrower than the others."""
        if length <= self.size:
            return [0]
        stride = max(self.size * (1 - self.overlap), 1)
        steps = math.ceil((length - self.size) / stride)
        return [round(step * (length - self.size) / steps) for step in range(steps + 1)]


def predict_tiled(image: Pixels, tiling: Tiling, detect: Detect, nms: float) -> Prediction:
    """What is found in a picture and in its tiles.

    An object that an inner border cuts off is taken from where it is whole: from the tile beside, or from the picture,
    which is predicted as a whole as well. What was cut counts only where nothing else of its class covers it.

    Args:
        image: uint8 [H, W, 3] RGB.
        tiling: how to cut it.
        detect: predictions of pictures of equal size, in order.
        nms: IoU of the NMS in each class, over all.

    Returns:
        The objects in the frame of the picture, best score first; exactly ``detect``'s for a picture that is not cut.
    """
    height, width = image.shape[:2]
    (whole,) = detect([image])
    windows = tiling.windows(height, width)
    if len(windows) == 1:
        return whole
    parts, cut = [whole], [torch.zeros(len(whole), dtype=torch.bool)]
    for group in _batches(windows, tiling.batch):
        found = detect([image[top:bottom, left:right] for left, top, right, bottom in group])
        for window, part in zip(group, found, strict=True):
            moved = _moved(part, window)
            parts.append(moved)
            cut.append(_is_cut(moved, window, height, width, max(_BORDER * tiling.size, 1.0)))
    joined = _join(parts)
    return joined[_survivors(joined, torch.cat(cut), nms)]


def _batches(windows: list[Window], count: int) -> Iterator[list[Window]]:
    for start in range(0, len(windows), count):
        yield windows[start : start + count]


def _moved(part: Prediction, window: Window) -> Prediction:
    """A tile's objects in the frame of the picture."""
    shift = torch.tensor([*window[:2], *window[:2]], dtype=torch.float32)
    return replace(part, boxes=part.boxes + shift, frames=None if part.frames is None else part.frames + shift)


def _is_cut(part: Prediction, window: Window, height: int, width: int, border: float) -> Tensor:
    """bool [N], which objects come near a border of the tile that is none of the picture."""
    inner = torch.tensor([window[0] > 0, window[1] > 0, window[2] < width, window[3] < height])
    near = (_frames(part) - torch.tensor(window)).abs() < border
    return (near & inner).any(dim=1)


def _join(parts: Sequence[Prediction]) -> Prediction:
    """The objects of all parts, in the frame of the first one, which is the whole picture's."""
    chosen: dict[str, Any] = {}
    for name in PER_OBJECT:
        values = [getattr(part, name) for part in parts]
        chosen[name] = None if values[0] is None else torch.cat(values)
    return replace(parts[0], **chosen)


def _survivors(found: Prediction, cut: Tensor, nms: float) -> Tensor:
    """int64, the objects that stay, best score first; those that are whole go before those that were cut."""
    order = found.scores.argsort(descending=True, stable=True)
    order = order[cut[order].byte().argsort(stable=True)]
    rank = torch.empty(len(order), dtype=torch.float64)
    rank[order] = torch.arange(len(order), 0, -1, dtype=torch.float64)
    boxes = _frames(found).double()
    kept: list[int] = []
    for row in batched_nms(boxes, rank, found.labels, nms).tolist():
        if not (cut[row] and _is_covered(boxes[row], boxes[kept][found.labels[kept] == found.labels[row]])):
            kept.append(row)
    rows = torch.tensor(kept, dtype=torch.int64)
    return rows[found.scores[rows].argsort(descending=True, stable=True)]


def _is_covered(box: Tensor, others: Tensor) -> bool:
    """Whether more than half of a box float64 [4] lies in one of ``others`` [N, 4]."""
    sides = torch.minimum(box[2:], others[:, 2:]) - torch.maximum(box[:2], others[:, :2])
    area = (box[2:] - box[:2]).prod()
    return bool((sides.clamp(min=0).prod(dim=1) > _COVERED * area).any())


def _frames(found: Prediction) -> Tensor:
    """The boxes in which NMS is done, B^o."""
    return found.boxes if found.frames is None else found.frames
