"""What a detector costs: parameters, and operations for one picture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from amodal.config import ModelConfig
from amodal.data.images import safe_join
from amodal.data.reader import load as load_annotations
from amodal.model import AmodalModel, build, load
from amodal.pictures import predict_images
from amodal.reproduce.sources import Split

OBJECTS = 20
"""Detections in the picture whose operations are counted."""


def measure(checkpoint: Path, split: Split) -> dict[str, Any]:
    """Counts of a checkpoint.

    Args:
        checkpoint: folder.
        split: whose first picture (by id) is predicted.

    Returns:
        "parameters": trained and frozen ones; "flops": operations of matrix products and convolutions for that picture
        on the CPU (sampling, warping and NMS are not counted), with ``rpn.post_nms_test`` regions and 20 detections,
        whatever the weights would find there: equal settings have equal costs. A system that re-scores candidates
        before NMS is counted with every pair of region and class.
    """
    annotations, images = split.paths()
    truth = load_annotations(annotations, schema=split.schema)
    first = truth.file_names[int(truth.image_ids.argmin())]
    model = load(checkpoint, "cpu")
    parameters = sum(value.numel() for value in model.parameters())
    return {"parameters": parameters, "flops": _flops(model, safe_join(images, first))}


def _flops(model: AmodalModel, picture: Path) -> int:
    """Operations of a model of the same settings that takes every region for an object, each as likely as the next."""
    twin = build(
        model.config.system,
        len(model.class_names),
        config=_fixed(model.config),
        class_names=model.class_names,
        category_ids=model.category_ids,
        prior=model.prior,
        pretrained=False,
    ).eval()
    for value in (*twin.rpn.parameters(), *twin.box_head.parameters()):
        value.detach().zero_()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        predict_images(twin, [picture], threshold=0.0)
    return int(counter.get_total_flops())


def _fixed(config: ModelConfig) -> ModelConfig:
    """Settings with which the numbers of regions and of detections do not hang on weights: no IoU is above 1, no score
    below 0."""
    rpn = replace(config.rpn, nms=1.0)
    box_head = replace(config.box_head, nms=1.0, score_threshold=0.0, detections=OBJECTS)
    return replace(config, rpn=rpn, box_head=box_head)
