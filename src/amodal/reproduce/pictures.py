"""The most hidden objects of some images side by side: photograph, truth, and what each row makes of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from amodal.data import rle
from amodal.data.images import read_image, safe_join
from amodal.data.reader import load
from amodal.data.store import AnnotationSet
from amodal.errors import ConfigError
from amodal.evaluation.occlusion import LARGEST_RATE, object_rates
from amodal.files import write_picture
from amodal.reproduce.experiment import Pictures
from amodal.reproduce.study import Member, Study
from amodal.score import PREDICTIONS
from amodal.viz.instances import draw_instances, label_font

_TILE, _HEAD, _GAP = 260, 34, 6
_MARGIN = 0.35  # of the object's longer side, around it
_LEAST = 0.1  # mask IoU below which a detection is another object's
Window = tuple[slice, slice]


@dataclass(frozen=True)
class _Shape:
    """A mask with its visible part, bool [H, W]; None for a system that has none."""

    amodal: NDArray[np.bool_]
    visible: NDArray[np.bool_] | None


def picture_sheet(study: Study, members: Sequence[Member], path: Path) -> Path:
    """Draws the sheet from the predictions of each row's first seed on the first test split.

    Rows whose predictions are not there (their numbers came from elsewhere) have empty tiles.

    Raises:
        ConfigError: an image id is unknown, or no image has an object hidden by more than 15 %.
    """
    asked = study.experiment.pictures
    assert asked is not None
    split = study.sources.test[0]
    annotations, images = split.paths()
    truth = load(annotations, schema=split.schema)
    found = [(member.title, _predictions(study, member)) for member in members]
    sheet = []
    for row in choose(truth, asked, str(study.experiment.path)):
        image = int(truth.image_index[row])
        pixels = read_image(safe_join(images, truth.file_names[image]))
        window = _window(truth.amodal_boxes[row], pixels.shape[:2])
        true = _Shape(rle.decode(truth.amodal_rle(row)), rle.decode(truth.visible_rle(row)))
        tiles = [_tile(pixels, window, None), _tile(pixels, window, true)]
        for _, predictions in found:
            tiles.append(_tile(pixels, window, _nearest(predictions, truth, row)))
        sheet.append(tiles)
    picture = _join(sheet, ["photograph", "truth", *(title for title, _ in found)])
    write_picture(path, picture)
    return path


def choose(truth: AnnotationSet, asked: Pictures, source: str) -> list[int]:
    """Rows of the annotations to show: of each image the object that is hidden most, but not by more than 85 %."""
    rates = object_rates(truth)
    shown = ~truth.crowd & truth.amodal_known & (rates <= LARGEST_RATE) & (rates >= 1 - LARGEST_RATE)
    numbers = truth.image_ids.tolist()
    for image_id in asked.images:
        if image_id not in numbers:
            raise ConfigError(f"{source}: pictures.images has {image_id}, no image of the first test split")
    order = [numbers.index(image_id) for image_id in asked.images] or np.argsort(truth.image_ids).tolist()
    rows = []
    for image in order:
        there = np.flatnonzero(shown & (truth.image_index == image))
        if len(there):
            rows.append(int(there[rates[there].argmin()]))
        if len(rows) == (len(asked.images) or asked.count):
            break
    if not rows:
        raise ConfigError(f"{source}: no object of the pictures is hidden by 15 to 85 %")
    return rows


def _predictions(study: Study, member: Member) -> list[dict[str, Any]]:
    """The results of the first seed, empty where they are not there."""
    split = study.sources.test[0]
    for run in member.runs.values():
        path = study.folders.test(run.id, split) / PREDICTIONS
        if path.is_file():
            results: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
            return results
    return []


def _nearest(predictions: Sequence[dict[str, Any]], truth: AnnotationSet, row: int) -> _Shape | None:
    """The detection of the object's class whose amodal mask fits it best."""
    image_id = int(truth.image_ids[truth.image_index[row]])
    category = truth.category_ids[int(truth.labels[row])]
    own = [p for p in predictions if p["image_id"] == image_id and p["category_id"] == category]
    if not own:
        return None
    masks = [rle.decode(p["segmentation"]) for p in own]
    encoded = [coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8)) for mask in masks]
    ious = np.asarray(coco_mask.iou(encoded, [truth.amodal_rle(row)], [0]))[:, 0]
    best = int(ious.argmax())
    if ious[best] < _LEAST:
        return None
    visible = own[best].get("visible_mask")
    return _Shape(masks[best], None if visible is None else rle.decode(visible))


def _window(box: NDArray[np.float64], size: tuple[int, ...]) -> Window:
    """A square around a box xyxy, cut at the picture's edge."""
    side = max(box[2] - box[0], box[3] - box[1]) * (1 + 2 * _MARGIN)
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    spans = []
    for middle, limit in ((y, size[0]), (x, size[1])):
        start, stop = int(max(middle - side / 2, 0)), int(min(middle + side / 2 + 1, limit))
        spans.append(slice(start, stop))
    return spans[0], spans[1]


def _tile(pixels: NDArray[np.uint8], window: Window, shape: _Shape | None) -> Image.Image:
    part = np.ascontiguousarray(pixels[window])
    scale = max(1, _TILE // max(part.shape[:2]))
    masks = np.zeros((0, *part.shape[:2]), bool) if shape is None else shape.amodal[window][None]
    visible = masks if shape is None else None if shape.visible is None else shape.visible[window][None]
    drawn = draw_instances(
        part, np.zeros((len(masks), 4)), masks, visible, [""] * len(masks), scale=scale, labels=False,
        outline_boxes=False,
    )  # fmt: skip
    picture = Image.fromarray(drawn)
    picture.thumbnail((_TILE, _TILE))
    return picture


def _join(rows: Sequence[Sequence[Image.Image]], titles: Sequence[str]) -> Image.Image:
    step = _TILE + _GAP
    sheet = Image.new("RGB", (step * len(titles) + _GAP, step * len(rows) + _HEAD + _GAP), (255, 255, 255))
    pen = ImageDraw.Draw(sheet)
    for column, title in enumerate(titles):
        pen.text(
            (_GAP + step * column + _TILE / 2, _HEAD / 2), title, fill=(40, 40, 40), font=label_font(18), anchor="mm"
        )
    for line, tiles in enumerate(rows):
        for column, tile in enumerate(tiles):
            x, y = _GAP + step * column, _HEAD + step * line
            sheet.paste(tile, (x + (_TILE - tile.width) // 2, y + (_TILE - tile.height) // 2))
    return sheet
