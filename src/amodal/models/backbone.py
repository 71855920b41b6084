"""Backbone and feature pyramid: a ResNet whose four stages feed an FPN (Lin et al., CVPR 2017)."""

from __future__ import annotations

import math
from collections import OrderedDict

import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from amodal.config import BackboneConfig
from amodal.errors import ConfigError, nearest
from amodal.models.norms import FoldedNorm, fold_norms

LEVELS = ("0", "1", "2", "3")
"""Names of the pyramid levels with strides 4, 8, 16, 32; the RPN's extra level is called ``"pool"`` (stride 64)."""

# From the last to the first, as trainable_layers counts.
_STAGES = ("layer4", "layer3", "layer2", "layer1", "conv1")
_NANO_BLOCKS = {"nano": [1, 1, 1, 1], "nano18": [2, 2, 2, 2]}


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm with 32 groups, or the largest power of two below that divides ``channels``."""
    return nn.GroupNorm(math.gcd(32, channels), channels)


def resnet_names() -> list[str]:
    """Every name that :class:`~amodal.config.BackboneConfig` accepts."""
    listed = torchvision.models.list_models(module=torchvision.models)
    return [*_NANO_BLOCKS, *(name for name in listed if name.startswith(("resnet", "resnext", "wide_resnet")))]


def _resnet(name: str, norm: str) -> ResNet:
    norm_layer = FoldedNorm if norm == "frozen_bn" else group_norm
    if name in _NANO_BLOCKS:
        return ResNet(BasicBlock, _NANO_BLOCKS[name], norm_layer=norm_layer)
    if name not in resnet_names():
        raise ConfigError(f"model.backbone.name is {name!r}, no known backbone{nearest(name, resnet_names())}")
    return torchvision.models.get_model(name, weights=None, norm_layer=norm_layer)


class ResNetBody(nn.Module):
    """The convolutional part of a torchvision ResNet, under the same parameter names.

    Attributes:
        out_channels: channels of the four stages.
    """

    def __init__(self, resnet: ResNet) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu, self.maxpool = resnet.conv1, resnet.bn1, resnet.relu, resnet.maxpool
        self.layer1, self.layer2 = resnet.layer1, resnet.layer2
        self.layer3, self.layer4 = resnet.layer3, resnet.layer4
        # What the classifier reads is as wide as the last stage, be its blocks basic ones or bottlenecks.
        width = int(resnet.fc.in_features)
        self.out_channels = [width // 8, width // 4, width // 2, width]

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Images float [B, 3, H, W] -> stages "0" to "3", strides 4, 8, 16, 32."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        stages: OrderedDict[str, Tensor] = OrderedDict()
        for name, stage in zip(LEVELS, (self.layer1, self.layer2, self.layer3, self.layer4), strict=True):
            x = stage(x)
            stages[name] = x
        return stages

    def freeze(self, trainable_layers: int) -> None:
        """Stop training of all but the last ``trainable_layers`` of the five stages (the stem counts as the first)."""
        # As torchvision counts: the norm of the stem is trained only where everything is.
        trained = _STAGES[:trainable_layers] + (("bn1",) if trainable_layers == len(_STAGES) else ())
        for name, parameter in self.named_parameters():
            if not name.startswith(trained):
                parameter.requires_grad_(False)


class Backbone(nn.Module):
    """ResNet and feature pyramid.

    Attributes:
        channels: C, channels of every level.
    """

    def __init__(self, body: ResNetBody, fpn: FeaturePyramidNetwork, channels: int) -> None:
        super().__init__()
        self.body = body
        self.fpn = fpn
        self.channels = channels

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Normalised images float [B, 3, H, W], H and W multiples of 32.

        Returns float [B, C, H / s, W / s] for levels "0" to "3", s = 4, 8, 16, 32; "pool", s = 64, where configured.
        """
        levels: dict[str, Tensor] = self.fpn(self.body(images))
        return levels


def build_backbone(config: BackboneConfig) -> Backbone:
    """A randomly initialised backbone. Early stages are frozen only where pretrained weights are configured for them.

    Raises:
        ConfigError: the name is no known ResNet.
    """
    resnet = _resnet(config.name, config.norm)
    # Before the body takes the parts over: folding puts others in their places.
    fold_norms(resnet)
    body = ResNetBody(resnet)
    if config.weights is not None:
        body.freeze(config.trainable_layers)
    fpn = FeaturePyramidNetwork(
        body.out_channels,
        config.channels,
        extra_blocks=LastLevelMaxPool() if config.extra_level else None,
        norm_layer=group_norm if config.norm == "group" else None,
    )
    return Backbone(body, fpn, config.channels)
