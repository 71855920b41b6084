"""From the annotations of a file to checked columns, a few thousand at a time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt
from msgspec import UNSET

from amodal.bounds import MAX_ID
from amodal.data import rle
from amodal.data.mask_columns import Masks, check_masks, read_masks, without_hidden
from amodal.data.problems import Findings
from amodal.data.schemas.schema import Annotation, Schema
from amodal.data.store import MaskBuffer, measure_runs
from amodal.data.typed import Typed

CHUNK = 512  # small enough for the temporary arrays to stay in the processor's cache
_NOWHERE = (np.nan,) * 4
_LONGEST_ID = 10**20  # beyond what is valid, but still to be found in the file
_FAR = 2**31  # pixels
_SAME_BOX = 2.0  # pixels
_NUMBERS = {int, float}
_FLAGS = {0, 1, UNSET}
Columns = dict[str, npt.NDArray[Any]]
Floats = npt.NDArray[np.float64]


@dataclass
class _Chunk:
    """Columns of one chunk before the masks are read."""

    ids: list[int] = field(default_factory=list)
    images: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    crowd: list[bool] = field(default_factory=list)
    known: list[bool] = field(default_factory=list)
    rates: list[float] | Floats = field(default_factory=list)
    boxes: list[tuple[float, ...]] | Floats = field(default_factory=list)
    amodal: list[Any] = field(default_factory=list)
    visible: list[Any] = field(default_factory=list)
    hidden: dict[int, Any] = field(default_factory=dict)  # by place in the chunk, where it stands for the visible one


@dataclass
class RowReader:
    """Checks annotations and gathers them as columns.

    Attributes:
        schema: which keys hold what.
        image_rows: image id -> row.
        sizes: int64 [I, 2], (height, width) of the images.
        labels: category id -> label.
        findings: where faults and drops go.
    """

    schema: Schema
    image_rows: dict[int, int]
    sizes: rle.Ints
    labels: dict[int, int]
    findings: Findings

    def __post_init__(self) -> None:
        self._seen: set[int] = set()
        self._position = -1
        self._columns: list[Columns] = []
        self._amodal: list[MaskBuffer] = []
        self._visible: list[MaskBuffer] = []

    def add_entries(self, entries: Iterable[Annotation]) -> None:
        """Annotations one by one; what is odd is a finding."""
        stream = iter(entries)
        while part := list(islice(stream, CHUNK)):
            chunk = _Chunk()
            for entry in part:
                self._read_entry(entry, chunk)
            self._close(chunk, *self._read_masks(chunk))

    def add_typed(self, typed: Typed) -> bool:
        """Annotations a column at a time; False, and nothing is added, where one needs :meth:`add_entries`."""
        schema = self.schema
        amodal, visible = (typed.masks.get(key) if key else None for key in (schema.amodal, schema.visible))
        ids, images = _integers(typed.column("id")), _rows(typed.column("image_id"), self.image_rows)
        labels = _rows(typed.column("category_id"), self.labels)
        crowd, known = _flags(typed, "iscrowd", False), _flags(typed, "amodal_known", True)
        rates, boxes = _rates(typed, schema.rate), _boxes(typed, schema.box)
        if ids is None or images is None or labels is None or crowd is None or known is None:
            return False
        if rates is None or boxes is None or amodal is None or (schema.visible and visible is None):
            return False
        fresh = set(ids)
        sizes = self.sizes[images]
        if amodal.absent() or not amodal.fits(sizes) or len(fresh) < len(ids) or not self._seen.isdisjoint(fresh):
            return False
        unoccluded = visible.absent() if visible else []
        if visible and not (visible.fits(sizes) and self._are_unoccluded(typed, unoccluded, rates)):
            return False
        self._seen |= fresh
        self._position += len(ids)
        for row in np.flatnonzero((boxes[:, 2:] <= boxes[:, :2]).any(1)).tolist():
            self._note_flat_box(ids[row])
        known = known if schema.visible else [False] * len(ids)
        chunk = _Chunk(ids, images, labels, crowd, known, rates, boxes)
        whole = check_masks(amodal, sizes, {}, {})
        if visible:
            visible.rles += unoccluded
            visible.counts += map(whole.buffer.counts, unoccluded)
        self._close(chunk, whole, check_masks(visible, sizes, {}, {}) if visible else whole)
        return True

    def _are_unoccluded(self, typed: Typed, rows: list[int], rates: Floats) -> bool:
        """Whether in these rows the amodal mask may stand for the visible one, see :meth:`_visible_mask`."""
        schema = self.schema
        if not rows:
            return True
        hidden = typed.column(schema.hidden)
        if schema.absent_visible != "unoccluded" or (hidden and any(hidden[row] is not UNSET for row in rows)):
            return False
        whole, seen = _sides(typed, schema.box)[rows], _sides(typed, schema.visible_box)[rows]
        differ = np.abs(whole - seen) > _SAME_BOX  # never where one is absent
        return not ((rates[rows] > 0).any() or differ.any() or (np.abs(seen) > _FAR).any())

    def finish(self) -> tuple[Columns, MaskBuffer, MaskBuffer]:
        """Columns as :meth:`AnnotationSet.from_columns` takes them, amodal and visible masks."""
        empty = _Chunk()  # gives the columns of a file without annotations
        self._close(empty, *self._read_masks(empty))
        columns = {name: np.concatenate([part[name] for part in self._columns]) for name in self._columns[0]}
        return columns, MaskBuffer.join(self._amodal), MaskBuffer.join(self._visible)

    def _read_entry(self, entry: Annotation, chunk: _Chunk) -> None:
        number, image_id = entry.get("id"), entry.get("image_id")
        self._position += 1
        try:
            row = self._image_row(image_id)
            label = self._label(entry.get("category_id"))
            self._check_id(number)
            amodal = entry.get(self.schema.amodal)
            if amodal is None:
                raise _Fault("bad mask", f"has no {self.schema.amodal}")
            visible, known, hidden = self._visible_mask(entry, amodal)
            crowd = _flag(entry, "iscrowd", False)
            rate, box = self._rate(entry, number), self._box(entry, number)
        except _Fault as fault:
            if isinstance(number, str) or (isinstance(number, int) and abs(number) <= _LONGEST_ID):
                self.findings.error(fault.kind, fault.message, image_id, number)
            else:  # such as NaN, or hundreds of digits: they name nothing
                self.findings.error(fault.kind, f"annotation number {self._position}: {fault.message}", image_id)
            return
        if hidden is not None:
            chunk.hidden[len(chunk.ids)] = hidden
        chunk.ids.append(number)  # type: ignore[arg-type]  # _check_id has seen to it
        chunk.images.append(row)
        chunk.labels.append(label)
        chunk.crowd.append(crowd)
        chunk.known.append(known)
        chunk.rates.append(rate)  # type: ignore[union-attr]
        chunk.boxes.append(box)  # type: ignore[union-attr]
        chunk.amodal.append(amodal)
        chunk.visible.append(visible)

    def _image_row(self, image_id: Any) -> int:
        row = self.image_rows.get(image_id) if type(image_id) is int else None
        if row is None:
            raise _Fault("unknown image", f"image_id {_show(image_id)} is not among the file's images")
        return row

    def _label(self, category: Any) -> int:
        label = self.labels.get(category) if type(category) is int else None
        if label is None:
            near = nearest_id(category, self.labels)
            raise _Fault("unknown category", f"category_id {_show(category)} is unknown{near}")
        return label

    def _check_id(self, number: Any) -> None:
        if type(number) is not int or not 0 <= number <= MAX_ID:
            raise _Fault("bad id", f"id is {_show(number)}, must be an integer from 0 to 2^63 - 1")
        if number in self._seen:
            raise _Fault("duplicate id", "id occurs twice in the file")
        self._seen.add(number)

    def _visible_mask(self, entry: Annotation, amodal: Any) -> tuple[Any, bool, Any]:
        """The visible mask, whether the amodal one is known, and the hidden mask if that alone is stored.

        Where there is no visible mask, the amodal one stands for it.
        """
        schema = self.schema
        if schema.visible is None:
            return amodal, False, None
        known = _flag(entry, "amodal_known", True)
        visible = entry.get(schema.visible)
        if visible is not None:
            return visible, known, None
        if schema.absent_visible == "error":
            raise _Fault("bad mask", f"has no {schema.visible}")
        hidden = entry.get(schema.hidden) if schema.hidden else None
        if hidden is None:
            self._require_unoccluded(entry)
        return amodal, known, hidden

    def _require_unoccluded(self, entry: Annotation) -> None:
        """An annotation without visible mask must not say that a part of it is hidden."""
        schema = self.schema
        rate = entry.get(schema.rate) if schema.rate else None
        if isinstance(rate, (int, float)) and not rate <= 0:
            raise _Fault("bad mask", f"has no {schema.visible} though its {schema.rate} is {_show(rate)}")
        whole, seen = (entry.get(key or "") for key in (schema.box, schema.visible_box))
        if not (_is_box(whole) and _is_box(seen)) or any(abs(side) > _FAR for side in (*whole, *seen)):
            return
        if any(abs(a - b) > _SAME_BOX for a, b in zip(whole, seen, strict=True)):
            raise _Fault("bad mask", f"has no {schema.visible} though its {schema.visible_box} is not its {schema.box}")

    def _rate(self, entry: Annotation, number: Any) -> float:
        rate = entry.get(self.schema.rate) if self.schema.rate else None
        if rate is None:
            return float("nan")
        if type(rate) not in (int, float):
            raise _Fault("bad rate", f"{self.schema.rate} is {_show(rate)}, must be a number from 0 to 1")
        if not 0.0 <= rate <= 1.0:
            self.findings.note(f"{self.schema.rate} outside 0 to 1, ignored (the rate comes from the masks)", number)
            return float("nan")
        return float(rate)

    def _box(self, entry: Annotation, number: Any) -> tuple[float, ...]:
        box = entry.get(self.schema.box) if self.schema.box else None
        if box is None:
            return _NOWHERE
        if type(box) is not list or len(box) != 4 or not _NUMBERS.issuperset(map(type, box)):
            raise _Fault("bad box", f"{self.schema.box} is {_show(box)}, must be [x, y, width, height]")
        x, y, width, height = box
        # NaN is in no interval.
        if not (-_FAR <= x <= _FAR and -_FAR <= y <= _FAR and -_FAR <= width <= _FAR and -_FAR <= height <= _FAR):
            raise _Fault("bad box", f"{self.schema.box} is {_show(box)}, too large for pixels or not finite")
        if width <= 0 or height <= 0:
            self._note_flat_box(number)
        return x, y, x + width, y + height

    def _note_flat_box(self, number: Any) -> None:
        self.findings.note(f"{self.schema.box} without width or height (boxes come from the masks)", number)

    def _read_masks(self, chunk: _Chunk) -> tuple[Masks, Masks]:
        """Amodal and visible masks; where these are the same objects, the same."""
        sizes = self.sizes[np.array(chunk.images, np.int64)]
        amodal = read_masks(chunk.amodal, sizes)
        same = all(a is v for a, v in zip(chunk.amodal, chunk.visible, strict=True))
        visible = amodal if same else read_masks(chunk.visible, sizes)
        if chunk.hidden:
            visible = without_hidden(visible, chunk.hidden, self.schema.hidden or "", sizes)
        return amodal, visible

    def _close(self, chunk: _Chunk, amodal: Masks, visible: Masks) -> None:
        """Measures a chunk with its masks and keeps the sound rows."""
        index = np.array(chunk.images, np.int64)
        columns: Columns = {
            "annotation_ids": np.array(chunk.ids, np.int64),
            "image_index": index.astype(np.int32),
            "labels": np.array(chunk.labels, np.int32),
            "crowd": np.array(chunk.crowd, bool),
            "amodal_known": np.array(chunk.known, bool),
            "stored_rate": np.array(chunk.rates, np.float64),
            "stored_boxes": np.array(chunk.boxes, np.float64).reshape(-1, 4),
        }
        self._report(columns, amodal, self.schema.amodal)
        if visible is not amodal:
            visible = visible._replace(faults={r: m for r, m in visible.faults.items() if r not in amodal.faults})
            self._report(columns, visible, self.schema.visible or self.schema.amodal)
        columns |= measure_runs(amodal.runs, visible.runs, self.sizes[index, 0])
        self._keep(columns, amodal, visible)

    def _report(self, columns: Columns, masks: Masks, key: str) -> None:
        ids = columns["annotation_ids"]
        for row, pieces in masks.degenerate.items():
            self.findings.drop("polygon piece of fewer than three points", int(ids[row]), pieces)
        for row, reason in sorted(masks.faults.items()):
            image = list(self.image_rows)[columns["image_index"][row]]
            self.findings.error("bad mask", f"{key}: {reason}", image, int(ids[row]))

    def _keep(self, columns: Columns, amodal: Masks, visible: Masks) -> None:
        """Keeps the sound rows whose amodal mask is not empty; counts what is odd."""
        ids = columns["annotation_ids"]
        sound = np.ones(len(ids), bool)
        sound[[*amodal.faults, *visible.faults]] = False
        keep = sound & (columns["amodal_area"] > 0)
        for number in ids[sound & ~keep].tolist():
            self.findings.drop("empty amodal mask", number)
        for number in ids[keep & (columns["visible_area"] > columns.pop("shared"))].tolist():
            self.findings.note("visible mask reaches beyond the amodal one", number)
        rows = np.flatnonzero(keep)
        whole = len(rows) == len(ids)
        self._columns.append(columns if whole else {name: column[rows] for name, column in columns.items()})
        self._amodal.append(amodal.buffer if whole else amodal.buffer.take(rows))
        self._visible.append(visible.buffer if whole else visible.buffer.take(rows))


class _Fault(Exception):
    """An annotation that cannot be used."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind, self.message = kind, message


