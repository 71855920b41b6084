"""What a run needs beside the weights to go on as if it had never stopped: optimiser state and counters.

Data order, augmentation and sampling are functions of (seed, step), so no state of a random generator is kept. Tensors
go into ``optimizer.safetensors``, the rest into ``state.json``; nothing is pickled.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from amodal.bounds import MAX_ID, STEPS
from amodal.checkpoint import WEIGHTS, save_model
from amodal.config import TrainConfig
from amodal.config_io import check_version, flatten, structure, to_dict
from amodal.data.jsonfile import BadValueError, strict_json
from amodal.errors import ConfigError, WeightsError, counted, nearest, shown
from amodal.files import fitting, open_weights, read_weights, write_json, write_tensors

if TYPE_CHECKING:
    from amodal.models.rcnn import AmodalRCNN

STATE, OPTIMIZER = "state.json", "optimizer.safetensors"
STATE_VERSION = 1

_STEPS = "steps"
_SCALER: dict[str, tuple[tuple[type, ...], float]] = {
    **dict.fromkeys(("scale", "growth_factor", "backoff_factor"), ((int, float), 0)),
    "growth_interval": ((int,), 1),
    "_growth_tracker": ((int,), 0),
}
"""Numbers of the gradient scaler: types and least value."""
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
        "data.schema",
        "prior",
    }
)
"""Settings that a resumed run may change, since the weights do not depend on them: its prior is its checkpoint's.

