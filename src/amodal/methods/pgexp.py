"""PGExp (Chen et al., AAAI 2023). Set #1 of its Table 1: no expansion, visible and amodal mask are predicted in B^o."""

from __future__ import annotations

from torch import Tensor

from amodal.config import ModelConfig
from amodal.methods.base import Branch
from amodal.models.heads import MaskHead
from amodal.models.losses import amodal_mask_term, visible_mask_term
from amodal.models.pooler import Pooler
from amodal.priors.prior import Prior
from amodal.structures import BranchOutput, LossTerm, RoIs


class PGExp(Branch):
    """Two separate mask heads on the same pooled features: M^v (Eq. 1) and M^a, both in frame B^o."""

    has_visible = True

    def __init__(self, config: ModelConfig, num_classes: int, prior: Prior | None = None) -> None:
        super().__init__()
        self.prior = prior
        self.soft_targets = config.mask_head.soft_targets
        self.pooler = Pooler(config.mask_head.pool_size)
        self.visible_head = MaskHead(config.backbone.channels, num_classes, config.mask_head)
        self.amodal_head = MaskHead(config.backbone.channels, num_classes, config.mask_head)

    def forward(self, features: dict[str, Tensor], rois: RoIs) -> BranchOutput:
        pooled = self.pooler(features, rois.boxes, rois.batch)
        return BranchOutput(
            boxes=rois.boxes,
            amodal_logits=self.amodal_head(pooled, rois.labels),
            visible_logits=self.visible_head(pooled, rois.labels),
        )

    def loss(self, output: BranchOutput, rois: RoIs, features: dict[str, Tensor]) -> dict[str, LossTerm]:
        terms = {"loss_mask_amodal": amodal_mask_term(output.amodal_logits, rois, output.boxes, self.soft_targets)}
        if output.visible_logits is not None:
            terms["loss_mask_visible"] = visible_mask_term(output.visible_logits, rois, rois.boxes, self.soft_targets)
        return terms
