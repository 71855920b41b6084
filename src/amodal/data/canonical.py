"""Canonical annotation files: written from an :class:`AnnotationSet`, read by pycocotools and by ``load`` alike."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from amodal.data.store import AnnotationSet
from amodal.files import whole


def to_dict(annotations: AnnotationSet) -> dict[str, Any]:
    """The set as canonical COCO JSON: amodal ``segmentation``, ``bbox``, ``area``, and the visible part's.

    ``visible_mask`` is written for every annotation. Where the whole shape is unknown (``amodal_known`` false) all
    masks are the visible one. ``occlude_rate`` is the one that the file stores, else it is computed
    from the masks.
    """
    sizes = zip(annotations.heights.tolist(), annotations.widths.tolist(), strict=True)
    images = [
        {"id": number, "file_name": name, "height": height, "width": width}
        for number, name, (height, width) in zip(
            annotations.image_ids.tolist(), annotations.file_names, sizes, strict=True
        )
    ]
    categories = [
        {"id": number, "name": name}
        for number, name in zip(annotations.category_ids, annotations.class_names, strict=True)
    ]
    return {
        "info": {"description": "Amodal annotations in the canonical form of the package amodal"},
        "images": images,
        "categories": categories,
        "annotations": [_annotation(annotations, row) for row in range(len(annotations))],
    }


def write(annotations: AnnotationSet, path: str | Path) -> None:
    """Writes the set as canonical JSON; see :func:`amodal.files.whole`."""
    data = msgspec.json.encode(to_dict(annotations))
    with whole(path) as beside:
        beside.write_bytes(data)


def _annotation(annotations: AnnotationSet, row: int) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "id": int(annotations.annotation_ids[row]),
        "image_id": int(annotations.image_ids[annotations.image_index[row]]),
        "category_id": annotations.category_ids[annotations.labels[row]],
        "iscrowd": int(annotations.crowd[row]),
        "segmentation": annotations.amodal_rle(row),
        "bbox": _xywh(annotations.amodal_boxes[row]),
        "area": int(annotations.amodal_area[row]),
        "visible_mask": annotations.visible_rle(row),
        "visible_bbox": _xywh(annotations.visible_boxes[row]),
        "occlude_rate": _rate(annotations, row),
    }
    if not annotations.amodal_known[row]:
        entry["amodal_known"] = False
    return entry


def _rate(annotations: AnnotationSet, row: int) -> float:
    """The rate that the file stores, else one from areas: metrics of a converted file are those of its source."""
    stored = float(annotations.stored_rate[row])
    if not math.isnan(stored):
        return stored
    return 1.0 - min(1.0, int(annotations.visible_area[row]) / max(int(annotations.amodal_area[row]), 1))


def _xywh(box: np.ndarray[Any, np.dtype[np.float64]]) -> list[float]:
    x0, y0, x1, y1 = box.tolist()
    return [x0, y0, x1 - x0, y1 - y0]
