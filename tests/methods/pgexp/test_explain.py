"""Explanations are what the branch did: its boxes, its priors, what its re-ranking kept; in pixels of the image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from amodal import build
from amodal.data.store import AnnotationSet
from amodal.frames import resample
from amodal.methods.pgexp.explain import explain
from amodal.pictures import explain_image
from amodal.priors.boxes import expand_boxes
from amodal.priors.explain import explain_objects
from amodal.priors.prior import Prior
from amodal.settings import PGExpConfig

Make = Callable[..., Any]


def listen(head: Any) -> list[Any]:
    """The priors that a head is given from now on."""
    given: list[Any] = []
    head.register_forward_pre_hook(lambda _, asked: given.append(asked[-1]))
    return given


def told(branch: Any, features: dict[str, torch.Tensor], rois: Any) -> dict[str, torch.Tensor]:
    """What is told of regions, after the branch was asked about them."""
    return explain(branch(features, rois).aux, branch.recall, branch.prior)


def in_test(rois: Any) -> Any:
    return replace(rois, gt_index=None, targets=None)


@torch.no_grad()
@pytest.mark.parametrize("rerank", ["none", "occluder"])
def test_what_is_shown_is_what_was_used(rerank: str, expansion: Make, place: Make, noise: Make, example: Make) -> None:
    branch = expansion(rerank=rerank).eval()
    rois, features = in_test(place(example(0).targets, example(1).targets)), noise(2)
    for_box, for_mask = listen(branch.box_head), listen(branch.mask_head)
    output = branch(features, rois)
    found = told(branch, features, rois)
    assert torch.equal(found["amodal_box"], output.boxes)
    assert torch.equal(found["amodal"], output.amodal_logits.sigmoid())
    assert torch.equal(found["visible"], output.visible_logits.sigmoid())
    assert torch.equal(found["expanded"], for_mask[0].query)
    assert torch.equal(found["shapes"], for_mask[0].amodal)
    assert torch.equal(found["flows"], for_mask[0].flows)
    assert torch.equal(found["expanded"], resample(found["visible"], rois.boxes, output.boxes, 28))
    priors, seen = for_box[0], output.aux.seen.box
    assert priors.distance.shape[1] == 3
    sizes = torch.full((len(rois), 1, 2), 96.0)
    assert torch.equal(found["visible_box"], seen)
    assert torch.equal(found["prior_boxes"], expand_boxes(priors.deltas, seen[:, None], sizes))
    assert found["flows"].shape == (6, 3, 2, 14, 14)
    assert found["mask_distance"][0].min() >= 2  # of the second search; in the first the nearest one has 1
    # The flows of KnownPrior fetch k + 1 cells to the left of slot k.
    assert torch.allclose(found["flows"][0, :, 0, 5, 5], -(2 / 14) * (found["mask_distance"][0] - 1))
    assert ("kept" in found) == (rerank == "occluder")
    if rerank == "occluder":
        assert found["kept"].shape == found["inconsistency"].shape == (6, 5)
        assert (found["kept"].sum(1) == 3).all()
        for row in range(6):
            kept = found["kept"][row]
            assert torch.equal(found["placed"][row][kept], found["prior_boxes"][row])
            assert torch.equal(found["candidate_distance"][row][kept], found["box_distance"][row])


@torch.no_grad()
@pytest.mark.parametrize("box", ["none", "plain"])
def test_without_a_box_search_the_mask_search_is_what_is_shown(
    box: str, expansion: Make, place: Make, noise: Make, example: Make
) -> None:
    branch = expansion(box_expansion=box, rerank="occluder", rerank_weight=4.0).eval()
    rois, features = in_test(place(example(0).targets, example(1).targets)), noise(2)
    used = listen(branch.mask_head)
    output = branch(features, rois)
    found = told(branch, features, rois)
    for row in range(len(rois)):
        assert torch.equal(found["candidate_distance"][row][found["kept"][row]], used[0].distance[row])
    assert torch.equal(found["placed"], output.boxes[:, None].expand_as(found["placed"]))


@torch.no_grad()
@pytest.mark.parametrize(
    ("box", "mask"), [("none", "prior"), ("plain", "masks"), ("prior", "plain"), ("none", "plain")]
)
def test_sets_show_what_they_have(
    box: str, mask: str, expansion: Make, place: Make, noise: Make, example: Make
) -> None:
    branch = expansion(box_expansion=box, mask_expansion=mask, rerank="occluder").eval()
    found = told(branch, noise(1), in_test(place(example(0).targets)))
    assert ("prior_boxes" in found) == (box == "prior")
    assert ("shapes" in found) == (mask != "plain")
    assert ("flows" in found) == (mask == "prior")
    assert ("kept" in found) == ("prior" in (box, mask) or mask == "masks")
    none = told(branch, noise(1), in_test(place(example(0, objects=0).targets)))
    assert all(len(value) == 0 for value in none.values())


def test_an_image_is_explained_in_its_own_pixels(tiny_config: Make, tiny_prior: Prior, example: Make) -> None:
    method = PGExpConfig(k=3, candidates=5, box_channels=16, rerank="occluder", rerank_weight=2.0)
    config = replace(tiny_config("pgexp"), method=method)
    model = build("pgexp", 2, config=config, prior=tiny_prior)
    image = example(3, height=96, width=144).image
    found = explain_image(model, image.permute(1, 2, 0).numpy())
    assert model.training
    predicted = model.eval().detect([image])[0]
    assert len(found) == len(predicted) > 3
    assert [one.name for one in found] == predicted.names
    assert [one.score for one in found] == pytest.approx(predicted.scores.tolist())
    assert predicted.frames is not None
    for row, one in enumerate(found):
        assert one.boxes is not None
        assert one.flows is not None
        assert one.reranked is not None
        assert np.allclose(one.amodal_box, predicted.boxes[row], atol=1e-3)
        assert np.allclose(one.frame, predicted.frames[row], atol=1e-3)
        assert np.array_equal(one.flows.box, one.amodal_box)
        assert (one.visible_box[:2] >= one.frame[:2] - 1e-3).all()
        assert (one.visible_box[2:] <= one.frame[2:] + 1e-3).all()
        assert (one.reranked.context[2:] >= one.visible_box[2:] - 1e-3).all()
        assert np.array_equal(one.reranked.boxes[one.reranked.kept], one.boxes.boxes)
    widest = max(float(one.boxes.boxes[:, 2].max()) for one in found if one.boxes is not None)
    assert 96 < widest <= 144, "boxes are not in pixels of the image"


def test_other_systems_have_nothing_to_explain(tiny_config: Make) -> None:
    model = build("mask_rcnn", 2, config=tiny_config())
    assert explain_image(model, np.zeros((64, 64, 3), np.uint8)) == []


def test_annotated_objects_ask_with_their_true_masks(tiny_annotations: AnnotationSet, tiny_prior: Prior) -> None:
    rows = [1, 4, 8]
    found = explain_objects(tiny_prior, tiny_annotations, rows, exclude_own_image=False)
    assert [one.name for one in found] == [
        tiny_annotations.class_names[label] for label in tiny_annotations.labels[rows]
    ]
    for row, one in zip(rows, found, strict=True):
        assert one.score is None
        assert one.amodal is None
        assert one.boxes is not None
        assert one.flows is not None
        assert np.allclose(one.frame, tiny_annotations.amodal_boxes[row])
        assert np.allclose(one.visible_box, tiny_annotations.visible_boxes[row])
        x0, y0, x1, y1 = tiny_annotations.amodal_boxes[row].astype(int).tolist()
        share = tiny_annotations.visible_mask(row)[y0:y1, x0:x1].mean()
        assert one.visible.mean() == pytest.approx(share, abs=0.04)
        assert one.boxes.boxes.shape == (8, 4)
        assert one.flows.flows is not None
        assert one.flows.flows.shape == (8, 2, 14, 14)
        assert (np.diff(one.boxes.distance) >= 0).all()
    assert explain_objects(tiny_prior, tiny_annotations, [], exclude_own_image=False) == []


@pytest.mark.parametrize("own", [False, True])
def test_objects_of_the_own_image_are_left_out(own: bool, tiny_annotations: AnnotationSet, tiny_prior: Prior) -> None:
    found = explain_objects(tiny_prior, tiny_annotations, list(range(36)), exclude_own_image=own)
    for row, one in enumerate(found):
        label, image = int(tiny_annotations.labels[row]), int(tiny_annotations.image_index[row])
        code = tiny_prior.query_codes(torch.from_numpy(one.visible)[None], torch.from_numpy(one.frame)[None])
        distance = (tiny_prior.keys(label) - code).norm(dim=1)
        allowed = tiny_prior.bank.image_ids[label] != (tiny_annotations.image_ids[image] if own else -1)
        assert one.boxes is not None
        nearest = distance[allowed].sort().values[:8]
        assert one.boxes.distance[: len(nearest)] == pytest.approx(nearest.tolist(), abs=1e-4)
        assert np.isinf(one.boxes.distance[len(nearest) :]).all()


@pytest.mark.parametrize(("k", "candidates"), [(8, 32), (3, 6)])
def test_candidates_of_annotated_objects(
    k: int, candidates: int, tiny_annotations: AnnotationSet, tiny_prior: Prior
) -> None:
    prior = Prior(
        replace(tiny_prior.config, k=k, candidates=candidates),
        tiny_prior.class_names,
        tiny_prior.category_ids,
        tiny_prior.encoder,
        tiny_prior.flow,
        tiny_prior.bank,
        rerank_weight=4.0,
    )
    rows = [row for row in range(36) if 0.1 < tiny_annotations.occlude_rate[row] < 0.9]
    found = explain_objects(prior, tiny_annotations, rows, exclude_own_image=False)
    for row, one in zip(rows, found, strict=True):
        assert one.reranked is not None
        assert one.reranked.kept.sum() == k
        assert one.reranked.boxes.shape == (candidates, 4)
        assert one.boxes is not None
        assert one.boxes.boxes.shape == (k, 4)
        assert np.isfinite(one.reranked.inconsistency[:10]).all()
        image = int(tiny_annotations.image_index[row])
        hidden = np.zeros((96, 96), bool)
        for other in tiny_annotations.rows(image):
            if other != row:
                hidden |= tiny_annotations.visible_mask(other)
        x0, y0, x1, y1 = one.reranked.context.round().astype(int).tolist()
        assert one.reranked.others.mean() == pytest.approx(hidden[y0:y1, x0:x1].mean(), abs=0.06)
