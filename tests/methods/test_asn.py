"""ASN's streams: shapes, what they hand on, and the weighted occlusion loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from amodal.config import ModelConfig
from amodal.errors import ConfigError
from amodal.methods.asn import ASN, TwoStreams
from amodal.settings import ASNConfig

Make = Callable[..., Any]


def _config(tiny_config: Make, **more: float) -> ModelConfig:
    config: ModelConfig = tiny_config()
    return replace(config, method=ASNConfig(**more))


def test_the_first_maps_of_both_streams_reach_the_masks(
    tiny_config: Make, example: Make, place: Make, noise: Make
) -> None:
    torch.manual_seed(0)
    config = _config(tiny_config)
    side, branch = TwoStreams(config, 2), ASN(config, 2)
    rois = place(example(0).targets)
    positives, terms = side.train_step(noise(1), rois, torch.ones(len(rois), dtype=torch.bool))
    assert positives.shared is not None
    assert positives.shared.shape == (len(rois), 64, 7, 7)
    pooled = side.pooler(noise(1), rois.boxes, rois.batch)
    first = [
        F.relu(F.conv2d(pooled, s.convs[0].weight, s.convs[0].bias, padding=1)) for s in (side.occlusion, side.classes)
    ]
    assert torch.equal(positives.shared, torch.cat(first, dim=1))
    output = branch(noise(1), positives)
    assert output.amodal_logits.shape == output.visible_logits.shape == (len(rois), 28, 28)
    branch.loss(output, positives, noise(1))["loss_mask_visible"].mean().backward()
    trained = {name for name, value in side.named_parameters() if value.grad is not None and value.grad.any()}
    assert trained == {f"{s}.convs.0.{part}" for s in ("classes", "occlusion") for part in ("weight", "bias")}
    assert set(terms) == {"loss_class", "loss_box", "loss_occlusion"}


def test_detections_carry_the_maps_of_their_own_boxes(tiny_config: Make, noise: Make) -> None:
    torch.manual_seed(0)
    side = TwoStreams(_config(tiny_config), 2)
    proposals = torch.tensor([[8.0, 8, 60, 70], [20, 30, 90, 90]])
    rois = side.detect(noise(1), [proposals], [(96, 96)], lambda candidates: None, 0.0)
    assert rois.shared is not None
    assert torch.equal(rois.shared, torch.cat(side.first_maps(noise(1), rois), dim=1))


def test_occluded_objects_weigh_eight_and_background_is_not_occluded(
    tiny_config: Make, example: Make, place: Make
) -> None:
    torch.manual_seed(0)
    side = TwoStreams(_config(tiny_config), 2)
    one = example(4, objects=3)
    one.targets.occlude_rate[:] = torch.tensor([0.5, 0.15, 0.1])
    rois = place(one.targets)
    rois = replace(
        rois, boxes=rois.boxes[[0, 1, 2, 0]], batch=rois.batch[[0, 1, 2, 0]], scores=rois.scores[[0, 1, 2, 0]],
        decoded=rois.decoded[[0, 1, 2, 0]], labels=torch.tensor([*rois.labels.tolist(), -1]),
        gt_index=torch.tensor([0, 1, 2, -1]),
    )  # fmt: skip
    is_object = torch.tensor([True, True, True, False])
    x = torch.randn(4, side.occluded.in_features)
    logits = side.occluded(x)
    term = side.occlusion_term(x, rois, is_object)
    each = F.cross_entropy(logits, torch.tensor([1, 0, 0, 0]), reduction="none")
    weight = torch.tensor([8.0, 1.0, 1.0, 1.0])
    assert term.count == 11
    assert term.total.item() == pytest.approx(float((each * weight).sum()), rel=1e-5)
    assert term.mean().item() == pytest.approx(
        F.cross_entropy(logits, torch.tensor([1, 0, 0, 0]), torch.tensor([1.0, 8.0])).item(), rel=1e-5
    )
    one.targets.amodal_known[0] = False  # What is not known is left out.
    assert side.occlusion_term(x, rois, is_object).count == 3


def test_first_weights_are_those_of_the_released_model(tiny_config: Make) -> None:
    """Convolutions and the masks' predictor normal by their outputs (those of the background counted), fully connected
    layers uniform by their inputs."""
    torch.manual_seed(0)
    config = _config(tiny_config)
    head, side = ASN(config, 20).amodal_head, TwoStreams(config, 20)
    assert head.head.predictor.weight.std().item() == pytest.approx((2 / 21) ** 0.5, rel=0.15)
    for layer in (head.join_streams, head.join_mask, side.classes.convs[0], side.occlusion.convs[3]):
        assert layer.weight.std().item() == pytest.approx((2 / (9 * layer.out_channels)) ** 0.5, rel=0.05)
    weight = side.classes.fc.weight
    assert weight.abs().max().item() == pytest.approx((3 / weight.shape[1]) ** 0.5, rel=0.01)
    assert side.occluded.weight.std().item() == pytest.approx(0.01, rel=0.3)


def test_the_coding_joins_in_the_order_of_the_released_model(
    tiny_config: Make, example: Make, place: Make, noise: Make
) -> None:
    """Layer by layer with functions alone: [occlusion, class] maps, then [coded, pooled] maps, then the mask head."""
    torch.manual_seed(0)
    config = _config(tiny_config)
    head, rois = ASN(config, 2).visible_head, place(example(0).targets)
    shared, pooled = torch.randn(len(rois), 64, 7, 7), torch.randn(len(rois), 32, 14, 14)

    def conv(x: torch.Tensor, layer: Any) -> torch.Tensor:
        return F.relu(F.conv2d(x, layer.weight, layer.bias, padding=1))

    def up(x: torch.Tensor, layer: Any) -> torch.Tensor:
        return F.relu(F.conv_transpose2d(x, layer.weight, layer.bias, stride=2))

    x = conv(up(conv(shared, head.join_streams), head.enlarge), head.after)
    x = conv(conv(torch.cat([x, pooled], dim=1), head.join_mask), head.last)
    for layer in head.head.convs[::2]:
        x = conv(x, layer)
    x = up(x, head.head.deconv)
    predictor = head.head.predictor
    slow = torch.stack(
        [
            (predictor.weight[label][:, None, None] * one).sum(dim=0) + predictor.bias[label]
            for one, label in zip(x, rois.labels.tolist(), strict=True)
        ]
    )
    assert torch.allclose(head(shared, pooled, rois.labels), slow, atol=1e-4, rtol=1e-4)


def test_the_box_loss_is_smooth(tiny_config: Make) -> None:
    side = TwoStreams(_config(tiny_config), 2)
    loss = side.box_loss(torch.tensor([[0.5, 3.0, 0.0, 0.0]]), torch.zeros(1, 4))
    assert loss.item() == pytest.approx(0.125 + 2.5)


def test_maps_that_do_not_fit_are_told(tiny_config: Make) -> None:
    config = _config(tiny_config)
    with pytest.raises(
        ConfigError, match=r"model.mask_head.pool_size is 14, must be twice model.box_head.pool_size \(5\)"
    ):
        replace(config, box_head=replace(config.box_head, pool_size=5))
