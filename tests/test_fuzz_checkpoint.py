"""Mutated checkpoints and priors: each is refused in one line that names the file, or loads and predicts."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from tests.mutants import mutate_tensors, mutate_yaml, one_line

import amodal
from amodal.checkpoint import save_model
from amodal.config import ModelConfig
from amodal.errors import AmodalError
from amodal.priors.prior import Prior
from amodal.settings import PGExpConfig

Read = Callable[[int, int], "Counter[str]"]
PICTURE = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)


@pytest.fixture
def read(tmp_path: Path, tiny_prior: Prior, tiny_config: Callable[..., ModelConfig]) -> Read:
    """Loads ``count`` mutants of a checkpoint with a prior, and predicts with those that are accepted."""
    config = replace(tiny_config("pgexp"), method=PGExpConfig(k=2, box_channels=16))
    whole = tmp_path / "whole"
    save_model(amodal.build("pgexp", 2, config=config, prior=tiny_prior), whole)
    files = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.suffix in (".yaml", ".safetensors"))

    def one(random: Random) -> str:
        folder = Path(shutil.copytree(whole, tmp_path / "mutant"))
        file = folder / random.choice(files)
        if file.suffix == ".yaml":
            file.write_bytes(mutate_yaml(random, file.read_text()))
        else:
            mutate_tensors(random, file)
        try:
            model = amodal.load(folder, "cpu")
            model.predict(PICTURE, threshold=0.0)
        except AmodalError as error:
            one_line(str(error), folder)
            return "refused"
        finally:
            shutil.rmtree(folder)
        save_model(model, folder)
        again = amodal.load(folder, "cpu")
        assert (again.config, again.class_names) == (model.config, model.class_names)
        shutil.rmtree(folder)
        return "accepted"

    def many(count: int, seed: int) -> Counter[str]:
        random = Random(seed)
        return Counter(one(random) for _ in range(count))

    return many


def test_mutants(read: Read) -> None:
    assert read(12, 1)["refused"] > 4


@pytest.mark.slow
def test_three_hundred_mutants(read: Read) -> None:
    told = read(300, 2)
    print(dict(told))
    assert told["accepted"] > 20
