"""Frozen batch norms that cost nothing: each is carried out by the convolution before it."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import ResNet
from torchvision.ops import FrozenBatchNorm2d

_PAIRS = (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"), ("0", "1"))  # the last one in downsampling


class FoldedNorm(FrozenBatchNorm2d):  # type: ignore[misc, unused-ignore]
    """Numbers of a frozen batch norm; its :class:`NormedConv2d` applies them, so nothing is left to do here."""

    def affine(self) -> tuple[Tensor, Tensor]:
        """float32 [C] scale and [C] shift: ``y = x * scale + shift``."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        return scale, self.bias - self.running_mean * scale

    def forward(self, x: Tensor) -> Tensor:
        return x


class NormedConv2d(nn.Module):
    """A convolution without bias and the frozen norm after it, as one convolution with scaled weights.

    Two passes over every feature map of the backbone fall away. Stored and trained are the weights as they were.
    """

    def __init__(self, conv: nn.Conv2d, norm: FoldedNorm) -> None:
        super().__init__()
        self.weight = conv.weight
        self.stride, self.padding, self.dilation, self.groups = conv.stride, conv.padding, conv.dilation, conv.groups
        self._norm = (norm,)  # in a tuple, so that it is registered once only, under torchvision's name

    def forward(self, x: Tensor) -> Tensor:
        # Anew in each pass, since the weights may be trained; beside the convolution it costs nothing.
        scale, shift = self._norm[0].affine()
        weight = self.weight * scale[:, None, None, None]
        return F.conv2d(x, weight, shift, self.stride, self.padding, self.dilation, self.groups)


def fold_norms(resnet: ResNet) -> None:
    """Replace every convolution that a :class:`FoldedNorm` follows; parameter names stay the same."""
    # A list, since the loop changes what it walks over.
    for module in list(resnet.modules()):
        children = dict(module.named_children())
        for conv, norm in _PAIRS:
            if isinstance(children.get(norm), FoldedNorm):
                setattr(module, conv, NormedConv2d(children[conv], children[norm]))
