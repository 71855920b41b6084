"""AB head of PGExp: from visible box and prior-expanded boxes to the amodal box B^a (Sec. 3.2, Eq. 4-5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from amodal.draws import Purpose
from amodal.methods.pgexp.squeeze import make_squeeze
from amodal.methods.pgexp.values import Box, Recalled, Seen
from amodal.models.losses import matched
from amodal.models.pooler import Pooler
from amodal.models.seeded import per_image
from amodal.priors.boxes import box_deltas, expand_boxes, median_deltas

_POOL = 4  # cells a side, "in spatial size 4 considering computation complexity"
_OWN, _PRIORS = 4, 12  # numbers of the geometry: deltas to B^o; median, nearest and spread of the priors' deltas
MEDIAN = slice(4, 8)
"""Where the median of the priors' deltas stands in :func:`geometry`."""


class KeptBox(nn.Module):
    """``box_expansion: none``: B^a is B^o.

    Args:
        warmup_steps: training steps in which the mask expansion works in jittered true boxes, since B^a is poor.
        warmup_jitter: largest shift and change of size of these boxes, as a share of the side.
    """

    def __init__(self, warmup_steps: int = 0, warmup_jitter: float = 0.1) -> None:
        super().__init__()
        self.warmup_steps, self.warmup_jitter = warmup_steps, warmup_jitter

    def forward(self, features: Mapping[str, Tensor], seen: Seen, recalled: Recalled | None) -> Box:
        """The amodal boxes of R regions.

        Args:
            features: pyramid levels "0" to "3", float [B, C, H, W].
            seen: R regions.
            recalled: K priors of each; None where the set asks for none.
        """
        return self.warm_up(self.expand(features, seen, recalled), seen)

    def expand(self, features: Mapping[str, Tensor], seen: Seen, recalled: Recalled | None) -> Box:
        """B^a as the head has it; here B^o."""
        return Box(seen.rois.boxes)

    def warm_up(self, box: Box, seen: Seen) -> Box:
        """In the first training steps true amodal boxes, moved and resized a little at random, stand for B^a."""
        rois = seen.rois
        if rois.targets is None or rois.draws.step >= self.warmup_steps:
            return box
        noise = per_image(rois, Purpose.JITTER, lambda stream, count: stream.uniform(-1, 1, (count, 4)))
        jitter = self.warmup_jitter * noise
        # log1p, since T^r applies log growths: a jitter of 0.1 is a side longer by a tenth.
        deltas = torch.cat([jitter[:, :2], jitter[:, 2:].log1p()], dim=1)
        return replace(box, boxes=expand_boxes(deltas, matched(rois, "boxes"), seen.sizes))