Its ``steps`` may change, too, but they decide what weights it ends with.
"""


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
        content = strict_json(path.read_bytes())
    except OSError as error:
        raise WeightsError(f"{path}: {error.strerror}") from None
    except BadValueError as error:
        raise _damaged(path, str(error)) from None
    state, saved = _checked(content, path)
    # JSON knows no tuples and no difference of 1 and 1.0, so both sides take the same way.
    asked = flatten(json.loads(json.dumps(to_dict(config))))
    may = FREE_KEYS | {_STEPS}
    differing = [key for key in sorted({*saved, *asked} - may) if saved.get(key) != asked.get(key)]
    if differing:
        told = ", ".join(f"{key} ({shown(saved.get(key))}, now {shown(asked.get(key))})" for key in differing)
        free = f"a resumed run may change {', '.join(sorted(may))}"
        raise ConfigError(f"{folder}: cannot resume, settings differ: {told}; {free}")
    if config.steps < state.step:
        raise ConfigError(f"{folder}: steps is {config.steps}, but {state.step} are done; give as many or more")
    if saved.get("data.val") != asked.get("data.val"):
        state.best = None  # A score on other images says nothing about this one's best.
    if state.data != data:
        keys = [key for key in data if state.data.get(key) != data[key]]
        raise ConfigError(f"{folder}: cannot resume, data.train is not the same data ({', '.join(keys)} differ)")
    return state


def planned_steps(folder: Path) -> int:
    """How many steps the run in ``folder``, whose state :func:`read_state` has read, was to have when it was saved."""
    steps: int = json.loads((folder / STATE).read_text(encoding="utf-8"))["config"][_STEPS]
    return steps


def _damaged(path: Path, what: str) -> WeightsError:
    return WeightsError(f"{path}: damaged, the run cannot be resumed from it ({what})")


def _checked(content: Any, path: Path) -> tuple[RunState, dict[str, Any]]:
    """Progress and settings in a state file, whose every field has its type and bounds."""
    if not isinstance(content, dict):
        raise _damaged(path, f"holds a {type(content).__name__}, must be an object")
    kinds: dict[str, Any] = {
        "version": int,
        "step": int,
        "best": (int, float, type(None)),
        "scaler": dict,
        "data": dict,
        "config": dict,
    }
    for key in content:
        if key not in kinds:
            raise _damaged(path, f"{shown(key)} is unknown{nearest(key, kinds)}")
    for key, kind in kinds.items():
        value = content.get(key)
        if key not in content or not isinstance(value, kind) or isinstance(value, bool):
            raise _damaged(path, f"{key} is missing" if key not in content else f"{key} is {shown(value)}")
    check_version(content["version"], path)
    steps, step, best = content["config"].get("steps"), content["step"], content["best"]
    if type(steps) is not int or not 1 <= steps <= STEPS:
        raise _damaged(path, f"config.steps is {shown(steps)}, must be 1 to {STEPS}")
    if not 0 < step <= steps:
        raise WeightsError(f"{path}: step is {shown(step)}, not between 1 and {steps}")
    if best is not None and not 0 <= best <= 100:
        raise _damaged(path, f"best is {shown(best)}, must be 0 to 100, or null")
    _check_scaler(content["scaler"], path)
    _check_data(content["data"], path)
    try:
        config = structure(TrainConfig, content["config"], "config")
    except ConfigError as error:
        raise _damaged(path, str(error)) from None
    saved = flatten(json.loads(json.dumps(to_dict(config))))
    return RunState(**{key: content[key] for key in ("step", "best", "scaler", "data")}), saved


def _check_scaler(scaler: dict[str, Any], path: Path) -> None:
    """The gradient scaler has all its numbers, or there is none."""
    for key, value in scaler.items():
        kinds, least = _SCALER.get(key, ((), 0))
        if type(value) not in kinds or not least <= value < math.inf:
            raise _damaged(path, f"scaler.{shown(key)[1:-1]} is {shown(value)}")
    if scaler and len(scaler) != len(_SCALER):
        raise _damaged(path, "scaler lacks numbers")


def _check_data(data: dict[str, Any], path: Path) -> None:
    """The fingerprint of the training data, as :func:`amodal.train.data.fingerprint` makes it."""
    images, ids, digest = (data.get(key) for key in ("images", "category_ids", "digest"))
    rules = {
        "images": type(images) is int and 1 <= images <= MAX_ID,
        "category_ids": isinstance(ids, list) and all(type(number) is int and 0 <= number <= MAX_ID for number in ids),
        "digest": isinstance(digest, str) and re.fullmatch("[0-9a-f]{1,64}", digest) is not None,
    }
    for key in {*data, *rules}:
        if not rules.get(key, False):
            raise _damaged(path, f"data.{shown(key)[1:-1]} is {shown(data.get(key))}")


def restore(folder: Path, model: AmodalRCNN, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Loads weights and optimiser state from ``folder``, written after ``step`` steps.

    Raises:
        WeightsError: a file is missing or damaged, or a tensor is missing, unknown, of another shape or dtype, not
            finite, or such as the optimiser cannot have.
    """
    model.load_state_dict(read_weights(folder / WEIGHTS, model.state_dict(), "this run's model"))
    parameters, names = dict(model.named_parameters()), _names(model, optimizer)
    states: dict[int, dict[str, Tensor]] = {}
    path = folder / OPTIMIZER
    with open_weights(path) as file:
        keys, told = sorted(file.keys()), (file.metadata() or {}).get(_COUNT)
        if told != str(len(keys)):
            what = f"{counted(len(keys), 'tensor')}, {told or 'an unknown number'} were written"
            raise WeightsError(f"{path}: holds {what}; the run cannot be resumed from it")
        for key in keys:
            name, _, entry = key.rpartition("/")
            if name not in names:
                raise WeightsError(f"{path}: tensor {shown(key)} belongs to no parameter of this run")
            value = _entry(file.get_tensor(key), entry, parameters[name], step, key, path)
            states.setdefault(names.index(name), {})[entry] = value
    # Groups come from the settings, which are the same; the file has states alone.
    kept = _kept(optimizer)
    for number, entries in states.items():
        for entry in {*entries} ^ kept:
            what = "is missing" if entry in kept else "is nothing that this optimiser keeps"
            raise WeightsError(f"{path}: tensor {shown(f'{names[number]}/{entry}')} {what}")
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": states, "param_groups": groups})


def _entry(value: Tensor, entry: str, parameter: nn.Parameter, step: int, key: str, path: Path) -> Tensor:
    """One tensor of the optimiser's state, as it must be for its parameter."""
    shape = [] if entry == "step" else list(parameter.shape)
    if list(value.shape) != shape:
        raise WeightsError(f"{path}: tensor {shown(key)} has shape {list(value.shape)}, must be {shape}")
    value = fitting(value, parameter.dtype, key, path)
    if entry == "step" and not 1 <= float(value) <= step:
        raise WeightsError(f"{path}: tensor {shown(key)} is {float(value):g}, not between 1 and {step}")
    if entry == "exp_avg_sq" and bool((value < 0).any()):
        raise WeightsError(f"{path}: tensor {shown(key)} holds a negative number, must be a mean of squares")
    return value


def _kept(optimizer: torch.optim.Optimizer) -> set[str]:
    """What the optimiser keeps of a parameter that a loss has reached."""
    if isinstance(optimizer, torch.optim.AdamW):
        return {"step", "exp_avg", "exp_avg_sq"}
    return {"momentum_buffer"} if optimizer.param_groups[0]["momentum"] else set()


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
