"""What holds for every system, those of the package and toys that stand for coming ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.systems.conftest import ORCNN
from torch import Tensor

from amodal.config import ModelConfig
from amodal.methods.mask_rcnn import MaskRCNN
from amodal.model import AmodalModel, build, load_model
from amodal.models import box_head
from amodal.models.branch import Branch
from amodal.prediction import Prediction
from amodal.structures import LossTerm, RoIs
from amodal.systems import SYSTEMS, System

Make = Callable[..., Any]
TOYS = [
    "tests.systems.asn_like:ASNLike",
    "tests.systems.vrsp_like:VRSPLike",
    "tests.systems.aisformer_like:AISFormerLike",
    ORCNN,
]
every_system = pytest.mark.parametrize("system", [*sorted(SYSTEMS), *TOYS])


def terms(model: AmodalModel, *examples: Any, step: int = 0) -> dict[str, LossTerm]:
    model.train().set_step(3, step)
    return model([one.image for one in examples], [one.targets for one in examples], terms=True)


def awake(model: AmodalModel) -> AmodalModel:
    """The model with layers in which fresh predictors, nearly constant, are noise: scores, boxes and masks differ."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if any(
                part in name for part in ("cls_score.weight", "bbox_pred.weight", "predictor.weight", "embed.weight")
            ):
                value.normal_(std=0.3, generator=generator)
    return model.eval()


def values(prediction: Prediction) -> dict[str, Tensor]:
    names = ("boxes", "labels", "scores", "amodal_probs", "visible_probs", "frames")
    return {name: value for name in names if (value := getattr(prediction, name)) is not None}


@every_system
def test_losses_are_added_up_for_one_backward_that_reaches_every_parameter(
    system: str, make: Make, example: Make
) -> None:
    model = make(system)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith("bias"):  # Where all are 0 nothing may come through that does later.
                value.add_(torch.linspace(-0.1, 0.1, value.numel()).view_as(value))
    found = terms(model, example(0), example(1))
    assert all(torch.isfinite(term.mean()) and term.count > 0 for term in found.values())
    torch.stack([term.mean() for term in found.values()]).sum().backward()
    for name, value in model.named_parameters():
        assert value.grad is not None, name
        assert value.grad.abs().sum() > 0, name
    assert not any(value.requires_grad for value in prior_of(model))


@every_system
def test_images_without_objects_give_the_same_losses(system: str, make: Make, example: Make) -> None:
    model = make(system)
    none = terms(model, example(0, objects=0))
    assert set(none) == set(terms(model, example(0)))
    torch.stack([term.mean() for term in none.values()]).sum().backward()
    assert all(value.grad is not None and torch.isfinite(value.grad).all() for value in model.parameters())


@every_system
def test_micro_batches_give_the_gradient_of_one_big_batch(system: str, make: Make, example: Make) -> None:
    one, two = make(system), make(system)
    examples = [example(0), example(1)]
    whole = terms(one, *examples, step=7)
    torch.stack([term.mean() for term in whole.values()]).sum().backward()
    for single in examples:
        part = terms(two, single, step=7)
        torch.stack([part[name].total / whole[name].count.clamp(min=1) for name in whole]).sum().backward()
    for (name, big), small in zip(one.named_parameters(), two.parameters(), strict=True):
        assert torch.allclose(big.grad, small.grad, atol=1e-5, rtol=1e-3), name


@every_system
def test_a_saved_model_answers_as_before_to_the_last_bit(
    system: str, make: Make, example: Make, tmp_path: Path
) -> None:
    model = awake(make(system))
    model.save_pretrained(tmp_path)
    images = [example(0).image, example(1).image]
    before, after = model(images), load_model(tmp_path)(images)
    for one, two in zip(before, after, strict=True):
        assert len(one) > 3
        assert one.amodal_probs.std() > 0.01
        assert values(one).keys() == values(two).keys()
        assert all(torch.equal(value, values(two)[name]) for name, value in values(one).items())


@every_system
def test_scores_asked_for_in_chunks_are_those_asked_for_at_once(
    system: str, make: Make, example: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = awake(make(system))
    whole = model([example(0).image])[0]
    asked: list[int] = []
    rescore = type(model.branch).rescore

    def counted(branch: Branch, features: dict[str, Tensor], candidates: RoIs) -> Tensor | None:
        asked.append(len(candidates))
        return rescore(branch, features, candidates)

    monkeypatch.setattr(type(model.branch), "rescore", counted)
    monkeypatch.setattr(box_head, "CHUNK", 7)
    chunked = model([example(0).image])[0]
    assert len(asked) > 3
    assert max(asked) == 7
    assert all(torch.allclose(value, values(chunked)[name], atol=1e-4) for name, value in values(whole).items())


@every_system
def test_nothing_to_rescore_and_nothing_to_find(system: str, make: Make, example: Make) -> None:
    model = awake(make(system, score_threshold=0.999999))
    found = model([example(0).image])[0]
    assert len(found) == 0
    assert found.amodal_probs.shape == (0, 28, 28)


class ForegroundToo(MaskRCNN):
    """A loss over all sampled regions: the share of objects among them."""

    def extra_loss(self, features: dict[str, Tensor], sampled: RoIs, is_object: Tensor) -> dict[str, LossTerm]:
        assert torch.equal(is_object, sampled.labels >= 0)
        assert torch.equal(is_object, torch.as_tensor(sampled.gt_index) >= 0)
        return {"loss_foreground": LossTerm(is_object.float().sum(), torch.tensor(float(len(sampled))))}


class Twice(MaskRCNN):
    """A loss that is called as one of the box side's."""

    def extra_loss(self, features: dict[str, Tensor], sampled: RoIs, is_object: Tensor) -> dict[str, LossTerm]:
        return {"loss_box": LossTerm(is_object.sum(), is_object.sum())}


def test_a_loss_may_run_over_all_sampled_regions(
    tiny_config: Callable[..., ModelConfig], example: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SYSTEMS, "foreground", System("F", "-", "-", ForegroundToo))
    found = terms(build("foreground", 2, config=tiny_config()), example(0))
    assert found["loss_foreground"].count == found["loss_class"].count == 63
    assert found["loss_foreground"].total * 28 * 28 == found["loss_mask_amodal"].count


def test_no_loss_is_lost_behind_another_ones_name(
    tiny_config: Callable[..., ModelConfig], example: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SYSTEMS, "twice", System("T", "-", "-", Twice))
    with pytest.raises(ValueError, match="two losses are called 'loss_box'"):
        terms(build("twice", 2, config=tiny_config()), example(0))


def test_models_of_one_configuration_share_nothing(tiny_config: Callable[..., ModelConfig]) -> None:
    config = replace(tiny_config(), method=None)
    one, two = build("mask_rcnn", 2, config=config), build("mask_rcnn", 2, config=config)
    assert one.config == two.config
    sizes = [model.config.transform.min_size for model in (one, two)]
    sizes[0].append(320)
    one.box_head.score_threshold = 0.9
    assert sizes[1] == config.transform.min_size == [64]
    assert two.box_head.score_threshold == 0.05
    places = [{value.data_ptr() for value in model.state_dict().values()} for model in (one, two)]
    assert not places[0] & places[1]


def prior_of(model: AmodalModel) -> list[Tensor]:
    """The tensors of its prior's modules, if it has any."""
    return list(model.prior.parameters()) if isinstance(model.prior, torch.nn.Module) else []
