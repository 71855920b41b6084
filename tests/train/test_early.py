"""Settings that could only fail after a prior is fitted fail before it; those that can hardly be meant are told."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest

from amodal.config import TrainConfig
from amodal.config_io import load_config
from amodal.errors import AmodalError, ConfigError, WeightsError
from amodal.train.early import check_early
from amodal.train.run import train_run


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"freeze": ["bckbone"]}, ConfigError, "freeze: the model has no part 'bckbone'; nearest is 'backbone'"),
        ({"freeze": ["backbone.body.layer7"]}, ConfigError, r"no part 'backbone\.body\.layer7'; nearest is"),
        ({"freeze": [""]}, ConfigError, "the model has no part ''"),
        ({"model.backbone.name": "resnet51"}, ConfigError, "model.backbone.name is 'resnet51', no known backbone"),
        ({"model.backbone.weights": "none.safetensors"}, WeightsError, "none.safetensors: no such file"),
        ({"model.backbone.weights": "resnet50.V1"}, WeightsError, "unknown weights 'resnet50.V1'"),
        ({"model.backbone.weights": "a.pth"}, WeightsError, "pickled weights are never loaded"),
    ],
)
def test_what_would_fail_after_the_prior_is_refused_before(
    settings: Path, tmp_path: Path, changes: dict[str, object], kind: type[AmodalError], message: str
) -> None:
    """A prior of a million slots would take hours."""
    slow = {"model.system": "pgexp", "prior_fit.slots": 10**6, "prior_fit.encoder_steps": 10**9}
    with pytest.raises(kind, match=message):
        train_run(load_config(settings, {**slow, **changes, "out": str(tmp_path / "run"), "steps": 1}))
    assert not (tmp_path / "run" / "prior").exists()


def test_a_checkpoint_to_start_from_is_looked_for_first(config: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such checkpoint folder"):
        check_early(config, 10, 1, str(tmp_path / "none"), False)
    check_early(config, 10, 1, str(tmp_path / "none"), True)


def test_what_can_hardly_be_meant_is_told(config: TrainConfig, capsys: pytest.CaptureFixture[str]) -> None:
    check_early(config, 10, 1, None, False)
    assert capsys.readouterr().err == ""
    optim = replace(config.optim, milestones=[0.5, 3000], warmup_steps=4)
    check_early(replace(config, optim=optim), 3, 1, None, False)
    assert capsys.readouterr().err.splitlines() == [
        "warning: batch_size is 4, data.train has 3 pictures to train on: a step sees some more than once",
        "warning: optim.milestones 3000: steps is 4, the rate never falls there",
        "warning: optim.warmup_steps is 4, steps is 4: the rate never reaches optim.lr",
    ]


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_more_loader_processes_than_cores_are_told_and_asked_for(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1}, raising=False)
    many = replace(config, data=replace(config.data, workers=64))
    check_early(replace(config, data=replace(config.data, workers=2)), 10, 1, None, False)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    check_early(many, 10, 1, None, False)
    assert capsys.readouterr().err == "warning: data.workers is 64, this machine has 2 cores\n"
    check_early(many, 10, 4, None, False)
    assert "data.workers is 64 in each of 4 processes" in capsys.readouterr().err
    for answer, goes_on in (("y\n", True), ("\n", False), ("n\n", False), ("", False)):
        monkeypatch.setattr("sys.stdin", _Terminal(answer))
        asked = _Terminal()
        monkeypatch.setattr("sys.stderr", asked)
        if goes_on:
            check_early(many, 10, 1, None, False)
        else:
            with pytest.raises(ConfigError, match=r"2 cores; give a lower --data\.workers"):
                check_early(many, 10, 1, None, False)
        assert asked.getvalue() == "data.workers is 64, this machine has 2 cores; go on? [y/N] "
