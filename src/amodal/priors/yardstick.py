"""The yardstick of a prior's boxes: the boxes B^o that a trained detector finds by itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou
from tqdm import tqdm

from amodal.data.classes import Classes, match
from amodal.datasets import AmodalDataset
from amodal.prediction import Prediction
from amodal.priors.quality import Judged

FOUND = 0.5
"""Least IoU of a detection with the amodal box of the object that it has found."""


def detector_boxes(
    detect: Callable[[Tensor], Prediction], judged: Judged, images: str | Path, *, progress: bool = False
) -> tuple[Tensor, Tensor]:
    """The detector's box of each object: of its detections of the class at IoU >= 0.5, the surest.

    Args:
        detect: a detector: uint8 image [3, H, W] -> its prediction; classes are matched by
            :func:`amodal.data.classes.match`.
        judged: R objects.
        images: folder of the pictures.
        progress: show a progress bar.

    Returns:
        Boxes float32 [R, 4], B^o in xyxy pixels of the annotated image, and whether there is one, bool [R].

    Raises:
        DataError: a picture is missing or unreadable, or classes of the same name cannot be told apart.
    """
    data = AmodalDataset(judged.annotations, images)
    labels = _labels(judged)
    boxes, found = torch.zeros(len(judged), 4), torch.zeros(len(judged), dtype=torch.bool)
    numbers = {int(value): index for index, value in enumerate(judged.annotations.image_ids)}
    bar = tqdm(torch.unique(judged.objects.image_ids).tolist(), desc="detector", unit="image", leave=False,
               disable=None if progress else True)  # fmt: skip
    for image_id in bar:
        prediction = detect(data.image(numbers[image_id]))
        partner = _partners(prediction, judged)
        for row in torch.nonzero(judged.objects.image_ids == image_id).flatten().tolist():
            box = _box_of(prediction, partner == labels[row], judged.objects.boxes[row])
            if box is not None:
                boxes[row], found[row] = box, True
    return boxes, found


def _labels(judged: Judged) -> list[int]:
    """Each object's class in its own file, whatever its label in the prior."""
    data = judged.annotations
    order = np.argsort(data.annotation_ids, kind="stable")
    ids = judged.objects.annotation_ids.numpy()
    return [int(label) for label in data.labels[order[np.searchsorted(data.annotation_ids, ids, sorter=order)]]]


def _partners(prediction: Prediction, judged: Judged) -> Tensor:
    """int64 [N], the class in the annotations of each detection; -1 where they do not have it."""
    truth = judged.annotations
    ours = Classes(prediction.class_names, prediction.category_ids, "the detector")
    matched = match(ours, Classes(truth.class_names, truth.category_ids, "the annotations"), file=truth.path or None)
    return torch.tensor([-1 if label is None else label for label in matched.partner])[prediction.labels]


def _box_of(prediction: Prediction, of_class: Tensor, truth: Tensor) -> Tensor | None:
    original = prediction.boxes if prediction.frames is None else prediction.frames
    fits = of_class & (box_iou(original, truth[None])[:, 0] >= FOUND)
    if not bool(fits.any()):
        return None
    best = int(torch.where(fits, prediction.scores, -1.0).argmax())
    return original[best]
