"""Initial weights: torchvision's by name, or a .safetensors file. Nothing that could be pickled is read from a path."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torchvision
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from amodal.config import BackboneConfig
from amodal.errors import WeightsError, nearest, shown
from amodal.files import PICKLES, fitting, open_weights
from amodal.models.backbone import TIMM
from amodal.models.box_head import BoxHead
from amodal.models.mask_head import MaskHead

log = logging.getLogger(__name__)

# torchvision's names, older releases' included, to ours
_RENAMES = [
    (r"^backbone\.fpn\.(inner|layer)_blocks\.(\d)\.(weight|bias)$", r"backbone.fpn.\1_blocks.\2.0.\3"),
    (r"^rpn\.head\.conv\.(weight|bias)$", r"rpn.head.conv.0.0.\1"),
    (r"^roi_heads\.box_head\.", "box_head."),
    (r"^roi_heads\.box_predictor\.", "box_head."),
    (r"^roi_heads\.mask_predictor\.conv5_mask\.", "mask.deconv."),
    (r"^roi_heads\.mask_predictor\.mask_fcn_logits\.", "mask.predictor."),
]
_MASK_CONV = re.compile(r"^roi_heads\.mask_head\.(?:mask_fcn(\d)|(\d)\.0)\.(weight|bias)$")
_BOX_SIDE = "box_head."
# Layers whose number of rows hangs on the classes; of other classes they are left as initialised.
_PER_CLASS = ("box_head.cls_score.", "box_head.bbox_pred.", ".predictor.")


def initialise(model: nn.Module, weights: str) -> list[str]:
    """Load initial weights into a detector.

    Args:
        model: an :class:`~amodal.models.rcnn.AmodalRCNN`.
        weights: torchvision weight name ("ResNet50_Weights.IMAGENET1K_V1", "MaskRCNN_ResNet50_FPN_Weights.COCO_V1"), or
            path of a .safetensors file with the parameter names of a torchvision ResNet, of torchvision's Mask R-CNN or
            of this model; for a backbone of timm "shipped", "timm" (its download), or a .safetensors file with the
            parameter names of timm's model or of this one.

    Returns:
        Names of the model's tensors that stay randomly initialised.

    Raises:
        WeightsError: unknown name, no network, unreadable file, or tensors that do not fit; one line names the tensor.
    """
    body = getattr(getattr(model, "backbone", None), "body", None)
    if hasattr(body, "net"):
        return _load_timm(model, body, weights)
    entry = find_weights(weights)
    if isinstance(entry, Path):
        return _load(model, _read(entry), str(entry))
    try:
        state = entry.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:
        raise WeightsError(f"{weights} cannot be downloaded from {entry.url} ({error})") from None
    # torchvision trained its first COCO weights with batch norms without eps.
    eps = 0.0 if weights.endswith("FPN_Weights.COCO_V1") else 1e-5
    if any(name.startswith("roi_heads.") for name in state):
        return load_torchvision_detector(model, state, categories=entry.meta.get("categories"), eps=eps, owner=weights)
    return _load(model, state, weights)


def _load_timm(model: nn.Module, body: Any, weights: str) -> list[str]:
    from amodal.models import timm_weights

    path = timm_weights.find_file(body.name, weights)
    state = _read(path)
    if not any(name.startswith("backbone.") for name in state):
        state = {f"backbone.body.net.{name}": value for name, value in timm_weights.match(body, state, path).items()}
    return _load(model, state, str(path))


def check_weights(config: BackboneConfig) -> None:
    """Refuses initial weights that are not there; downloads nothing.

    Raises:
        WeightsError: there is no such name or file; names the nearest.
    """
    assert config.weights is not None
    if not config.name.startswith(TIMM):
        find_weights(config.weights)
        return
    from amodal.models import timm_weights

    if config.weights != timm_weights.DOWNLOAD:
        timm_weights.find_file(config.name.removeprefix(TIMM), config.weights)


def notice(config: BackboneConfig) -> str:
    """One line for people: which pretrained weights a backbone starts from, and their licence as far as it is told."""
    assert config.weights is not None
    licence = "not stated by its source"
    if config.name.startswith(TIMM):
        from amodal.models import timm_weights

        licence = timm_weights.licence(config.name.removeprefix(TIMM), config.weights)
    return f"{config.name} ({config.weights}), licence {licence}"


def find_weights(weights: str) -> Any:
    """What a name of initial weights stands for: torchvision's entry, or the path of a .safetensors file.

    Raises:
        WeightsError: there is no such name or file; names the nearest.
    """
    path = Path(weights)
    if path.suffix.lower() in PICKLES:
        raise WeightsError(f"{path}: pickled weights are never loaded; convert them to .safetensors")
    if path.suffix.lower() == ".safetensors":
        if not path.is_file():
            raise WeightsError(f"{path}: no such file")
        return path
    try:
        return torchvision.models.get_weight(weights)
    except (ValueError, KeyError, TypeError, AttributeError):  # It looks the parts of a name up, whatever they are.
        raise WeightsError(f"unknown weights {shown(weights)}{_nearest(weights)}") from None


def load_torchvision_detector(
    model: nn.Module,
    state: Mapping[str, Tensor],
    *,
    categories: Sequence[str] | None = None,
    eps: float = 1e-5,
    owner: str = "torchvision's detector",
) -> list[str]:
    """Load the state dict of torchvision's ``maskrcnn_resnet50_fpn`` (or Faster R-CNN) into a detector.

    Every mask head of the branch starts from the one mask head; a box side that is not the shared one (``BoxHead``)
    stays as initialised. Outputs of the background class, which only torchvision
    has for boxes and masks, are dropped. Class-specific layers are loaded when the class counts agree, or row by row
    when all the model's class names are among ``categories``; otherwise they stay as initialised.

    Args:
        model: an :class:`~amodal.models.rcnn.AmodalRCNN`.
        state: tensors by torchvision's names.
        categories: class names of ``state`` in label order, background first.
        eps: of the batch norms that ``state`` was trained with (0 in torchvision's first COCO weights; ours have 1e-5).
        owner: what the tensors are called in messages.

    Returns:
        Names of the model's tensors that stay as initialised.

    Raises:
        WeightsError: a tensor is missing, unknown, not finite, or of the wrong shape.
    """
    return _load(model, state, owner, categories=categories, eps=eps)


def _load(
    model: nn.Module,
    state: Mapping[str, Tensor],
    owner: str,
    *,
    categories: Sequence[str] | None = None,
    eps: float = 1e-5,
) -> list[str]:
    own = model.state_dict()
    tensors = _renamed(state, [name for name, module in model.named_modules() if isinstance(module, MaskHead)])
    rows = _class_rows(list(getattr(model, "class_names", [])), categories)
    foreign = any(name.startswith("roi_heads.") for name in state)
    shared_side = type(getattr(model, "box_head", None)) is BoxHead
    loaded: dict[str, Tensor] = {}
    for name, given in tensors.items():
        if foreign and not shared_side and name.startswith(_BOX_SIDE):
            continue
        if name not in own:
            raise WeightsError(f"{owner}: tensor {name!r} is unknown to this model{_norm_hint(name)}")
        value = _class_specific(name, given, own[name], rows) if foreign else given
        if value.shape != own[name].shape:
            if any(part in name for part in _PER_CLASS):
                continue
            raise WeightsError(
                f"{owner}: tensor {name!r} has shape {list(value.shape)}, the model's is {list(own[name].shape)}"
            )
        loaded[name] = fitting(value, own[name].dtype, name, owner)
    _require(loaded, own, owner, shared_side or not foreign)
    model.load_state_dict({**own, **loaded})
    if eps != 1e-5:
        _absorb_eps(model, eps)
    fresh = [name for name in own if name not in loaded]
    if fresh:
        modules = sorted({name.rsplit(".", 1)[0] for name in fresh})
        log.warning("%s: %d tensors are not in it and start at random: %s", owner, len(fresh), ", ".join(modules))
    return fresh


def _renamed(state: Mapping[str, Tensor], mask_heads: list[str]) -> dict[str, Tensor]:
    """Tensors by this model's names, from a ResNet's, torchvision's Mask R-CNN's or this model's."""
    classifier = "conv1.weight" in state
    tensors: dict[str, Tensor] = {}
    for name, value in state.items():
        # Counters of norms that are frozen here, and the classifier of ImageNet, which no detector has.
        if name.endswith("num_batches_tracked") or (classifier and name.startswith("fc.")):
            continue
        new = f"backbone.body.{name}" if classifier else name
        for pattern, replacement in _RENAMES:
            new = re.sub(pattern, replacement, new)
        conv = _MASK_CONV.match(new)
        if conv:
            index = int(conv[1]) - 1 if conv[1] else int(conv[2])
            new = f"mask.convs.{2 * index}.{conv[3]}"
        if new.startswith("mask."):
            tensors.update({f"{head}.{new[5:]}": value for head in mask_heads})
        else:
            tensors[new] = value
    return tensors


def _class_rows(names: list[str], categories: Sequence[str] | None) -> list[int] | None:
    """Row of each of the model's classes among ``categories``; None: not all are there."""
    if categories is None or not set(names) <= set(categories):
        return None
    return [list(categories).index(name) for name in names]


def _class_specific(name: str, value: Tensor, own: Tensor, rows: list[int] | None) -> Tensor:
    """Class rows of torchvision's layers in the order and layout of ours: no background but in the classifier."""
    if not any(part in name for part in _PER_CLASS):
        return value
    values_per_class = 4 if "bbox_pred" in name else 1
    if not value.dim() or value.shape[0] % values_per_class:
        return value  # No rows of classes: it stays out, as do those of another number of classes.
    by_class = value.reshape(value.shape[0] // values_per_class, values_per_class, *value.shape[1:])
    if rows is not None:
        by_class = by_class[[0, *rows]]
    # torchvision has boxes and masks of the background class, too, which are never read.
    if "cls_score" not in name:
        by_class = by_class[1:]
    flat = by_class.flatten(0, 1)
    return flat.reshape(own.shape) if flat.numel() == own.numel() else flat


def _require(loaded: Mapping[str, Tensor], own: Mapping[str, Tensor], owner: str, box_side: bool) -> None:
    """Whatever a file holds, its backbone must be whole; and if it holds more than that, proposals and box side too."""
    parts = ["backbone.body."]
    if any(not name.startswith("backbone.body.") for name in loaded):
        parts = ["backbone.", "rpn.", *(["box_head.fc"] if box_side else [])]
    missing = [name for name in own if name.startswith(tuple(parts)) and name not in loaded]
    if missing:
        raise WeightsError(f"{owner}: tensor {missing[0]!r} is missing ({len(missing)} in all)")


def _absorb_eps(model: nn.Module, eps: float) -> None:
    """Scale frozen batch norms so that they compute with their own eps what they were trained for with another."""
    for module in model.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.weight.mul_(((module.running_var + module.eps) / (module.running_var + eps)).sqrt())


def _norm_hint(name: str) -> str:
    return " (batch norm statistics need model.backbone.norm: frozen_bn)" if "running_" in name else ""


def _read(path: Path) -> dict[str, Tensor]:
    with open_weights(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)


def _nearest(weights: str) -> str:
    """Hint at the closest torchvision name, or at all of the model that is named."""
    names = [
        str(entry) for name in torchvision.models.list_models() for entry in torchvision.models.get_model_weights(name)
    ]
    of_model = [name for name in names if name.partition(".")[0] == weights.partition(".")[0]]
    return nearest(weights, of_model or names) or "; give a torchvision name or a .safetensors file"
