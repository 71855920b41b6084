"""Mask R-CNN (He et al., ICCV 2017) on amodal ground truth, MRCNN of Table 2: one mask head predicts M^a in B^o."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from amodal.config import ModelConfig
from amodal.models.branch import Branch, Prior
from amodal.models.losses import amodal_mask_term
from amodal.models.mask_head import MaskHead
from amodal.models.pooler import Pooler
from amodal.structures import BranchOutput, LossTerm, RoIs


class MaskRCNN(Branch):
    """One amodal mask head; no visible mask."""

    def __init__(self, config: ModelConfig, num_classes: int, prior: Prior | None = None) -> None:
        super().__init__()
        self.soft_targets = config.mask_head.soft_targets
        self.pooler = Pooler(config.mask_head.pool_size)
        self.amodal_head = MaskHead(config.backbone.channels, num_classes, config.mask_head)

    def forward(self, features: dict[str, Tensor], rois: RoIs) -> BranchOutput:
        pooled = self.pooler(features, rois.boxes, rois.batch)
        return BranchOutput(boxes=rois.boxes, amodal_logits=self.amodal_head(pooled, rois.labels))

    def loss(self, output: BranchOutput, rois: RoIs, features: dict[str, Tensor]) -> dict[str, LossTerm]:
        return {"loss_mask_amodal": amodal_mask_term(output.amodal_logits, rois, output.boxes, self.soft_targets)}


class MaskRCNN8(MaskRCNN):
    """MRCNN^8 of Table 2: eight convolutions instead of four, so that a deeper head is not taken for a better idea."""

    def __init__(self, config: ModelConfig, num_classes: int, prior: Prior | None = None) -> None:
        super().__init__(replace(config, mask_head=replace(config.mask_head, convs=8)), num_classes, prior)
