"""Starting a run from the weights of a checkpoint, whose classes, heads and system may be others."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from amodal.checkpoint import WEIGHTS, check_folder, read_checkpoint_config, read_notices
from amodal.config import ModelConfig
from amodal.data.classes import Classes, ClassMatch, match
from amodal.errors import WeightsError, counted
from amodal.files import fitting, open_weights
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
    of the box head and of every mask predictor) are copied for the classes that both have, matched as everywhere
    (:func:`amodal.data.classes.match`); the others keep their fresh values. Of the branch, and of a box side that is
    not the checkpoint's, whatever fits by name and shape is copied, be it of the same system or of another: parts that
    the checkpoint does not have, or has in another shape, start afresh, and so do those whose numbers mean something
    else there (:meth:`amodal.models.branch.Branch.meanings`). Its prior is never taken over: it belongs to the data.

    Args:
        model: the detector to fill.
        checkpoint: folder of a checkpoint or a run, name of weights that ship, or Hugging Face id.

    Returns:
        One line that tells what was copied and what was not.

    Raises:
        WeightsError: it is damaged, or its detector differs in more than its classes.
        DataError: a class name stands for several classes, and their ids do not tell them apart.
    """
    folder = check_folder(locate(checkpoint))
    config, class_names, category_ids = read_checkpoint_config(folder)
    classes = _Classes.of(model, Classes(class_names, category_ids, "the checkpoint"), folder)
    path, state, taken = folder / WEIGHTS, model.state_dict(), _Taken()
    with open_weights(path) as file:
        names = set(file.keys())
        reset = _other_meanings(model, config, names)
        own_parts = _own_parts(model.config, config)
        for name, own in state.items():
            if any(name.startswith(prefix) for prefix in reset):
                continue
            _take(taken, file, path, classes, name, own, name in names, name.startswith(own_parts))
    model.notices = read_notices(folder)
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
        classes.copy(name, fitting(file.get_tensor(name), own.dtype, name, path), own)
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
        matched: our classes and the checkpoint's.
        layouts: module -> rows before those of the classes (background), and rows of each class.
    """

    matched: ClassMatch
    layouts: dict[str, tuple[int, int]]

    @classmethod
    def of(cls, model: AmodalRCNN, theirs: Classes, folder: Path) -> _Classes:
        ours = Classes(model.class_names, model.category_ids, "this run")
        layouts = {
            f"{name}.{layer}" if layer else name: counts
            for name, module in model.named_modules()
            for layer, counts in getattr(module, "class_rows", {}).items()
        }
        return cls(match(ours, theirs, file=folder), layouts)

    @property
    def theirs(self) -> int:
        """How many classes the checkpoint has."""
        return len(self.matched.theirs.names)

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
        for theirs, ours in self.matched.label_of.items():
            mine[ours] = given[theirs].to(own)

    def counted(self, shape: list[int], own: Tensor) -> bool:
        """Whether two shapes differ only in a first dimension that counts classes, as in layers that we do not know."""
        if not shape or shape[1:] != list(own.shape[1:]):
            return False
        counts = (self.theirs, len(self.matched.ours.names))
        pairs = [tuple(each * (count + more) for count in counts) for each in (1, 4) for more in (0, 1)]
        return (shape[0], own.shape[0]) in pairs

    def told(self) -> list[str]:
        """What became of the classes; nothing where they are the same."""
        ours, theirs = (list(one.names) for one in (self.matched.ours, self.matched.theirs))
        partner, taken = self.matched.partner, self.matched.label_of
        if partner == list(range(len(theirs))):
            return []
        carried = [name for name, label in zip(ours, partner, strict=True) if label is not None]
        fresh = [name for name, label in zip(ours, partner, strict=True) if label is None]
        lost = [name for label, name in enumerate(theirs) if label not in taken]
        parts = [f"classes carried over: {_listed(carried)}", f"classes that start afresh: {_listed(fresh)}"]
        return [*parts, f"classes of it that are left out: {_listed(lost)}"] if lost else parts


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return (", ".join(names[:_LISTED]) or "none") + more


def _modules(names: list[str]) -> str:
    """The modules of tensors, each once, in order."""
    return ", ".join(dict.fromkeys(name.rpartition(".")[0] or name for name in names))
