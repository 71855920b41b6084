"""Annotations of a whole file as a few numpy arrays, masks as one buffer of compressed runs.

Rows are sorted by image, so that the annotations of image ``i`` are rows ``first[i]:first[i + 1]``. Every mask in a set
has passed the checks of :mod:`amodal.data.rle`, has the size of its image, and no amodal mask is empty.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from amodal.data import rle
from amodal.data.problems import Count, Problem

Floats = npt.NDArray[np.float64]


OCCLUDED = 0.15
"""Hidden share above which an object counts as occluded: in metrics, priors, statistics and pictures."""

RATE_TOLERANCE = 0.02
"""How far a stored occlusion rate may lie from that of the masks and still be taken for the same."""


@dataclass
class MaskBuffer:
    """Compressed runs of A masks behind each other.

    Attributes:
        data: uint8 [bytes].
        offsets: int64 [A + 1]; mask ``a`` is ``data[offsets[a]:offsets[a + 1]]``.
    """

    data: rle.Bytes
    offsets: rle.Ints

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def counts(self, row: int) -> bytes:
        """Compressed counts of one mask."""
        return self.data[self.offsets[row] : self.offsets[row + 1]].tobytes()

    def take(self, rows: rle.Ints) -> MaskBuffer:
        """The masks of these rows, in this order."""
        lengths = np.diff(self.offsets)[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        shift = np.repeat(self.offsets[:-1][rows] - offsets[:-1], lengths)
        return MaskBuffer(self.data[np.arange(offsets[-1]) + shift], offsets)

    @staticmethod
    def join(parts: Sequence[MaskBuffer]) -> MaskBuffer:
        """Several buffers as one."""
        lengths = [np.diff(part.offsets) for part in parts]
        offsets = np.concatenate([np.zeros(1, np.int64), *lengths]).cumsum()
        return MaskBuffer(np.concatenate([np.zeros(0, np.uint8), *(part.data for part in parts)]), offsets)

    @staticmethod
    def pack(counts: Sequence[bytes]) -> MaskBuffer:
        """One buffer of separate strings."""
        lengths = np.fromiter(map(len, counts), np.int64, len(counts))
        data = np.frombuffer(b"".join(counts), np.uint8)
        return MaskBuffer(data, np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]))


@dataclass
class AnnotationSet:
    """Images, classes and instances of one file. I images, A annotations, C classes.

    Attributes:
        path: the file, or "" for a set made in memory.
        schema: name of the schema it was read as.
        class_names: C names; a label is an index into them.
        category_ids: C ids of the file, ascending.
        image_ids: int64 [I], ids in the file.
        heights, widths: int32 [I], pixels.
        file_names: I paths relative to the image folder.
        first: int64 [I + 1], first row of each image.
        annotation_ids: int64 [A], ids in the file.
        image_index: int32 [A], row of the image.
        labels: int32 [A], 0-based class index.
        crowd: bool [A].
        amodal_known: bool [A]; False: only what is visible is annotated, and both masks are that.
        stored_rate: float64 [A], the file's occlusion rate (0 to 1), NaN where it has none.
        stored_boxes: float64 [A, 4], the file's amodal box as xyxy pixels, NaN where it has none.
        amodal_boxes, visible_boxes: float64 [A, 4], xyxy pixel edges recomputed from the masks; zeros for a mask that
            is empty (a fully hidden instance has an empty visible mask).
        amodal_area, visible_area: int64 [A], pixels.
        occlude_rate: float64 [A], 1 - |V and A| / |A|, in 0 to 1.
        amodal, visible: the masks.
        dropped: what was left out of the file, and why.
        noted: what is odd and was kept.
        problems: errors that ``load(..., strict=False)`` found; such annotations are not in the set.
    """

    path: str
    schema: str
    class_names: list[str]
    category_ids: list[int]
    image_ids: rle.Ints
    heights: npt.NDArray[np.int32]
    widths: npt.NDArray[np.int32]
    file_names: Sequence[str]
    first: rle.Ints
    annotation_ids: rle.Ints
    image_index: npt.NDArray[np.int32]
    labels: npt.NDArray[np.int32]
    crowd: npt.NDArray[np.bool_]
    amodal_known: npt.NDArray[np.bool_]
    stored_rate: Floats
    stored_boxes: Floats
    amodal_boxes: Floats
    visible_boxes: Floats
    amodal_area: rle.Ints
    visible_area: rle.Ints
    occlude_rate: Floats
    amodal: MaskBuffer
    visible: MaskBuffer
    dropped: list[Count] = field(default_factory=list)
    noted: list[Count] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def __len__(self) -> int:
        """How many annotations."""
        return len(self.annotation_ids)

    def rows(self, image: int) -> range:
        """Rows of the annotations of image number ``image``."""
        return range(int(self.first[image]), int(self.first[image + 1]))

    def size(self, row: int) -> tuple[int, int]:
        """(height, width) of the image of an annotation."""
        image = self.image_index[row]
        return int(self.heights[image]), int(self.widths[image])

    def amodal_rle(self, row: int) -> dict[str, Any]:
        """Checked RLE ``{"size": [h, w], "counts": str}`` of the whole object, ready for JSON."""
        return {"size": list(self.size(row)), "counts": self.amodal.counts(row).decode("ascii")}

    def visible_rle(self, row: int) -> dict[str, Any]:
        """Checked RLE ``{"size": [h, w], "counts": str}`` of the visible part, ready for JSON."""
        return {"size": list(self.size(row)), "counts": self.visible.counts(row).decode("ascii")}

    def amodal_mask(self, row: int) -> rle.Mask:
        """bool [H, W], the whole object."""
        return rle.runs_mask(rle.parse_counts(self.amodal.counts(row)), *self.size(row))

    def visible_mask(self, row: int) -> rle.Mask:
        """bool [H, W], the visible part."""
        return rle.runs_mask(rle.parse_counts(self.visible.counts(row)), *self.size(row))

    @classmethod
    def from_columns(
        cls,
        *,
        images: Sequence[tuple[int, str, int, int]],
        categories: Sequence[tuple[int, str]],
        columns: Mapping[str, npt.NDArray[Any]],
        amodal: MaskBuffer,
        visible: MaskBuffer,
        **rest: Any,
    ) -> AnnotationSet:
        """A set of checked columns in any order; rows are sorted by image (stable).

        Args:
            images: (id, file name, height, width) each.
            categories: (id, name) each, in label order.
            columns: annotation_ids, image_index, labels, crowd, amodal_known, stored_rate, stored_boxes and, from
                :func:`measure`, boxes, areas and occlude_rate.
            amodal: masks of the rows.
            visible: masks of the rows.
            rest: path, schema, dropped, noted, problems.
        """
        index = np.asarray(columns["image_index"])
        order = np.argsort(index, kind="stable")
        # Most files are sorted by image already, and taking rows copies every mask.
        if len(order) and (np.diff(order) != 1).any():
            columns = {name: column[order] for name, column in columns.items()}
            amodal, visible = amodal.take(order), visible.take(order)
        fields: dict[str, Any] = {name: column.astype(_DTYPES[name], copy=False) for name, column in columns.items()}
        return cls(
            **fields,
            class_names=[name for _, name in categories],
            category_ids=[int(number) for number, _ in categories],
            image_ids=np.array([image[0] for image in images], np.int64),
            file_names=[image[1] for image in images],
            heights=np.array([image[2] for image in images], np.int32),
            widths=np.array([image[3] for image in images], np.int32),
            first=np.searchsorted(fields["image_index"], np.arange(len(images) + 1)).astype(np.int64),
            amodal=amodal,
            visible=visible,
            **{"path": "", "schema": "memory", **rest},
        )

    @classmethod
    def from_masks(
        cls,
        images: Sequence[tuple[int, int]],
        annotations: Iterable[Mapping[str, Any]],
        class_names: Sequence[str],
        *,
        image_ids: Sequence[int] | None = None,
        category_ids: Sequence[int] | None = None,
        file_names: Sequence[str] | None = None,
    ) -> AnnotationSet:
        """A small set of dense masks.

        Args:
            images: (height, width) of each image.
            annotations: mappings with image (index), label (index), amodal (bool [H, W]) and optionally visible (bool
                [H, W], default: amodal), id, crowd, amodal_known, stored_rate and stored_box (xyxy).
            class_names: names in label order.
            image_ids: default 1, 2, ...
            category_ids: default 1, 2, ...
            file_names: default "000001.png", ...
        """
        items = list(annotations)
        numbers = list(image_ids) if image_ids is not None else list(range(1, len(images) + 1))
        names = list(file_names) if file_names is not None else [f"{number:06d}.png" for number in numbers]
        ids = list(category_ids) if category_ids is not None else list(range(1, len(class_names) + 1))
        for item in items:
            for part in ("amodal", "visible"):
                if part in item and np.shape(item[part]) != tuple(images[item["image"]]):
                    raise ValueError(f"{part} mask is {np.shape(item[part])}, its image {images[item['image']]}")
        amodal = MaskBuffer.pack([rle.compress(rle.mask_runs(item["amodal"])) for item in items])
        visible = MaskBuffer.pack([rle.compress(rle.mask_runs(item.get("visible", item["amodal"]))) for item in items])
        index = np.array([item["image"] for item in items], np.int64)
        nowhere = [np.nan] * 4
        columns: dict[str, npt.NDArray[Any]] = {
            "annotation_ids": np.array([item.get("id", number) for number, item in enumerate(items, 1)], np.int64),
            "image_index": index,
            "labels": np.array([item["label"] for item in items], np.int32),
            "crowd": np.array([item.get("crowd", False) for item in items], bool),
            "amodal_known": np.array([item.get("amodal_known", True) for item in items], bool),
            "stored_rate": np.array([item.get("stored_rate", np.nan) for item in items], np.float64),
            "stored_boxes": np.array([item.get("stored_box", nowhere) for item in items], np.float64).reshape(-1, 4),
        }
        sizes = np.array(images, np.int64).reshape(-1, 2)
        columns |= measure(amodal, visible, sizes[index, 0])
        if (columns["amodal_area"] == 0).any():
            raise ValueError("an amodal mask is empty")
        return cls.from_columns(
            images=[(number, name, *size) for number, name, size in zip(numbers, names, images, strict=True)],
            categories=list(zip(ids, class_names, strict=True)),
            columns=columns,
            amodal=amodal,
            visible=visible,
        )


def measure(amodal: MaskBuffer, visible: MaskBuffer, heights: rle.Ints) -> dict[str, npt.NDArray[Any]]:
    """Boxes, areas and occlusion rates of checked masks; ``heights`` int64 [A] are those of their images."""
    whole = rle.decompress_batch(amodal.data, amodal.offsets)
    seen = rle.decompress_batch(visible.data, visible.offsets)
    columns = measure_runs(whole, seen, heights)
    del columns["shared"]
    return columns


def measure_runs(whole: rle.Runs, seen: rle.Runs, heights: rle.Ints) -> dict[str, npt.NDArray[Any]]:
    """As :func:`measure`, of runs, and "shared": int64 [A], pixels in both masks."""
    amodal_area, amodal_boxes = rle.measure_batch(whole, heights)
    visible_area, visible_boxes = rle.measure_batch(seen, heights)
    shared = rle.intersection_batch(whole, seen)
    return {
        "amodal_area": amodal_area,
        "amodal_boxes": amodal_boxes,
        "visible_area": visible_area,
        "visible_boxes": visible_boxes,
        "shared": shared,
        "occlude_rate": np.clip(1.0 - shared / np.maximum(amodal_area, 1), 0.0, 1.0),
    }


_DTYPES: dict[str, type[np.generic]] = {
    "annotation_ids": np.int64,
    "image_index": np.int32,
    "labels": np.int32,
    "crowd": np.bool_,
    "amodal_known": np.bool_,
    "stored_rate": np.float64,
    "stored_boxes": np.float64,
    "amodal_boxes": np.float64,
    "visible_boxes": np.float64,
    "amodal_area": np.int64,
    "visible_area": np.int64,
    "occlude_rate": np.float64,
}
