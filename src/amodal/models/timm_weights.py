"""Weights of timm's backbones: those that ship, timm's download, or a local file; tensors only, whole or refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import timm
import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled
from torch import Tensor

from amodal.errors import WeightsError, nearest
from amodal.files import open_weights
from amodal.models.timm_body import TimmBody

SHIPPED, DOWNLOAD = "shipped", "timm"
"""What ``model.backbone.weights`` says for weights that come with the package, and for timm's from the hub."""

FOLDER = Path(__file__).parent.parent / "backbones"
"""Where those that ship lie, ``NAME.safetensors``."""

_FLAT = re.compile(r"^(\w+)\.(\d+)\.")


def shipped_backbones() -> list[str]:
    """timm's names of the backbones whose weights come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.safetensors"))


def find_file(name: str, weights: str) -> Path:
    """The file that ``model.backbone.weights`` stands for, downloaded where it must be.

    Args:
        name: timm's name of the backbone.
        weights: "shipped", "timm", or a path that ends in ``.safetensors``.

    Raises:
        WeightsError: nothing ships for that model, there is no such file, or the hub cannot be reached.
    """
    if weights == SHIPPED:
        base = name.split(".")[0]
        if base not in shipped_backbones():
            known = ", ".join(shipped_backbones())
            raise WeightsError(f"model.backbone.weights is {SHIPPED!r}, but of timm/{base} none ship (only {known})")
        return FOLDER / f"{base}.safetensors"
    if weights == DOWNLOAD:
        return _download(name)
    path = Path(weights)
    if path.suffix.lower() != ".safetensors":
        choices = [SHIPPED, DOWNLOAD]
        rule = f"must be {SHIPPED!r}, {DOWNLOAD!r} or a .safetensors file for timm/{name}"
        raise WeightsError(f"model.backbone.weights is {weights!r}, {rule}{nearest(weights, choices, listed=0)}")
    if not path.is_file():
        raise WeightsError(f"{path}: no such file")
    return path


def licence(name: str, weights: str) -> str:
    """What licence the weights come under, as far as timm or the file itself says."""
    if weights == DOWNLOAD:
        return str(getattr(timm.get_pretrained_cfg(name), "license", None) or "not stated by timm")
    with open_weights(find_file(name, weights)) as file:
        return str((file.metadata() or {}).get("license", "not stated in the file"))


def match(body: TimmBody, state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The tensors of the file ``path`` by the names of ``body``, in the precision of the file.

    Names are those of timm's whole model, of which the file may hold parts that the body has not (its classifier).
    Whatever the body has must be there.

    Raises:
        WeightsError: a tensor is missing, or one is neither the body's nor the whole model's.
    """
    own = body.net.state_dict()
    tensors: dict[str, Tensor] = {}
    foreign: list[str] = []
    for name, value in state.items():
        if name.endswith("num_batches_tracked"):
            continue
        # A list of features has its sequences unrolled: stages.0 is called stages_0 there.
        flat = _FLAT.sub(r"\1_\2.", name)
        new = name if name in own else flat if flat in own else None
        if new is None:
            foreign.append(name)
        else:
            tensors[new] = value
    if missing := [name for name in own if name not in tensors]:
        raise WeightsError(f"{path}: tensor {missing[0]!r} of timm/{body.name} is missing ({len(missing)} in all)")
    whole = _whole_names(body.name) if foreign else frozenset()
    if unknown := [name for name in foreign if name not in whole]:
        raise WeightsError(f"{path}: tensor {unknown[0]!r} is no part of timm/{body.name}")
    return tensors


def _whole_names(name: str) -> frozenset[str]:
    with torch.device("meta"):
        return frozenset(timm.create_model(name.split(".")[0], pretrained=False).state_dict())


def _download(name: str) -> Path:
    cfg = timm.get_pretrained_cfg(name)
    repository = getattr(cfg, "hf_hub_id", None)
    if not repository:
        raise WeightsError(f"model.backbone.weights is {DOWNLOAD!r}, but timm has none of {name} on the hub")
    try:
        return Path(hf_hub_download(str(repository), "model.safetensors"))
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(f"{repository}: no model.safetensors to be had from the hub ({reason})") from None
