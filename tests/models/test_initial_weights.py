"""Initial weights: torchvision's names and layouts, and every kind of unfit file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d, roi_align

from amodal.config import BackboneConfig, BoxHeadConfig, MaskHeadConfig, ModelConfig, TransformConfig
from amodal.errors import WeightsError
from amodal.model import build
from amodal.models.initial_weights import initialise, load_torchvision_detector
from amodal.models.rcnn import AmodalRCNN
from amodal.settings import PGExpConfig

Make = Callable[..., Any]


def small_config(**backbone: Any) -> ModelConfig:
    return ModelConfig(
        transform=TransformConfig(min_size=[64], max_size=128, test_min_size=64, test_max_size=128),
        backbone=BackboneConfig(name="resnet18", **backbone),
        box_head=BoxHeadConfig(channels=1024),
        mask_head=MaskHeadConfig(channels=256),
    )


@pytest.fixture(scope="module")
def theirs() -> MaskRCNN:
    """Torchvision's Mask R-CNN on a ResNet-18 with 3 classes and the background, with batch norms that do something."""
    torch.manual_seed(0)
    backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None, norm_layer=FrozenBatchNorm2d)
    sizes = tuple((side,) for side in (32, 64, 128, 256, 512))
    model = MaskRCNN(backbone, 4, rpn_anchor_generator=AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 5)).eval()
    for module in model.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.running_var.uniform_(0.5, 1.5)
            module.running_mean.normal_(std=0.1)
    return model


@pytest.fixture(scope="module")
def ours() -> AmodalRCNN:
    return build(
        "pgexp", 3, config=replace(small_config(), method=PGExpConfig(box_expansion="none", mask_expansion="plain"))
    ).eval()


def _close(one: Tensor, two: Tensor) -> bool:
    return one.shape == two.shape and (one - two).abs().max().item() <= 1e-4 * two.abs().max().item()


def test_a_torchvision_detector_computes_the_same_here(theirs: MaskRCNN, ours: AmodalRCNN) -> None:
    assert load_torchvision_detector(ours, theirs.state_dict()) == []
    images = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        levels, expected = ours.backbone(images), theirs.backbone(images)
        assert all(_close(levels[name], expected[name]) for name in expected)
        boxes = torch.tensor([[5.0, 5.0, 60.0, 40.0], [10.0, 30.0, 100.0, 120.0]])
        logits, deltas = ours.box_head(levels, boxes, torch.zeros(2, dtype=torch.int64))
        pooled = roi_align(levels["0"], [boxes], 7, 0.25, 2, True)
        their_logits, their_deltas = theirs.roi_heads.box_predictor(theirs.roi_heads.box_head(pooled))
        assert _close(logits, their_logits)
        assert _close(deltas, their_deltas.view(2, 4, 4)[:, 1:])
        pooled = torch.randn(3, 256, 14, 14)
        labels = torch.tensor([2, 0, 1])
        their_masks = theirs.roi_heads.mask_predictor(theirs.roi_heads.mask_head(pooled))[torch.arange(3), labels + 1]
        for head in (ours.branch.amodal_head, ours.branch.visible_head):
            assert _close(head(pooled, labels), their_masks)


def test_names_of_older_torchvision_releases_are_understood(theirs: MaskRCNN, ours: AmodalRCNN) -> None:
    old: dict[str, Tensor] = {}
    for name, value in theirs.state_dict().items():
        new = name.replace("rpn.head.conv.0.0.", "rpn.head.conv.")
        for block in ("inner_blocks", "layer_blocks"):
            for level in range(4):
                new = new.replace(f"{block}.{level}.0.", f"{block}.{level}.")
        for conv in range(4):
            new = new.replace(f"mask_head.{conv}.0.", f"mask_head.mask_fcn{conv + 1}.")
        old[new] = value
    assert len(set(old) - set(theirs.state_dict())) == 2 * (1 + 8 + 4)
    assert load_torchvision_detector(ours, old) == []


