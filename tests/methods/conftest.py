"""Regions, features and a prior whose answers are known, for tests of single branches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from amodal.config import ModelConfig
from amodal.methods.pgexp.branch import PGExp
from amodal.priors.types import Retrieved
from amodal.settings import PGExpConfig
from amodal.structures import RoIs, Targets


@dataclass
class Asked:
    """One search of :class:`KnownPrior`: its arguments."""

    masks: Tensor
    boxes: Tensor
    labels: Tensor
    k: int
    exclude_annotations: Tensor | None
    exclude_images: Tensor | None


@dataclass
class KnownPrior(nn.Module):
    """Stands for a prior: slot k of every class shifts and grows a box by ``deltas[k]`` and its amodal mask is a band.

    Flows fetch from ``k + 1`` cells of the 14 x 14 grid to the left. Class ``absent`` is not known. Other frames get
    another answer, as of a real bank: slots from 10 on, farther away, with other boxes and bands that widen below; so
    what was recalled for the box cannot pass for what was recalled for the mask.
    """

    absent: int = -1
    missing: int = 0
    asked: list[Asked] = field(default_factory=list)
    solved: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    rerank_weight: float = 1.0

    def __post_init__(self) -> None:
        super().__init__()

    def __hash__(self) -> int:
        return id(self)

    def search(
        self,
        masks: Tensor,
        boxes: Tensor,
        labels: Tensor,
        k: int,
        *,
        exclude_annotations: Tensor | None = None,
        exclude_images: Tensor | None = None,
    ) -> Retrieved:
        other = float(bool(self.asked) and not torch.equal(boxes, self.asked[0].boxes))
        self.asked.append(Asked(masks, boxes, labels, k, exclude_annotations, exclude_images))
        rows, order = len(masks), torch.arange(k)
        there = ((order < k - self.missing) & (labels != self.absent)[:, None]).float()
        deltas = torch.stack([0.1 * order, -0.1 * order, 0.05 * order, 0.2 * order + 0.1 * other], dim=1)
        amodal = torch.zeros(k, 28, 28)
        for number in range(k):
            amodal[number, :, : 8 + 2 * number] = 1
            amodal[number, 14:, : 8 + 2 * number + int(6 * other)] = 1
        return Retrieved(
            slots=(order + int(10 * other)).expand(rows, k).contiguous(),
            distance=torch.where(there > 0, 1.0 + order + other, torch.inf),
            deltas=deltas * there[..., None],
            amodal=amodal * there[..., None, None],
            present=labels != self.absent,
        )

    def solve(self, visible: Tensor, amodal: Tensor) -> Tensor:
        self.solved.append((visible, amodal))
        steps = (amodal[:, 0].sum(dim=1) - 8) / 2 + 1  # the k that made the band, plus 1
        flow = torch.zeros(len(visible), 2, 14, 14)
        flow[:, 0] = -(2 / 14) * steps[:, None, None]
        return flow * (visible >= 0.5).flatten(1).any(dim=1)[:, None, None, None]


def regions(*targets: Targets) -> RoIs:
    """One region for each object, its amodal box, in images of 96 x 96."""
    boxes = torch.cat([t.boxes for t in targets])
    return RoIs(
        boxes=boxes,
        batch=torch.cat([torch.full((len(t),), i) for i, t in enumerate(targets)]),
        labels=torch.cat([t.labels for t in targets]),
        scores=torch.ones(len(boxes)),
        image_sizes=[(96, 96)] * len(targets),
        decoded=boxes,
        gt_index=torch.cat([torch.arange(len(t)) for t in targets]),
        targets=list(targets),
    )


def pyramid(images: int, channels: int = 32, seed: int = 0) -> dict[str, Tensor]:
    """Random features of images of 96 x 96."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(images, channels, 24 >> i, 24 >> i, generator=generator) for i, name in enumerate("0123")}


@pytest.fixture
def known() -> type[KnownPrior]:
    """:class:`KnownPrior`."""
    return KnownPrior


@pytest.fixture
def place() -> Callable[..., RoIs]:
    """:func:`regions`."""
    return regions


@pytest.fixture
def noise() -> Callable[..., dict[str, Tensor]]:
    """:func:`pyramid`."""
    return pyramid


@pytest.fixture
def expansion(tiny_config: Callable[..., ModelConfig]) -> Callable[..., Any]:
    """Makes a branch of 2 classes, K = 3, from the settings given and a :class:`KnownPrior` (``prior=``, another)."""

    def make(*, prior: Any = None, **method: Any) -> Any:
        settings = PGExpConfig(**{"k": 3, "candidates": 5, "box_channels": 16, **method})
        torch.manual_seed(0)
        return PGExp(replace(tiny_config("pgexp"), method=settings), 2, prior or KnownPrior())

    return make
