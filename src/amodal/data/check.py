"""Everything that can be found wrong with an annotation file and its images, and the numbers of what is in it.

Errors are what no program may use: faults the reader refuses, and images that are missing, unreadable or of another
size. Warnings are what a reader can live with (boxes and rates are computed from the masks anyway) but a person should
know: it may point at a wrong schema or a broken conversion.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amodal.data import rle
from amodal.data.contradictions import overlaps
from amodal.data.images import probe, read_image, safe_join
from amodal.data.jsonfile import read_bytes
from amodal.data.mask_columns import read_masks
from amodal.data.problems import Count, Findings, Problem
from amodal.data.reader import load, open_annotations, read_entries
from amodal.data.schemas import SCHEMAS
from amodal.data.statistics import Statistics, statistics
from amodal.data.store import RATE_TOLERANCE, AnnotationSet
from amodal.data.told import crowds
from amodal.errors import DataError

BOX_TOLERANCE = 2.0  # pixels; COCO's own boxes are rounded polygons
_ORDER_KEY = "depth_constraint"
_HIDDEN_KEYS = ("invisible_mask", "occluded_mask")


@dataclass(frozen=True)
class Report:
    """What :func:`check` found.

    Attributes:
        problems: errors and warnings, each with image and annotation id where it has them.
        dropped: what the reader leaves out, counted.
        noted: what the reader keeps though it is odd, counted.
        statistics: numbers of everything that could be read.
    """

    problems: list[Problem]
    dropped: list[Count]
    noted: list[Count]
    statistics: Statistics

    @property
    def has_errors(self) -> bool:
        """Whether any problem is an error."""
        return any(problem.severity == "error" for problem in self.problems)


def check(path: str | Path, images: str | Path | None = None, schema: str = "auto", progress: bool = False) -> Report:
    """Checks an annotation file, and with ``images`` (a folder) decodes every picture of it.

    Args:
        path: annotation file of any known schema.
        images: folder that file names are relative to; None: pictures are not looked at.
        schema: name of the schema, or "auto".
        progress: show a progress bar over the pictures.

    Raises:
        DataError: the file as a whole cannot be read (missing, no JSON), or the image folder is missing.
    """
    if images is not None and not Path(images).is_dir():
        raise DataError("no such image folder", file=images)
    data = load(path, schema=schema, cache=False, strict=False)
    stored = _read_stored(data)
    problems = [
        *data.problems,
        *_masks_beyond(data),
        *_hidden_parts(data, stored.hidden),
        *_depth_orders(stored.orders),
        *_stored_values(data),
        *_partial_keys(data, stored),
        *overlaps(data),
        *_crowds(data),
        *_twins(data),
        *_classes(data),
        *_file_names(data),
        *(() if images is None else _pictures(data, Path(images), progress)),
    ]
    return Report(problems, data.dropped, data.noted, statistics(data))


def _warning(data: AnnotationSet, row: int, kind: str, message: str) -> Problem:
    image = int(data.image_ids[data.image_index[row]])
    return Problem(kind, "warning", image, int(data.annotation_ids[row]), message)


def _shared(data: AnnotationSet) -> NDArray[np.int64]:
    """Pixels in both masks; exact, as the rate was computed from them."""
    return np.rint((1.0 - data.occlude_rate) * data.amodal_area).astype(np.int64)


def _masks_beyond(data: AnnotationSet) -> Iterator[Problem]:
    outside = data.visible_area - _shared(data)
    for row in np.flatnonzero(outside > 0).tolist():
        share = outside[row] / data.visible_area[row]
        text = f"{outside[row]} of {data.visible_area[row]} visible pixels ({share:.0%}) lie outside the amodal mask"
        yield _warning(data, row, "visible outside amodal", text)


@dataclass
class _Stored:
    """What stands in the file and is in no annotation set.

    Attributes:
        hidden: row of the set -> mask of the hidden part.
        orders: (image id, id, text) of COCOA's depth orders.
        annotations: how many there are, unusable ones included.
        keys: in how many of them each key has a value.
    """

    hidden: dict[int, Any] = field(default_factory=dict)
    orders: list[tuple[object, object, str]] = field(default_factory=list)
    annotations: int = 0
    keys: Counter[str] = field(default_factory=Counter)


def _read_stored(data: AnnotationSet) -> _Stored:
    stored = _Stored()
    row_of = {number: row for row, number in enumerate(data.annotation_ids.tolist())}
    content = open_annotations(read_bytes(data.path), data.path)
    silent = Findings(data.path, strict=False)
    entries = _with_orders(read_entries(content, content.items("annotations"), silent), stored)
    form = SCHEMAS[data.schema]
    for entry in entries if form.flatten is None else form.flatten(entries, silent):
        stored.annotations += 1
        stored.keys.update(key for key, value in entry.items() if value is not None)
        row = row_of.get(entry["id"]) if type(entry.get("id")) is int else None
        key = next((key for key in _HIDDEN_KEYS if entry.get(key) is not None), None)
        if row is not None and key is not None:
            stored.hidden[row] = entry[key]
    return stored


def _with_orders(entries: Iterable[dict[str, Any]], stored: _Stored) -> Iterator[dict[str, Any]]:
    """The entries as they come; notes their depth orders, which are an image's and not a region's."""
    for entry in entries:
        text = entry.get(_ORDER_KEY)
        if isinstance(text, str) and text.strip():
            stored.orders.append((entry.get("image_id"), entry.get("id"), text))
        yield entry


def _hidden_parts(data: AnnotationSet, stored: dict[int, Any]) -> Iterator[Problem]:
    """Stored masks of the hidden part must be the amodal mask without the visible one."""
    if not stored:
        return
    rows = np.array(list(stored), np.int64)
    index = data.image_index[rows]
    sizes = np.stack([data.heights[index], data.widths[index]], axis=1).astype(np.int64)
    hidden = read_masks(list(stored.values()), sizes)
    wrong = _wrong_pixels(data, rows, hidden.runs, sizes[:, 0])
    for i, row in enumerate(rows.tolist()):
        if i in hidden.faults:
            yield _warning(data, row, "hidden part", f"mask of the hidden part: {hidden.faults[i]}")
        elif wrong[i]:
            text = f"stored hidden mask differs from amodal minus visible in {wrong[i]} pixels"
            yield _warning(data, row, "hidden part", text)


def _wrong_pixels(
    data: AnnotationSet, rows: NDArray[np.int64], hidden: rle.Runs, heights: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Pixels int64 [M] in which hidden masks differ from A minus V."""
    whole, seen = (part.take(rows) for part in (data.amodal, data.visible))
    both = rle.decompress_batch(whole.data, whole.offsets), rle.decompress_batch(seen.data, seen.offsets)
    in_whole, in_seen = (rle.intersection_batch(runs, hidden) for runs in both)
    area = rle.measure_batch(hidden, heights)[0]
    # Pixels of V outside A are a problem of their own; where V lies in A this is |A minus V, and hidden|.
    right = in_whole - in_seen
    expected = data.amodal_area[rows] - _shared(data)[rows]
    wrong: NDArray[np.int64] = np.maximum(expected - right, 0) + np.maximum(area - right, 0)
    return wrong


