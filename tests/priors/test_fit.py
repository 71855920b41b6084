"""Fitting as a whole: who sees what, neighbours, repeatability."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from amodal.data.store import AnnotationSet
from amodal.errors import DataError
from amodal.priors import fit
from amodal.priors.encoder import MaskEncoder
from amodal.priors.instances import collect
from amodal.settings import PriorConfig

QUICK = PriorConfig(slots=4, encoder_steps=2, flow_steps=2)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What encoder and flow solver were fitted on."""
    calls: dict[str, Any] = {}

    def encoder(masks: Tensor, dim: int, **rest: object) -> MaskEncoder:
        calls["masks"] = masks
        return MaskEncoder(dim).eval()

    def flow(instances: Any, **rest: object) -> Any:
        calls["flow"], calls["neighbours"] = instances, rest["neighbours"]
        return torch.nn.Identity()

    monkeypatch.setattr(fit, "fit_encoder", encoder)
    monkeypatch.setattr(fit, "fit_flow", flow)
    return calls


@pytest.mark.parametrize(("frame", "fit_on"), [("amodal", "both"), ("visible", "both"), ("amodal", "amodal")])
def test_held_out_images_are_in_the_bank_alone(
    tiny_annotations: AnnotationSet, seen: dict[str, Any], frame: Any, fit_on: Any
) -> None:
    config = replace(QUICK, key_frame=frame, fit_on=fit_on)
    prior, report = fit.fit_prior(tiny_annotations, config, held_out=0.25)
    objects = report.instances
    assert len(objects.image_ids[report.held_out].unique()) == 3  # of twelve
    assert not torch.isin(objects.image_ids[~report.held_out], objects.image_ids[report.held_out]).any()
    used = objects.take(~report.held_out)
    parts = [used.amodal, used.visible if frame == "amodal" else used.own][: 2 if fit_on == "both" else 1]
    assert torch.equal(seen["masks"], torch.cat(parts))
    assert torch.equal(seen["flow"].annotation_ids, used.annotation_ids)
    assert seen["neighbours"].shape == (len(used), fit.NEIGHBOURS)
    # ids of this file are 1, 2, ... in the order of its objects
    assert set(prior.bank.annotation_ids.flatten().tolist()) <= set(objects.annotation_ids.tolist())
    assert report.class_counts == torch.bincount(objects.labels, minlength=2).tolist()


def test_min_occlusion_concerns_the_bank_alone(tiny_annotations: AnnotationSet, seen: dict[str, Any]) -> None:
    prior, report = fit.fit_prior(tiny_annotations, replace(QUICK, min_occlusion=0.3), held_out=0.0)
    objects = report.instances
    assert len(objects) == len(collect(tiny_annotations)[0]) == len(seen["flow"]) == len(seen["masks"]) // 2
    hidden = torch.from_numpy(tiny_annotations.annotation_ids[tiny_annotations.occlude_rate >= 0.3])
    assert 0 < len(hidden) < len(objects)
    assert torch.equal(objects.annotation_ids[report.banked], hidden)
    present = prior.bank.annotation_ids[prior.bank.present]
    assert set(present.flatten().tolist()) <= set(hidden.tolist())
    assert report.class_counts == torch.bincount(objects.labels[report.banked], minlength=2).tolist()
    with pytest.raises(DataError, match=r"no object for the bank \(min_occlusion is 0.99, the most hidden"):
        fit.fit_prior(tiny_annotations, replace(QUICK, min_occlusion=0.99))


def test_all_images_are_used_where_none_is_held_out(tiny_annotations: AnnotationSet, seen: dict[str, Any]) -> None:
    _, report = fit.fit_prior(tiny_annotations, QUICK, held_out=0.0)
    assert not report.held_out.any()
    assert len(seen["masks"]) == 2 * len(report.instances)


def test_settings_and_data_decide_everything(tiny_annotations: AnnotationSet) -> None:
    torch.manual_seed(0)
    one, _ = fit.fit_prior(tiny_annotations, QUICK)
    torch.manual_seed(1)
    np.random.seed(3)
    two, _ = fit.fit_prior(tiny_annotations, QUICK, data="digest")
    for part in ("encoder", "flow"):
        states = [getattr(prior, part).state_dict() for prior in (one, two)]
        assert all(torch.equal(value, states[1][name]) for name, value in states[0].items()), part
    for name in ("amodal", "visible", "own", "deltas", "annotation_ids"):
        assert torch.equal(getattr(one.bank, name), getattr(two.bank, name)), name
    assert (one.data, two.data) == ("", "digest")
    assert not any(value.requires_grad for value in [*one.encoder.parameters(), *one.flow.parameters()])  # type: ignore[union-attr]


def test_classes_without_objects_are_absent(tiny_annotations: AnnotationSet, seen: dict[str, Any]) -> None:
    wider = replace(tiny_annotations, class_names=["square", "disc", "cup"], category_ids=[1, 2, 9])
    prior, report = fit.fit_prior(wider, QUICK)
    assert prior.bank.present.tolist() == [True, True, False]
    assert report.class_counts[2] == 0
    assert prior.category_ids == [1, 2, 9]


def test_nothing_to_fit_to_is_refused(tiny_annotations: AnnotationSet) -> None:
    unknown = replace(tiny_annotations, amodal_known=np.zeros(len(tiny_annotations), bool))
    with pytest.raises(DataError, match=r"no object to fit a prior to \(.*36 amodal unknown"):
        fit.fit_prior(unknown, QUICK)


def test_neighbours_are_the_nearest_others_of_the_class() -> None:
    codes = torch.tensor([[0.0], [10.0], [1.0], [3.0], [11.0], [50.0]])
    labels = torch.tensor([0, 1, 0, 0, 1, 2])
    found = fit.nearest_neighbours(codes, labels, 2, seed=0)
    assert found.tolist() == [[2, 3], [4, 4], [0, 3], [2, 0], [1, 1], [5, 5]]


def test_of_many_objects_a_drawn_part_is_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "_REFERENCES", 5)
    codes = torch.rand(40, 3, generator=torch.Generator().manual_seed(0))
    found = fit.nearest_neighbours(codes, torch.zeros(40, dtype=torch.long), 3, seed=1)
    references = torch.unique(found)
    assert len(references) == 5
    for row in range(40):
        others = references[references != row]
        order = (codes[others] - codes[row]).norm(dim=1).argsort()
        assert torch.equal(found[row], others[order][:3])


def test_key_codes_are_those_of_the_bank(tiny_annotations: AnnotationSet) -> None:
    objects, _ = collect(tiny_annotations)
    config = replace(QUICK, slots=100, key_frame="visible", key_aspect=2.0)  # every object is a slot
    prior, report = fit.fit_prior(tiny_annotations, config)
    codes = fit.key_codes(report.instances, prior.encoder, config)
    squares = objects.annotation_ids[objects.labels == 0]
    assert torch.equal(prior.bank.annotation_ids[0, : len(squares)], squares)
    assert torch.allclose(prior.keys(0)[: len(squares)], codes[objects.labels == 0], atol=1e-4)
