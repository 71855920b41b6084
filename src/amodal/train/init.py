"""Starting a run from the weights of a checkpoint, whose classes may be others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from amodal.errors import ConfigError, WeightsError
from amodal.train.checkpoints import WEIGHTS, check_folder, open_weights, read_checkpoint_config

if TYPE_CHECKING:
    from amodal.models.rcnn import AmodalRCNN


def start_from(model: AmodalRCNN, checkpoint: str | Path) -> str:
    """Copies a checkpoint's weights into ``model``; tensors that depend on the class count keep their fresh values.

    Args:
        model: the detector to fill.
        checkpoint: folder of a checkpoint of the same system and the same widths.

    Returns:
        One line that tells what was copied.

    Raises:
        ConfigError: the checkpoint is of another system.
        WeightsError: it is damaged, or differs in more than its classes.
    """
    folder = check_folder(checkpoint)
    config, class_names, _ = read_checkpoint_config(folder)
    if config.system != model.config.system:
        raise ConfigError(f"{folder}: is a {config.system}, this run trains a {model.config.system}")
    ours, theirs = len(model.class_names), len(class_names)
    fresh: list[str] = []
    path = folder / WEIGHTS
    state = model.state_dict()
    with open_weights(path) as file:
        names = set(file.keys())
        for name, own in state.items():
            if name not in names:
                raise WeightsError(f"{path}: tensor {name!r} is missing; the model's settings differ from this run's")
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
    copied = f"init: {len(state) - len(fresh)} tensors from {folder}"
    if not fresh:
        return copied
    return f"{copied}; {len(fresh)} start afresh ({theirs} classes there, {ours} here): {', '.join(fresh)}"


def _per_class(shape: list[int], classes: int, own: torch.Size, own_classes: int) -> bool:
    """Whether two shapes differ only in a first dimension that counts classes (with background, four numbers each)."""
    if not shape or shape[1:] != list(own[1:]):
        return False
    pairs = [(scale * (classes + more), scale * (own_classes + more)) for scale in (1, 4) for more in (0, 1)]
    return (shape[0], own[0]) in pairs
