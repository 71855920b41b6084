"""ORCNN (Follmann et al., WACV 2019): an amodal and a visible mask head, and what lies between them trained as well."""

from __future__ import annotations

from torch import Tensor

from amodal.config import ModelConfig
from amodal.models.branch import Branch, Prior
from amodal.models.losses import amodal_mask_term, mask_targets, mask_term, matched, visible_mask_term
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
        size = amodal.shape[-1]
        whole, seen = (mask_targets(rois, part, rois.boxes, size) for part in ("amodal", "visible"))
        # Hidden is where the two crops differ; where the whole is not annotated nothing is known of it.
        hidden = mask_term(hidden_logits(amodal, visible), (whole - seen).abs(), matched(rois, "amodal_known"))
        return {
            "loss_mask_amodal": amodal_mask_term(amodal, rois, output.boxes, self.soft_targets),
            "loss_mask_visible": visible_mask_term(visible, rois, rois.boxes, self.soft_targets),
            "loss_mask_hidden": hidden,
        }
