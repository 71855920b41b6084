"""What a detector costs: parameters, and operations for one picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from amodal.data.images import safe_join
from amodal.data.reader import load as load_annotations
from amodal.model import load
from amodal.pictures import predict_images
from amodal.reproduce.sources import Split


def measure(checkpoint: Path, split: Split) -> dict[str, Any]:
    """Counts of a checkpoint.

    Args:
        checkpoint: folder.
        split: whose first picture (by id) is predicted.

    Returns:
        "parameters": trained and frozen ones; "flops": operations of matrix products and convolutions for that picture
        on the CPU (sampling, warping and NMS are not counted), which hang a little on how many objects are found.
    """
    annotations, images = split.paths()
    truth = load_annotations(annotations)
    first = truth.file_names[int(truth.image_ids.argmin())]
    model = load(checkpoint, "cpu")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        predict_images(model, [safe_join(images, first)], threshold=0.05)
    parameters = sum(value.numel() for value in model.parameters())
    return {"parameters": parameters, "flops": counter.get_total_flops()}
