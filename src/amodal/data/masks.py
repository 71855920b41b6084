"""Masks of one image that stay run lengths until a crop is asked for, and follow the image's transforms as numbers.

Flips, resizes, crops and pads change a :class:`View` (a few numbers), never pixels. A crop maps its boxes back into the
pixels of the annotation file, decodes the masks it needs there, once, each inside its own tight box, and samples them;
so a mask is resampled exactly once, however many transforms the image went through.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from amodal import frames
from amodal.data import rle

if TYPE_CHECKING:
    from amodal.data.store import AnnotationSet

_MARGIN = 2  # pixels of background around the masks, so that bilinear reading beyond them finds zeros


@dataclass(frozen=True)
class View:
    """Where the network's image lies in the annotated image ("source").

    Attributes:
        scale: (x, y); source = scale * network + offset. Negative for flips.
        offset: (x, y), source pixels.
        canvas: (width, height) of the network's image, pixels.
        window: (x0, y0, x1, y1), source pixels that are still in the picture after crops.
    """

    scale: tuple[float, float]
    offset: tuple[float, float]
    canvas: tuple[float, float]
    window: tuple[float, float, float, float]

    @staticmethod
    def identity(height: int, width: int) -> View:
        """The view of an image that was not transformed."""
        return View((1.0, 1.0), (0.0, 0.0), (float(width), float(height)), (0.0, 0.0, float(width), float(height)))

    def flip(self, axis: Literal[0, 1]) -> View:
        """Mirrored along x (axis 0) or y (axis 1)."""
        scale, offset = list(self.scale), list(self.offset)
        offset[axis] += scale[axis] * self.canvas[axis]
        scale[axis] = -scale[axis]
        return replace(self, scale=(scale[0], scale[1]), offset=(offset[0], offset[1]))

    def resize(self, scale_x: float, scale_y: float) -> View:
        """Resized by these factors (new = old * scale)."""
        return replace(
            self,
            scale=(self.scale[0] / scale_x, self.scale[1] / scale_y),
            canvas=(self.canvas[0] * scale_x, self.canvas[1] * scale_y),
        )

    def crop(self, top: float, left: float, height: float, width: float) -> View:
        """The rectangle of the network's image at (left, top); it may reach beyond the image, where masks are 0."""
        offset = (self.offset[0] + self.scale[0] * left, self.offset[1] + self.scale[1] * top)
        view = replace(self, offset=offset, canvas=(float(width), float(height)))
        x0, y0, x1, y1 = view.bounds()
        w0, v0, w1, v1 = self.window
        return replace(view, window=(max(x0, w0), max(y0, v0), min(x1, w1), min(y1, v1)))

    def bounds(self) -> tuple[float, float, float, float]:
        """xyxy of the network's image in source pixels; it may reach beyond the source."""
        box = self.to_source(np.array([[0.0, 0.0, *self.canvas]]))[0]
        return float(box[0]), float(box[1]), float(box[2]), float(box[3])

    def to_source(self, boxes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Boxes [R, 4] of the network's image in source pixels."""
        return _sorted(boxes * np.array(self.scale * 2) + np.array(self.offset * 2))

    def to_network(self, boxes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Boxes [R, 4] in source pixels as boxes of the network's image."""
        return _sorted((boxes - np.array(self.offset * 2)) / np.array(self.scale * 2))


class InstanceMasks:
    """G masks of one image as RLEs plus the view of the image; a :class:`amodal.structures.MaskSource`.

    Masks decoded for a crop are kept inside their tight boxes, shared by all views of the same masks, and dropped when
    the object is pickled.
    """

    def __init__(
        self,
        rles: Sequence[Mapping[str, Any]],
        height: int,
        width: int,
        *,
        view: View | None = None,
        decoded: dict[int, _Piece] | None = None,
    ) -> None:
        """
        Args:
            rles: checked RLEs of size [height, width] with compressed counts, as :mod:`amodal.data.rle` makes them.
            height, width: pixels of the annotated image.
            view: where the network's image lies in it; by default they are the same.
            decoded: pieces that another view of the same masks shares.
        """
        self.rles = list(rles)
        self.height = height
        self.width = width
        self.view = view or View.identity(height, width)
        self._decoded: dict[int, _Piece] = {} if decoded is None else decoded

    @staticmethod
    def from_dense(masks: Tensor | NDArray[Any]) -> InstanceMasks:
        """From bool [G, H, W]."""
        dense = np.asarray(masks, dtype=bool)
        return InstanceMasks([rle.encode(mask) for mask in dense], dense.shape[1], dense.shape[2])

    @staticmethod
    def from_annotations(
        annotations: AnnotationSet,
        rows: Sequence[int] | NDArray[np.integer[Any]],
        part: Literal["amodal", "visible"] = "amodal",
        *,
        image: int | None = None,
    ) -> InstanceMasks:
        """The masks of annotation ``rows``, all of one image; ``image`` (its index) is needed where there are none."""
        if image is None:
            image = int(annotations.image_index[rows[0]]) if len(rows) else None
        height, width = (1, 1) if image is None else (int(annotations.heights[image]), int(annotations.widths[image]))
        read = annotations.amodal_rle if part == "amodal" else annotations.visible_rle
        return InstanceMasks([read(int(row)) for row in rows], height, width)

    def __len__(self) -> int:
        return len(self.rles)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_decoded": {}}

    def select(self, rows: Sequence[int]) -> InstanceMasks:
        """Only the masks ``rows``, in that order, seen through the same view."""
        pieces = {new: self._decoded[old] for new, old in enumerate(rows) if old in self._decoded}
        return InstanceMasks([self.rles[i] for i in rows], self.height, self.width, view=self.view, decoded=pieces)

    def with_view(self, view: View) -> InstanceMasks:
        """The same masks seen through another view."""
        return InstanceMasks(self.rles, self.height, self.width, view=view, decoded=self._decoded)

    def rescale(self, scale_x: float, scale_y: float) -> InstanceMasks:
        """The same masks for an image resized by these factors (new = old * scale)."""
        return self.with_view(self.view.resize(scale_x, scale_y))

    def crop(self, index: Tensor, boxes: Tensor, size: int = 28, soft: bool = False) -> Tensor:
        """Masks in box frames.

        Args:
            index: int64 [R], which mask each box crops.
            boxes: float32 [R, 4], xyxy pixels of the network's image.
            size: cells a side.
            soft: area fractions instead of 0 / 1.

        Returns:
            float32 [R, size, size] on the device of ``boxes``, see :func:`amodal.frames.crop_masks`; sampled in the
            pixels of the annotation file. Outside the image, and outside what crops left of it, masks are 0.
        """
        if len(index) == 0:
            return boxes.new_zeros(0, size, size, dtype=torch.float32)
        used, position = torch.unique(index.cpu(), return_inverse=True)
        masks, left, top = self._region(used.tolist())
        # Shifted in double precision, before float32 loses digits of large pictures.
        source = self.view.to_source(boxes.detach().double().cpu().numpy()) - np.array([left, top, left, top])
        device = boxes.device
        local = torch.from_numpy(source.astype(np.float32)).to(device)
        cells = frames.crop_masks(torch.from_numpy(masks).to(device), position.to(device), local, size, soft)
        # Boxes came back with their corners in order, so a flipped picture reads them the wrong way round.
        mirrored = [dim for dim, scale in ((2, self.view.scale[0]), (1, self.view.scale[1])) if scale < 0]
        return cells.flip(mirrored) if mirrored else cells

    @property
    def is_cut(self) -> bool:
        """Whether a crop has removed a part of the annotated image, so that boxes and rates may have changed."""
        return self._window() != (0, 0, self.width, self.height)

    def measure(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """What crops left of each mask.

        Returns:
            Areas int64 [G] in source pixels, and tight boxes float64 [G, 4] in the network's image (zeros where empty).
        """
        areas = np.zeros(len(self), np.int64)
        boxes = np.zeros((len(self), 4))
        for i, piece in enumerate(self._pieces(range(len(self)))):
            kept = piece.clip(self._window())
            areas[i] = np.count_nonzero(kept.mask)
            if areas[i]:
                boxes[i] = self.view.to_network(kept.tight_box()[None])[0]
        return areas, boxes

    def overlap(self, other: InstanceMasks) -> NDArray[np.int64]:
        """Pixels int64 [G] of the annotated image, inside this view's window, in both mask i and ``other``'s mask i."""
        shared = np.zeros(len(self), np.int64)
        window = self._window()
        everything = range(len(self))
        for i, (mine, theirs) in enumerate(zip(self._pieces(everything), other._pieces(everything), strict=True)):
            box = mine.clip(window).box
            shared[i] = np.count_nonzero(mine.clip(box).mask & theirs.spread(box))
        return shared

    def _window(self) -> tuple[int, int, int, int]:
        return _pixels(self.view.window)

    def _region(self, used: list[int]) -> tuple[NDArray[np.bool_], int, int]:
        """Masks ``used`` as bool [M, h, w] in the smallest common rectangle, and its left and top edge.

        The rectangle ends where the network's image ends, since crops read the edge pixel in the half pixel beyond it.
        """
        window, edge = self._window(), _pixels(self.view.bounds())
        pieces = [piece.clip(window) for piece in self._pieces(used)]
        filled = [piece.box for piece in pieces if piece.mask.size]
        if not filled:
            return np.zeros((len(used), 1, 1), bool), 0, 0
        corners = np.array(filled)
        low = np.maximum(corners[:, :2].min(axis=0) - _MARGIN, edge[:2])
        high = np.minimum(corners[:, 2:].max(axis=0) + _MARGIN, edge[2:])
        box = (int(low[0]), int(low[1]), int(high[0]), int(high[1]))
        return np.stack([piece.spread(box) for piece in pieces]), box[0], box[1]

    def _pieces(self, rows: Sequence[int]) -> list[_Piece]:
        missing = [i for i in rows if i not in self._decoded]
        if missing:
            counts = [rle.counts_bytes(self.rles[i]["counts"]) for i in missing]
            offsets = np.concatenate([[0], np.cumsum([len(c) for c in counts])]).astype(np.int64)
            runs = rle.decompress_batch(np.frombuffer(b"".join(counts), np.uint8), offsets)
            _, boxes = rle.measure_batch(runs, np.full(len(missing), self.height, np.int64))
            for n, i in enumerate(missing):
                self._decoded[i] = _decode_piece(runs.runs(n), self.height, boxes[n].astype(int))
        return [self._decoded[i] for i in rows]


@dataclass(frozen=True)
class _Piece:
    """One mask inside a rectangle: bool [h, w], its first pixel is (x, y) of the source; empty masks have no pixels."""

    mask: NDArray[np.bool_]
    x: int
    y: int

    @property
    def box(self) -> tuple[int, int, int, int]:
        height, width = self.mask.shape
        return self.x, self.y, self.x + width, self.y + height

    def clip(self, window: tuple[int, int, int, int]) -> _Piece:
        """The part of the piece inside a rectangle."""
        x0, y0, x1, y1 = _intersect(self.box, window)
        return _Piece(self.mask[y0 - self.y : y1 - self.y, x0 - self.x : x1 - self.x], x0, y0)

    def spread(self, box: tuple[int, int, int, int]) -> NDArray[np.bool_]:
        """bool [h, w], the mask in a rectangle, False where the piece does not reach."""
        out = np.zeros((box[3] - box[1], box[2] - box[0]), bool)
        x0, y0, x1, y1 = _intersect(self.box, box)
        inside = self.mask[y0 - self.y : y1 - self.y, x0 - self.x : x1 - self.x]
        out[y0 - box[1] : y1 - box[1], x0 - box[0] : x1 - box[0]] = inside
        return out

    def tight_box(self) -> NDArray[np.float64]:
        """float64 [4], outer pixel edges of a mask that has pixels."""
        columns = np.flatnonzero(self.mask.any(axis=0))
        rows = np.flatnonzero(self.mask.any(axis=1))
        return np.array(
            [self.x + columns[0], self.y + rows[0], self.x + columns[-1] + 1, self.y + rows[-1] + 1], np.float64
        )


def _decode_piece(runs: NDArray[np.int64], height: int, box: NDArray[np.int_]) -> _Piece:
    """Only the columns of the box are expanded; runs are column-major."""
    x0, y0, x1, y1 = (int(v) for v in box)
    ends = np.clip(np.cumsum(runs), x0 * height, x1 * height)
    values = np.arange(len(runs)) % 2 == 1
    columns = np.repeat(values, np.diff(ends, prepend=x0 * height)).reshape(x1 - x0, height)
    return _Piece(np.ascontiguousarray(columns[:, y0:y1].T), x0, y0)


def _pixels(box: tuple[float, float, float, float]) -> tuple[int, int, int, int]:
    """The pixels whose centres lie in a box, as integer edges."""
    x0, y0, x1, y1 = (math.ceil(edge - 0.5) for edge in box)
    return x0, y0, max(x1, x0), max(y1, y0)


def _intersect(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """Common rectangle of two; one without pixels, inside ``a``, where they do not meet."""
    x0, y0 = min(max(a[0], b[0]), a[2]), min(max(a[1], b[1]), a[3])
    return x0, y0, max(min(a[2], b[2]), x0), max(min(a[3], b[3]), y0)


def _sorted(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Boxes whose corners a flip exchanged, put in order."""
    return np.concatenate([np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])], axis=1)
