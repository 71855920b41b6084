"""Backbones of timm: levels by stride, frozen norms, known features."""

from __future__ import annotations

import re

import pytest
import torch
from safetensors.torch import load_file
from timm.layers import FrozenBatchNormAct2d
from torch import nn

from amodal.errors import ConfigError
from amodal.models.timm_body import TimmBody, pixel_statistics
from amodal.models.timm_weights import find_file, match


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("tf_efficientnet_lite0", [24, 40, 112, 320]),
        ("resnet18", [64, 128, 256, 512]),  # stride 2 comes first in its list
        ("vgg11", [256, 512, 512, 512]),  # strides 1 and 2 come first
        ("swin_tiny_patch4_window7_224", [96, 192, 384, 768]),  # channels last, trained at one size
    ],
)
def test_levels_are_chosen_by_their_stride(name: str, channels: list[int]) -> None:
    body = TimmBody(name).eval()
    with torch.no_grad():
        levels = body(torch.rand(1, 3, 96, 64))
    assert list(levels) == ["0", "1", "2", "3"]
    assert body.out_channels == channels
    shapes = [tuple(level.shape[1:]) for level in levels.values()]
    assert shapes == [(c, 96 // s, 64 // s) for c, s in zip(channels, (4, 8, 16, 32), strict=True)]


def test_statistics_do_not_change_and_epsilon_is_the_models_own() -> None:
    body = TimmBody("tf_efficientnet_lite0").train()
    assert not any(isinstance(module, nn.BatchNorm2d) for module in body.modules())
    norms = [module for module in body.modules() if isinstance(module, FrozenBatchNormAct2d)]
    assert {norm.eps for norm in norms} == {1e-3}
    before = {name: value.clone() for name, value in body.state_dict().items()}
    body(torch.rand(2, 3, 64, 64))["3"].sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in body.state_dict().items())


MEANS, SPREADS = [0.4878, 0.0765, -0.2094, 0.0219], [7.8416, 7.8994, 6.2551, 2.2781]


def test_the_shipped_weights_see() -> None:
    """Features of a ramp as recorded when the whole model had recognised two photographs; fresh weights are far off."""
    body = TimmBody("tf_efficientnet_lite0").eval()
    path = find_file("tf_efficientnet_lite0", "shipped")
    body.net.load_state_dict({name: value.float() for name, value in match(body, load_file(path), path).items()})
    ramp = torch.linspace(-1, 1, 96)
    picture = torch.stack([ramp[:, None].expand(96, 96), ramp[None, :].expand(96, 96), ramp[:, None] * ramp[None, :]])
    with torch.no_grad():
        fresh = TimmBody("tf_efficientnet_lite0").eval()(picture[None])
        levels = body(picture[None])
    assert float(fresh["0"].std()) != pytest.approx(SPREADS[0], rel=0.3)
    means = [float(level.mean()) for level in levels.values()]
    spreads = [float(level.std()) for level in levels.values()]
    assert means == pytest.approx(MEANS, rel=5e-3, abs=1e-3)
    assert spreads == pytest.approx(SPREADS, rel=5e-3, abs=1e-3)


@pytest.mark.parametrize(
    ("name", "trained", "frozen", "free"),
    [
        ("tf_efficientnet_lite0", 3, r"conv_stem|blocks\.[01]\.", r"blocks\.[2-6]\."),
        ("tf_efficientnet_lite0", 1, r"conv_stem|blocks\.[0-4]\.", r"blocks\.[56]\."),
        ("tf_efficientnet_lite0", 5, r"^$", r""),
        ("tf_efficientnet_lite0", 0, r"", r"^$"),
        ("resnet18", 3, r"conv1|bn1|layer1", r"layer[234]"),
        ("convnext_atto", 2, r"stem_|stages_[01]\.", r"stages_[23]\."),
    ],
)
def test_stages_are_counted_from_the_last(name: str, trained: int, frozen: str, free: str) -> None:
    body = TimmBody(name)
    body.freeze(trained)
    for key, parameter in body.net.named_parameters():
        assert re.match(free if parameter.requires_grad else frozen, key), (key, parameter.requires_grad)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tf_eficientnet_lite0", "no model of timm; nearest is 'tf_efficientnet_lite0'"),
        ("vit_tiny_patch16_224", "which has no features of stride 4 (its strides: 16, 16, 16)"),
        ("twins_pcpvt_small", "which takes pictures of one size only"),
    ],
)
def test_models_that_cannot_serve_are_told(name: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TimmBody(name)
    assert message in str(caught.value)
    assert f"'timm/{name}'" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_timm_cannot_build_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **more: object) -> None:
        raise RuntimeError("no features\nhere")

    monkeypatch.setattr("timm.create_model", refuse)
    with pytest.raises(
        ConfigError, match=r"'timm/resnet18', which timm does not build as features \(no features here\)"
    ):
        TimmBody("resnet18")


def test_pixels_are_the_models_own() -> None:
    assert pixel_statistics("tf_efficientnet_lite0") == ([0.5] * 3, [0.5] * 3)
    assert pixel_statistics("resnet18")[0] == [0.485, 0.456, 0.406]
