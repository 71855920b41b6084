"""Runs of a system that uses an expansion prior: it is fitted, saved, taken up again, and belongs to its data."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from amodal.config import TrainConfig
from amodal.config_io import load_config
from amodal.errors import ConfigError, WeightsError
from amodal.model import load_model
from amodal.priors.prior import Prior
from amodal.priors.prior_io import save_prior
from amodal.train import prior as prior_module
from amodal.train import run as run_module
from amodal.train.run import train_run
from amodal.train.signals import Stopped

PGEXP = {
    "model.system": "pgexp",
    "model.method.k": 2,
    "model.method.box_channels": 16,
    "prior_fit.slots": 5,
    "prior_fit.encoder_steps": 5,
    "prior_fit.flow_steps": 2,
    "prior_fit.neighbour_share": 0.0,
    "batch_size": 2,
    "steps": 2,
    "save_every": 1,
    "log_every": 1,
}


@pytest.fixture(scope="module")
def made(settings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of set #6, two steps."""
    out = tmp_path_factory.mktemp("runs") / "run"
    train_run(load_config(settings, {**PGEXP, "out": str(out)}))
    return out


@pytest.fixture
def settled(settings: Path, tmp_path: Path) -> Callable[..., TrainConfig]:
    def make(**changes: Any) -> TrainConfig:
        changed = {key.replace("__", "."): value for key, value in changes.items()}
        return load_config(settings, {**PGEXP, "out": str(tmp_path / "run"), **changed})

    return make


def contents(folder: Path) -> dict[str, Any]:
    """Bytes of text files, and of the tensors of the others, whose headers have no order."""
    found: dict[str, Any] = {}
    for path in folder.iterdir():
        tensors = load_file(path) if path.suffix == ".safetensors" else None
        found[path.name] = tensors and {name: value.numpy().tobytes() for name, value in tensors.items()}
        found[path.name] = found[path.name] or path.read_bytes()
    return found


def test_the_prior_is_part_of_the_run_and_of_its_checkpoints(made: Path, settings: Path) -> None:
    fitted = contents(made / "prior")
    assert set(fitted) == {"prior.yaml", "encoder.safetensors", "flow.safetensors", "bank.safetensors"}
    assert contents(made / "last" / "prior") == contents(made / "best" / "prior") == fitted
    assert not any("prior" in name for name in load_file(made / "last" / "model.safetensors"))
    model = load_model(made / "last")
    assert model.prior is not None
    assert model.prior.config == load_config(settings, PGEXP).prior_fit
    assert model.class_names == model.prior.class_names
    images = [torch.randint(0, 255, (3, 96, 96), generator=torch.Generator().manual_seed(n)).byte() for n in (0, 1)]
    one, two = (load_model(made / name)(images) for name in ("last", "best"))
    assert all(torch.equal(a.amodal_probs, b.amodal_probs) for a, b in zip(one, two, strict=True))


def test_a_killed_run_ends_as_an_unkilled_one(
    made: Path, settled: Callable[..., TrainConfig], train_and_die: Callable[..., None]
) -> None:
    config = settled()
    train_and_die(config)
    # What the run goes on with is the prior of its checkpoint.
    shutil.rmtree(Path(config.out) / "prior")
    train_run(config, resume=True)
    resumed, unkilled = (load_file(out / "last" / "model.safetensors") for out in (Path(config.out), made))
    assert all(torch.equal(resumed[name], value) for name, value in unkilled.items())
    assert contents(Path(config.out) / "last" / "prior") == contents(made / "prior")


