"""Small drawn data and small settings, so that real runs of the real program take seconds."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from amodal.config import TrainConfig
from amodal.config_io import load_config


@pytest.fixture
def config(settings: Path, tmp_path: Path) -> TrainConfig:
    """The same as an object, writing into the test's own folder."""
    return load_config(settings, {"out": str(tmp_path / "run"), "steps": 4})


@pytest.fixture(scope="session")
def program() -> Callable[..., subprocess.Popen[str]]:
    """Starts ``amodal ...`` in a process of its own (and of its own process group), one thread, on the CPU."""

    def start(*words: str, launcher: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""}
        environment.pop("AMODAL_DEBUG", None)
        return subprocess.Popen(
            [sys.executable, *launcher, "-m", "amodal", *words],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    return start
