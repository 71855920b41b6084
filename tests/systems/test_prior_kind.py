"""A prior of a system's own kind: fitted by ``amodal train``, kept and checked; and weights of regions."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.systems.vrsp_like import CodebookConfig, CodebookMaker, VRSPConfig

import amodal
from amodal import cli, score
from amodal.config import TrainConfig
from amodal.config_io import load_config
from amodal.data.store import AnnotationSet
from amodal.errors import ConfigError, WeightsError
from amodal.model import build, load_model
from amodal.models.branch import Branch
from amodal.models.losses import mask_term
from amodal.priors.prior import Prior
from amodal.settings import PriorConfig
from amodal.structures import BranchOutput, LossTerm, RoIs
from amodal.systems import SYSTEMS, System
from amodal.train.run import train_run

Make = Callable[..., Any]
VRSP = "tests.systems.vrsp_like:VRSPLike"
RUN = {"model.system": VRSP, "steps": 2, "save_every": 1, "log_every": 1, "batch_size": 2, "prior_fit.centres": 3}


@pytest.fixture(scope="module")
def made(settings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps, given on the command line."""
    out = tmp_path_factory.mktemp("runs") / "run"
    words = [
        word for key, value in {**RUN, "out": out, "model.method.nearest": 3}.items() for word in (f"--{key}", value)
    ]
    assert cli.main(["train", str(settings), *map(str, words)]) == 0
    return out


@pytest.fixture
def config(settings: Path, tmp_path: Path) -> TrainConfig:
    """The settings of that run, for another folder."""
    return load_config(settings, {**RUN, "out": str(tmp_path / "run"), "model.method.nearest": 3})


def test_it_is_fitted_kept_and_loaded(made: Path) -> None:
    files = ["codebook.json", "codebook.safetensors"]
    for folder in ("prior", "last/prior", "best/prior"):
        assert sorted(path.name for path in (made / folder).iterdir()) == files
    fitted, kept = (load_file(made / folder / files[1]) for folder in ("prior", "last/prior"))
    assert all(torch.equal(value, kept[name]) for name, value in fitted.items())
    assert not any("prior" in name for name in load_file(made / "last" / "model.safetensors"))
    model = load_model(made / "last")
    assert model.prior is not None
    assert model.prior.config == CodebookConfig(centres=3)
    assert model.config.method == VRSPConfig(nearest=3)
    assert model.prior.class_names == model.class_names
    assert torch.equal(model.prior.centres, fitted["centres"])  # type: ignore[attr-defined]
    image = torch.randint(0, 255, (3, 96, 96), generator=torch.Generator().manual_seed(0)).byte()
    one, two = (load_model(made / name)([image])[0] for name in ("last", "best"))
    assert torch.equal(one.amodal_probs, two.amodal_probs)
    assert torch.equal(one.scores, two.scores)


def test_a_killed_run_ends_as_an_unkilled_one(
    made: Path, config: TrainConfig, train_and_die: Callable[..., None]
) -> None:
    train_and_die(config)
    shutil.rmtree(Path(config.out) / "prior")  # It goes on with its checkpoint's.
    train_run(config, resume=True)
    resumed, unkilled = (load_file(out / "last" / "model.safetensors") for out in (Path(config.out), made))
    assert all(torch.equal(resumed[name], value) for name, value in unkilled.items())


