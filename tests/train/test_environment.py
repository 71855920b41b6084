"""What a launcher leaves in the environment changes no number."""

import csv
import os
from pathlib import Path

import pytest

from amodal.config_io import load_config
from amodal.launch import own_settings
from amodal.train.run import train_run


def _numbers(settings: Path, out: Path) -> list[str]:
    train_run(load_config(settings, {"out": str(out), "steps": 1, "log_every": 1, "optim.clip_norm": None}))
    with (out / "log.csv").open() as file:
        return next(list(row.values())[:-1] for row in csv.DictReader(file))  # The last one is the time.


def test_accumulation_and_compilation_from_outside_are_ignored_and_named(
    settings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = _numbers(settings, tmp_path / "plain")
    assert "ignored" not in capsys.readouterr().err
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "EAGER")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert _numbers(settings, tmp_path / "other") == plain
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "ignored" in line]
    assert "ACCELERATE_DYNAMO_BACKEND=EAGER, ACCELERATE_GRADIENT_ACCUMULATION_STEPS=4" in line
    assert os.environ["ACCELERATE_GRADIENT_ACCUMULATION_STEPS"] == "4"


def test_what_a_launcher_always_sets_is_not_worth_a_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "NO")
    with own_settings():
        assert os.environ["ACCELERATE_USE_CPU"] == "true"
        assert "ACCELERATE_MIXED_PRECISION" not in os.environ
    assert not capsys.readouterr().err
