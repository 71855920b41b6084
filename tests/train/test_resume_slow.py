"""A killed and resumed run ends with the same bytes as an unkilled one, whether the system has a prior or not."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from amodal.model import load_model

pytestmark = pytest.mark.slow
FILES = ("model.safetensors", "optimizer.safetensors", "state.json")
STEPS = "14"
PGEXP = (
    "--model.system", "pgexp", "--model.method.k", "2", "--model.method.box_channels", "16",
    "--prior_fit.slots", "5", "--prior_fit.encoder_steps", "20", "--prior_fit.flow_steps", "2",
)  # fmt: skip


@pytest.fixture(scope="module")
def start(settings: Path, program: Any) -> Any:
    def begin(out: Path, *more: str) -> Any:
        words = ["train", str(settings), "--out", str(out), "--steps", STEPS, "--data.workers", "1"]
        return program(*words, "--save_every", "2", "--log_every", "1", "--eval_every", "5", *more)

    return begin


def losses(out: Path) -> list[str]:
    """log.csv without the column of times."""
    return [line.rpartition(",")[0] for line in (out / "log.csv").read_text().splitlines()]


def finish(process: Any) -> None:
    _, err = process.communicate()
    assert process.returncode == 0, err


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_killed_at_random_moments(tmp_path: Path, start: Any, optimizer: str) -> None:
    extra = ("--optim.name", optimizer, "--optim.lr", "0.001", *(PGEXP if optimizer == "adamw" else ()))
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(start(whole, *extra))
    moments = random.Random(1)
    progress = []
    for _ in range(2):
        before = step_of(killed)
        process = start(killed, "--resume", "auto", *extra)
        while step_of(killed) <= before and process.poll() is None:
            time.sleep(0.05)
        time.sleep(moments.uniform(0.0, 1.0))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        progress.append(step_of(killed))
        load_model(killed / "last")
    assert 0 < progress[0] < progress[1] <= int(STEPS)
    assert progress[0] < int(STEPS), "killed too late to prove anything"
    finish(start(killed, "--resume", "auto", *extra))
    for name in FILES:
        wanted, found = ((out / "last" / name).read_bytes() for out in (whole, killed))
        if name.endswith(".json"):
            wanted, found = (json.loads(text) for text in (wanted, found))
            assert wanted["config"].pop("out") != found["config"].pop("out")
        assert wanted == found, name
    assert losses(whole) == losses(killed)
    assert len(losses(whole)) == int(STEPS) + 1


def step_of(out: Path) -> int:
    try:
        return int(json.loads((out / "last" / "state.json").read_text())["step"])
    except OSError:
        return 0
