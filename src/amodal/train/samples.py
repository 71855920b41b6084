"""Pictures of what a model sees during training, beside the truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from tqdm import tqdm

from amodal.datasets import AmodalDataset
from amodal.errors import DiskError, counted, name_all, one_line
from amodal.files import write_picture
from amodal.prediction import Prediction

if TYPE_CHECKING:
    from amodal.models.rcnn import AmodalRCNN

Pixels = npt.NDArray[np.uint8]

SAMPLES = 4
SAMPLE_THRESHOLD = 0.5
BEST = 3
"""Detections that are shown where none scores as much as :data:`SAMPLE_THRESHOLD`."""
SIDE = 640
"""Pixels of a panel's longer side at most."""


def draw_samples(accelerator: Accelerator, model: AmodalRCNN, data: AmodalDataset, folder: Path) -> dict[str, Pixels]:
    """Pictures of the first images: the truth beside what the model finds.

    Where nothing scores as much as :data:`SAMPLE_THRESHOLD` the best few are shown, and that is written on the picture.
    Images that cannot be read or drawn are named.

    Args:
        accelerator: says where the model is.
        model: the detector; in training mode afterwards.
        data: annotated images.
        folder: for ``ID.png``, ID being the image id; made where missing.

    Returns:
        The pictures, uint8 [H, W, 3], by image id.
    """
    from PIL import Image

    model.eval()
    drawn: dict[str, Pixels] = {}
    faults: list[tuple[str, str]] = []
    with torch.no_grad(), accelerator.autocast():
        for index in range(min(SAMPLES, len(data))):
            number = int(data.annotations.image_ids[index])
            try:
                image = data.image(index)
                found = model([image.to(accelerator.device)])[0]
                found.image = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
                picture = draw_sample(data, index, found)
                write_picture(folder / f"{number}.png", Image.fromarray(picture), drawn=True)
                drawn[str(number)] = picture
            except DiskError:
                raise
            except Exception as fault:  # A picture to look at is no reason to end a training.
                faults.append((f"image {number}", one_line(fault)))
    model.train()
    if faults:
        tqdm.write(name_all(f"could not be drawn into {folder}", faults))
    return drawn


def draw_sample(data: AmodalDataset, index: int, found: Prediction) -> Pixels:
    """Image number ``index`` with its truth beside the same with what was found in it; ``found`` has the image."""
    from amodal.report.truth import draw_truth, match_colors, shown_rows
    from amodal.viz.sheet import beside

    assert found.image is not None
    shown, told = choose(found)
    rows = shown_rows(data.annotations, index)
    truth = draw_truth(data.annotations, rows, found.image, SIDE)
    colors = match_colors(shown, data.annotations, rows)
    prediction = np.asarray(shown.draw(size=SIDE, colors=colors))
    return beside([truth, prediction], [f"truth: {counted(len(rows), 'object')}", f"prediction: {told}"])


def choose(found: Prediction) -> tuple[Prediction, str]:
    """The detections to show, and how that is told: those that score enough, or else the best few."""
    sure = found[found.scores >= SAMPLE_THRESHOLD]
    if len(sure):
        return sure, f"{counted(len(sure), 'object')} with a score of {SAMPLE_THRESHOLD:g} or more"
    if not len(found):
        return found, "nothing found, whatever the score"
    best = found[found.scores.argsort(descending=True, stable=True)[:BEST]]
    which = f"the best {len(best)} are shown" if len(best) > 1 else "the best one is shown"
    return best, f"nothing scores {SAMPLE_THRESHOLD:g} or more; {which}, from {float(best.scores[0]):.2f} down"
