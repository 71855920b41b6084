"""Settings of an experiment file for the benchmarks that do not go through the command line."""

from __future__ import annotations

from pathlib import Path

from amodal.config import TrainConfig
from amodal.reproduce.plan import read_experiment
from amodal.reproduce.runs import Plan


def read_config(path: Path, overrides: list[str]) -> TrainConfig:
    """The settings of the first row of ``path`` that ``amodal train`` trains, with ``--a.b value`` pairs on top."""
    if len(overrides) % 2 or not all(flag.startswith("--") for flag in overrides[::2]):
        raise SystemExit(f"expected --key value pairs, got {' '.join(overrides)}")
    pairs = dict(zip((flag.removeprefix("--") for flag in overrides[::2]), overrides[1::2], strict=True))
    seed = int(pairs.pop("seed", "0"))
    experiment = read_experiment(path)
    row = next(row for row in experiment.rows if row.run is None)
    return Plan(experiment, "", pairs).run(row, seed).config