def _depth_orders(orders: Iterable[tuple[object, object, str]]) -> Iterator[Problem]:
    """COCOA's ``depth_constraint``, as "1-2,1-5" (region 1 lies before 2 and 5), must have no cycle."""
    for image_id, number, text in orders:
        ids = image_id, number
        order: TopologicalSorter[int] = TopologicalSorter()
        try:
            for pair in text.split(","):
                front, behind = pair.split("-")
                order.add(int(behind), int(front))
            order.prepare()
        except CycleError as fault:
            cycle = " before ".join(map(str, fault.args[1]))
            yield Problem("depth order", "warning", *ids, f"{_ORDER_KEY} has a cycle: {cycle}")
        except ValueError:
            yield Problem("depth order", "warning", *ids, f"{_ORDER_KEY} is {text!r:.60}, must look like '1-2,1-5'")


def _stored_values(data: AnnotationSet) -> Iterator[Problem]:
    """The file's own rates and boxes against the masks."""
    with np.errstate(invalid="ignore"):
        off_rate = np.flatnonzero(np.abs(data.stored_rate - data.occlude_rate) > RATE_TOLERANCE)
        off_box = np.flatnonzero((np.abs(data.stored_boxes - data.amodal_boxes) > BOX_TOLERANCE).any(axis=1))
    for row in off_rate.tolist():
        text = f"stored occlusion rate {data.stored_rate[row]:.3f}, masks give {data.occlude_rate[row]:.3f}"
        yield _warning(data, row, "stored rate", text)
    for row in off_box.tolist():
        is_visible = np.abs(data.stored_boxes[row] - data.visible_boxes[row]).max() <= BOX_TOLERANCE
        what = "is the visible part's" if is_visible else f"is {_numbers(data.stored_boxes[row])} (xyxy)"
        text = f"stored amodal box {what}, the mask's {_numbers(data.amodal_boxes[row])}"
        yield _warning(data, row, "stored box", text)


