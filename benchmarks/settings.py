"""Reads the configurations of ``amodal train`` for the benchmarks that do not go through the command line."""

from __future__ import annotations

import typing
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml

from amodal.config import TrainConfig


def _fill(kind: type, values: dict[str, Any]) -> Any:
    hints = typing.get_type_hints(kind)
    known = {f.name for f in fields(kind)}
    if unknown := set(values) - known:
        raise SystemExit(f"{kind.__name__} has no {', '.join(sorted(unknown))}")
    return kind(**{k: _fill(hints[k], v) if is_dataclass(hints[k]) else v for k, v in values.items()})


def read_config(path: Path, overrides: list[str]) -> TrainConfig:
    """The settings in ``path``, with ``--a.b value`` pairs on top."""
    tree = yaml.safe_load(path.read_text())
    for flag, text in zip(overrides[::2], overrides[1::2], strict=True):
        *parents, last = flag.removeprefix("--").split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = yaml.safe_load(text)
    config: TrainConfig = _fill(TrainConfig, tree)
    return config