class AmodalBoxHead(KeptBox):
    """Pools the visible box and the boxes that it may grow to, and regresses B^a, whatever the class.

    With a prior (``box_expansion: prior``) the K maps of prior-expanded boxes are squeezed to one; without ("plain")
    there is one other box, B^o, and its map is taken as it is.

    Args:
        channels: C of the pyramid.
        prior: whether there are priors.
        k, aggregate: how many, and how their maps become one.
        width: of the fully connected layers.
        reference: box that the deltas refer to: "visible" B^v (paper), "original" B^o, or "mixed", see
            :func:`mix_edges`.
        delta_weights: Faster R-CNN delta weights (x, y, w, h).
        dropout: share of the features that is dropped in training.
        warmup_steps, warmup_jitter: see :class:`KeptBox`.

    Attributes:
        dropped: length of the features that dropout concerns: the pooled ones and those of the last hidden layer.
    """

    weights: Tensor

    def __init__(
        self,
        channels: int,
        *,
        prior: bool,
        k: int = 8,
        aggregate: Literal["concat", "attention"] = "concat",
        width: int = 1024,
        reference: Literal["visible", "original", "mixed"] = "visible",
        delta_weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
        dropout: float = 0.0,
        warmup_steps: int = 0,
        warmup_jitter: float = 0.1,
    ) -> None:
        super().__init__(warmup_steps, warmup_jitter)
        self.pooler = Pooler(_POOL)
        mixed = reference == "mixed"
        numbers = (_OWN + _PRIORS * prior) * mixed
        features = channels * _POOL**2
        self.squeeze = make_squeeze(aggregate, channels, k) if prior else None
        self.fuse = nn.Conv2d(2 * channels, channels, 3, padding=1)
        self.fc1 = nn.Linear(features + numbers, width)
        self.fc2 = nn.Linear(width, width)
        self.predictor = nn.Linear(width, 4)
        self.mix = nn.Linear(width, 4 * (2 + prior)) if mixed else None
        self.reference = reference
        self.dropout = dropout
        self.dropped = features + width
        # Not persistent: they are settings, and a checkpoint has those in its config.yaml.
        self.register_buffer("weights", torch.tensor(list(delta_weights)), persistent=False)
        nn.init.kaiming_normal_(self.fuse.weight, mode="fan_out", nonlinearity="relu")
        for layer in (self.fc1, self.fc2):
            nn.init.kaiming_uniform_(layer.weight, a=1)
        # Deltas near zero: a new head keeps its reference box.
        nn.init.normal_(self.predictor.weight, std=0.001)
        for bias in (self.fuse.bias, self.fc1.bias, self.fc2.bias, self.predictor.bias):
            nn.init.zeros_(bias)  # type: ignore[arg-type]
        if self.mix is not None:  # starts as the plain mean
            nn.init.zeros_(self.mix.weight)
            nn.init.zeros_(self.mix.bias)

    def expand(self, features: Mapping[str, Tensor], seen: Seen, recalled: Recalled | None) -> Box:
        numbers = geometry(seen.box, seen.rois.boxes, recalled) if self.mix is not None else None
        deltas, weights = self.regress(features, seen, recalled, numbers, self._noise(seen))
        reference = seen.rois.boxes if self.reference == "original" else seen.box
        if numbers is not None and weights is not None:
            candidates = [seen.rois.boxes, seen.box]
            if recalled is not None:
                candidates.append(expand_boxes(numbers[:, MEDIAN], seen.box, seen.sizes))
            start = mix_edges(torch.stack(candidates, dim=1), weights)
            # Expressed from B^v, so that the loss has the paper's units whatever is mixed.
            deltas = self.encode(seen.box, self.decode(deltas, start))
        # Detached: Eq. 5 trains the deltas; the mask that is predicted in the box would pull it elsewhere.
        return Box(self.decode(deltas.detach(), reference, seen.sizes), deltas, reference, self.weights)

    def regress(
        self,
        features: Mapping[str, Tensor],
        seen: Seen,
        recalled: Recalled | None,
        numbers: Tensor | None = None,
        noise: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Deltas from the reference box to B^a.

        Args:
            features: pyramid levels.
            seen: R regions.
            recalled: their K priors, whose boxes B^p (Eq. 4) are pooled; None: B^o is.
            numbers: float32 [R, 4] or [R, 16], see :func:`geometry`; needed where the reference is mixed.
            noise: float32 [R, ``dropped``], uniform in 0..1: features whose number is below ``dropout`` are dropped;
                None: all stay.

        Returns:
            float32 [R, 4], Faster R-CNN deltas multiplied by the delta weights. And, where the reference is mixed, how
            each edge of it comes about: float32 [R, J, 4], see :func:`mix_edges`; J = 3 boxes, 2 without a prior.
        """
        others = seen.rois.boxes[:, None] if recalled is None else recalled.boxes
        # All boxes of all regions in one call of the pooler, box by box, so that maps[k] is one slice of memory.
        boxes = torch.cat([seen.box[None], others.transpose(0, 1)])
        pooled = self.pooler(features, boxes.flatten(0, 1), seen.rois.batch.repeat(len(boxes)))
        maps = pooled.view(len(boxes), len(seen.box), *pooled.shape[1:])
        plain = self.squeeze is None or recalled is None
        expanded = maps[1] if plain else self.squeeze(lambda k: maps[k + 1], recalled)  # type: ignore[misc]
        x = F.relu(self.fuse(torch.cat([expanded, maps[0]], dim=1))).flatten(1)
        x = self._drop(x, None if noise is None else noise[:, : x.shape[1]])
        if numbers is not None:
            x = torch.cat([x, numbers.to(x)], dim=1)
        x = F.relu(self.fc2(F.relu(self.fc1(x))))
        # Nothing is dropped before the mix: what softmax makes of it would not keep its mean.
        weights = None if self.mix is None else self.mix(x).float().unflatten(1, (-1, 4))
        x = self._drop(x, None if noise is None else noise[:, -x.shape[1] :])
        deltas: Tensor = self.predictor(x).float()
        return deltas, weights

    def _noise(self, seen: Seen) -> Tensor | None:
        """float32 [R, F], uniform in 0..1, by which features are dropped; None in test and without dropout."""
        if seen.rois.targets is None or self.dropout == 0:
            return None

        def draw(stream: np.random.Generator, count: int) -> NDArray[np.float32]:
            return stream.random((count, self.dropped), "float32")

        return per_image(seen.rois, Purpose.DROPOUT, draw)

    def _drop(self, x: Tensor, noise: Tensor | None) -> Tensor:
        return x if noise is None else x * (noise >= self.dropout).to(x) / (1 - self.dropout)

    def encode(self, reference: Tensor, amodal: Tensor) -> Tensor:
        """float32 [N, 4], what :meth:`regress` should say for boxes ``amodal`` (Eq. 5: B^a*); both xyxy, [N, 4]."""
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
    # Each edge is mixed by itself, so two of them may have crossed.
    low, high = mixed[:, :2], mixed[:, 2:]
    return torch.cat([torch.minimum(low, high), torch.maximum(low, high)], dim=1)


def geometry(seen: Tensor, original: Tensor, recalled: Recalled | None) -> Tensor:
    """Where boxes lie relative to B^v, in numbers (no part of the paper).

    Args:
        seen: float32 [N, 4], B^v, xyxy pixels of the network image.
        original: float32 [N, 4], B^o, likewise.
        recalled: K priors; None in the plain box head.

    Returns:
        float32 [N, 4], Faster R-CNN deltas from B^v to B^o; with priors [N, 16]: then the median, the nearest one and
        the standard deviation of the deltas T^r_k, those that are missing left out.
    """
    own = box_deltas(seen, original)
    if recalled is None:
        return own
    there = recalled.distance.isfinite()
    count = there.sum(dim=1)[:, None].clamp(min=1)
    centre = recalled.deltas.sum(dim=1) / count  # deltas of a missing prior are 0
    away = (recalled.deltas - centre[:, None]).square() * there[..., None]
    spread = (away.sum(dim=1) / count).sqrt()
    return torch.cat([own, median_deltas(recalled.deltas, there), recalled.deltas[:, 0], spread], dim=1)
