"""Two processes and two micro-batches give the run of one process with the whole batch, within rounding.

The system is PGExp with all its heads, so that one of the processes fits a prior for both. The first gradients agree
to 3e-7 (``test_engine`` has the sharp test). After that rounding may tip a ReLU or a tie of the max pooling in the flat
grounds of drawn scenes, which changes the next gradient of the backbone's first layers by some 1e-4.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

pytestmark = pytest.mark.slow
PGEXP = (
    "--model.system", "pgexp", "--model.method.k", "2", "--model.method.box_channels", "16",
    "--prior_fit.slots", "5", "--prior_fit.encoder_steps", "20", "--prior_fit.flow_steps", "2",
)  # fmt: skip
ROUNDING = 1e-3
LAUNCH = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")


@pytest.fixture(scope="module")
def runs(settings: Path, tmp_path_factory: pytest.TempPathFactory, program: Any) -> Any:
    folder = tmp_path_factory.mktemp("runs")

    def weights(name: str, *more: str, launcher: tuple[str, ...] = ()) -> dict[str, Tensor]:
        out = folder / name
        words = ["train", str(settings), "--out", str(out), *PGEXP, "--steps", "3"]
        process = program(*words, "--optim.warmup_steps", "0", *more, launcher=launcher)
        _, err = process.communicate()
        assert process.returncode == 0, err
        return load_file(out / "last" / "model.safetensors")

    return weights


@pytest.fixture(scope="module")
def one(runs: Any) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = runs("one")
    return weights


@pytest.fixture(scope="module")
def update(one: dict[str, Tensor], runs: Any) -> dict[str, Tensor]:
    """How far three steps move each tensor; a run with a negligible rate stands for the start."""
    start = runs("start", "--optim.lr", "1e-30")
    return {name: value - start[name] for name, value in one.items()}


def distance(first: dict[str, Tensor], second: dict[str, Tensor], update: dict[str, Tensor]) -> float:
    """Norm of the difference relative to the norm of the update."""
    total = sum(float((first[name] - second[name]).double().square().sum()) for name in first)
    moved = sum(float(value.double().square().sum()) for value in update.values())
    return (total / moved) ** 0.5


def test_two_processes(one: dict[str, Tensor], update: dict[str, Tensor], runs: Any) -> None:
    two = runs("two", launcher=LAUNCH)
    assert distance(one, two, update) < ROUNDING
    assert torch.stack([value.abs().max() for value in update.values()]).max() > 1e-3


def test_two_micro_batches(one: dict[str, Tensor], update: dict[str, Tensor], runs: Any) -> None:
    assert distance(one, runs("micro", "--accumulate", "2"), update) < ROUNDING


def test_two_processes_with_two_micro_batches(one: dict[str, Tensor], update: dict[str, Tensor], runs: Any) -> None:
    both = runs("both", "--accumulate", "2", launcher=LAUNCH)
    assert distance(one, both, update) < ROUNDING


def test_other_flips_are_far_away(one: dict[str, Tensor], update: dict[str, Tensor], runs: Any) -> None:
    """The distance can tell runs apart."""
    assert distance(one, runs("other", "--data.flip", "1.0"), update) > 1e-2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_two_processes_stop_after_the_same_step_and_go_on(
    number: signal.Signals, settings: Path, tmp_path: Path, program: Any
) -> None:
    def start(name: str) -> Any:
        words = ["train", str(settings), "--out", str(tmp_path / name), "--steps", "20", "--log_every", "1"]
        return program(*words, "--data.workers", "1", "--resume", "auto", launcher=LAUNCH)

    process = start("stopped")
    log = tmp_path / "stopped/log.csv"
    end = time.monotonic() + 120
    while time.monotonic() < end and (not log.is_file() or len(log.read_text().splitlines()) < 3):
        time.sleep(0.05)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # As a terminal does; the launcher then sends its own.
    else:
        process.send_signal(number)
    _, error = process.communicate(timeout=120)
    assert process.returncode != 0
    assert error.count("stopped after step") == 1, error
    assert "unexpected" not in error
    for name in ("stopped", "whole"):
        process = start(name)
        _, error = process.communicate(timeout=300)
        assert process.returncode == 0, error
    one, two = ((tmp_path / name / "last/model.safetensors").read_bytes() for name in ("stopped", "whole"))
    assert one == two
