"""Starting a run from the weights of a checkpoint, whose classes and heads may be others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from amodal.config_io import nearest
from amodal.errors import ConfigError, WeightsError
from amodal.train.checkpoints import WEIGHTS, check_folder, open_weights, read_checkpoint_config

if TYPE_CHECKING:
    from amodal.models.rcnn import AmodalRCNN

_BRANCH = "branch."


def check_system(checkpoint: str | Path, system: str) -> None:
    """Refuses a checkpoint of another system with a :class:`ConfigError`, before anything expensive is done."""
    folder = check_folder(checkpoint)
    theirs = read_checkpoint_config(folder)[0].system
    if theirs != system:
        raise ConfigError(f"{folder}: is a {theirs}, this run trains a {system}")


def start_from(model: AmodalRCNN, checkpoint: str | Path) -> str:
    """Copies a checkpoint's weights into ``model``.

    Tensors that depend on the class count keep their fresh values, and so do heads of the branch that the checkpoint
    does not have (it is another set of the same system); heads that only the checkpoint has are left out. Its expansion
    prior is never taken over: the bank belongs to the data.

    Args:
        model: the detector to fill.
        checkpoint: folder of a checkpoint of the same system and the same widths.

    Returns:
        One line that tells what was copied and what was not.

    Raises:
        ConfigError: the checkpoint is of another system.
        WeightsError: it is damaged, or differs in more than its classes and its branch's heads.
    """
    check_system(checkpoint, model.config.system)
    folder = check_folder(checkpoint)
    _, class_names, _ = read_checkpoint_config(folder)
    ours, theirs = len(model.class_names), len(class_names)
    fresh: list[str] = []
    new: list[str] = []
    path = folder / WEIGHTS
    state = model.state_dict()
    with open_weights(path) as file:
        names = set(file.keys())
        for name, own in state.items():
            if name not in names:
                if not name.startswith(_BRANCH):
                    reason = "the model's settings differ from this run's"
                    raise WeightsError(f"{path}: tensor {name!r} is missing; {reason}")
                new.append(name)
                continue
            shape = list(file.get_slice(name).get_shape())
            if shape == list(own.shape):
                value = file.get_tensor(name)
                if not bool(torch.isfinite(value).all()):
                    raise WeightsError(f"{path}: tensor {name!r} holds NaN or infinity")
                own.copy_(value)
            elif _per_class(shape, theirs, own.shape, ours):
                fresh.append(name)
            else:
                raise WeightsError(f"{path}: tensor {name!r} has shape {shape}, this run's model has {list(own.shape)}")
    surplus = sorted(names - set(state))
    parts = [f"init: {len(state) - len(fresh) - len(new)} tensors from {folder}"]
    if fresh:
        parts.append(f"{len(fresh)} start afresh ({theirs} classes there, {ours} here): {', '.join(fresh)}")
    if new:
        parts.append(f"{len(new)} start afresh, not in it: {_modules(new)}")
    if surplus:
        parts.append(f"{len(surplus)} of it are left out, not in this run's model: {_modules(surplus)}")
    return "; ".join(parts)


def _modules(names: list[str]) -> str:
    """The modules of tensors, each once, in order."""
    return ", ".join(dict.fromkeys(name.rpartition(".")[0] or name for name in names))


def freeze(model: torch.nn.Module, parts: list[str]) -> None:
    """Takes the parameters of parts of the model out of training.

    Args:
        model: the detector.
        parts: names of modules, such as "backbone" or "branch.visible_head".

    Raises:
        ConfigError: a part is unknown or has nothing to train, or nothing would be left to train.
    """
    modules = dict(model.named_modules())
    for part in parts:
        if part not in modules or not part:
            raise ConfigError(
                f"freeze: the model has no part {part!r}{nearest(part, [name for name in modules if name])}"
            )
        parameters = list(modules[part].parameters())
        if not parameters:
            raise ConfigError(f"freeze: {part!r} has no parameters")
        for parameter in parameters:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError(f"freeze: nothing is left to train without {', '.join(parts)}")


def _per_class(shape: list[int], classes: int, own: torch.Size, own_classes: int) -> bool:
    """Whether two shapes differ only in a first dimension that counts classes (with background, four numbers each)."""
    if not shape or shape[1:] != list(own[1:]):
        return False
    pairs = [(scale * (classes + more), scale * (own_classes + more)) for scale in (1, 4) for more in (0, 1)]
    return (shape[0], own[0]) in pairs
