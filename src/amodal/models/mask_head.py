"""Mask head: convolutions, one deconvolution, and a class-specific predictor (He et al., ICCV 2017)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from amodal.config import MaskHeadConfig
from amodal.models.fills import msra_fill


class ClassPredictor(nn.Module):
    """A 1 x 1 convolution with one output map a class, of which only the wanted class is computed.

    The other classes' maps are never read, in training (mask losses look at the object's class) as in test.
    """

    class_rows: ClassVar[dict[str, tuple[int, int]]] = {"": (0, 1)}

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_classes, channels))
        self.bias = nn.Parameter(torch.zeros(num_classes))
        # Near zero: every cell of every class starts at one half.
        nn.init.normal_(self.weight, std=0.001)

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """Features float [R, C, S, S], labels int64 [R] -> logits float [R, S, S] of each region's class."""
        regions, _, height, width = features.shape
        weight = self.weight[labels].to(features)
        logits = torch.baddbmm(self.bias[labels].to(features)[:, None, None], weight[:, None], features.flatten(2))
        return logits.view(regions, height, width)


class MaskHead(nn.Module):
    """3 x 3 convolutions with ReLU, a 2 x 2 deconvolution with stride 2 and ReLU, and the predictor.

    Args:
        in_channels: channels of the pooled features.
        num_classes: classes, background not counted.
        config: width and number of the convolutions.
    """

    def __init__(self, in_channels: int, num_classes: int, config: MaskHeadConfig) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index in range(config.convs):
            inputs = in_channels if index == 0 else config.channels
            layers += [nn.Conv2d(inputs, config.channels, 3, padding=1), nn.ReLU(inplace=True)]
        self.convs = nn.Sequential(*layers)
        inputs = config.channels if config.convs else in_channels
        self.deconv = nn.ConvTranspose2d(inputs, config.channels, 2, stride=2)
        self.predictor = ClassPredictor(config.channels, num_classes)
        for layer in (*self.convs, self.deconv):
            if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
                msra_fill(layer)

    def forward(self, pooled: Tensor, labels: Tensor) -> Tensor:
        """Pooled features float [R, C, P, P], classes int64 [R] -> mask logits float [R, 2P, 2P] of those classes."""
        logits: Tensor = self.predictor(torch.relu(self.deconv(self.convs(pooled))), labels)
        return logits
