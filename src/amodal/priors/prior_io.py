"""The folder of an expansion prior: ``prior.yaml`` and encoder, flow solver and bank as safetensors."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from amodal.bounds import MANY
from amodal.config_io import structure
from amodal.errors import ConfigError, WeightsError, counted, shown
from amodal.files import read_weights, write_text
from amodal.plain_yaml import dump_yaml
from amodal.priors.bank import layout
from amodal.priors.bank_io import FILE as BANK
from amodal.priors.bank_io import load_bank, save_bank
from amodal.priors.encoder import MaskEncoder
from amodal.priors.facts import read_facts, write_module
from amodal.priors.flow import FlowNet
from amodal.priors.prior import Prior
from amodal.settings import PriorConfig

M = TypeVar("M", bound=nn.Module)

VERSION = 1
SETTINGS, ENCODER, FLOW = "prior.yaml", "encoder.safetensors", "flow.safetensors"
FILES = (SETTINGS, ENCODER, FLOW, BANK)
"""All that a prior's folder holds."""
_KEYS = {
    "fit": dict,
    "class_names": list,
    "category_ids": list,
    "flow_widths": list,
    "rerank_weight": float,
    "data": str,
}


def save_prior(prior: Prior, folder: str | Path) -> None:
    """Writes a prior into ``folder`` (made where missing, files of the same names replaced)."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    data = {
        "version": VERSION,
        "fit": asdict(prior.config),
        "class_names": prior.class_names,
        "category_ids": prior.category_ids,
        "flow_widths": [] if prior.flow is None else list(prior.flow.widths),
        "rerank_weight": prior.rerank_weight,
        "data": prior.data,
    }
    write_text(folder / SETTINGS, dump_yaml(data))
    write_module(prior.encoder, folder / ENCODER)
    # Of an earlier prior here; this one may have none.
    (folder / FLOW).unlink(missing_ok=True)
    if prior.flow is not None:
        write_module(prior.flow, folder / FLOW)
    save_bank(prior.bank, folder)


def room(config: PriorConfig, classes: int) -> int:
    """Bytes on disk of a prior of that many classes, before it is fitted; about."""
    bank = sum(math.prod(shape) * kind.itemsize for shape, kind in layout(classes, config.slots).values())
    return bank + sum(value.nbytes for net in (MaskEncoder(config.encoder), FlowNet()) for value in net.parameters())


def load_prior(folder: str | Path, device: torch.device | str = "cpu") -> Prior:
    """The prior in a folder; its bank is mapped into memory, not read.

    Raises:
        ConfigError: ``prior.yaml`` is missing, damaged or of a newer release.
        WeightsError: the folder or a file of tensors is missing or damaged, or they do not fit ``prior.yaml``.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise WeightsError(f"{folder}: no such folder of an expansion prior (amodal prior fit makes one)")
    config, data = read_settings(folder)
    encoder = _read(MaskEncoder(config.encoder), folder / ENCODER)
    flow = None
    if config.flow == "network":
        fine, middle, coarse = data["flow_widths"]
        with torch.device("meta"):  # Whatever widths the file asks for, memory is taken when the tensors fit.
            bare = FlowNet((fine, middle, coarse))
        flow = _read(bare, folder / FLOW)
    bank = load_bank(folder)
    classes = len(data["class_names"])
    if bank.num_classes != classes:
        raise WeightsError(f"{folder}: the bank has {counted(bank.num_classes, 'class')}, {SETTINGS} names {classes}")
    if bank.slots != config.slots:
        raise WeightsError(
            f"{folder}: the bank has {counted(bank.slots, 'slot')} a class, {SETTINGS} says {config.slots}"
        )
    names = (data["class_names"], data["category_ids"])
    prior = Prior(config, *names, encoder, flow, bank, data["rerank_weight"], data["data"])
    return prior.to(device)


def read_settings(folder: Path) -> tuple[PriorConfig, dict[str, Any]]:
    """How a prior was fitted, and the rest of its ``prior.yaml``.

    Raises:
        ConfigError: the file is missing, damaged or of a newer release; names file and key.
    """
    path = folder / SETTINGS
    data = read_facts(path, _KEYS)
    config = structure(PriorConfig, data.pop("fit"), str(path), "fit.")
    widths = data["flow_widths"]
    if config.flow == "network" and (len(widths) != 3 or not _are_counts(widths) or not 1 <= min(widths) <= 4096):
        raise ConfigError(f"{path}: flow_widths is {shown(widths)}, must be three numbers of channels")
    weight = data["rerank_weight"]
    if not 0 <= weight <= MANY:
        raise ConfigError(f"{path}: rerank_weight is {shown(weight)}, must be 0 to {MANY}")
    return config, data


def _are_counts(values: list[Any]) -> bool:
    return all(isinstance(value, int) and not isinstance(value, bool) for value in values)


def _read(module: M, path: Path) -> M:
    module.load_state_dict(read_weights(path, module.state_dict(), SETTINGS), assign=True)
    return module