def _flag(entry: Annotation, key: str, default: bool) -> bool:
    value = entry.get(key, default)
    if value is None:
        return default
    if type(value) not in (bool, int) or value not in (0, 1):
        raise _Fault("bad annotation", f"{key} is {_show(value)}, must be 0 or 1")
    return bool(value)


def _integers(values: list[Any] | None) -> list[int] | None:
    """Ids that are all there and in bounds; None otherwise."""
    if values is None or UNSET in values or not 0 <= min(values) <= max(values) <= MAX_ID:
        return None
    return values


def _rows(values: list[Any] | None, table: dict[int, int]) -> list[int] | None:
    """What the table has for each value; None where it lacks one."""
    try:
        return None if values is None else list(map(table.__getitem__, values))
    except KeyError:
        return None


def _flags(typed: Typed, key: str, default: bool) -> list[bool] | None:
    values = typed.column(key)
    if values is None:
        return [default] * len(typed)
    return [default if value is UNSET else bool(value) for value in values] if _FLAGS.issuperset(values) else None


def _rates(typed: Typed, key: str | None) -> Floats | None:
    """float64 [N], NaN where a rate is absent; None where one is out of bounds."""
    values = typed.column(key)
    if values is None:
        return np.full(len(typed), np.nan)
    rates = np.array([np.nan if value is UNSET else value for value in values], np.float64)
    return None if ((rates < 0) | (rates > 1)).any() else rates


def _boxes(typed: Typed, key: str | None) -> Floats | None:
    """float64 [N, 4] as xyxy, NaN where a box is absent; None where one is too large."""
    boxes = _sides(typed, key)
    if (np.abs(boxes) > _FAR).any():
        return None
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def _sides(typed: Typed, key: str | None) -> Floats:
    """float64 [N, 4], boxes as the file has them (x, y, width, height), NaN where there is none."""
    values = typed.column(key)
    if values is None:
        return np.full((len(typed), 4), np.nan)
    return np.array([_NOWHERE if value is UNSET else value for value in values], np.float64)


def _is_box(box: Any) -> TypeGuard[list[float]]:
    return type(box) is list and len(box) == 4 and _NUMBERS.issuperset(map(type, box))


def nearest_id(value: object, known: Iterable[int]) -> str:
    """ ", nearest known is N" for an integer, else ""."""
    ids = list(known)
    if type(value) is not int or not ids:
        return ""
    return f", nearest known id is {min(ids, key=lambda option: abs(option - value))}"


def _show(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
