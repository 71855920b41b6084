"""Small drawn data and small settings, so that real runs of the real program take seconds."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from amodal.config import TrainConfig
from amodal.config_io import dump_yaml, load_config
from amodal.data.scenes.dataset import write_dataset

SETTINGS = {
    "batch_size": 4,
    "eval_every": 0,
    "model": {
        "transform": {"min_size": [96], "max_size": 96, "test_min_size": 96, "test_max_size": 96},
        "backbone": {"name": "nano", "norm": "group", "channels": 32, "trainable_layers": 5, "extra_level": False},
        "rpn": {
            "anchor_sizes": [16, 32, 64, 96],
            "pre_nms_train": 200,
            "pre_nms_test": 200,
            "post_nms_train": 60,
            "post_nms_test": 60,
            "batch_per_image": 64,
        },
        "box_head": {"channels": 64, "batch_per_image": 32, "detections": 10},
        "mask_head": {"channels": 16, "convs": 2},
    },
    "data": {"workers": 0},
    "optim": {"lr": 0.01, "clip_norm": 5.0, "warmup_steps": 2},
}


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``annotations.json`` and ``images/``: ten drawn scenes of 96 x 96 pixels."""
    folder = tmp_path_factory.mktemp("scenes") / "data"
    write_dataset(folder, 10, 96, 3, 4)
    return folder


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory, scenes: Path) -> Path:
    """A configuration file for runs on :func:`scenes`."""
    data = {"train": str(scenes / "annotations.json"), "train_images": str(scenes / "images"), "workers": 0}
    path = tmp_path_factory.mktemp("settings") / "tiny.yaml"
    path.write_text(dump_yaml({**SETTINGS, "data": data}), encoding="utf-8")
    return path


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
