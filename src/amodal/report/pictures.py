"""Pictures of the report: what a model said beside the truth, as JPEG data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

from amodal.data import rle
from amodal.data.images import read_image
from amodal.errors import one_line
from amodal.evaluation.matches import Match
from amodal.viz.instances import draw_instances, resized, sampled

if TYPE_CHECKING:
    from amodal.data.store import MaskBuffer
    from amodal.evaluation.metrics import Evaluation

Pixels = npt.NDArray[np.uint8]
Masks = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

SHOWN_FROM = 0.5
"""Lowest score of a detection that pictures show."""

MATCHED_SIDE = 160
"""Pixels of the longer side at which masks are compared to give an object and its detection one colour."""

_SCENE_SIDE, _CASE_SIDE = 640, 420
_CASE_COLOR = 4  # a light blue, rare in photographs
_PLAIN_SIDE = 520  # pixels; text of a larger picture grows with it, because the page shows it reduced
_SAME = 0.3  # mask IoU from which a detection gets the colour of an object


@dataclass
class Objects:
    """Instances to draw: boxes xyxy [N, 4] and masks bool [N, H, W] in pixels of one image."""

    boxes: Floats
    amodal: Masks
    visible: Masks | None
    names: list[str]
    scores: Floats | None
    colors: list[int]


class Painter:
    """Draws images of an evaluation.

    Args:
        evaluation: truth and detections.
        images: folder that the truth's file names are relative to.

    Attributes:
        failed: file name -> reason of the images that could not be shown so far.
    """

    def __init__(self, evaluation: Evaluation, images: Path) -> None:
        self.truth = evaluation.annotations
        self.found = evaluation.detections
        self.images = images
        self.failed: dict[str, str] = {}

    def note(self, index: int, fault: Exception) -> str:
        """Keeps why image number ``index`` cannot be shown, as a report without it is still a report; the reason."""
        name = self.truth.file_names[index]
        self.failed[name] = one_line(fault)
        return self.failed[name]

    def scene(self, index: int) -> tuple[str, str, str]:
        """Data URIs of image number ``index``: as it is, with the detections, with the truth."""
        image = self._read(index)
        whole = image.shape[0], image.shape[1]
        # All that follows sees the picture as it is shown: its objects' masks are never there at full size together.
        size = shown_size(*whole, _SCENE_SIDE)
        image = resized(image, *size)
        truth = self._truth(list(self.truth.rows(index)), whole, size)
        rows = np.flatnonzero((self.found.image_index == index) & (self.found.scores >= SHOWN_FROM))
        found = self._found(rows.tolist(), whole, size)
        found.colors = matching_colors(found.amodal, truth.amodal)
        plain = Objects(np.zeros((0, 4)), np.zeros((0, *size), bool), None, [], None, [])
        uris = [data_uri(paint(image, objects, _SCENE_SIDE)) for objects in (plain, found, truth)]
        return uris[0], uris[1], uris[2]

    def case(self, match: Match) -> tuple[str, str]:
        """Data URIs of one object, cut out: as it was found (the bare image if it was missed), and the truth."""
        index = int(self.truth.image_index[match.row])
        image = self._read(index)
        size = image.shape[0], image.shape[1]
        truth = self._truth([match.row], size, size)
        found = self._found([] if match.detection is None else [match.detection], size, size)
        truth.colors, found.colors = [_CASE_COLOR], [_CASE_COLOR] * len(found.names)
        boxes = np.concatenate([truth.boxes, found.boxes])
        window = window_around(boxes, image.shape[0], image.shape[1])
        uris = [data_uri(paint(image[window], cut(part, window), _CASE_SIDE, labels=False)) for part in (found, truth)]
        return uris[0], uris[1]

    def _read(self, index: int) -> Pixels:
        size = int(self.truth.heights[index]), int(self.truth.widths[index])
        number = int(self.truth.image_ids[index])
        return read_image(self.images, self.truth.file_names[index], size=size, image_id=number)

    def _truth(self, rows: Sequence[int], whole: tuple[int, int], size: tuple[int, int]) -> Objects:
        """Annotated objects of an image of (height, width) ``whole``, in that image reduced to ``size``."""
        return Objects(
            boxes=self.truth.amodal_boxes[list(rows)].reshape(-1, 4) * _factor(whole, size),
            amodal=_stack(self.truth.amodal, rows, whole, size),
            visible=_stack(self.truth.visible, rows, whole, size),
            names=[self.truth.class_names[self.truth.labels[row]] for row in rows],
            scores=None,
            colors=list(range(len(rows))),
        )

    def _found(self, rows: Sequence[int], whole: tuple[int, int], size: tuple[int, int]) -> Objects:
        """Detections, as :meth:`_truth`."""
        chosen = list(rows)
        stored, tight = (boxes[chosen].reshape(-1, 4) for boxes in (self.found.boxes, self.found.amodal_boxes))
        return Objects(
            boxes=np.where(np.isnan(stored), tight, stored) * _factor(whole, size),
            amodal=_stack(self.found.amodal, rows, whole, size),
            visible=None if self.found.visible is None else _stack(self.found.visible, rows, whole, size),
            names=[self.truth.class_names[self.found.labels[row]] for row in rows],
            scores=self.found.scores[chosen],
            colors=list(range(len(rows))),
        )


def matching_colors(found: Masks, truth: Masks) -> list[int]:
    """Palette positions for detections: that of the object a detection covers best, new ones for the others."""
    colors = [-1] * len(found)
    if len(found) and len(truth):
        size = shown_size(found.shape[1], found.shape[2], MATCHED_SIDE)
        first, second = (sampled(masks, *size).reshape(len(masks), -1).astype(np.float32) for masks in (found, truth))
        # Exact in float32: far fewer than 2^24 pixels are compared.
        shared = first @ second.T
        ious = shared / np.maximum(first.sum(1)[:, None] + second.sum(1)[None] - shared, 1)
        for _ in range(min(len(found), len(truth))):
            row, column = (int(place) for place in np.unravel_index(np.argmax(ious), ious.shape))
            if ious[row, column] < _SAME:
                break
            colors[row] = column
            ious[row], ious[:, column] = -1, -1
    fresh = iter(range(len(truth), len(truth) + len(found)))
    return [next(fresh) if color < 0 else color for color in colors]


def paint(image: Pixels, objects: Objects, side: int, labels: bool = True) -> Pixels:
    """The image with objects, enlarged by a whole factor or reduced: the longer side is about ``side`` pixels."""
    factor = side / max(image.shape[:2])
    whole = image.shape[0], image.shape[1]
    size = shown_size(*whole, side)
    if size != whole:
        image = resized(image, *size)
        objects = replace(
            objects,
            boxes=objects.boxes * _factor(whole, size),
            amodal=sampled(objects.amodal, *size),
            visible=None if objects.visible is None else sampled(objects.visible, *size),
        )
    scale = max(1, round(factor))
    return draw_instances(
        image,
        objects.boxes,
        objects.amodal,
        objects.visible,
        objects.names,
        objects.scores,
        scale=scale,
        weight=max(1.0, scale * max(image.shape[:2]) / _PLAIN_SIDE),
        colors=objects.colors,
        labels=labels,
    )


def window_around(boxes: Floats, height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns around boxes xyxy [N, 4]: a square with a margin of a quarter, moved into the image."""
    x0, y0 = boxes[:, :2].min(0)
    x1, y1 = boxes[:, 2:].max(0)
    # A few pixels enlarged show nothing of where they are.
    side = max(1.5 * max(x1 - x0, y1 - y0), 24.0)
    return _span((y0 + y1) / 2, side, height), _span((x0 + x1) / 2, side, width)


