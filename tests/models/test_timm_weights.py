"""Weights of timm's backbones: whole or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file

from amodal.checkpoint import save_model
from amodal.config_io import load_config
from amodal.errors import WeightsError
from amodal.model import build, load_model
from amodal.models import timm_weights
from amodal.models.timm_body import TimmBody
from amodal.models.timm_weights import find_file, licence, match


@pytest.mark.parametrize("name", ["convnext_atto", "fastvit_t8", "resnet18", "tf_efficientnet_lite0"])
def test_a_whole_model_fills_the_body(tmp_path: Path, name: str) -> None:
    """Also where a list of features calls its parts otherwise; the features are then the whole model's."""
    whole = timm.create_model(name).eval()
    path = tmp_path / "whole.safetensors"
    save_file({key: value.contiguous() for key, value in whole.state_dict().items()}, path)
    body = TimmBody(name).eval()
    body.net.load_state_dict(match(body, load_file(path), path))
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        _, maps = whole.forward_intermediates(image)
        assert torch.allclose(body(image)["3"], maps[-1], atol=1e-4)


def _lite(change: Any, folder: Path) -> Path:
    tensors = load_file(find_file("tf_efficientnet_lite0", "shipped"))
    change(tensors)
    path = folder / "changed.safetensors"
    save_file(tensors, path)
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("blocks.3.0.bn1.weight"), "of timm/tf_efficientnet_lite0 is missing (1 in all)"),
        (lambda t: t.update(extra=torch.zeros(1)), "tensor 'extra' is no part of timm/tf_efficientnet_lite0"),
        (lambda t: [t.update({f"trunk.{k}": t.pop(k)}) for k in list(t)], "is missing (2"),
    ],
)  # fmt: skip
def test_names_that_do_not_match_are_refused(tmp_path: Path, change: Any, message: str) -> None:
    path = _lite(change, tmp_path)
    with pytest.raises(WeightsError) as caught:
        match(TimmBody("tf_efficientnet_lite0"), load_file(path), path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_where_weights_come_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(repository: str, file: str) -> str:
        asked.append((repository, file))
        raise LocalEntryNotFoundError("no\nnetwork")

    monkeypatch.setattr(timm_weights, "hf_hub_download", download)
    with pytest.raises(WeightsError, match=r"timm/resnet18.a1_in1k: no model.safetensors to be had .*\(no network\)"):
        find_file("resnet18", "timm")
    assert asked == [("timm/resnet18.a1_in1k", "model.safetensors")]
    with pytest.raises(WeightsError, match=r"of timm/resnet18 none ship \(only tf_efficientnet_lite0\)"):
        find_file("resnet18", "shipped")
    with pytest.raises(WeightsError, match=r"is 'x.pth', must be 'shipped', 'timm' or a .safetensors file"):
        find_file("resnet18", "x.pth")


def test_licences_are_known(tmp_path: Path) -> None:
    assert licence("tf_efficientnet_lite0", "shipped") == "apache-2.0"
    assert licence("fastvit_t8", "timm") == "fastvit-license"
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    assert licence("resnet18", str(tmp_path / "x.safetensors")) == "not stated in the file"


def test_a_detector_sees_with_the_weights_of_its_backbone(tmp_path: Path) -> None:
    """Built, saved and loaded: the model's own pixels, the tensors of the file, its licence in settings and card."""
    config = load_config("mask_rcnn/small").model
    model = build("mask_rcnn", 2, config=config)
    assert model.config.transform.mean == model.config.transform.std == [0.5, 0.5, 0.5]
    tensors = load_file(find_file("tf_efficientnet_lite0", "shipped"))
    own = model.backbone.body.net.state_dict()
    assert all(torch.equal(own[name], tensors[name].float()) for name in own)
    trained = {name for name, value in model.backbone.body.net.named_parameters() if value.requires_grad}
    assert trained
    assert not any(name.startswith(("conv_stem", "blocks.0.", "blocks.1.")) for name in trained)
    assert model.notices == ["timm/tf_efficientnet_lite0 (shipped), licence apache-2.0"]
    save_model(model, tmp_path / "model")
    again = load_model(tmp_path / "model")
    assert again.notices == model.notices
    assert "licence apache-2.0" in (tmp_path / "model/README.md").read_text()
    image = torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8)
    one, two = model.eval()([image])[0], again([image])[0]
    assert torch.equal(one.scores, two.scores)
    assert torch.equal(one.amodal_probs, two.amodal_probs)


def test_random_weights_of_a_timm_model_and_pixels_of_ones_own(tmp_path: Path) -> None:
    config = load_config("mask_rcnn/small", {"model.backbone.weights": None, "model.transform.mean": "[0.1, 0.2, 0.3]"})
    model = build("mask_rcnn", 2, config=config.model)
    assert model.notices == []
    assert model.config.transform.mean == [0.1, 0.2, 0.3]
    assert model.config.transform.std == [0.5, 0.5, 0.5]
