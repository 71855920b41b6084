"""Starting a run from the weights of a checkpoint, whose classes and heads may be others."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from amodal.config_io import nearest
from amodal.errors import ConfigError, WeightsError
from amodal.models.heads import ClassPredictor
from amodal.train.checkpoints import WEIGHTS, check_folder, open_weights, read_checkpoint_config

if TYPE_CHECKING:
    from amodal.config_methods import MethodConfig
    from amodal.models.rcnn import AmodalRCNN

_BRANCH = "branch."
_BOX_HEAD = "branch.box_head."
_BOX_MEANING = ("reference", "delta_weights", "detects")
_LISTED = 10  # classes that are named


def check_system(checkpoint: str | Path, system: str) -> None:
    """Refuses a checkpoint of another system with a :class:`ConfigError`, before anything expensive is done."""
    folder = check_folder(checkpoint)
    theirs = read_checkpoint_config(folder)[0].system
    if theirs != system:
        raise ConfigError(f"{folder}: is a {theirs}, this run trains a {system}")


def start_from(model: AmodalRCNN, checkpoint: str | Path) -> str:
    """Copies a checkpoint's weights into ``model``.

    Rows that belong to classes (of the box head's last layers and of every mask predictor) are copied for the classes
    that both have, by name; the others keep their fresh values. So do heads of the branch that the checkpoint does not
    have (it is another set of the same system), and a box expansion head whose numbers meant something else; heads that
    only the checkpoint has are left out. Its expansion prior is never taken over: the bank belongs to the data.

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
    config, class_names, _ = read_checkpoint_config(folder)
    classes = _Classes.of(model, class_names)
    fresh: list[str] = []
    new: list[str] = []
    copied = 0
    path = folder / WEIGHTS
    state = model.state_dict()
    with open_weights(path) as file:
        names = set(file.keys())
        both = any(name.startswith(_BOX_HEAD) for name in names & set(state))
        reset = _other_meaning(model.config.method, config.method) if both else ""
        skipped = {name for name in names | set(state) if reset and name.startswith(_BOX_HEAD)}
        for name, own in state.items():
            if name in skipped:
                continue
            if name not in names:
                if not name.startswith(_BRANCH):
                    reason = "the model's settings differ from this run's"
                    raise WeightsError(f"{path}: tensor {name!r} is missing; {reason}")
                new.append(name)
                continue
            shape = list(file.get_slice(name).get_shape())
            if shape == classes.shape(name, own):
                value = file.get_tensor(name)
                if not bool(torch.isfinite(value).all()):
                    raise WeightsError(f"{path}: tensor {name!r} holds NaN or infinity")
                classes.copy(name, value, own)
                copied += 1
            elif classes.counted(shape, own):
                fresh.append(name)
            else:
                raise WeightsError(f"{path}: tensor {name!r} has shape {shape}, this run's model has {list(own.shape)}")
    surplus = sorted(names - set(state) - skipped)
    parts = [f"init: {copied} tensors from {folder}", *classes.told()]
    if fresh:
        parts.append(f"{len(fresh)} start afresh ({classes.theirs} classes there): {', '.join(fresh)}")
    if reset:
        parts.append(f"{_BOX_HEAD[:-1]} starts afresh, its numbers mean something else there ({reset})")
    if new:
        parts.append(f"{len(new)} start afresh, not in it: {_modules(new)}")
    if surplus:
        parts.append(f"{len(surplus)} of it are left out, not in this run's model: {_modules(surplus)}")
    return "; ".join(parts)


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
        layouts = {name: (0, 1) for name, module in model.named_modules() if isinstance(module, ClassPredictor)}
        layouts |= {"box_head.cls_score": (1, 1), "box_head.bbox_pred": (0, 4)}
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


def _other_meaning(ours: MethodConfig | None, theirs: MethodConfig | None) -> str:
    """Settings that decide what the numbers of a box expansion head mean, and differ; "" if none does."""
    keys = list(_BOX_MEANING)
    if getattr(ours, "reference", None) == "mixed":
        keys.append("box_expansion")  # with a prior there is one box more to mix
    values = [(key, getattr(ours, key, None), getattr(theirs, key, None)) for key in keys]
    return ", ".join(f"{key} is {there!r}, here {here!r}" for key, here, there in values if here != there)


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
