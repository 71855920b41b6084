"""Evaluation during training, and pictures of what the model sees by then."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from tqdm import tqdm

from amodal.datasets import AmodalDataset
from amodal.errors import name_all, one_line
from amodal.train.data import val_batches

if TYPE_CHECKING:
    from amodal.models.rcnn import AmodalRCNN

SAMPLES = 4
SAMPLE_THRESHOLD = 0.5


def validate(
    accelerator: Accelerator, model: AmodalRCNN, data: AmodalDataset, workers: int, step: int
) -> dict[str, Any] | None:
    """Metrics of the model on a data set, as in metrics.json; every process predicts its share.

    Returns:
        The metrics on the main process, None on the others.
    """
    from amodal.evaluation import evaluate

    model.eval()
    rank, world = accelerator.process_index, accelerator.num_processes
    results: list[dict[str, Any]] = []
    batches = val_batches(data, rank, world, workers)
    bar = tqdm(total=len(range(rank, len(data), world)), desc=f"evaluate, step {step}", unit="image", leave=False,
               disable=not accelerator.is_main_process)  # fmt: skip
    with torch.no_grad(), accelerator.autocast(), bar:
        for images, ids in batches:
            predictions = model([image.to(accelerator.device) for image in images])
            for prediction, image_id in zip(predictions, ids, strict=True):
                results += prediction.to_coco(image_id)
            bar.update(len(images))
    model.train()
    # The model may know classes that the validation file does not have; there is no truth to compare those with.
    there = set(data.annotations.category_ids)
    gathered = gather_object([result for result in results if result["category_id"] in there])
    return evaluate(data.annotations, gathered) if accelerator.is_main_process else None


def draw_samples(accelerator: Accelerator, model: AmodalRCNN, data: AmodalDataset, folder: Path) -> None:
    """Pictures of the first images with what the model finds in them; those that cannot be read or drawn are named."""
    folder.mkdir(parents=True, exist_ok=True)
    model.eval()
    faults: list[tuple[str, str]] = []
    with torch.no_grad(), accelerator.autocast():
        for index in range(min(SAMPLES, len(data))):
            number = int(data.annotations.image_ids[index])
            try:
                image = data.image(index)
                found = model([image.to(accelerator.device)])[0]
                found.image = image.permute(1, 2, 0).numpy()
                found[found.scores >= SAMPLE_THRESHOLD].draw(folder / f"{number}.png")
            except Exception as fault:  # A picture to look at is no reason to end a training.
                faults.append((f"image {number}", one_line(fault)))
    model.train()
    if faults:
        tqdm.write(name_all(f"could not be drawn into {folder}", faults))


def mask_ap(metrics: Mapping[str, Any]) -> float:
    """Amodal mask AP in percent; -1 where it is undefined, below every real value."""
    value = metrics["mask"]["AP"]
    return -1.0 if value is None else float(value)


def flat_metrics(metrics: Mapping[str, Any]) -> dict[str, float | None]:
    """``{"mask.AP": ..., "box.AP": ...}`` for tables and TensorBoard."""
    return {
        f"{part}.{name}": value
        for part in ("mask", "box", "visible")
        for name, value in (metrics.get(part) or {}).items()
    }