def _span(middle: float, side: float, limit: int) -> slice:
    length = min(round(side), limit)
    start = min(max(round(middle - length / 2), 0), limit - length)
    return slice(start, start + length)


def cut(objects: Objects, window: tuple[slice, slice]) -> Objects:
    """The same objects in a window of the image."""
    rows, columns = window
    offset = np.array([columns.start, rows.start] * 2)
    return Objects(
        boxes=objects.boxes - offset,
        amodal=objects.amodal[:, rows, columns],
        visible=None if objects.visible is None else objects.visible[:, rows, columns],
        names=objects.names,
        scores=objects.scores,
        colors=objects.colors,
    )


def data_uri(image: Pixels) -> str:
    """A picture as ``data:image/jpeg;base64,...``; colours are not subsampled, which would blur the hatching."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=76, subsampling=0, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def shown_size(height: int, width: int, side: int) -> tuple[int, int]:
    """(height, width) of a picture reduced to ``side`` pixels of its longer side; a smaller one stays."""
    factor = min(1.0, side / max(height, width))
    return max(1, round(height * factor)), max(1, round(width * factor))


def _factor(whole: tuple[int, int], size: tuple[int, int]) -> Floats:
    """What boxes xyxy of an image of (height, width) ``whole`` are multiplied by when it is reduced to ``size``."""
    return np.array([size[1] / whole[1], size[0] / whole[0]] * 2)


def _stack(masks: MaskBuffer, rows: Sequence[int], whole: tuple[int, int], size: tuple[int, int]) -> Masks:
    """Masks bool [N, height, width] of ``size``, of rows that are all of one image of (height, width) ``whole``."""
    dense = np.zeros((len(rows), *size), bool)
    for place, row in enumerate(rows):
        dense[place] = sampled(rle.runs_mask(rle.parse_counts(masks.counts(row)), *whole), *size)
    return dense
