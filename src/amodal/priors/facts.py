"""What the folders of all kinds of priors have: a YAML file of facts, and modules as safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from amodal.config_io import check_classes, check_version
from amodal.errors import ConfigError, nearest, shown
from amodal.files import write_tensors
from amodal.plain_yaml import read_yaml


def read_facts(path: Path, kinds: Mapping[str, type]) -> dict[str, Any]:
    """The facts in a YAML file, without its version.

    Args:
        path: the file.
        kinds: key -> type; all must be there, no others may, "class_names" and "category_ids" are among them.

    Raises:
        ConfigError: the file is missing, damaged or of a newer release; names file and key.
    """
    data = read_yaml(path)
    check_version(data.pop("version", 1), path)
    for key in data:
        if key not in kinds:
            raise ConfigError(f"{path}: unknown key {shown(key)}{nearest(str(key), list(kinds))}")
    for key, kind in kinds.items():
        if key not in data:
            raise ConfigError(f"{path}: {key} is missing")
        number = isinstance(data[key], int) and not isinstance(data[key], bool)
        if not isinstance(data[key], kind) and not (kind is float and number):
            raise ConfigError(f"{path}: {key} is {shown(data[key])}, must be a {kind.__name__}")
    check_classes(data["class_names"], data["category_ids"], path)
    return data


def write_module(module: nn.Module, path: Path) -> None:
    """Parameters and buffers of a module, wherever it is."""
    state = {name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()}
    write_tensors(path, state)
