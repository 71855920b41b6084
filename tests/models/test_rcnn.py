"""The whole detector: determinism, independence of company, odd images, gradients, sums of losses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from amodal.errors import DataError
from amodal.model import build
from amodal.models.rcnn import AmodalRCNN
from amodal.prediction import Prediction
from amodal.structures import LossTerm

Make = Callable[..., Any]


@pytest.fixture(params=["mask_rcnn", "pgexp"])
def model(request: pytest.FixtureRequest, tiny_config: Make) -> AmodalRCNN:
    return build(request.param, 2, config=tiny_config(request.param), seed=1)


@pytest.fixture
def eager(tiny_config: Make) -> AmodalRCNN:
    """Untrained, but keeps detections of any score, so that the test path has something to do."""
    model = build("pgexp", 2, config=tiny_config("pgexp", score_threshold=0.0), seed=2).eval()
    with torch.no_grad():  # the fresh predictors are nearly constant; noise makes scores and boxes differ
        for layer in (model.box_head.cls_score, model.box_head.bbox_pred):
            layer.weight.normal_(std=0.3, generator=torch.Generator().manual_seed(5))
    return model


def terms(model: AmodalRCNN, *examples: Any, step: int = 0) -> dict[str, LossTerm]:
    model.train()
    model.set_step(3, step)
    return model([e.image for e in examples], [e.targets for e in examples], terms=True)


def same(one: Prediction, two: Prediction) -> bool:
    return len(one) == len(two) and all(
        torch.allclose(getattr(one, name).float(), getattr(two, name).float(), atol=2e-4)
        for name in ("boxes", "labels", "scores", "amodal_probs", "visible_probs", "frames")
    )


def test_losses_are_finite_named_and_reach_every_parameter(model: AmodalRCNN, example: Make) -> None:
    found = terms(model, example(0), example(1))
    names = {"loss_objectness", "loss_rpn_box", "loss_class", "loss_box", "loss_mask_amodal"}
    assert set(found) == names | ({"loss_mask_visible"} if model.config.system == "pgexp" else set())
    sum(term.mean() for term in found.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_mean_losses_are_totals_by_counts(model: AmodalRCNN, example: Make) -> None:
    pair = [example(0), example(1)]
    found = terms(model, *pair)
    means = model([e.image for e in pair], [e.targets for e in pair])
    for name, term in found.items():
        assert means[name].item() == pytest.approx((term.total / term.count).item(), rel=1e-5)


def test_counts_are_sampled_anchors_regions_and_cells(model: AmodalRCNN, example: Make) -> None:
    found = terms(model, example(0), example(1))
    assert found["loss_objectness"].count == found["loss_rpn_box"].count == 2 * 256
    assert found["loss_class"].count == found["loss_box"].count
    assert 2 * 32 <= found["loss_class"].count <= 2 * 64
    positives = found["loss_mask_amodal"].count / 28**2
    assert positives == int(positives)
    assert 6 <= positives <= 2 * 16  # at least the appended boxes of the objects, at most a quarter of 64


def test_fresh_masks_and_classes_start_at_chance(model: AmodalRCNN, example: Make) -> None:
    found = {name: term.mean().item() for name, term in terms(model, example(0)).items()}
    assert found["loss_mask_amodal"] == pytest.approx(0.693, abs=0.05)
    assert found["loss_objectness"] == pytest.approx(0.693, abs=0.05)
    assert found["loss_class"] == pytest.approx(1.099, abs=0.3)


def test_the_step_decides_the_samples_and_nothing_else(model: AmodalRCNN, example: Make) -> None:
    def values(step: int) -> list[float]:
        return [term.total.item() for term in terms(model, example(0), example(1), step=step).values()]

    first = values(5)
    torch.rand(7)  # the global generator plays no part
    assert values(5) == first
    assert values(6) != first


def test_micro_batches_add_up_to_the_big_batch(model: AmodalRCNN, example: Make) -> None:
    examples = [example(seed) for seed in range(4)]
    whole = terms(model, *examples)
    parts = [terms(model, *examples[:1]), terms(model, *examples[1:])]
    for name, term in whole.items():
        assert sum(part[name].count for part in parts) == term.count
        assert sum(part[name].total for part in parts).item() == pytest.approx(term.total.item(), rel=1e-4)


def test_order_of_the_batch_does_not_matter(model: AmodalRCNN, example: Make) -> None:
    one, two, three = example(0), example(1, objects=2), example(2, objects=0)
    forward, backward = terms(model, one, two, three), terms(model, three, two, one)
    for name, term in forward.items():
        assert term.count == backward[name].count
        assert term.total.item() == pytest.approx(backward[name].total.item(), rel=1e-4, abs=1e-6)


def test_images_without_objects_train_background_and_keep_gradients_finite(model: AmodalRCNN, example: Make) -> None:
    found = terms(model, example(0, objects=0), example(1, objects=0))
    for name in ("loss_rpn_box", "loss_box", "loss_mask_amodal"):
        assert found[name].total.item() == 0
        assert found[name].mean().item() == 0
    assert found["loss_objectness"].mean().item() > 0.5
    sum(term.mean() for term in found.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name  # distributed training waits for every parameter
        assert torch.isfinite(parameter.grad).all(), name


def test_crowds_are_neither_object_nor_background(model: AmodalRCNN, example: Make) -> None:
    crowd = example(0, objects=1)
    crowd.targets.boxes = torch.tensor([[0.0, 0.0, 96.0, 96.0]])
    crowd.targets.ignore = torch.tensor([True])
    found = terms(model, crowd)
    assert found["loss_class"].count == 0  # every proposal lies inside the crowd
    assert found["loss_mask_amodal"].count == 0
    assert all(torch.isfinite(term.mean()) for term in found.values())
    objects = example(0, objects=1)
    assert terms(model, objects)["loss_class"].count > 0


def test_unknown_amodal_masks_give_no_amodal_loss(model: AmodalRCNN, example: Make) -> None:
    known, unknown = example(0), example(0)
    unknown.targets.amodal_known = torch.tensor([True, False, False])
    none = replace(unknown.targets, amodal_known=torch.zeros(3, dtype=torch.bool))
    some = terms(model, unknown)
    assert 0 < some["loss_mask_amodal"].count < terms(model, known)["loss_mask_amodal"].count
    unknown.targets = none
    found = terms(model, unknown)
    assert found["loss_mask_amodal"].mean() == 0
    assert found["loss_box"].total == found["loss_rpn_box"].total == 0  # B^o is an amodal box, theirs a visible one
    assert found["loss_class"].total > 0
    assert found["loss_objectness"].total > 0
    assert 0 < some["loss_box"].total < terms(model, known)["loss_box"].total
    if model.config.system == "pgexp":
        assert terms(model, unknown)["loss_mask_visible"].count > 0


def test_company_does_not_change_predictions(eager: AmodalRCNN, example: Make) -> None:
    shapes = [(96, 96), (60, 100), (96, 96), (100, 60), (200, 64)]
    images = [example(seed, height, width).image for seed, (height, width) in enumerate(shapes)]
    together = eager(images)
    assert [p.image_size for p in together] == shapes
    assert all(len(p) > 3 for p in together)
    for image, prediction in zip(images, together, strict=True):
        assert same(eager([image])[0], prediction)
    for prediction, other in zip(eager(images[::-1])[::-1], together, strict=True):
        assert same(prediction, other)


def test_predictions_are_in_the_frame_of_the_given_image(eager: AmodalRCNN, example: Make) -> None:
    image = example(0, 300, 210).image
    found = eager([image])[0]
    assert found.image_size == (300, 210)
    assert (found.boxes >= 0).all()
    assert (found.boxes[:, 2] <= 210).all()
    assert (found.boxes[:, 3] <= 300).all()
    assert found.boxes[:, 3].max() > 150
    assert found.amodal_masks.shape == (len(found), 300, 210)
    assert found.labels.max() <= 1
    assert (found.scores.diff() <= 0).all()
    assert found.amodal_probs.shape[1:] == (28, 28)
    assert 0 <= found.amodal_probs.min() <= found.amodal_probs.max() <= 1


def test_float_images_equal_bytes(eager: AmodalRCNN, example: Make) -> None:
    image = example(0).image
    assert same(eager([image])[0], eager([image.float() / 255])[0])


def test_no_detection_is_an_empty_prediction(model: AmodalRCNN, example: Make) -> None:
    model.eval()
    with torch.no_grad():
        model.box_head.cls_score.bias.copy_(torch.tensor([20.0, 0.0, 0.0]))
    found = model([example(0).image])[0]
    assert len(found) == 0
    assert found.amodal_masks.shape == (0, 96, 96)
    assert model([]) == []


def test_score_factor_reorders_detections(eager: AmodalRCNN, example: Make) -> None:
    image = example(0).image
    before = eager([image])[0]
    branch = eager.branch.forward
    factor = torch.linspace(0.1, 1, len(before))
    eager.branch.forward = lambda f, r: replace(branch(f, r), score_factor=factor)  # type: ignore[method-assign]
    after = eager([image])[0]
    assert torch.allclose(after.scores, (before.scores * factor).sort(descending=True).values)


def test_rescoring_comes_before_nms(eager: AmodalRCNN, example: Make) -> None:
    image = example(0).image
    seen = []

    def rescore(features: Any, candidates: Any) -> torch.Tensor:
        seen.append(len(candidates))
        return candidates.scores * (candidates.labels == 1)

    eager.branch.rescore = rescore  # type: ignore[method-assign]
    found = eager([image])[0]
    assert seen[0] > len(found) > 0
    assert set(found.labels.tolist()) == {1}


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(96, 96, dtype=torch.uint8), "image 1 of the batch has shape 96x96"),
        (torch.zeros(4, 8, 8, dtype=torch.uint8), "shape 4x8x8"),
        (torch.zeros(3, 0, 8, dtype=torch.uint8), "holds no pixels"),
        (torch.zeros(3, 8, 8, dtype=torch.int64), "torch.int64, must be uint8 or float"),
        (torch.full((3, 8, 8), float("nan")), "float values from nan"),
        (torch.full((3, 8, 8), 255.0), "from 255 to 255, must be 0 to 1"),
    ],
)
def test_bad_images_are_named(eager: AmodalRCNN, example: Make, image: torch.Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        eager([example(0).image, image])


def test_bad_targets_are_named(model: AmodalRCNN, example: Make) -> None:
    bad = example(0, image_id=42)
    bad.targets.labels = torch.tensor([0, 2, 1])
    with pytest.raises(DataError, match="image 42: annotation 101: label 2 is none of 2 classes"):
        terms(model, bad)
    bad = example(0, image_id=42)
    bad.targets.boxes[2, 2] = bad.targets.boxes[2, 0]
    with pytest.raises(DataError, match=r"image 42: annotation 102: box .* has no area"):
        terms(model, bad)
    with pytest.raises(DataError, match="needs targets for each of 1 image"):
        model([bad.image])
    with pytest.raises(DataError, match="holds no images"):
        model([], [])


def test_tiny_and_long_images_pass(eager: AmodalRCNN) -> None:
    for height, width in ((1, 1), (1, 40), (300, 2)):
        found = eager([torch.zeros(3, height, width, dtype=torch.uint8)])[0]
        assert found.amodal_masks.shape[1:] == (height, width)