def test_a_whole_prior_of_the_same_settings_and_data_is_not_fitted_again(
    made: Path, settled: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shutil.copytree(made / "prior", tmp_path / "run" / "prior")
    fitted: list[str] = []

    def fit(annotations: Any, config: Any, **rest: Any) -> Any:
        fitted.append("again")
        raise KeyboardInterrupt

    monkeypatch.setattr("amodal.priors.maker.fit_prior", fit)
    train_run(settled(steps=1))
    assert not fitted
    for other in ({"prior_fit__slots": 6}, {"prior_fit__seed": 1}):
        shutil.copytree(made / "prior", tmp_path / "b" / "prior", dirs_exist_ok=True)
        with pytest.raises(KeyboardInterrupt):
            train_run(settled(out=str(tmp_path / "b"), **other))
    (tmp_path / "b" / "prior" / "prior.yaml").write_text("half")
    with pytest.raises(KeyboardInterrupt):
        train_run(settled(out=str(tmp_path / "b")))
    assert fitted == ["again"] * 3


def test_a_given_prior_is_taken_and_must_fit(
    made: Path, settled: Callable[..., TrainConfig], tiny_prior: Prior, tmp_path: Path
) -> None:
    train_run(settled(prior=str(made / "prior"), steps=1))
    assert not (tmp_path / "run" / "prior").exists()
    assert contents(tmp_path / "run" / "last" / "prior") == contents(made / "prior")
    save_prior(tiny_prior, tmp_path / "other")
    with pytest.raises(ConfigError, match="the prior has 2 classes, the model 4"):
        train_run(settled(prior=str(tmp_path / "other"), out=str(tmp_path / "b")))
    with pytest.raises(WeightsError, match="no such folder of an expansion prior"):
        train_run(settled(prior=str(tmp_path / "none"), out=str(tmp_path / "b")))
    with pytest.raises(ConfigError, match=r"model.method.k is 9, the prior has 5 slots a class"):
        train_run(settled(prior=str(made / "prior"), out=str(tmp_path / "b"), model__method__k=9))
    with pytest.raises(ConfigError, match="candidates is 32, the prior has 5 slots a class"):
        train_run(settled(prior=str(made / "prior"), out=str(tmp_path / "b"), model__method__rerank="occluder"))
    visible = {"model__method__detects": "visible"}
    with pytest.raises(ConfigError, match="which needs a prior fitted with key_frame 'visible'"):
        train_run(settled(prior=str(made / "prior"), out=str(tmp_path / "b"), **visible))
    plain = {"model__method__box_expansion": "none", "model__method__mask_expansion": "plain"}
    with pytest.raises(ConfigError, match="but pgexp as configured uses none"):
        train_run(settled(prior=str(made / "prior"), out=str(tmp_path / "b"), **plain))
    assert not (tmp_path / "b").exists()


def test_settings_that_no_fit_could_serve_are_refused_before_it(
    settled: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fit(*given: Any, **rest: Any) -> Any:
        raise AssertionError("fitted")

    monkeypatch.setattr("amodal.priors.maker.fit_prior", fit)
    for changes, message in (
        ({"model__method__k": 9}, "model.method.k is 9, the prior has 5 slots a class"),
        ({"model__method__rerank": "occluder"}, "candidates is 32, the prior has 5 slots a class"),
        ({"model__method__detects": "visible"}, "which needs a prior fitted with key_frame 'visible'"),
    ):
        with pytest.raises(ConfigError, match=message):
            train_run(settled(**changes))
    assert not (tmp_path / "run").exists()


def test_the_defaults_of_a_method_are_known_to_the_fit(
    settled: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From Python a method may be None; every image is used, since nothing is judged."""
    asked: list[float] = []

    def fit(*given: Any, held_out: float, **rest: Any) -> Any:
        asked.append(held_out)
        raise KeyboardInterrupt

    monkeypatch.setattr("amodal.priors.maker.fit_prior", fit)
    config = settled(prior_fit__slots=8)
    config = replace(config, model=replace(config.model, method=None))
    with pytest.raises(KeyboardInterrupt):
        train_run(config)
    assert asked == [0.0]
    config = replace(config, model=replace(config.model, system="pgexpp"))
    with pytest.raises(ConfigError, match="system is 'pgexpp', no known system; nearest is 'pgexp'"):
        train_run(config)


def test_a_prior_of_other_data_is_told(
    made: Path, settled: Callable[..., TrainConfig], scenes: Path, tmp_path: Path, capsys: Any
) -> None:
    content = json.loads((scenes / "annotations.json").read_text())
    last = content["annotations"].pop()
    content["annotations"].append({**last, "id": last["id"] + 1})  # nothing else differs
    other = tmp_path / "other.json"
    other.write_text(json.dumps(content))
    train_run(settled(prior=str(made / "prior"), steps=1, out=str(tmp_path / "a")))
    assert "warning" not in capsys.readouterr().out
    train_run(settled(prior=str(made / "prior"), data__train=str(other), steps=1))
    line = f"warning: the prior in {made / 'prior'} was fitted to other data than {other}"
    assert capsys.readouterr().out.count(line) == 1


def test_a_resumed_run_may_name_another_prior(
    made: Path, settled: Callable[..., TrainConfig], tmp_path: Path, capsys: Any
) -> None:
    """The folder may have moved: what counts is the checkpoint's."""
    shutil.copytree(made, tmp_path / "run")
    before = contents(made / "last" / "prior")
    train_run(settled(prior=str(tmp_path / "moved")), resume=True)
    assert contents(tmp_path / "run" / "last" / "prior") == before
    assert "warning" not in capsys.readouterr().out


def test_set_1_starts_set_6(made: Path, settled: Callable[..., TrainConfig], tmp_path: Path, capsys: Any) -> None:
    """New heads start afresh, everything else is copied; and the other way round."""
    plain = {"model__method__box_expansion": "none", "model__method__mask_expansion": "plain", "steps": 1}
    still = {"optim__lr": 1e-30}
    train_run(settled(out=str(tmp_path / "one"), **plain))
    assert not (tmp_path / "one" / "prior").exists()
    capsys.readouterr()
    start = str(tmp_path / "one" / "last")
    train_run(settled(prior=str(made / "prior"), steps=1, **still), init=start)
    text = capsys.readouterr().out
    assert "start afresh, not in it: branch.box_head" in text
    assert "left out" not in text
    old, new = (load_file(tmp_path / name / "last" / "model.safetensors") for name in ("one", "run"))
    assert all(torch.allclose(new[name], value, rtol=0, atol=1e-20) for name, value in old.items())
    assert {name.split(".")[1] for name in set(new) - set(old)} == {"box_head", "mask_head"}

    train_run(settled(out=str(tmp_path / "back"), **plain, **still), init=str(tmp_path / "run" / "last"))
    text = capsys.readouterr().out
    assert "of it are left out, not in this run's model: branch.box_head" in text
    back = load_file(tmp_path / "back" / "last" / "model.safetensors")
    assert all(torch.allclose(back[name], value, rtol=0, atol=1e-20) for name, value in old.items())


def test_a_checkpoint_of_other_classes_gets_the_bank_of_the_new_data(
    made: Path, settled: Callable[..., TrainConfig], scenes: Path, tmp_path: Path
) -> None:
    content = json.loads((scenes / "annotations.json").read_text())
    removed = content["categories"].pop()["id"]
    content["annotations"] = [entry for entry in content["annotations"] if entry["category_id"] != removed]
    (tmp_path / "three.json").write_text(json.dumps(content))
    train_run(settled(data__train=str(tmp_path / "three.json"), steps=1), init=str(made / "best"))
    model = load_model(tmp_path / "run" / "last")
    assert model.prior is not None
    assert len(model.prior.class_names) == model.prior.bank.num_classes == 3


@pytest.mark.parametrize(
    ("name", "message"),
    [("prior.yaml", "prior.yaml: No such file"), ("bank.safetensors", "bank.safetensors: no such file")],
)
def test_a_checkpoint_without_its_prior_is_refused(made: Path, tmp_path: Path, name: str, message: str) -> None:
    folder = Path(shutil.copytree(made / "last", tmp_path / "last"))
    (folder / "prior" / name).unlink()
    with pytest.raises((ConfigError, WeightsError), match=message):
        load_model(folder)
    shutil.rmtree(folder / "prior")
    with pytest.raises(WeightsError, match="prior: no such folder of an expansion prior"):
        load_model(folder)


def test_a_signal_while_a_prior_is_made_leaves_none_and_one_after_it_keeps_it(
    settled: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(module: Any, name: str, found: str) -> None:
        function = getattr(module, name)

        def call(*words: Any, **more: Any) -> Any:
            os.kill(os.getpid(), signal.SIGTERM)
            return function(*words, **more)

        with monkeypatch.context() as patch:
            patch.setattr(module, name, call)
            with pytest.raises(Stopped, match=rf"^stopped before the first step.*{found}$"):
                train_run(settled())

    interrupted(prior_module, "replace_folder", "begins anew")
    assert not list(tmp_path.rglob("*prior*"))
    interrupted(run_module, "make_optimizer", f"begins anew, which finds the prior in {tmp_path}/run/prior")
    assert (tmp_path / "run/prior/prior.yaml").is_file()