def test_a_given_one_is_taken_and_one_of_the_same_data_not_fitted_again(
    made: Path, config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(*given: Any, **rest: Any) -> Any:
        raise AssertionError("fitted")

    monkeypatch.setattr(CodebookMaker, "fit", fit)
    train_run(replace(config, prior=str(made / "prior"), steps=1))
    assert not (Path(config.out) / "prior").exists()
    again = replace(config, out=f"{config.out}2", steps=1)
    shutil.copytree(made / "prior", Path(again.out) / "prior")
    train_run(again)
    with pytest.raises(AssertionError, match="fitted"):
        train_run(replace(again, out=f"{config.out}3", prior_fit=CodebookConfig(centres=4)))


def test_one_that_cannot_serve_is_refused(
    made: Path, config: TrainConfig, tiny_prior: Prior, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = config.model
    with pytest.raises(ConfigError, match="nearest is 4, the codebook has 3 centres"):
        train_run(replace(config, model=replace(model, method=VRSPConfig(nearest=4))))
    with pytest.raises(ConfigError, match="fitted with PriorConfig, the shape codebook needs CodebookConfig"):
        train_run(replace(config, prior_fit=PriorConfig()))
    with pytest.raises(ConfigError, match="fitted with PriorConfig, the shape codebook needs CodebookConfig"):
        build(VRSP, 2, config=model, prior=tiny_prior)
    with pytest.raises(ConfigError, match="needs a shape codebook: give prior=FOLDER"):
        build(VRSP, 2, config=model)
    with pytest.raises(ConfigError, match="the codebook knows"):
        build(VRSP, 2, config=model, prior=made / "prior", class_names=["cat", "dog"])
    with pytest.raises(ConfigError, match="CodebookConfig, the expansion prior needs PriorConfig"):
        build("pgexp", 4, prior=load_model(made / "last").prior)
    assert not Path(config.out).exists()
    broken = Path(shutil.copytree(made / "last", tmp_path / "last"))
    shutil.rmtree(broken / "prior")
    with pytest.raises(WeightsError, match=r"codebook\.json: no such file of a codebook"):
        load_model(broken)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--prior_fit.centers", "3"), "--prior_fit.centers: unknown key; nearest is 'centres'"),
        (("--prior_fit.centres", "0"), "prior_fit.centres is 0, must be >= 1"),
        (("--prior_fit.slots", "3"), "--prior_fit.slots: unknown key"),
        (("--model.method.nearestt", "3"), "--model.method.nearestt: unknown key; nearest is 'nearest'"),
        (("--model.method.nearest", "few"), "model.method.nearest is 'few', must be an integer"),
    ],
)
def test_settings_of_its_own_are_checked_on_the_command_line(
    settings: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    assert cli.main(["train", str(settings), "--model.system", VRSP, *words]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1


def test_a_system_that_tells_nothing_is_not_asked_by_the_report(
    made: Path, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explain(*asked: Any) -> Any:
        raise AssertionError("asked")

    monkeypatch.setattr(score, "explain_cases", explain)
    score.run_test(str(made / "last"), scenes / "annotations.json", scenes / "images", tmp_path, device="cpu")
    assert (tmp_path / "report.html").is_file()
    assert not load_model(made / "last").branch.explains
    assert amodal.load("nano-scenes-v1", "cpu").branch.explains


class Forgetful(Branch):
    """Does not hand its prior on."""

    def __init__(self, *given: Any) -> None:
        super().__init__()

    def forward(self, features: dict[str, torch.Tensor], rois: RoIs) -> BranchOutput:
        raise AssertionError

    def loss(self, output: BranchOutput, rois: RoIs, features: dict[str, torch.Tensor]) -> dict[str, LossTerm]:
        raise AssertionError


def test_a_branch_that_forgets_its_prior_is_told_at_once(
    tiny_config: Make, tiny_annotations: AnnotationSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SYSTEMS, "forgetful", System("F", "-", "-", Forgetful, VRSPConfig))
    prior, _ = CodebookMaker().fit(tiny_annotations, CodebookConfig(), data="")
    with pytest.raises(ConfigError, match="system forgetful: its branch does not hand its prior on"):
        build("forgetful", 2, config=tiny_config(), prior=prior)


def test_weights_of_regions_are_no_part_of_the_mean_and_get_no_gradient() -> None:
    logits = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    target = (torch.arange(48).reshape(3, 4, 4) % 2).float()
    weight = torch.tensor([1.0, 0.5, 0.0], requires_grad=True)
    keep = torch.tensor([True, True, False])
    each = torch.nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(dim=(1, 2))
    found = mask_term(logits, target, weight=weight).mean()
    assert found.item() == pytest.approx((each[0] + 0.5 * each[1]).item() / 3)
    assert mask_term(logits, target, keep, weight).mean().item() == pytest.approx((each[0] + 0.5 * each[1]).item() / 2)
    found.backward()
    assert weight.grad is None
    assert logits.grad is not None
    assert logits.grad[2].abs().sum() == 0
    assert logits.grad[1].abs().sum() > 0