def _numbers(box: NDArray[np.float64]) -> str:
    return "[" + ", ".join(f"{edge:g}" for edge in box) + "]"


def _twins(data: AnnotationSet) -> Iterator[Problem]:
    """Instances of one image with the same class and the very same amodal mask."""
    first: dict[tuple[int, int, bytes], int] = {}
    for row, (image, label) in enumerate(zip(data.image_index.tolist(), data.labels.tolist(), strict=True)):
        before = first.setdefault((image, label, data.amodal.counts(row)), row)
        if before != row:
            text = f"same class and amodal mask as annotation {data.annotation_ids[before]}"
            yield _warning(data, row, "duplicate instance", text)


def _partial_keys(data: AnnotationSet, stored: _Stored) -> Iterator[Problem]:
    """Keys that decide something and that only some annotations have: two sources, or a conversion that broke off."""
    form = SCHEMAS[data.schema]
    # COCOA leaves the masks of an unoccluded region out, which is its format and no fault.
    visible = form.visible if form.absent_visible == "unoccluded" and not form.flatten else None
    means = {
        visible: "without it an object counts as wholly visible, but for its hidden mask",
        form.rate: "without it the rate comes from the masks",
        form.box: "without it the box comes from the mask",
        form.visible_box: "it is never needed, as boxes come from the masks",
    }
    for key, meaning in means.items():
        count = 0 if key is None else stored.keys[key]
        if 0 < count < stored.annotations:
            text = f"only {count} of {stored.annotations} annotations have {key}; {meaning}"
            yield Problem("partial key", "warning", None, None, text)


def _crowds(data: AnnotationSet) -> Iterator[Problem]:
    """Crowds are no objects; a file of many is rather one whose writer sets iscrowd for every RLE."""
    if data.crowd.any() and 2 * int(data.crowd.sum()) >= len(data):
        yield Problem("crowds", "warning", None, None, crowds(data))


def _classes(data: AnnotationSet) -> Iterator[Problem]:
    used = np.bincount(data.labels, minlength=len(data.class_names))
    for label in np.flatnonzero(used == 0).tolist():
        text = f"class {data.class_names[label]!r} (id {data.category_ids[label]}) has no instance"
        yield Problem("empty class", "warning", None, None, text)


def _file_names(data: AnnotationSet) -> Iterator[Problem]:
    ids = defaultdict(list)
    for number, name in zip(data.image_ids.tolist(), data.file_names, strict=True):
        ids[name].append(number)
    for name, numbers in ids.items():
        for number in numbers[1:]:
            text = f"file_name {name!r} is also that of image {numbers[0]}"
            yield Problem("same file", "warning", number, None, text)


def _pictures(data: AnnotationSet, folder: Path, progress: bool) -> Iterator[Problem]:
    """Decodes every picture: a truncated one shows only there."""
    from tqdm import tqdm

    for i in tqdm(range(len(data.image_ids)), desc="images", unit="image", disable=None if progress else True):
        number = int(data.image_ids[i])
        height, width = int(data.heights[i]), int(data.widths[i])
        try:
            file = safe_join(folder, data.file_names[i], image_id=number)
            info = probe(file, image_id=number)
            read_image(file, size=(height, width), image_id=number)
        except DataError as fault:
            yield Problem("image", "error", number, None, f"{data.file_names[i]}: {fault.reason}")
            continue
        if info.is_unrotated(width, height):
            text = f"{data.file_names[i]}: EXIF orientation {info.orientation} ignored, as annotations are unrotated"
            yield Problem("orientation", "warning", number, None, text)
