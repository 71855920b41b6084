"""BCNet's graph convolution, contours, and what lies in an object's way."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_dilation, binary_erosion
from torch import Tensor

from amodal.methods.bcnet import BCNet, GraphConvolution, contour
from amodal.models.occluders import occluder_targets, occluder_term
from amodal.settings import BCNetConfig

Make = Callable[..., Any]


def _slow_graph(layer: GraphConvolution, x: Tensor) -> Tensor:
    """Cell by cell, as the paper writes it."""
    regions, channels, height, width = x.shape
    weights = {name: getattr(layer, name).weight[:, :, 0, 0] for name in ("query", "key", "value", "output")}
    mixed = torch.zeros_like(x)
    for region in range(regions):
        cells = [x[region, :, row, column] for row in range(height) for column in range(width)]
        for number, cell in enumerate(cells):
            scores = [
                float((weights["query"] @ cell) @ (weights["key"] @ other)) / math.sqrt(channels) for other in cells
            ]
            shares = torch.tensor(scores).softmax(dim=0)
            value = sum(share * (weights["value"] @ other) for share, other in zip(shares, cells, strict=True))
            mixed[region, :, number // width, number % width] = weights["output"] @ value
    return x + layer.norm(mixed)


def test_the_graph_convolution_is_that_of_a_slow_loop() -> None:
    torch.manual_seed(0)
    layer, x = GraphConvolution(8), torch.randn(2, 8, 3, 4)
    with torch.no_grad():
        assert torch.allclose(layer(x), _slow_graph(layer, x), atol=1e-4)


def test_regions_do_not_see_each_other() -> None:
    torch.manual_seed(0)
    layer, x = GraphConvolution(8).train(), torch.randn(3, 8, 4, 4)
    assert torch.allclose(layer(x)[1:2], layer(x[1:2]), atol=1e-6)


def test_contours_are_those_of_morphology() -> None:
    generator = np.random.default_rng(0)
    masks = generator.random((4, 12, 12)) > 0.4
    masks[0] = True  # The border of the crop is no contour.
    expected = [binary_dilation(mask) != binary_erosion(mask, border_value=1) for mask in masks]
    assert np.array_equal(contour(torch.from_numpy(masks).float()).numpy(), np.stack(expected))
    assert not contour(torch.ones(1, 5, 5)).any()


def test_the_mask_is_predicted_from_what_is_behind(tiny_config: Make, example: Make, place: Make, noise: Make) -> None:
    branch = BCNet(replace(tiny_config(), method=BCNetConfig()), 2)
    rois = place(example(0).targets)
    branch(noise(1), rois).amodal_logits.sum().backward()
    trained = {name for name, value in branch.named_parameters() if value.grad is not None and value.grad.any()}
    assert {name.split(".")[0] for name in trained} == {"occluder", "occludee", "outputs"}
    assert {name.split(".")[1] for name in trained if name.startswith("outputs")} == {"mask"}


def test_terms_have_their_weights(tiny_config: Make, example: Make, place: Make, noise: Make) -> None:
    rois = place(example(4, objects=2).targets)
    found = {}
    for name, weights in {"own": {}, "plain": {"boundary_weight": 1.0, "occluder_weight": 1.0}}.items():
        torch.manual_seed(0)
        branch = BCNet(replace(tiny_config(), method=BCNetConfig(**weights)), 2)
        found[name] = {k: v.mean().item() for k, v in branch.loss(branch(noise(1), rois), rois, noise(1)).items()}
    assert found["own"]["loss_mask_occluder"] == pytest.approx(0.25 * found["plain"]["loss_mask_occluder"])
    for boundary in ("loss_boundary", "loss_boundary_occluder"):
        assert found["own"][boundary] == pytest.approx(0.5 * found["plain"][boundary])
    assert found["plain"]["loss_boundary"] == pytest.approx(math.log(2), abs=0.05)  # all logits start near 0
    assert found["own"]["loss_mask_amodal"] == found["plain"]["loss_mask_amodal"]


def test_occluders_are_what_else_is_visible_in_the_box(example: Make, place: Make) -> None:
    one = example(4, objects=3)
    rois = place(one.targets)
    found = occluder_targets(rois, rois.boxes, 28)
    for row, box in enumerate(rois.boxes):
        others = torch.zeros(28, 28)
        for other in range(3):
            if other != row and _iou(one.targets.visible_boxes[other], one.targets.boxes[row]) > 0.05:
                others = others.maximum(one.targets.visible.crop(torch.tensor([other]), box[None], 28)[0])
        assert torch.equal(found[row], others)
    assert found.any()
    # The occluder is what the front object shows, never the object itself.
    own = one.targets.visible.crop(rois.gt_index, rois.boxes, 28)
    assert (found * own).sum() <= 0.02 * own.sum()  # cells on a common edge belong to both


def _iou(one: Tensor, two: Tensor) -> float:
    low, high = torch.maximum(one[:2], two[:2]), torch.minimum(one[2:], two[2:])
    shared = float((high - low).clamp(min=0).prod())
    areas = [float((box[2:] - box[:2]).prod()) for box in (one, two)]
    return shared / (sum(areas) - shared)


def test_regions_without_occluder_count_as_often_as_those_with_one(example: Make, place: Make) -> None:
    rois = place(example(0, objects=3).targets, example(1, objects=3).targets)
    assert rois.batch.tolist() == [0, 0, 0, 1, 1, 1]
    target = torch.zeros(6, 2, 2)
    target[2, 0, 0] = 1  # One of the first image, two of the second, of which one is among its first two.
    target[3:6:2, 0, 0] = 1
    logits = torch.arange(6.0)[:, None, None].expand(6, 2, 2)
    each = torch.nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none").sum(dim=(1, 2))
    weight = torch.tensor([1.0, 0.0, 1.0, 2.0, 1.0, 1.0])
    term = occluder_term(logits, target, rois)
    assert term.count == weight.sum() * 4
    assert term.total.item() == pytest.approx(float((each * weight).sum()))
    none = occluder_term(logits, torch.zeros(6, 2, 2), rois)
    assert (none.total, none.count) == (0, 0)
