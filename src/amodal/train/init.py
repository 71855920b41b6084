"""Starting a run from the weights of a checkpoint, whose classes, heads and system may be others."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from amodal.checkpoint import WEIGHTS, check_folder, read_checkpoint_config
from amodal.config import ModelConfig
from amodal.errors import WeightsError, counted
from amodal.files import open_weights
from amodal.model import locate
from amodal.models.rcnn import AmodalRCNN
from amodal.systems import find, resolve

_BRANCH, _BOX_SIDE = "branch.", "box_head."
_LISTED = 10  # classes that are named


@dataclass
class _Taken:
    """What became of the tensors: copied, or why not."""

    copied: int = 0
    counted: list[str] = field(default_factory=list)  # of layers with other numbers of classes that we do not know
    new: list[str] = field(default_factory=list)
    shapes: list[str] = field(default_factory=list)


def start_from(model: AmodalRCNN, checkpoint: str | Path) -> str:
    """Copies a checkpoint's weights into ``model``.

    The detector (backbone, proposals, box head) must be of the same widths. Rows that belong to classes (``class_rows``
    of the box head and of every mask predictor) are copied for the classes that both have, by name; the others keep
    their fresh values. Of the branch, and of a box side that is not the checkpoint's, whatever fits by name and shape
    is copied, be it of the same system or of another: parts that the checkpoint does not have, or has in another shape,
    start afresh, and so do those whose numbers mean something else there
    (:meth:`amodal.models.branch.Branch.meanings`). Its prior is never taken over: it belongs to the data.

    Args:
        model: the detector to fill.
        checkpoint: folder of a checkpoint or a run, name of weights that ship, or Hugging Face id.

    Returns:
        One line that tells what was copied and what was not.

    Raises:
        WeightsError: it is damaged, or its detector differs in more than its classes.
    """
    folder = check_folder(locate(checkpoint))
    config, class_names, _ = read_checkpoint_config(folder)
    classes = _Classes.of(model, class_names)
    path, state, taken = folder / WEIGHTS, model.state_dict(), _Taken()
    with open_weights(path) as file:
        names = set(file.keys())
        reset = _other_meanings(model, config, names)
        own_parts = _own_parts(model.config, config)
        for name, own in state.items():
            if any(name.startswith(prefix) for prefix in reset):
                continue
            _take(taken, file, path, classes, name, own, name in names, name.startswith(own_parts))
    surplus = sorted(name for name in names - set(state) if not any(name.startswith(prefix) for prefix in reset))
    return "; ".join(_told(folder, config, model, classes, taken, reset, surplus))


def _take(
    taken: _Taken, file: Any, path: Path, classes: _Classes, name: str, own: Tensor, there: bool, inside: bool
) -> None:
    """Copies one tensor where it fits, and notes what became of it; ``inside`` parts need not be in the checkpoint."""
    if not there:
        if not inside:
            raise WeightsError(f"{path}: tensor {name!r} is missing; the model's settings differ from this run's")
        taken.new.append(name)
        return
    shape = list(file.get_slice(name).get_shape())
    if shape == classes.shape(name, own):
        value = file.get_tensor(name)
        if not bool(torch.isfinite(value).all()):
            raise WeightsError(f"{path}: tensor {name!r} holds NaN or infinity")
        classes.copy(name, value, own)
        taken.copied += 1
    elif classes.counted(shape, own):
        taken.counted.append(name)
    elif inside:
        taken.shapes.append(name)
    else:
        raise WeightsError(f"{path}: tensor {name!r} has shape {shape}, this run's model has {list(own.shape)}")


def _told(
    folder: Path,
    config: ModelConfig,
    model: AmodalRCNN,
    classes: _Classes,
    taken: _Taken,
    reset: dict[str, str],
    surplus: list[str],
) -> list[str]:
    parts = [f"init: {counted(taken.copied, 'tensor')} from {folder}"]
    if config.system != model.config.system:
        parts.append(f"it is a {config.system}, this run trains a {model.config.system}")
    parts += classes.told()
    if taken.counted:
        what = ", ".join(taken.counted)
        parts.append(f"{len(taken.counted)} start afresh ({counted(classes.theirs, 'class')} there): {what}")
    for prefix, why in reset.items():
        parts.append(f"{prefix[:-1]} starts afresh, its numbers mean something else there ({why})")
    if taken.shapes:
        parts.append(f"{len(taken.shapes)} start afresh, of other shapes there: {_modules(taken.shapes)}")
    if taken.new:
        parts.append(f"{len(taken.new)} start afresh, not in it: {_modules(taken.new)}")
    if surplus:
        parts.append(f"{len(surplus)} of it are left out, not in this run's model: {_modules(surplus)}")
    return parts


def _own_parts(ours: ModelConfig, theirs: ModelConfig) -> tuple[str, ...]:
    """Prefixes of the parts that a system brings itself: its branch, and a box side other than the checkpoint's."""
    one, two = (resolve(find(config.system).box_head) for config in (ours, theirs))
    return (_BRANCH,) if one is two else (_BRANCH, _BOX_SIDE)


