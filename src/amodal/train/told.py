"""What a training run tells a person: what begins, what came of it, and what to type next."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from amodal.config import OptimConfig, TrainConfig
from amodal.errors import counted
from amodal.models.rcnn import AmodalRCNN
from amodal.pictures import seen_size
from amodal.train.engine import milestones

STOPPING = "stopping after this step and its evaluation; the same signal again stops at once, without saving"


def opening(config: TrainConfig, model: AmodalRCNN, device: torch.device, images: int, val: int, start: int) -> str:
    """The first lines: device, data, parameters, size of the pictures, run folder; where a resumed run goes on."""
    trained = sum(value.numel() for value in model.parameters() if value.requires_grad)
    whole = sum(value.numel() for value in model.parameters())
    name = platform.processor() or "cpu" if device.type == "cpu" else torch.cuda.get_device_name(device)
    passes = config.steps * config.batch_size / max(images, 1)
    lines = [
        f"{config.model.system} on {name}, {counted(torch.get_num_threads(), 'thread')},"
        f" precision {_precision(config)}",
        f"{counted(images, 'picture')} to train on, {counted(val, 'picture')} to validate on",
        f"{trained / 1e6:.1f} of {whole / 1e6:.1f} million parameters are trained",
        seen_size(config.model.transform, training=True),
        f"{counted(config.steps, 'step')} of {counted(config.batch_size, 'picture')}, {passes:.1f} passes",
        f"run folder: {config.out}",
    ]
    lines[3:3] = [f"pretrained weights: {line}" for line in model.notices]
    if start:
        done = f"all {config.steps} are done; more --steps make the run longer"
        lines.append(f"goes on from step {start}" if start < config.steps else done)
    return "\n".join(lines)


def other_length(config: TrainConfig, planned: int, done: int) -> str:
    """What it means that a resumed run has other ``steps`` than before: when the rate falls; empty where it has not."""
    if planned == config.steps:
        return ""
    now, before = (milestones(config.optim, steps) for steps in (config.steps, planned))
    line = f"{counted(config.steps, 'step')} instead of the {planned} planned before, {done} are done"
    if now == before:
        return f"{line}; {_falls(config.optim, now)}, as planned"
    line += f"; {_falls(config.optim, now)} (before: {', '.join(map(str, before))})"
    # Rates hang on the milestones that are passed.
    if [step for step in now if step < done] != [step for step in before if step < done]:
        line += f"; the steps done had other rates than in a run planned for {config.steps}"
    return line


def _falls(optim: OptimConfig, steps: list[int]) -> str:
    if not steps or optim.gamma == 1.0:
        return "the rate never falls"
    return f"the rate falls at {', '.join(map(str, steps))}"


def expected(seconds: float, steps: int) -> str:
    """How long the rest takes, from the time that the first steps took."""
    left = seconds * steps
    text = f"{left / 3600:.1f} hours" if left >= 5400 else f"{left / 60:.0f} minutes" if left >= 90 else f"{left:.0f} s"
    return f"expected: {text} ({seconds:.2f} s a step), evaluations not counted"


def closing(config: TrainConfig, metrics: Mapping[str, Any] | None, best: float | None) -> str:
    """The last lines: AP, the checkpoint, and commands that use it.

    Args:
        config: the run's settings.
        metrics: of the last evaluation, as in metrics.json; None: there was none.
        best: highest amodal mask AP, that of ``best/``; None where it is undefined.
    """
    folder = Path(config.out) / "best"
    lines = [f"done: {_score(config, metrics, best)}; checkpoint: {folder}", "next:"]
    if config.data.val and config.data.val_images:
        test = ("amodal", "test", str(folder), config.data.val, config.data.val_images, "--out", f"{config.out}/test")
        lines.append(f"  {shlex.join(test)}")
    predict = shlex.join(("amodal", "predict", str(folder)))
    lines.append(f"  {predict} PICTURES --out {shlex.quote(f'{config.out}/found')}")
    return "\n".join(lines)


def _score(config: TrainConfig, metrics: Mapping[str, Any] | None, best: float | None) -> str:
    if config.data.val is None:
        return "no validation data"
    last = None if metrics is None else (metrics.get("mask") or {}).get("AP")
    if best is None:
        return "AP undefined"
    if last is None:
        return f"mask AP {best:.1f} at its best"
    return f"mask AP {last:.1f}" if last >= best else f"mask AP {last:.1f}, {best:.1f} at its best"


def stopped(config: TrainConfig, step: int) -> str:
    """What is said when a signal ends a run between two steps, after it was saved."""
    return f"stopped after step {step} of {config.steps}; {_goes_on(config)}"


def halted(config: TrainConfig, saved: int, at: int | None) -> str:
    """What is said when a signal ends a run at once.

    Args:
        config: the run's settings.
        saved: step of ``last/``; 0: there is none.
        at: steps done; None: the first one has not begun.
    """
    line = "stopped before the first step" if at is None else f"stopped at once, after step {at} of {config.steps}"
    if saved:
        return f"{line}; step {saved} is saved: {_goes_on(config)}"
    prior = Path(config.out) / "prior"
    kept = f", which finds the prior in {prior}" if prior.is_dir() else ""
    return f"{line}; no step is saved: the same command begins anew{kept}"


def _goes_on(config: TrainConfig) -> str:
    return (
        f"{Path(config.out) / 'last'} holds it: the same command with --resume auto goes on, with the result of a run"
        " that was never stopped"
    )


def _precision(config: TrainConfig) -> str:
    return "float32" if config.precision == "no" else config.precision
