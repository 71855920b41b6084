"""Reads the configurations of ``amodal train`` for the benchmarks that do not go through the command line."""

from __future__ import annotations

from pathlib import Path

from amodal.config import TrainConfig
from amodal.config_io import load_config


def read_config(path: Path, overrides: list[str]) -> TrainConfig:
    """The settings in ``path``, with ``--a.b value`` pairs on top, read as ``amodal train`` reads them."""
    if len(overrides) % 2 or not all(flag.startswith("--") for flag in overrides[::2]):
        raise SystemExit(f"expected --key value pairs, got {' '.join(overrides)}")
    pairs = zip((flag.removeprefix("--") for flag in overrides[::2]), overrides[1::2], strict=True)
    return load_config(path, dict(pairs))
