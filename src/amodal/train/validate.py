"""Evaluation during training."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from tqdm import tqdm

from amodal.data.classes import Classes
from amodal.data.results import translate
from amodal.datasets import AmodalDataset
from amodal.train.data import comparable, match_val, val_batches

if TYPE_CHECKING:
    from amodal.models.rcnn import AmodalRCNN


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
    with torch.no_grad(), accelerator.autocast(), closing(batches), bar:
        for images, ids in batches:
            predictions = model([image.to(accelerator.device) for image in images])
            for prediction, image_id in zip(predictions, ids, strict=True):
                results += prediction.to_coco(image_id)
            bar.update(len(images))
    model.train()
    matched = match_val(Classes(model.class_names, model.category_ids, "the model"), data.annotations)
    # The model may know classes that the validation file does not have; there is no truth to compare those with.
    gathered = gather_object(translate(results, matched.category_of))
    if not accelerator.is_main_process:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Not cut at a threshold, whatever their lowest score is.
        metrics = evaluate(data.annotations, gathered)
    if not comparable(matched, data.annotations):
        metrics["mask"]["AP"] = None  # Objects of other classes alone are nothing that weights could be better at.
    return metrics


def mask_ap(metrics: Mapping[str, Any]) -> float | None:
    """Amodal mask AP in percent; None where it is undefined."""
    value = metrics["mask"]["AP"]
    return None if value is None else float(value)


def is_best(score: float | None, best: float | None) -> bool:
    """Whether weights of this score replace those of the best one so far.

    Undefined is no score: while none is defined, the newest weights are the best that is known.
    """
    return best is None or (score is not None and score > best)


def flat_metrics(metrics: Mapping[str, Any]) -> dict[str, float | None]:
    """``{"mask.AP": ..., "box.AP": ...}`` for tables and TensorBoard."""
    return {
        f"{part}.{name}": value
        for part in ("mask", "box", "visible")
        for name, value in (metrics.get(part) or {}).items()
    }


def nested_metrics(row: Mapping[str, str]) -> dict[str, Any] | None:
    """The opposite of :func:`flat_metrics` for a row of ``eval.csv``; None for an empty one."""
    metrics: dict[str, Any] = {}
    for key, text in row.items():
        part, dot, name = key.partition(".")
        if dot:
            metrics.setdefault(part, {})[name] = float(text) if text else None
    return metrics or None
