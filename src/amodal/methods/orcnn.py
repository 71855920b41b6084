"""ORCNN (Follmann et al., WACV 2019): an amodal and a visible mask head, and what lies between them trained as well."""

from __future__ import annotations

from torch import Tensor

from amodal.config import ModelConfig
from amodal.models.branch import Branch, Prior
from amodal.models.losses import mask_targets, mask_term, matched
from amodal.models.mask_head import MaskHead
from amodal.models.pooler import Pooler
from amodal.structures import BranchOutput, LossTerm, RoIs


def hidden_logits(amodal: Tensor, visible: Tensor) -> Tensor:
    """Logits of the hidden part, float [R, S, S]: z_H = z_A - max(z_V, 0).

    Where nothing is visible, all that is amodal is hidden; where the visible mask is sure, nothing is.
    """
    return amodal - visible.relu()


class ORCNN(Branch):
    """Two mask heads of one shape on the same pooled map; the occlusion mask has no parameters of its own."""

    def __init__(self, config: ModelConfig, num_classes: int, prior: Prior | None = None) -> None:
        super().__init__()
        self.soft_targets = config.mask_head.soft_targets
        self.pooler = Pooler(config.mask_head.pool_size)
        self.amodal_head = MaskHead(config.backbone.channels, num_classes, config.mask_head)
        self.visible_head = MaskHead(config.backbone.channels, num_classes, config.mask_head)

    def forward(self, features: dict[str, Tensor], rois: RoIs) -> BranchOutput:
        pooled = self.pooler(features, rois.boxes, rois.batch)
        amodal, visible = self.amodal_head(pooled, rois.labels), self.visible_head(pooled, rois.labels)
        return BranchOutput(rois.boxes, amodal, visible)

    def loss(self, output: BranchOutput, rois: RoIs, features: dict[str, Tensor]) -> dict[str, LossTerm]:
        """L_A + L_V + L_H, all of weight 1. Nothing is detached: the hidden part trains both heads."""
        amodal, visible = output.amodal_logits, output.visible_logits
        assert visible is not None
        known = matched(rois, "amodal_known")
        whole, seen = masks = self._targets(rois, amodal.shape[-1], soft=False)
        whole_goal, seen_goal = self._targets(rois, amodal.shape[-1], soft=True) if self.soft_targets else masks
        return {
            "loss_mask_amodal": mask_term(amodal, whole_goal, known),
            "loss_mask_visible": mask_term(visible, seen_goal),
            # Hidden is where the two crops differ; where the whole is not annotated nothing is known of it.
            "loss_mask_hidden": mask_term(hidden_logits(amodal, visible), (whole - seen).abs(), known),
        }

    def _targets(self, rois: RoIs, size: int, soft: bool) -> tuple[Tensor, Tensor]:
        """Amodal and visible masks float32 [R, size, size] in the frames ``rois.boxes``."""
        amodal = mask_targets(rois, "amodal", rois.boxes, size, soft)
        return amodal, mask_targets(rois, "visible", rois.boxes, size, soft)
