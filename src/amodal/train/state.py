"""What a run needs beside the weights to go on as if it had never stopped: optimiser state and counters.

Data order, augmentation and sampling are functions of (seed, step), so no state of a random generator is kept. Tensors
go into ``optimizer.safetensors``, the rest into ``state.json``; nothing is pickled.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from amodal.checkpoint import WEIGHTS, save_model
from amodal.config import STEPS, TrainConfig
from amodal.config_io import check_version, flatten, to_dict
from amodal.errors import ConfigError, WeightsError, counted
from amodal.files import open_weights, read_weights, write_json, write_tensors

if TYPE_CHECKING:
    from amodal.models.rcnn import AmodalRCNN

STATE, OPTIMIZER = "state.json", "optimizer.safetensors"
STATE_VERSION = 1

_SCALER = ("scale", "growth_factor", "backoff_factor", "growth_interval", "_growth_tracker")
_COUNT = "tensors"  # key of the metadata of the optimiser's file

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
    tensors = _tensors(model, optimizer)
    # A parameter that no loss has reached yet has none, so what must be there is told by the file alone.
    write_tensors(folder / OPTIMIZER, tensors, {_COUNT: str(len(tensors))})
    content = {"version": STATE_VERSION, **vars(state), "config": to_dict(config)}
    write_json(folder / STATE, content, indent=1)


def read_state(folder: Path, config: TrainConfig, data: dict[str, Any]) -> RunState:
    """Progress of the run in ``folder``, refused where settings or data differ from ``config`` and ``data``.

    Raises:
        ConfigError: the state is of a newer release, or the run was made with other settings; names the keys.
        WeightsError: the file is missing or damaged.
    """
    path = folder / STATE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise WeightsError(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise WeightsError(f"{path}: damaged, the run cannot be resumed from it (no JSON)") from None
    state, saved = _checked(content, path)
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


def _checked(content: Any, path: Path) -> tuple[RunState, dict[str, Any]]:
    """Progress and settings in a state file, whose every field has its type and bounds."""

    def refuse(what: str) -> WeightsError:
        return WeightsError(f"{path}: damaged, the run cannot be resumed from it ({what})")

    if not isinstance(content, dict):
        raise refuse(f"holds a {type(content).__name__}, must be an object")
    kinds: dict[str, Any] = {
        "version": int,
        "step": int,
        "best": (int, float, type(None)),
        "scaler": dict,
        "data": dict,
        "config": dict,
    }
    for key, kind in kinds.items():
        value = content.get(key)
        if key not in content or not isinstance(value, kind) or isinstance(value, bool):
            raise refuse(f"{key} is missing" if key not in content else f"{key} is {value!r:.40}")
    check_version(content["version"], path)
    saved = flatten(content["config"])
    steps, best = saved.get("steps"), content["best"]
    if type(steps) is not int or not 1 <= steps <= STEPS:
        raise refuse(f"config.steps is {steps!r:.40}, must be 1 to {STEPS}")
    if not 0 < content["step"] <= steps:
        raise WeightsError(f"{path}: step is {content['step']!r:.40}, not between 1 and {steps}")
    if best is not None and not 0 <= best <= 100:
        raise refuse(f"best is {best!r:.40}, must be 0 to 100, or null")
    for key, value in content["scaler"].items():
        known = key in _SCALER and type(value) in (int, float) and 0 <= value < math.inf
        if not known:
            raise refuse(f"scaler.{key} is {value!r:.40}")
    if content["scaler"] and len(content["scaler"]) != len(_SCALER):
        raise refuse("scaler lacks numbers")
    return RunState(**{key: content[key] for key in ("step", "best", "scaler", "data")}), saved


def restore(folder: Path, model: AmodalRCNN, optimizer: torch.optim.Optimizer) -> None:
    """Loads weights and optimiser state from ``folder``."""
    model.load_state_dict(read_weights(folder / WEIGHTS, model.state_dict(), "this run's model"))
    names = _names(model, optimizer)
    shapes = dict(model.named_parameters())
    states: dict[int, dict[str, Tensor]] = {}
    path = folder / OPTIMIZER
    with open_weights(path) as file:
        keys, told = sorted(file.keys()), (file.metadata() or {}).get(_COUNT)
        if told != str(len(keys)):
            what = f"{counted(len(keys), 'tensor')}, {told or 'an unknown number'} were written"
            raise WeightsError(f"{path}: holds {what}; the run cannot be resumed from it")
        for key in keys:
            name, _, entry = key.partition("/")
            if name not in names:
                raise WeightsError(f"{path}: tensor {key!r} belongs to no parameter of this run")
            value: Tensor = file.get_tensor(key)
            if not bool(torch.isfinite(value).all()):
                raise WeightsError(f"{path}: tensor {key!r} holds NaN or infinity")
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
