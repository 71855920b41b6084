"""Results files: a JSON list of detections with amodal and, where the system has them, visible masks.

Every fault is a DataError that names the position in the list (from 0): unknown images and categories, scores that are
no numbers from 0 to 1, bad boxes, bad masks. Nothing is dropped but degenerate polygon pieces; an empty mask stays (it
is a false positive).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from amodal.data import rle
from amodal.data.jsonfile import BadValueError, Document, read_bytes
from amodal.data.mask_columns import Masks, read_masks
from amodal.data.problems import Count, Findings, shown_id
from amodal.data.rows import nearest_id
from amodal.data.store import AnnotationSet, MaskBuffer, measure_runs
from amodal.errors import DataError

_CHUNK = 512
_NOWHERE = (np.nan,) * 4


@dataclass
class ResultSet:
    """N detections in the order of the file.

    Attributes:
        path: the file, or "results" for a list.
        image_index: int32 [N], row of the image in the annotation set.
        labels: int32 [N], 0-based class index of the annotation set.
        sizes: int64 [N, 2], (height, width) of the image of each.
        scores: float64 [N], 0 to 1.
        boxes: float64 [N, 4], the stored amodal boxes as xyxy pixels, NaN where absent.
        amodal_boxes, visible_boxes: float64 [N, 4], xyxy pixel edges from the masks; zeros for an empty mask.
            Without visible masks the visible columns repeat the amodal ones.
        amodal_area, visible_area: int64 [N], pixels.
        visible_rate: float64 [N], |V and A| / |A|; NaN for an empty amodal mask and where there is no visible one.
        amodal: the masks.
        visible: the visible masks; None where the file has none.
        dropped: what was left out.
    """

    path: str
    image_index: npt.NDArray[np.int32]
    labels: npt.NDArray[np.int32]
    sizes: rle.Ints
    scores: npt.NDArray[np.float64]
    boxes: npt.NDArray[np.float64]
    amodal_boxes: npt.NDArray[np.float64]
    visible_boxes: npt.NDArray[np.float64]
    amodal_area: rle.Ints
    visible_area: rle.Ints
    visible_rate: npt.NDArray[np.float64]
    amodal: MaskBuffer
    visible: MaskBuffer | None
    dropped: list[Count]

    def __len__(self) -> int:
        return len(self.scores)

    def amodal_rle(self, row: int) -> dict[str, Any]:
        """Checked RLE ``{"size": [h, w], "counts": str}`` of the whole object, ready for JSON."""
        return {"size": self.sizes[row].tolist(), "counts": self.amodal.counts(row).decode("ascii")}

    def visible_rle(self, row: int) -> dict[str, Any]:
        """Checked RLE of the visible part; the system must have visible masks."""
        if self.visible is None:
            raise ValueError("these results have no visible masks")
        return {"size": self.sizes[row].tolist(), "counts": self.visible.counts(row).decode("ascii")}


def load_results(results: str | Path | Sequence[Any], annotations: AnnotationSet) -> ResultSet:
    """Reads and checks detections for the images of ``annotations``.

    Args:
        results: path of a results file, or its list.
        annotations: the ground truth whose image and category ids the results use.
    """
    path = str(results) if isinstance(results, (str, Path)) else "results"
    entries = _stream(path) if isinstance(results, (str, Path)) else iter(results)
    reader = _Reader(path, annotations)
    while reader.add(list(islice(entries, _CHUNK))):
        pass
    return reader.finish()


def _stream(path: str) -> Iterator[Any]:
    content = Document(read_bytes(path), path)
    if not isinstance(content.top, list):
        raise DataError("is an object, as annotation files are; results are a list", file=path)
    for position, item in enumerate(content.top):
        try:
            yield content.value(item)
        except BadValueError as fault:  # noqa: PERF203 - each entry fails for itself
            image_id = shown_id(fault.entry.get("image_id")) if isinstance(fault.entry, dict) else None
            raise DataError(str(fault), file=path, image_id=image_id, annotation_id=position) from None


class _Reader:
    def __init__(self, path: str, annotations: AnnotationSet) -> None:
        self.findings = Findings(path)
        self.rows = {number: row for row, number in enumerate(annotations.image_ids.tolist())}
        self.labels = {number: label for label, number in enumerate(annotations.category_ids)}
        self.sizes = np.stack([annotations.heights, annotations.widths], 1).astype(np.int64)
        self.has_visible: bool | None = None
        self.position = 0
        self.columns: list[dict[str, npt.NDArray[Any]]] = []
        self.masks: list[tuple[MaskBuffer, MaskBuffer]] = []

    def add(self, entries: list[Any]) -> bool:
        """Reads a chunk (an empty one too, which gives the columns their shapes); False after the last."""
        start = self.position
        read = [self._read(entry) for entry in entries]
        image = np.array([item[0] for item in read], np.int64)
        sizes = self.sizes[image]
        amodal = self._check("segmentation", entries, sizes, start)
        visible = self._check("visible_mask", entries, sizes, start) if self.has_visible else amodal
        measured = measure_runs(amodal.runs, visible.runs, sizes[:, 0])
        area = measured["amodal_area"]
        rate = np.where(area > 0, measured.pop("shared") / np.maximum(area, 1), np.nan)
        del measured["occlude_rate"]
        self.columns.append(
            {
                "image_index": image.astype(np.int32),
                "labels": np.array([item[1] for item in read], np.int32),
                "sizes": sizes,
                "scores": np.array([item[2] for item in read], np.float64),
                "boxes": np.array([item[3] for item in read], np.float64).reshape(-1, 4),
                "visible_rate": rate if self.has_visible else np.full(len(read), np.nan),
                **measured,
            }
        )
        self.masks.append((amodal.buffer, visible.buffer))
        return bool(entries)

    def finish(self) -> ResultSet:
        columns = {name: np.concatenate([part[name] for part in self.columns]) for name in self.columns[0]}
        amodal = MaskBuffer.join([part[0] for part in self.masks])
        visible = MaskBuffer.join([part[1] for part in self.masks]) if self.has_visible else None
        found = self.findings
        return ResultSet(path=found.path, amodal=amodal, visible=visible, dropped=found.dropped, **columns)

    def _read(self, entry: Any) -> tuple[int, int, float, tuple[float, ...]]:
        position, self.position = self.position, self.position + 1
        image_id = entry.get("image_id") if isinstance(entry, dict) else None
        try:
            if not isinstance(entry, dict):
                raise ValueError("is no object with image_id, category_id, score and segmentation")
            row = _known(image_id, self.rows, "image_id")
            label = _known(entry.get("category_id"), self.labels, "category_id")
            score, box = _score(entry.get("score")), _box(entry.get("bbox"))
            self._check_keys(entry)
        except ValueError as error:
            where = shown_id(image_id)
            raise DataError(str(error), file=self.findings.path, image_id=where, annotation_id=position) from None
        return row, label, score, box

    def _check_keys(self, entry: dict[str, Any]) -> None:
        if entry.get("segmentation") is None:
            raise ValueError("has no segmentation")
        present = entry.get("visible_mask") is not None
        if self.has_visible is None:
            self.has_visible = present
        if present != self.has_visible:
            raise ValueError("has a visible_mask, others have none" if present else "has no visible_mask, others have")

    def _check(self, key: str, entries: list[Any], sizes: rle.Ints, start: int) -> Masks:
        masks = read_masks([entry[key] for entry in entries], sizes)
        for row, reason in sorted(masks.faults.items()):
            image, position = entries[row]["image_id"], start + row
            raise DataError(f"{key}: {reason}", file=self.findings.path, image_id=image, annotation_id=position)
        for row, pieces in masks.degenerate.items():
            self.findings.drop("polygon piece of fewer than three points", start + row, pieces)
        return masks


def translate(results: Iterable[Mapping[str, Any]], category_of: Mapping[int, int | None]) -> list[dict[str, Any]]:
    """Results with other category ids (:attr:`amodal.data.classes.ClassMatch.category_of`); those of classes without
    partner are left out."""
    translated = ({**result, "category_id": category_of[result["category_id"]]} for result in results)
    return [result for result in translated if result["category_id"] is not None]


def _known(value: Any, table: dict[int, int], key: str) -> int:
    row = table.get(int(value)) if isinstance(value, (int, np.integer)) and not isinstance(value, bool) else None
    if row is None:
        raise ValueError(f"{key} is {value!r:.40}, which the annotations do not have{nearest_id(value, table)}")
    return row


def _score(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not 0.0 <= value <= 1.0:
        raise ValueError(f"score is {value!r:.40}, must be a number from 0 to 1")
    return float(value)


def _box(value: Any) -> tuple[float, ...]:
    if value is None:
        return _NOWHERE
    if not isinstance(value, (list, tuple, np.ndarray)) or len(value) != 4 or not all(map(_is_pixel, value)):
        raise ValueError(f"bbox is {value!r:.60}, must be [x, y, width, height]")
    x, y, width, height = map(float, value)
    if width < 0 or height < 0:
        raise ValueError(f"bbox is {value!r:.60}, its width or height is negative")
    return x, y, x + width, y + height


def _is_pixel(side: Any) -> bool:
    if isinstance(side, bool) or not isinstance(side, (int, float, np.number)):
        return False
    number: Any = side
    return bool(abs(number) < 2**31)  # NaN is not
