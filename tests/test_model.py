"""Building a detector: names, settings, seeds."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import errors

import amodal
from amodal.checkpoint import load_prior, prior_kind
from amodal.config import ModelConfig
from amodal.config_io import load_config
from amodal.errors import ConfigError, DataError, WeightsError
from amodal.model import SHIPPED, AmodalModel, build
from amodal.settings import MethodConfig, PGExpConfig

Make = Callable[..., Any]
RECORD = Path(__file__).with_name("recorded") / "initial-weights.json"
"""System -> tensor with two or more dimensions, in the order of the model -> its first two values, seed 7."""


def test_the_model_carries_what_a_checkpoint_needs(tiny_config: Make) -> None:
    model = build(
        "pgexp",
        2,
        config=replace(tiny_config("pgexp"), system="mask_rcnn"),
        class_names=["a", "b"],
        category_ids=[7, 3],
    )
    assert model.config.system == "pgexp"
    assert type(model.config.method).__name__ == "PGExpConfig"
    assert (model.class_names, model.category_ids) == (["a", "b"], [7, 3])
    assert hasattr(model.branch, "visible_head")
    unnamed = build("mask_rcnn", 3, config=tiny_config())
    assert (unnamed.class_names, unnamed.category_ids) == (["class 1", "class 2", "class 3"], [1, 2, 3])


def test_the_seed_decides_the_weights_and_leaves_the_global_state(tiny_config: Make) -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    states = [build("pgexp", 2, config=tiny_config("pgexp"), seed=seed).state_dict() for seed in (4, 4, 5)]
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["rpn.head.cls_logits.weight"], states[2]["rpn.head.cls_logits.weight"])


@pytest.mark.parametrize("system", ["mask_rcnn", "pgexp"])
def test_a_seed_means_the_same_weights_in_every_release(system: str) -> None:
    """The order in which the parts are made, and what each of them draws, is part of what a seed means.

    Values, not a digest: processors differ in the last bits.
    """
    config = load_config(f"{system}/nano").model
    folder = SHIPPED / "nano-scenes-v1" / "prior"
    prior = None if prior_kind(config.method) is None else load_prior(folder, config.method)
    model = build(system, 8, config=config, prior=prior, seed=7)
    found = {name: value.flatten()[:2].tolist() for name, value in model.named_parameters() if value.dim() > 1}
    recorded = json.loads(RECORD.read_text())[system]
    assert list(found) == list(recorded)
    for name, values in recorded.items():
        assert found[name] == pytest.approx(values, rel=1e-3, abs=1e-6), name


def test_defaults_are_the_papers_resnet50() -> None:
    with torch.device("meta"):
        model = build("pgexp", 7, config=ModelConfig(method=PGExpConfig(box_expansion="none", mask_expansion="plain")))
    count = sum(p.numel() for p in model.parameters())
    assert count == pytest.approx(46.5e6, rel=0.02)  # Mask R-CNN R50-FPN has 44 M, a second mask head 2.6 M
    assert model.backbone.body.out_channels == [256, 512, 1024, 2048]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"system": "pgexq"}, "system is 'pgexq', no known system; nearest is 'pgexp'"),
        ({"num_classes": 0}, "num_classes is 0, must be >= 1"),
        ({"prior": "runs/prior"}, "prior 'runs/prior' is given, but Mask R-CNN"),
        ({"system": "pgexp"}, r"PGExp \(pgexp\) as configured needs an expansion prior: give prior=FOLDER"),
        ({"class_names": ["a"]}, "class_names has 1 entry, must be 2"),
        ({"category_ids": [1, 2, 3]}, "category_ids has 3 entries, must be 2"),
        ({"category_ids": [5, 5]}, "category_ids repeat an id"),
    ],
)
def test_what_does_not_fit_is_refused(tiny_config: Make, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(**{"system": "mask_rcnn", "num_classes": 2, "config": tiny_config(), **arguments})


def test_settings_of_another_system_are_refused(tiny_config: Make) -> None:
    with pytest.raises(ConfigError, match=r"model.method is MethodConfig, pgexp needs PGExpConfig"):
        build("pgexp", 2, config=replace(tiny_config(), method=MethodConfig()))


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (errors.GatedRepoError, "its authors grant access on its page on the hub"),
        (errors.RepositoryNotFoundError, "the hub has no such public repository; for a private one log in"),
        (errors.RevisionNotFoundError, "no such revision"),
        (errors.DisabledRepoError, "disabled"),
        (errors.LocalEntryNotFoundError, "the hub cannot be reached, and none of it was downloaded before"),
        (errors.OfflineModeIsEnabled, "HF_HUB_OFFLINE forbids"),
        (ConnectionError, r"the hub cannot be reached \(ConnectionError: 404 Client Error for url\)"),
    ],
)
def test_faults_of_the_hub_are_one_line(monkeypatch: pytest.MonkeyPatch, error: type[Exception], told: str) -> None:
    def fail(*args: object, **how: object) -> str:
        # Their constructors want an answer of the network library, another one in each release.
        fault = error.__new__(error)
        fault.args = ("404 Client Error\n\n for url",)
        raise fault

    monkeypatch.setattr("amodal.model.snapshot_download", fail)
    for ask in (amodal.load, AmodalModel.from_pretrained):
        with pytest.raises(WeightsError, match=rf"^me/street: no such folder here, and .*{told}") as caught:
            ask("me/street")
        assert "\n" not in str(caught.value)


def test_a_repository_of_something_else_is_said_to_be_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("amodal.model.snapshot_download", lambda *args, **how: str(tmp_path))
    with pytest.raises(WeightsError, match=r"^me/street: .* no model of amodal, config\.yaml is missing$"):
        amodal.load("me/street")


def test_an_address_is_no_model() -> None:
    with pytest.raises(DataError, match=r"^https://x/me/street: .* on the Hugging Face Hub is named OWNER/NAME"):
        amodal.load("https://x/me/street")


def test_what_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"^nano-scenes: no such checkpoint .*; nearest is 'nano-scenes-v1'$"):
        amodal.load("nano-scenes")
    with pytest.raises(WeightsError, match=r": no checkpoint, which is a folder with config\.yaml and model\.saf"):
        amodal.load(tmp_path)
