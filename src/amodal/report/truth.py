"""Annotated objects drawn over their image, as predictions are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from amodal.report.pictures import MATCHED_SIDE, matching_colors, shown_size
from amodal.viz.instances import EachMask, draw_instances, resized, sampled
from amodal.viz.scale import drawn_size

if TYPE_CHECKING:
    from amodal.data.store import AnnotationSet
    from amodal.prediction import Prediction

Pixels = npt.NDArray[np.uint8]


def shown_rows(annotations: AnnotationSet, index: int) -> list[int]:
    """Rows of the objects of image number ``index`` that pictures show: crowds are no objects."""
    return [row for row in annotations.rows(index) if not annotations.crowd[row]]


def draw_truth(annotations: AnnotationSet, rows: Sequence[int], image: Pixels, side: int) -> Pixels:
    """Visible parts filled, hidden parts hatched, amodal outlines and boxes; masks are made one by one.

    Args:
        annotations: the file.
        rows: objects of one image; their positions here are their colours.
        image: uint8 [H, W, 3].
        side: pixels of the longer side at most, 0 for the image's own size; see :func:`amodal.viz.scale.drawn_size`.

    Returns:
        uint8 [H', W', 3].
    """
    rows = list(rows)
    height, width, scale = drawn_size(image.shape[0], image.shape[1], side)
    return draw_instances(
        resized(image, height, width),
        annotations.amodal_boxes[rows] * np.array([width / image.shape[1], height / image.shape[0]] * 2),
        EachMask(len(rows), lambda place: sampled(annotations.amodal_mask(rows[place]), height, width)),
        EachMask(len(rows), lambda place: sampled(annotations.visible_mask(rows[place]), height, width)),
        [annotations.class_names[annotations.labels[row]] for row in rows],
        scale=scale,
    )


def match_colors(found: Prediction, annotations: AnnotationSet, rows: Sequence[int]) -> list[int]:
    """Palette positions for detections beside the truth: that of the object in ``rows`` that each covers best."""
    from amodal.frames import paste

    height, width = found.image_size
    coarse = shown_size(height, width, MATCHED_SIDE)
    factor = found.boxes.new_tensor([coarse[1] / width, coarse[0] / height] * 2)
    masks = paste(found.amodal_probs, found.boxes * factor, *coarse).numpy()
    true = np.zeros((len(rows), *coarse), bool)
    for place, row in enumerate(rows):
        true[place] = sampled(annotations.amodal_mask(row), *coarse)
    return matching_colors(masks, true)
