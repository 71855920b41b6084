"""Mutated configurations and command lines: each is a line that names the fault, or settings that can be used."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
import torch
from tests.mutants import ODD, TOKENS, mutate_yaml, one_line

from amodal.cli import main
from amodal.config import TrainConfig
from amodal.config_io import load_config, setting_keys, to_yaml
from amodal.errors import AmodalError
from amodal.model import build
from amodal.priors.prior import Prior

CONFIGS = Path(__file__).parents[1] / "configs"
NAMES = sorted(path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*.yaml"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copies of the shipped configurations, and of each with every setting written out."""
    copy = Path(shutil.copytree(CONFIGS, tmp_path / "configs"))
    for name in NAMES:
        file = copy / name
        file.with_name(f"{file.stem}-whole.yaml").write_text(to_yaml(load_config(file)))
    monkeypatch.chdir(tmp_path)
    return copy


def mutant(random: Random, folder: Path) -> TrainConfig | None:
    """A mutated file, read; None where it is refused."""
    path = random.choice(sorted(folder.rglob("*.yaml")))
    file = path.with_name("mutant.yaml")
    file.write_bytes(mutate_yaml(random, path.read_text()))
    try:
        return load_config(file)
    except AmodalError as error:
        one_line(str(error))
        return None
    finally:
        file.unlink()


def usable(config: TrainConfig, prior: Prior) -> None:
    """Written and read it is the same, and its model can be built, on no device."""
    Path("again.yaml").write_text(to_yaml(config))
    assert load_config("again.yaml") == config
    kind = config.model.method and config.model.method.prior_kind
    try:
        with torch.device("meta"):
            build(config.model.system, 2, config=config.model, prior=prior if kind else None, pretrained=False)
    except AmodalError as error:
        one_line(str(error))


def flags(random: Random, keys: list[str]) -> list[str]:
    words = ["train", random.choice(["pgexp/nano", "mask_rcnn/nano", "pgexp/kins", "nowhere", "kins"])]
    for _ in range(random.choice([1, 1, 2, 3])):
        key = random.choice(keys)
        if random.random() < 0.1:
            key = random.choice(
                [key + "x", key.upper(), "", key.partition(".")[0], key + ".a", "base", "model.method.x"]
            )
        value = random.choice([str(random.choice(ODD)), random.choice(TOKENS)]) if random.random() < 0.9 else None
        if (value is not None and "9" * 5000 in value) or value == str(10**400):
            value = "9" * 5000
        if value is None:
            words.append(f"--{key}")
        elif random.random() < 0.5:
            words.append(f"--{key}={value}")
        else:
            words += [f"--{key}", value]
    return words


Run = Callable[[int, int], "Counter[str]"]


@pytest.fixture
def run(folder: Path, tiny_prior: Prior, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Reads ``count`` mutants, a third of them command lines, and builds every fourth that is accepted."""
    kept: list[TrainConfig] = []
    monkeypatch.setattr("amodal.train.run.train_run", lambda config, **_: kept.append(config))

    def command(words: list[str]) -> None:
        code, message = main(words), capfd.readouterr().err
        assert code in (0, 2), (words, message)
        if code:
            one_line(message.strip())

    def read(count: int, seed: int) -> Counter[str]:
        random, told, keys = Random(seed), Counter[str](), setting_keys()
        for number in range(count):
            kept.clear()
            if number % 3 == 0:
                command(flags(random, keys))
            elif (config := mutant(random, folder)) is not None:
                kept.append(config)
            told["accepted" if kept else "refused"] += 1
            if kept and told["accepted"] % 4 == 1:
                told["built"] += 1
                usable(kept[0], tiny_prior)
        return told

    return read


def test_mutants(run: Run) -> None:
    told = run(60, 1)
    assert told["accepted"] > 3
    assert told["refused"] > 40


@pytest.mark.slow
def test_three_thousand_mutants(run: Run) -> None:
    told = run(3000, 2)
    assert told["built"] >= 80
    print(dict(told))


@pytest.mark.parametrize("value", ["!!timestamp x", "!!bool x", "!!int x", "*a", "[" * 40, "1e400", "{a: 1}"])
def test_numbers_of_other_verbs(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "a.json", "images", "out", "--limit", value]) == 2
    told = capsys.readouterr().err
    one_line(told.strip(), value if "!!" in value else "--limit is")
