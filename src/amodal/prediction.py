"""What a model answers for one image: boxes, classes, scores, and masks pasted into the image when asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from amodal.errors import AmodalError, DataError, counted
from amodal.files import write_picture

if TYPE_CHECKING:
    from PIL import Image

Part = Literal["amodal", "visible", "occluded"]
Index = int | slice | Sequence[int] | Sequence[bool] | Tensor | npt.NDArray[Any]

PER_OBJECT = ("boxes", "labels", "scores", "amodal_probs", "visible_probs", "frames")


@dataclass(kw_only=True, repr=False, eq=False)
class Prediction:
    """Objects found in one image. All tensors live on the CPU; coordinates are pixels of the input image.

    Attributes:
        boxes: float32 [N, 4], amodal boxes B^a, ``(x0, y0, x1, y1)``.
        labels: int64 [N], 0-based class index.
        scores: float32 [N], 0 to 1, descending.
        amodal_probs: float [N, S, S], probability that a cell belongs to the whole object, in frame ``boxes``.
        visible_probs: float [N, S, S], the same for the visible part, in frame ``frames``; None: the system has none.
        frames: float32 [N, 4], boxes B^o that ``visible_probs`` refers to; None: the same as ``boxes``.
        image_size: (height, width) of the input image in pixels.
        class_names: name of each class index.
        category_ids: id of each class index in the annotation file.
        image: uint8 [height, width, 3] RGB, kept for :meth:`draw`; None where it was not kept.

    Masks are bool [N, height, width], made at the first question and kept. Those of the visible part are None for a
    system that predicts none.
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor
    amodal_probs: Tensor
    visible_probs: Tensor | None = None
    frames: Tensor | None = None
    image_size: tuple[int, int]
    class_names: list[str]
    category_ids: list[int]
    image: npt.NDArray[np.uint8] | None = None
    _made: dict[str, Tensor] = field(default_factory=dict, init=False)

    def __len__(self) -> int:
        return int(self.boxes.shape[0])

    def __repr__(self) -> str:
        height, width = self.image_size
        shown = [f"{name} {score:.2f}" for name, score in zip(self.names[:4], self.scores[:4].tolist(), strict=True)]
        if len(self) > 4:
            shown.append(f"and {len(self) - 4} more")
        masks = "amodal" if self.visible_probs is None else "amodal and visible"
        found = ": " + ", ".join(shown) if shown else ""
        return f"Prediction({counted(len(self), 'object')} in {width} x {height} px, {masks} masks{found})"

    def __getitem__(self, index: Index) -> Prediction:
        """The chosen objects, as a Prediction of the same image.

        Args:
            index: an int (one object, still a Prediction), a slice, a list, array or tensor of positions or of bools.

        Raises:
            IndexError: a position is outside, or there are not as many bools as objects.
        """
        rows = _rows(index, len(self))
        whole = {name: getattr(self, name) for name in PER_OBJECT}
        chosen: dict[str, Any] = {name: None if value is None else value[rows] for name, value in whole.items()}
        part = replace(self, **chosen)
        part._made = {name: value[rows] for name, value in self._made.items()}
        return part

    @property
    def names(self) -> list[str]:
        """Class name of each object."""
        return [self.class_names[label] for label in self.labels.tolist()]

    @property
    def amodal_masks(self) -> Tensor:
        """bool [N, height, width], the whole objects as far as they lie in the image."""
        return self._mask("amodal", self.amodal_probs, self.boxes)

    @property
    def visible_masks(self) -> Tensor | None:
        """bool [N, height, width], what can be seen of the objects; None for a system without visible masks."""
        if self.visible_probs is None:
            return None
        return self._mask("visible", self.visible_probs, self.boxes if self.frames is None else self.frames)

    @property
    def occluded_masks(self) -> Tensor | None:
        """bool [N, height, width], amodal and not visible; None for a system without visible masks."""
        visible = self.visible_masks
        return None if visible is None else self.amodal_masks & ~visible

    @property
    def visible_boxes(self) -> Tensor | None:
        """float32 [N, 4], tight around the visible masks; zeros where nothing is visible; None without such masks."""
        visible = self.visible_masks
        return None if visible is None else _tight(visible)

    @property
    def visible_rates(self) -> Tensor | None:
        """float32 [N], visible share of the amodal mask, ``|V and A| / |A|`` in pixels of the image.

        1 where the amodal mask is empty (nothing is hidden); None for a system without visible masks.
        """
        visible = self.visible_masks
        if visible is None:
            return None
        whole = self.amodal_masks.flatten(1).sum(1)
        seen = (self.amodal_masks & visible).flatten(1).sum(1)
        return torch.where(whole > 0, seen / whole.clamp(min=1), torch.ones(len(self)))

    def to_coco(self, image_id: int | str) -> list[dict[str, Any]]:
        """The objects in the results format, ready for ``json.dump``.

        Boxes are rounded to 1/10,000 pixel; scores are the shortest decimals that give the same float32 back. Equal
        predictions give equal files. Masks are encoded one by one inside their frames, whatever the image's size.

        Args:
            image_id: id of the image in the annotation file.

        Returns:
            One dict an object: ``image_id, category_id, score, bbox`` (amodal, x y width height in pixels),
            ``segmentation`` (amodal, compressed RLE); with visible masks ``visible_mask``, ``visible_bbox`` too.
        """
        results = [
            {
                "image_id": image_id,
                "category_id": self.category_ids[label],
                "score": score,
                "bbox": _xywh(box),
                "segmentation": rle,
            }
            for label, score, box, (rle, _) in zip(
                self.labels.tolist(),
                _shortest(self.scores),
                self.boxes.tolist(),
                self._encode(self.amodal_probs, self.boxes),
                strict=True,
            )
        ]
        if self.visible_probs is not None:
            frames = self.boxes if self.frames is None else self.frames
            for result, (rle, box) in zip(results, self._encode(self.visible_probs, frames), strict=True):
                result.update(visible_mask=rle, visible_bbox=_xywh(box))
        return results

    def to_supervision(self, part: Part = "amodal") -> Any:
        """``supervision.Detections`` with masks and boxes of one part.

        Args:
            part: "amodal" (boxes as predicted), "visible" or "occluded" (boxes tight around those masks).

        Raises:
            AmodalError: unknown part, a part that this system has not, or ``supervision`` is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise AmodalError(
                "to_supervision needs the package supervision: pip install 'amodal[supervision]'"
            ) from error
        masks = self._part(part)
        boxes = self.boxes if part == "amodal" else _tight(masks)
        return supervision.Detections(
            xyxy=boxes.numpy().astype(np.float32),
            mask=masks.numpy(),
            confidence=self.scores.numpy().astype(np.float32),
            class_id=self.labels.numpy().astype(int),
            data={"class_name": np.array(self.names, dtype=str)},
        )

    def draw(
        self, path: str | Path | None = None, *, size: int = 2000, colors: Sequence[int] | None = None
    ) -> Image.Image:
        """The image with the visible parts filled, the hidden parts hatched, amodal boxes and labels.

        Args:
            path: where to write it, too (the suffix names the format); None: only return it.
            size: pixels of the longer side at most: a larger image is reduced to it, a smaller one enlarged by a whole
                factor, towards 900 pixels, so that hatching and text can be read; 0: the image at its own size.
            colors: number of each object's colour, from 0; None: its position.

        Returns:
            The picture; ``info["scale"]`` says how many of its pixels stand for one of the image.

        Raises:
            DataError: the prediction carries no image.
        """
        from PIL import Image

        from amodal.frames import paste
        from amodal.viz.instances import EachMask, draw_instances, resized
        from amodal.viz.scale import drawn_scale, drawn_size

        if self.image is None:
            raise DataError("this prediction carries no image to draw on; set prediction.image to the RGB array first")
        height, width, scale = drawn_size(*self.image_size, size)
        factor = torch.tensor([width / self.image_size[1], height / self.image_size[0]] * 2)

        def each(probs: Tensor, boxes: Tensor) -> EachMask:
            small = boxes * factor
            return EachMask(
                len(self), lambda row: paste(probs[row : row + 1], small[row : row + 1], height, width)[0].numpy()
            )

        frames = self.boxes if self.frames is None else self.frames
        drawn = Image.fromarray(
            draw_instances(
                resized(self.image, height, width),
                (self.boxes * factor).numpy(),
                each(self.amodal_probs, self.boxes),
                None if self.visible_probs is None else each(self.visible_probs, frames),
                self.names,
                self.scores.numpy(),
                scale=scale,
                colors=colors,
            )
        )
        drawn.info["scale"] = drawn_scale(*self.image_size, size)
        if path is not None:
            write_picture(Path(path), drawn)
        return drawn

    def _mask(self, name: str, probs: Tensor, boxes: Tensor) -> Tensor:
        if name not in self._made:
            from amodal.frames import paste

            self._made[name] = paste(probs, boxes, *self.image_size)
        return self._made[name]

    def _encode(self, probs: Tensor, boxes: Tensor) -> Iterator[tuple[dict[str, Any], list[float]]]:
        """RLE and tight box (xyxy, zeros for an empty mask) of each mask."""
        from amodal.frames import paste_windows

        for top, left, window in paste_windows(probs, boxes, *self.image_size):
            yield _rle(window.numpy(), top, left, self.image_size), _tight_inside(window, top, left)

    def _part(self, part: str) -> Tensor:
        if part not in ("amodal", "visible", "occluded"):
            raise AmodalError(f"part is {part!r}, must be 'amodal', 'visible' or 'occluded'")
        masks: Tensor | None = getattr(self, f"{part}_masks")
        if masks is None:
            raise AmodalError(f"part {part!r}: this system predicts no visible masks, only 'amodal' is there")
        return masks


def _rows(index: Index, count: int) -> Tensor:
    """int64 positions that an index chooses among ``count`` objects."""
    if isinstance(index, slice):
        return torch.tensor(range(count)[index], dtype=torch.int64)
    rows = torch.as_tensor(index).detach().cpu()
    rows = rows.reshape(1) if rows.ndim == 0 else rows
    if rows.ndim == 1 and rows.numel() == 0 and rows.dtype != torch.bool:
        return rows.long()
    if rows.ndim != 1 or rows.is_floating_point():
        raise IndexError("an index is an int, a slice, or a 1-d list, array or tensor of ints or bools")
    if rows.dtype == torch.bool:
        if len(rows) != count:
            raise IndexError(f"{counted(len(rows), 'bool')} for {counted(count, 'object')}")
        return torch.nonzero(rows).flatten()
    if bool(((rows < -count) | (rows >= count)).any()):
        raise IndexError(f"position outside {counted(count, 'object')}")
    return torch.where(rows < 0, rows + count, rows).long()


def _tight(masks: Tensor) -> Tensor:
    """float32 [N, 4], outer pixel edges of bool masks [N, H, W]; zeros where a mask is empty."""
    edges = []
    for axis in (1, 2):
        line = masks.any(dim=axis).byte()
        edges.append((line.argmax(1), line.shape[1] - line.flip(1).argmax(1)))
    (x0, x1), (y0, y1) = edges
    boxes = torch.stack([x0, y0, x1, y1], dim=1).float()
    return boxes * masks.flatten(1).any(dim=1)[:, None]


def _shortest(values: Tensor) -> list[float]:
    return [float(str(value)) for value in values.numpy().astype(np.float32)]


def _xywh(box: list[float]) -> list[float]:
    x0, y0, x1, y1 = box
    return [round(value, 4) for value in (x0, y0, x1 - x0, y1 - y0)]


def _tight_inside(window: Tensor, top: int, left: int) -> list[float]:
    """Outer pixel edges, xyxy, of a bool mask [h, w] at (top, left) of the image; zeros where it is empty."""
    if not bool(window.any()):
        return [0.0] * 4
    x0, y0, x1, y1 = _tight(window[None])[0].tolist()
    return [x0 + left, y0 + top, x1 + left, y1 + top]


def _rle(window: npt.NDArray[np.bool_], top: int, left: int, size: tuple[int, int]) -> dict[str, Any]:
    """Compressed RLE, counts as str, of a mask that is False outside ``window`` [h, w] at (top, left) of the image.

    The runs are our own, so the C library may read them.
    """
    from pycocotools import mask as coco

    height, width = size
    columns = np.zeros((window.shape[1], window.shape[0] + 2), np.int8)
    columns[:, 1:-1] = window.T
    steps = np.diff(columns, axis=1)
    starts, ends = (
        (left + column) * height + top + row for column, row in (np.nonzero(steps == 1), np.nonzero(steps == -1))
    )
    # What reaches the bottom of the image goes on at the top of the next column: one run.
    apart = starts[1:] != ends[:-1]
    starts, ends = (np.concatenate([starts[:1], starts[1:][apart]]), np.concatenate([ends[:-1][apart], ends[-1:]]))
    runs = np.diff(np.stack([starts, ends], 1).ravel(), prepend=0, append=height * width).tolist()
    runs = runs[:-1] if runs[-1] == 0 else runs
    code = coco.frPyObjects({"size": [height, width], "counts": runs}, height, width)
    return {"size": [height, width], "counts": code["counts"].decode("ascii")}