def test_other_classes_keep_fresh_outputs_and_are_reported(theirs: MaskRCNN, caplog: pytest.LogCaptureFixture) -> None:
    model = build("mask_rcnn", 5, config=small_config())
    before = model.box_head.cls_score.weight.clone()
    fresh = load_torchvision_detector(model, theirs.state_dict())
    layers = ("box_head.cls_score", "box_head.bbox_pred", "branch.amodal_head.predictor")
    assert set(fresh) == {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    assert torch.equal(model.box_head.cls_score.weight, before)
    assert torch.equal(model.box_head.fc6.weight, theirs.roi_heads.box_head.fc6.weight)
    assert "6 tensors are not in it" in caplog.text


def test_known_class_names_take_their_rows(theirs: MaskRCNN) -> None:
    model = build("mask_rcnn", 2, config=small_config(), class_names=["dog", "car"])
    categories = ["__background__", "car", "cat", "dog"]
    assert load_torchvision_detector(model, theirs.state_dict(), categories=categories) == []
    predictor = theirs.roi_heads.box_predictor
    assert torch.equal(model.box_head.cls_score.weight, predictor.cls_score.weight[[0, 3, 1]])
    assert torch.equal(model.box_head.bbox_pred.bias, predictor.bbox_pred.bias.view(4, 4)[[3, 1]].flatten())
    masks = theirs.roi_heads.mask_predictor.mask_fcn_logits.weight[[3, 1], :, 0, 0]
    assert torch.equal(model.branch.amodal_head.predictor.weight, masks)


def test_batch_norms_trained_without_eps_compute_the_same(theirs: MaskRCNN) -> None:
    model = build("mask_rcnn", 3, config=small_config()).eval()
    state = {n: v * 1e-4 if n.endswith("running_var") else v for n, v in theirs.state_dict().items()}
    load_torchvision_detector(model, state, eps=0.0)
    torch.manual_seed(1)
    images, body = torch.randn(1, 3, 16, 16), model.backbone.body
    features = torch.nn.functional.conv2d(images, state["backbone.body.conv1.weight"], stride=2, padding=3)
    weight, bias, mean, variance = (
        state[f"backbone.body.bn1.{kind}"][:, None, None] for kind in ("weight", "bias", "running_mean", "running_var")
    )
    expected = (features - mean) / variance.sqrt() * weight + bias
    assert torch.allclose(body.bn1(body.conv1(images)), expected, rtol=1e-4, atol=1e-3)


def test_a_classifiers_backbone_is_loaded_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(3)
    classifier = torchvision.models.resnet18()
    entry = torchvision.models.ResNet18_Weights.IMAGENET1K_V1
    monkeypatch.setattr(type(entry), "get_state_dict", lambda *_, **__: classifier.state_dict())
    model = build("mask_rcnn", 2, config=small_config(), weights="ResNet18_Weights.IMAGENET1K_V1")
    assert model.config.backbone.weights == "ResNet18_Weights.IMAGENET1K_V1"
    assert torch.equal(model.backbone.body.layer4[1].conv2.weight, classifier.layer4[1].conv2.weight)
    assert not model.backbone.body.conv1.weight.requires_grad
    with pytest.raises(WeightsError, match=r"running_mean' is unknown .*model.backbone.norm: frozen_bn"):
        build("mask_rcnn", 2, config=small_config(norm="group"), weights="ResNet18_Weights.IMAGENET1K_V1")


def test_no_network_is_one_line(monkeypatch: pytest.MonkeyPatch, tiny_config: Make) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise URLError("no route")

    monkeypatch.setattr(type(torchvision.models.ResNet18_Weights.IMAGENET1K_V1), "get_state_dict", fail)
    with pytest.raises(
        WeightsError, match=r"ResNet18_Weights.IMAGENET1K_V1 cannot be downloaded from https.*no route"
    ) as e:
        build("mask_rcnn", 2, config=tiny_config(), weights="ResNet18_Weights.IMAGENET1K_V1")
    assert "\n" not in str(e.value)


def test_own_weights_pass_through_a_file(tmp_path: Path, tiny_config: Make) -> None:
    source = build("mask_rcnn", 2, config=tiny_config(), seed=1)
    path = tmp_path / "model.safetensors"
    save_file(source.state_dict(), path)
    same = build("mask_rcnn", 2, config=tiny_config(), seed=2, weights=path)
    assert all(torch.equal(v, same.state_dict()[n]) for n, v in source.state_dict().items())
    other = build("mask_rcnn", 9, config=tiny_config(), seed=2)
    assert {name.rsplit(".", 1)[0] for name in initialise(other, str(path))} == {
        "box_head.cls_score",
        "box_head.bbox_pred",
        "branch.amodal_head.predictor",
    }


def _drop(state: dict[str, Tensor]) -> None:
    del state["backbone.body.layer3.0.conv1.weight"]


def _add(state: dict[str, Tensor]) -> None:
    state["branch.other.weight"] = torch.zeros(1)


def _shape(state: dict[str, Tensor]) -> None:
    state["box_head.fc7.weight"] = torch.zeros(3, 3)


def _nan(state: dict[str, Tensor]) -> None:
    state["box_head.fc7.bias"][2] = float("nan")


def _infinite(state: dict[str, Tensor]) -> None:
    state["rpn.head.bbox_pred.bias"][0] = float("inf")


def _integers(state: dict[str, Tensor]) -> None:
    state["box_head.fc7.bias"] = state["box_head.fc7.bias"].long()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_drop, "tensor 'backbone.body.layer3.0.conv1.weight' is missing"),
        (_add, "tensor 'branch.other.weight' is unknown"),
        (_shape, r"tensor 'box_head.fc7.weight' has shape \[3, 3\], the model's is \[32, 32\]"),
        (_nan, "tensor 'box_head.fc7.bias' holds NaN"),
        (_infinite, "tensor 'rpn.head.bbox_pred.bias' holds NaN or infinity"),
        (_integers, "tensor 'box_head.fc7.bias' is torch.int64"),
    ],
)
def test_unfit_tensors_are_named(tmp_path: Path, tiny_config: Make, change: Callable[..., None], message: str) -> None:
    model = build("mask_rcnn", 2, config=tiny_config(), seed=1)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    change(state)
    path = tmp_path / "model.safetensors"
    save_file(state, path)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(WeightsError, match=message):
        initialise(model, str(path))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_unfit_files_are_refused(tmp_path: Path, tiny_config: Make) -> None:
    model = build("mask_rcnn", 2, config=tiny_config())
    path = tmp_path / "model.safetensors"
    save_file(model.state_dict(), path)
    data = path.read_bytes()
    for cut in (0, 4, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:cut])
        with pytest.raises(WeightsError, match="no whole safetensors file"):
            initialise(model, str(path))
    path.write_bytes((2**63).to_bytes(8, "little") + data[8:])
    with pytest.raises(WeightsError, match="no whole safetensors file"):
        initialise(model, str(path))
    with pytest.raises(WeightsError, match=r"missing.safetensors: no such file"):
        initialise(model, str(tmp_path / "missing.safetensors"))
    for name in ("model.pth", "model.pt", "model.bin", "model.ckpt"):
        with pytest.raises(WeightsError, match="pickled weights are never loaded"):
            initialise(model, name)
    with pytest.raises(
        WeightsError,
        match=r"unknown weights 'ResNet50_Weights.IMAGENET1K_V9'; known: ResNet50_Weights.IMAGENET1K_V1, .*_V2$",
    ):
        initialise(model, "ResNet50_Weights.IMAGENET1K_V9")
    with pytest.raises(WeightsError, match=r"unknown weights '!'; give a torchvision name or a .safetensors file"):
        initialise(model, "!")


