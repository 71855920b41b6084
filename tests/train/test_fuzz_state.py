"""Mutated states of a run: each is refused in one line that names the file, or can be gone on with."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import torch
from tests.mutants import mutate_json, mutate_tensors, one_line

from amodal.config import TrainConfig
from amodal.config_io import load_config
from amodal.errors import AmodalError
from amodal.model import AmodalModel, complete, load_model
from amodal.train.data import fingerprint, load_data
from amodal.train.engine import make_optimizer
from amodal.train.run import train_run
from amodal.train.state import OPTIMIZER, STATE, read_state, restore

KINDS = ["sgd", "adamw"]


@pytest.fixture(scope="module")
def runs(settings: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, TrainConfig]:
    """A run of one step for each optimiser."""
    configs = {}
    for name in KINDS:
        out = str(tmp_path_factory.mktemp("runs") / name)
        small = {"model.backbone.channels": 8, "model.box_head.channels": 8, "model.mask_head.channels": 8}
        config = load_config(settings, {"out": out, "steps": 2, "save_every": 1, "optim.name": name, **small})
        configs[name] = replace(config, model=complete(config.model))  # as it is saved; else each state is another's
        train_run(configs[name])
    return configs


@pytest.fixture
def read(runs: dict[str, TrainConfig], tmp_path: Path) -> Callable[[int, int], Counter[str]]:
    """Resumes from ``count`` mutants of these states."""
    facts = {name: fingerprint(load_data(config)[0]) for name, config in runs.items()}
    models = {name: load_model(Path(config.out) / "last") for name, config in runs.items()}

    def one(random: Random, name: str) -> str:
        folder = Path(shutil.copytree(Path(runs[name].out) / "last", tmp_path / "last"))
        file = folder / random.choice([STATE, STATE, OPTIMIZER, OPTIMIZER, "model.safetensors"])
        if file.suffix == ".json":
            file.write_bytes(mutate_json(random, file.read_text()))
        else:
            mutate_tensors(random, file)
        try:
            state = read_state(folder, runs[name], facts[name])
            optimizer = make_optimizer(models[name].train(), runs[name].optim)
            restore(folder, models[name], optimizer, state.step)
        except AmodalError as error:
            one_line(str(error), folder)
            return "refused"
        finally:
            shutil.rmtree(folder)
        step(models[name], optimizer)
        return "accepted"

    def many(count: int, seed: int) -> Counter[str]:
        random = Random(seed)
        return Counter(one(random, KINDS[number % 2]) for number in range(count))

    return many


def step(model: AmodalModel, optimizer: torch.optim.Optimizer) -> None:
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def test_mutants(read: Callable[[int, int], Counter[str]]) -> None:
    told = read(16, 1)
    assert told["refused"] > 8


@pytest.mark.slow
def test_three_hundred_mutants(read: Callable[[int, int], Counter[str]]) -> None:
    told = read(300, 2)
    print(dict(told))
    assert told["accepted"] > 5
