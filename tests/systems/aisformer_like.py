"""A system like AISFormer: queries look at the cells of a region, with dropout whose choices are seeded."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from amodal.config import ModelConfig
from amodal.models.branch import Branch, Prior
from amodal.models.losses import amodal_mask_term, visible_mask_term
from amodal.models.pooler import Pooler
from amodal.models.seeded import dropout
from amodal.settings import MethodConfig
from amodal.structures import BranchOutput, LossTerm, RoIs


@dataclass(frozen=True)
class AISFormerConfig(MethodConfig):
    """Settings of the toy.

    Attributes:
        dropout: share of the numbers that is dropped in training.
    """

    dropout: float = 0.1


class AISFormerLike(Branch):
    """One attention from two queries (amodal, visible) to the cells, one feed-forward layer; masks know no class."""

    settings = AISFormerConfig

    def __init__(self, config: ModelConfig, num_classes: int, prior: Prior | None) -> None:
        super().__init__(config, num_classes, prior)
        assert isinstance(config.method, AISFormerConfig)
        width, self.dropout = config.backbone.channels, config.method.dropout
        self.pooler = Pooler(28)
        self.queries = nn.Parameter(torch.randn(2, width))
        self.key, self.value = nn.Linear(width, width), nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.wide, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, features: dict[str, Tensor], rois: RoIs) -> BranchOutput:
        pooled = self.pooler(features, rois.boxes, rois.batch)
        cells = pooled.flatten(2).transpose(1, 2)
        weights = torch.softmax(self.queries @ self.key(cells).transpose(1, 2) / cells.shape[2] ** 0.5, dim=2)
        x = self.norm(self.queries + dropout(weights, self.dropout, rois, 1) @ self.value(cells))
        x = x + dropout(self.narrow(dropout(F.relu(self.wide(x)), self.dropout, rois, 2)), self.dropout, rois, 3)
        logits = torch.einsum("rqc,rcyx->rqyx", x, pooled)
        return BranchOutput(rois.boxes, logits[:, 0], logits[:, 1])

    def loss(self, output: BranchOutput, rois: RoIs, features: dict[str, Tensor]) -> dict[str, LossTerm]:
        assert output.visible_logits is not None
        return {
            "loss_mask_amodal": amodal_mask_term(output.amodal_logits, rois, rois.boxes, False),
            "loss_mask_visible": visible_mask_term(output.visible_logits, rois, rois.boxes, False),
        }