def _other_meanings(model: AmodalRCNN, theirs: ModelConfig, names: set[str]) -> dict[str, str]:
    """Prefix of parameters that start afresh -> the settings that give their numbers another meaning there."""
    reset = {}
    for prefix, keys in model.branch.meanings().items():
        whole = f"{_BRANCH}{prefix}"
        values = [(key, getattr(model.config.method, key, None), getattr(theirs.method, key, None)) for key in keys]
        differing = [f"{key} is {there!r}, here {here!r}" for key, here, there in values if here != there]
        if differing and any(name.startswith(whole) for name in names):
            reset[whole] = ", ".join(differing)
    return reset


@dataclass
class _Classes:
    """Which rows of which tensors belong to which class, here and in a checkpoint.

    Attributes:
        names: our classes.
        theirs: how many classes the checkpoint has.
        rows: (ours, theirs) of the classes that both have.
        layouts: module -> rows before those of the classes (background), and rows of each class.
    """

    names: list[str]
    theirs: int
    rows: list[tuple[int, int]]
    layouts: dict[str, tuple[int, int]]

    @classmethod
    def of(cls, model: AmodalRCNN, theirs: list[str]) -> _Classes:
        ours = model.class_names
        if ours == theirs:  # Names may repeat; places do not.
            rows = [(row, row) for row in range(len(ours))]
        else:
            rows = [(row, theirs.index(name)) for row, name in enumerate(ours) if name in theirs]
        layouts = {
            f"{name}.{layer}" if layer else name: counts
            for name, module in model.named_modules()
            for layer, counts in getattr(module, "class_rows", {}).items()
        }
        return cls(ours, len(theirs), rows, layouts)

    def shape(self, name: str, own: Tensor) -> list[int]:
        """The shape that the checkpoint's tensor should have."""
        layout = self.layouts.get(name.rpartition(".")[0])
        return list(own.shape) if layout is None else [layout[0] + layout[1] * self.theirs, *own.shape[1:]]

    def copy(self, name: str, value: Tensor, own: Tensor) -> None:
        """Copies what can be copied of a tensor of that shape."""
        layout = self.layouts.get(name.rpartition(".")[0])
        if layout is None:
            own.copy_(value)
            return
        before, each = layout
        own[:before] = value[:before].to(own)
        mine, given = (tensor[before:].view(-1, each, *own.shape[1:]) for tensor in (own, value))
        for ours, theirs in self.rows:
            mine[ours] = given[theirs].to(own)

    def counted(self, shape: list[int], own: Tensor) -> bool:
        """Whether two shapes differ only in a first dimension that counts classes, as in layers that we do not know."""
        if not shape or shape[1:] != list(own.shape[1:]):
            return False
        counts = (self.theirs, len(self.names))
        pairs = [tuple(each * (count + more) for count in counts) for each in (1, 4) for more in (0, 1)]
        return (shape[0], own.shape[0]) in pairs

    def told(self) -> list[str]:
        """What became of the classes; nothing where they are the same."""
        if self.rows == [(row, row) for row in range(self.theirs)] and self.theirs == len(self.names):
            return []
        carried = {ours for ours, _ in self.rows}
        fresh = [name for row, name in enumerate(self.names) if row not in carried]
        return [
            f"classes carried over: {_listed([self.names[row] for row in sorted(carried)])}",
            f"classes that start afresh: {_listed(fresh)}",
        ]


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return (", ".join(names[:_LISTED]) or "none") + more


def _modules(names: list[str]) -> str:
    """The modules of tensors, each once, in order."""
    return ", ".join(dict.fromkeys(name.rpartition(".")[0] or name for name in names))
