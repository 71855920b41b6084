"""What a training run tells a person: what begins, what came of it, and what to type next."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from amodal.config import TrainConfig
from amodal.errors import counted
from amodal.models.rcnn import AmodalRCNN


def opening(config: TrainConfig, model: AmodalRCNN, device: torch.device, images: int, val: int, start: int) -> str:
    """The first lines: device, data, parameters, run folder; and where a resumed run goes on."""
    trained = sum(value.numel() for value in model.parameters() if value.requires_grad)
    whole = sum(value.numel() for value in model.parameters())
    name = platform.processor() or "cpu" if device.type == "cpu" else torch.cuda.get_device_name(device)
    passes = config.steps * config.batch_size / max(images, 1)
    lines = [
        f"{config.model.system} on {name}, {counted(torch.get_num_threads(), 'thread')},"
        f" precision {_precision(config)}",
        f"{counted(images, 'picture')} to train on, {counted(val, 'picture')} to validate on",
        f"{trained / 1e6:.1f} of {whole / 1e6:.1f} million parameters are trained",
        f"{counted(config.steps, 'step')} of {counted(config.batch_size, 'picture')}, {passes:.1f} passes",
        f"run folder: {config.out}",
    ]
    if start:
        lines.append(f"goes on from step {start}")
    return "\n".join(lines)


def expected(seconds: float, steps: int) -> str:
    """How long the rest takes, from the time that the first steps took."""
    left = seconds * steps
    text = f"{left / 3600:.1f} hours" if left >= 5400 else f"{left / 60:.0f} minutes" if left >= 90 else f"{left:.0f} s"
    return f"expected: {text} ({seconds:.2f} s a step), evaluations not counted"


def closing(config: TrainConfig, metrics: Mapping[str, Any] | None) -> str:
    """The last lines: AP, the checkpoint, and commands that use it."""
    ap = None if metrics is None else (metrics.get("mask") or {}).get("AP")
    score = "no validation data" if metrics is None else "AP undefined" if ap is None else f"mask AP {ap:.1f}"
    best = Path(config.out) / "best"
    lines = [f"done: {score}; checkpoint: {best}", "next:"]
    if config.data.val and config.data.val_images:
        test = ("amodal", "test", str(best), config.data.val, config.data.val_images, "--out", f"{config.out}/test")
        lines.append(f"  {shlex.join(test)}")
    predict = shlex.join(("amodal", "predict", str(best)))
    lines.append(f"  {predict} PICTURES --out {shlex.quote(f'{config.out}/found')}")
    return "\n".join(lines)


def stopped(config: TrainConfig, step: int) -> str:
    """What is said when a signal ends a run."""
    return (
        f"stopped after step {step} of {config.steps}; {Path(config.out) / 'last'} holds it: the same command with"
        " --resume auto goes on, with the result of a run that was never stopped"
    )


def _precision(config: TrainConfig) -> str:
    return "float32" if config.precision == "no" else config.precision