def test_replaced_settings_record_the_weights(tmp_path: Path, tiny_config: Make) -> None:
    config = tiny_config()
    model = build("mask_rcnn", 2, config=config)
    path = tmp_path / "model.safetensors"
    save_file(model.state_dict(), path)
    again = build("mask_rcnn", 2, config=replace(config, backbone=replace(config.backbone, weights=str(path))), seed=9)
    assert torch.equal(again.box_head.fc6.weight, model.box_head.fc6.weight)


@pytest.mark.parametrize("shape", [(), (6, 1024), (0, 1024)])
def test_class_layers_of_no_number_of_classes_stay_out(
    theirs: MaskRCNN, ours: AmodalRCNN, shape: tuple[int, ...]
) -> None:
    state = {**theirs.state_dict(), "roi_heads.box_predictor.bbox_pred.weight": torch.zeros(shape)}
    assert "box_head.bbox_pred.weight" in load_torchvision_detector(ours, state)


@pytest.mark.parametrize("name", ["resnet50.IMAGENET1K_V1", "ResNet50_Weights", "a.b.c", "."])
def test_names_that_stand_for_nothing_are_unknown(ours: AmodalRCNN, name: str) -> None:
    with pytest.raises(WeightsError, match="unknown weights"):
        initialise(ours, name)
