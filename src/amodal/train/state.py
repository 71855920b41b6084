"""What a run needs beside the weights to go on as if it had never stopped: optimiser state and counters.

Data order, augmentation and sampling are functions of (seed, step), so no state of a random generator is kept. Tensors
go into ``optimizer.safetensors``, the rest into ``state.json``; nothing is pickled.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from amodal.checkpoint import WEIGHTS, save_model
from amodal.config import TrainConfig
from amodal.config_io import check_version, flatten, to_dict
from amodal.errors import ConfigError, WeightsError
from amodal.files import open_weights, read_weights

if TYPE_CHECKING:
    from amodal.models.rcnn import AmodalRCNN

STATE, OPTIMIZER = "state.json", "optimizer.safetensors"
STATE_VERSION = 1

FREE_KEYS = frozenset(
    {
        "out",
        "accumulate",
        "save_every",
        "eval_every",
        "log_every",
        "data.workers",
        "data.val",
        "data.val_images",
        "prior",
    }
)
"""Settings that a resumed run may change, since the weights do not depend on them: its prior is its checkpoint's."""


@dataclass
class RunState:
    """Progress of a run.

    Attributes:
        step: finished optimiser steps.
        best: highest amodal mask AP so far in percent; None while none is defined.
        scaler: state of the float16 gradient scaler; empty without one.
        data: fingerprint of the training data.
    """

    step: int
    best: float | None
    scaler: dict[str, Any]
    data: dict[str, Any]


def save_state(
    folder: Path,
    model: AmodalRCNN,
    optimizer: torch.optim.Optimizer,
    state: RunState,
    config: TrainConfig,
    card: dict[str, Any],
) -> None:
    """Writes weights, optimiser state and counters into ``folder``."""
    save_model(model, folder, card)
    save_file(_tensors(model, optimizer), folder / OPTIMIZER, metadata={"format": "pt"})
    content = {"version": STATE_VERSION, **vars(state), "config": to_dict(config)}
    (folder / STATE).write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")


def read_state(folder: Path, config: TrainConfig, data: dict[str, Any]) -> RunState:
    """Progress of the run in ``folder``, refused where settings or data differ from ``config`` and ``data``.

    Raises:
        ConfigError: the state is of a newer release, or the run was made with other settings; names the keys.
        WeightsError: the file is missing or damaged.
    """
    path = folder / STATE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        check_version(content["version"], path)
        state = RunState(**{key: content[key] for key in ("step", "best", "scaler", "data")})
        saved = flatten(content["config"])
        valid = isinstance(state.step, int) and 0 < state.step <= saved["steps"]
    except OSError as error:
        raise WeightsError(f"{path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise WeightsError(f"{path}: damaged, the run cannot be resumed from it") from None
    if not valid:
        raise WeightsError(f"{path}: step is {state.step!r}, not between 1 and {saved['steps']!r}")
    # JSON knows no tuples and no difference of 1 and 1.0, so both sides take the same way.
    asked = flatten(json.loads(json.dumps(to_dict(config))))
    differing = [key for key in sorted({*saved, *asked} - FREE_KEYS) if saved.get(key) != asked.get(key)]
    if differing:
        shown = ", ".join(f"{key} ({saved.get(key)!r}, now {asked.get(key)!r})" for key in differing)
        raise ConfigError(f"{folder}: cannot resume, settings differ: {shown}")
    if saved.get("data.val") != asked.get("data.val"):
        state.best = None  # A score on other images says nothing about this one's best.
    if state.data != data:
        keys = [key for key in data if state.data.get(key) != data[key]]
        raise ConfigError(f"{folder}: cannot resume, data.train is not the same data ({', '.join(keys)} differ)")
    return state


def restore(folder: Path, model: AmodalRCNN, optimizer: torch.optim.Optimizer) -> None:
    """Loads weights and optimiser state from ``folder``."""
    model.load_state_dict(read_weights(folder / WEIGHTS, model.state_dict(), "this run's model"))
    names = _names(model, optimizer)
    shapes = dict(model.named_parameters())
    states: dict[int, dict[str, Tensor]] = {}
    path = folder / OPTIMIZER
    with open_weights(path) as file:
        for key in sorted(file.keys()):
            name, _, entry = key.partition("/")
            if name not in names:
                raise WeightsError(f"{path}: tensor {key!r} belongs to no parameter of this run")
            value: Tensor = file.get_tensor(key)
            if value.dim() and value.shape != shapes[name].shape:
                raise WeightsError(f"{path}: tensor {key!r} has shape {list(value.shape)}")
            states.setdefault(names.index(name), {})[entry] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": states, "param_groups": groups})


def _tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    names = _names(model, optimizer)
    states: dict[int, dict[str, Any]] = optimizer.state_dict()["state"]
    return {
        f"{names[number]}/{entry}": value.detach().cpu().clone().contiguous()
        for number, values in states.items()
        for entry, value in values.items()
        if isinstance(value, Tensor)
    }


def _names(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[str]:
    """Parameter names in the order in which the optimiser numbers them."""
    names = {id(value): name for name, value in model.named_parameters()}
    return [names[id(value)] for group in optimizer.param_groups for value in group["params"]]
