"""AB head of PGExp: from visible box and prior-expanded boxes to the amodal box B^a (Sec. 3.2, Eq. 4-5)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from amodal.config_methods import PGExpConfig
from amodal.methods.pgexp_squeeze import make_squeeze
from amodal.models.pooler import Pooler
from amodal.priors.boxes import box_deltas, expand_boxes, median_deltas
from amodal.priors.types import Retrieved

_POOL = 4  # cells a side, "in spatial size 4 considering computation complexity"
_OWN, _PRIORS = 4, 12  # numbers of the geometry: deltas to B^o; median, nearest and spread of the priors' deltas
MEDIAN = slice(4, 8)
"""Where the median of the priors' deltas stands in :func:`geometry`."""


class AmodalBoxHead(nn.Module):
    """Pools the visible box and the boxes that it may grow to, and regresses B^a, whatever the class.

    With ``box_expansion: prior`` the K maps of prior-expanded boxes are squeezed to one; with "plain" there is one
    other box, B^o, and its map is taken as it is.

    Args:
        channels: C of the pyramid.
        config: kind, K, widths and the reference of the deltas.

    Attributes:
        dropped: length of the features that dropout concerns: the pooled ones and those of the last hidden layer.
    """

    def __init__(self, channels: int, config: PGExpConfig) -> None:
        super().__init__()
        self.pooler = Pooler(_POOL)
        prior = config.box_expansion == "prior"
        mixed = config.reference == "mixed"
        numbers = (_OWN + _PRIORS * prior) * mixed
        features, width = channels * _POOL**2, config.box_channels
        self.squeeze = make_squeeze(config.aggregate, channels, config.k) if prior else None
        self.fuse = nn.Conv2d(2 * channels, channels, 3, padding=1)
        self.fc1 = nn.Linear(features + numbers, width)
        self.fc2 = nn.Linear(width, width)
        self.predictor = nn.Linear(width, 4)
        self.mix = nn.Linear(width, 4 * (2 + prior)) if mixed else None
        self.dropout = config.dropout
        self.dropped = features + width
        self.register_buffer("weights", torch.tensor(config.delta_weights), persistent=False)
        self.weights: Tensor
        nn.init.kaiming_normal_(self.fuse.weight, mode="fan_out", nonlinearity="relu")
        for layer in (self.fc1, self.fc2):
            nn.init.kaiming_uniform_(layer.weight, a=1)
        nn.init.normal_(self.predictor.weight, std=0.001)
        for bias in (self.fuse.bias, self.fc1.bias, self.fc2.bias, self.predictor.bias):
            nn.init.zeros_(bias)  # type: ignore[arg-type]
        if self.mix is not None:  # starts as the plain mean
            nn.init.zeros_(self.mix.weight)
            nn.init.zeros_(self.mix.bias)

    def forward(
        self,
        features: Mapping[str, Tensor],
        batch: Tensor,
        seen: Tensor,
        others: Tensor,
        cues: Tensor,
        geometry: Tensor | None = None,
        noise: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Deltas from the reference box to B^a.

        Args:
            features: pyramid levels "0" to "3", float [B, C, H, W].
            batch: int64 [N], image of each object.
            seen: float32 [N, 4], B^v, xyxy pixels of the network image.
            others: float32 [N, K, 4], prior-expanded boxes B^p (Eq. 4); B^o as [N, 1, 4] without a prior.
            cues: float32 [N, K, 3], see :mod:`amodal.methods.pgexp_squeeze`; not read without a prior.
            geometry: float32 [N, 4] or [N, 16], see :func:`geometry`; needed where the reference is mixed.
            noise: float32 [N, ``dropped``], uniform in 0..1: features whose number is below ``dropout`` are dropped;
                None: all stay.

        Returns:
            float32 [N, 4], Faster R-CNN deltas multiplied by the delta weights. And, where the reference is mixed, how
            each edge of it comes about: float32 [N, J, 4], see :func:`mix_edges`; J = 3 boxes, 2 without a prior.
        """
        boxes = torch.cat([seen[None], others.transpose(0, 1)])
        pooled = self.pooler(features, boxes.flatten(0, 1), batch.repeat(len(boxes)))
        maps = pooled.view(len(boxes), len(seen), *pooled.shape[1:])
        expanded = maps[1] if self.squeeze is None else self.squeeze(lambda k: maps[k + 1], cues)
        x = F.relu(self.fuse(torch.cat([expanded, maps[0]], dim=1))).flatten(1)
        x = self._drop(x, None if noise is None else noise[:, : x.shape[1]])
        if geometry is not None:
            x = torch.cat([x, geometry.to(x)], dim=1)
        x = F.relu(self.fc2(F.relu(self.fc1(x))))
        # Nothing is dropped before the mix: what softmax makes of it would not keep its mean.
        weights = None if self.mix is None else self.mix(x).float().unflatten(1, (-1, 4))
        x = self._drop(x, None if noise is None else noise[:, -x.shape[1] :])
        deltas: Tensor = self.predictor(x).float()
        return deltas, weights

    def _drop(self, x: Tensor, noise: Tensor | None) -> Tensor:
        return x if noise is None else x * (noise >= self.dropout).to(x) / (1 - self.dropout)

    def encode(self, reference: Tensor, amodal: Tensor) -> Tensor:
        """float32 [N, 4], what :meth:`forward` should say for boxes ``amodal`` (Eq. 5: B^a*); both xyxy, [N, 4]."""
        return box_deltas(reference, amodal) * self.weights

    def decode(self, deltas: Tensor, reference: Tensor, sizes: Tensor | None = None) -> Tensor:
        """B^a float32 [N, 4], xyxy pixels, from deltas [N, 4] of boxes [N, 4], clipped to (height, width) [N, 2]."""
        return expand_boxes(deltas / self.weights, reference, sizes)


def mix_edges(boxes: Tensor, weights: Tensor) -> Tensor:
    """Boxes whose edges are weighted means of other boxes' (no part of the paper).

    Args:
        boxes: float32 [N, J, 4], xyxy pixels.
        weights: float32 [N, J, 4], for each edge the logits of the J boxes.

    Returns:
        float32 [N, 4], xyxy pixels; edges that end up in the wrong order are swapped.
    """
    mixed = (boxes * weights.softmax(dim=1)).sum(dim=1)
    low, high = mixed[:, :2], mixed[:, 2:]
    return torch.cat([torch.minimum(low, high), torch.maximum(low, high)], dim=1)


def geometry(seen: Tensor, original: Tensor, found: Retrieved | None) -> Tensor:
    """Where boxes lie relative to B^v, in numbers (no part of the paper).

    Args:
        seen: float32 [N, 4], B^v, xyxy pixels of the network image.
        original: float32 [N, 4], B^o, likewise.
        found: K priors; None in the plain box head.

    Returns:
        float32 [N, 4], Faster R-CNN deltas from B^v to B^o; with priors [N, 16]: then the median, the nearest one and
        the standard deviation of the deltas T^r_k, those that are missing left out.
    """
    own = box_deltas(seen, original)
    if found is None:
        return own
    there = found.distance.isfinite()
    count = there.sum(dim=1)[:, None].clamp(min=1)
    centre = found.deltas.sum(dim=1) / count  # deltas of a missing prior are 0
    away = (found.deltas - centre[:, None]).square() * there[..., None]
    spread = (away.sum(dim=1) / count).sqrt()
    return torch.cat([own, median_deltas(found.deltas, there), found.deltas[:, 0], spread], dim=1)
