"""What is wrong with a run as configured, found before anything long begins: a prior is fitted for minutes."""

from __future__ import annotations

import os
import sys

import torch

from amodal.checkpoint import check_folder, read_checkpoint_config
from amodal.config import TrainConfig
from amodal.errors import ConfigError, counted, nearest
from amodal.launch import warn
from amodal.model import locate
from amodal.models.backbone import build_backbone
from amodal.models.initial_weights import check_weights

PARTS = ("backbone", "rpn", "box_head", "branch")
"""Parts of a detector that have something to train."""


def check_early(config: TrainConfig, images: int, processes: int, init: str | None, resuming: bool) -> None:
    """Refuses settings that could only fail later, and tells those that can hardly be meant.

    Args:
        config: all settings.
        images: pictures to train on.
        processes: how many take part.
        init: checkpoint whose weights start the run; None: none.
        resuming: a run goes on, whose weights are its own.

    Raises:
        ConfigError: a part to freeze, a backbone or a weight name is unknown, or a person at a terminal does not want
            more loader processes than cores.
        WeightsError: initial weights or checkpoint are not there.
    """
    with torch.device("meta"):
        backbone = build_backbone(config.model.backbone)
    known = {"backbone", *(f"backbone.{name}" for name, _ in backbone.named_modules() if name)}
    for part in config.freeze:
        first = part.partition(".")[0]
        if first not in PARTS or (first == "backbone" and part not in known):
            raise ConfigError(f"freeze: the model has no part {part!r:.100}{nearest(part, {*PARTS, *known})}")
    if not resuming and init is not None:
        read_checkpoint_config(check_folder(locate(init)))
    elif not resuming and config.model.backbone.weights is not None:
        check_weights(config.model.backbone)
    _check_workers(config.data.workers, processes)
    _tell(config, images)


def _tell(config: TrainConfig, images: int) -> None:
    steps, optim = config.steps, config.optim
    if config.batch_size > images:
        told = f"data.train has {counted(images, 'picture')} to train on: a step sees some more than once"
        warn(f"warning: batch_size is {config.batch_size}, {told}")
    late = [f"{value:g}" for value in optim.milestones if value >= max(steps, 1)]
    if late:
        warn(f"warning: optim.milestones {', '.join(late)}: steps is {steps}, the rate never falls there")
    if optim.warmup_steps >= steps:
        warn(f"warning: optim.warmup_steps is {optim.warmup_steps}, steps is {steps}: the rate never reaches optim.lr")


def _check_workers(workers: int, processes: int) -> None:
    """More loader processes than cores make a machine slow, and thousands make it unusable: a person is asked."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if workers * processes <= cores:
        return
    each = f" in each of {processes} processes" if processes > 1 else ""
    told = f"data.workers is {workers}{each}, this machine has {counted(cores, 'core')}"
    if processes > 1 or not (sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()):
        warn(f"warning: {told}")
        return
    print(f"{told}; go on? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise ConfigError(f"{told}; give a lower --data.workers")
