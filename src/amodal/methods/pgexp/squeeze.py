"""From the maps of K retrieved priors to one map: the squeeze that both heads of PGExp have (Sec. 3.2 and 3.3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from amodal.methods.pgexp.values import Recalled

Maps = Callable[[int], Tensor]
"""Gives the map float [N, C, H, W] of the k-th prior, made only when it is asked for."""

CUES = 3
"""What attention sees of a prior: relative distance, inconsistency, and whether it is one at all (1) or padding (0)."""


def cues_of(recalled: Recalled) -> Tensor:
    """float32 [N, K, 3]: distance by the K priors' mean, inconsistency, 1; zeros for a missing prior."""
    there = recalled.distance.isfinite()
    distance = torch.where(there, recalled.distance, 0.0)
    mean = distance.sum(dim=1, keepdim=True) / there.sum(dim=1, keepdim=True).clamp(min=1)
    doubt = torch.zeros_like(distance) if recalled.inconsistency is None else recalled.inconsistency
    doubt = torch.where(there & doubt.isfinite(), doubt, 0.0)
    return torch.stack([distance / mean.clamp(min=1e-6), doubt, there.to(distance)], dim=-1)


class ConcatSqueeze(nn.Module):
    """Squeezes the K concatenated maps, nearest prior first, from K * C to C channels: 1 x 1 convolution and ReLU.

    A convolution of concatenated maps is a sum of convolutions, so maps that are made when asked for come and go one by
    one in test; in training the backward pass keeps them, unless they are recomputed.

    Args:
        channels: C.
        k: K; fixed once trained.
        recompute: make each map anew in the backward pass instead of keeping it.
    """

    def __init__(self, channels: int, k: int, recompute: bool = False) -> None:
        super().__init__()
        self.recompute = recompute
        self.conv = nn.Conv2d(k * channels, channels, 1)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_in", nonlinearity="relu")
        nn.init.zeros_(_bias(self.conv))

    def forward(self, maps: Maps, recalled: Recalled) -> Tensor:
        """Maps of N objects -> float [N, C, H, W]. Of the priors the order says enough; they are not looked at."""
        # One weight as in a convolution of K * C channels, so that checkpoints do not tell how it is carried out.
        weights = torch.split(self.conv.weight, self.conv.out_channels, dim=1)
        total = _bias(self.conv)[:, None, None]
        for k, weight in enumerate(weights):
            total = total + _convolved(maps, k, weight, self.recompute)
        return F.relu(total)


class Gate(nn.Module):
    """Weights of K priors by what is known of each: the softmax of a small network's value (no part of the paper).

    The order of the priors does not count, and there may be any number of them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(CUES, 16)
        self.value = nn.Linear(16, 1)
        nn.init.zeros_(self.value.weight)  # starts as the plain mean

    def forward(self, recalled: Recalled) -> Tensor:
        """K priors of N objects -> float32 [N, K], summing to 1; padding has weight 0 beside anything else."""
        cues = cues_of(recalled)
        value = self.value(F.relu(self.hidden(cues)))[..., 0].float()
        # Not minus infinity: softmax of an object without any prior would be NaN.
        weights: Tensor = (value + torch.where(cues[..., 2] > 0, 0.0, -1e4)).softmax(dim=1)
        return weights


class AttentionSqueeze(nn.Module):
    """A weighted mean of the maps, then a 1 x 1 convolution C -> C and ReLU; K may differ between training and test.

    Args:
        channels: C.
        recompute: make each map anew in the backward pass instead of keeping it.
    """

    def __init__(self, channels: int, recompute: bool = False) -> None:
        super().__init__()
        self.recompute = recompute
        self.gate = Gate()
        self.conv = nn.Conv2d(channels, channels, 1)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_in", nonlinearity="relu")
        nn.init.zeros_(_bias(self.conv))

    def forward(self, maps: Maps, recalled: Recalled) -> Tensor:
        """Maps of N objects and what is known of their K priors -> float [N, C, H, W]."""
        weights = self.gate(recalled)
        mean = _weighted(maps, 0, weights[:, 0], self.recompute)
        for k in range(1, weights.shape[1]):
            mean = mean + _weighted(maps, k, weights[:, k], self.recompute)
        return F.relu(self.conv(mean))


def make_squeeze(
    aggregate: Literal["concat", "attention"], channels: int, k: int, recompute: bool = False
) -> ConcatSqueeze | AttentionSqueeze:
    """The squeeze that ``model.method.aggregate`` names."""
    return ConcatSqueeze(channels, k, recompute) if aggregate == "concat" else AttentionSqueeze(channels, recompute)


def _convolved(maps: Maps, k: int, weight: Tensor, recompute: bool) -> Tensor:
    def part(weight: Tensor) -> Tensor:
        return F.conv2d(maps(k), weight)

    return _run(part, weight, recompute)


def _weighted(maps: Maps, k: int, weight: Tensor, recompute: bool) -> Tensor:
    def part(weight: Tensor) -> Tensor:
        chosen = maps(k)
        return chosen * weight[:, None, None, None].to(chosen)

    return _run(part, weight, recompute)


def _run(part: Callable[[Tensor], Tensor], weight: Tensor, recompute: bool) -> Tensor:
    if not (recompute and torch.is_grad_enabled()):
        return part(weight)
    # The reentrant kind does not see gradients of tensors that `part` holds from outside, the maps.
    result: Tensor = checkpoint(part, weight, use_reentrant=False)
    return result


def _bias(conv: nn.Conv2d) -> Tensor:
    if conv.bias is None:
        raise ValueError("the convolution has no bias")
    return conv.bias
