"""A system like ASN: a box side of its own, whose first features the masks are coded from, and an occlusion loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from amodal.config import ModelConfig
from amodal.models.box_head import BoxHead
from amodal.models.branch import Branch, Prior, Rescore
from amodal.models.losses import amodal_mask_term, matched, visible_mask_term
from amodal.models.mask_head import MaskHead
from amodal.models.pooler import Pooler
from amodal.models.sampling import select
from amodal.settings import MethodConfig
from amodal.structures import BranchOutput, LossTerm, RoIs

HIDDEN = 0.15  # an object of which more is hidden is an occluded one


@dataclass(frozen=True)
class ASNConfig(MethodConfig):
    """Settings of the toy.

    Attributes:
        occluded_weight: weight of occluded regions in the occlusion loss.
    """

    occluded_weight: float = 8.0


class TwoStreams(BoxHead):
    """Convolutions before the two fully connected layers; the first one's maps are handed on."""

    def __init__(self, model: ModelConfig, num_classes: int) -> None:
        super().__init__(model, num_classes)
        assert isinstance(model.method, ASNConfig)
        width = model.backbone.channels
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.occlusion = nn.Linear(model.box_head.channels, 2)
        self.register_buffer("weights", torch.tensor([1.0, model.method.occluded_weight]), persistent=False)

    def maps(self, features: Mapping[str, Tensor], rois: RoIs) -> Tensor:
        """float [R, C, P, P], maps of the first convolution in the frames ``rois.boxes``."""
        return F.relu(self.first(self.pooler(features, rois.boxes, rois.batch)))

    def trunk(self, maps: Tensor) -> Tensor:
        """float [R, D] of maps [R, C, P, P]."""
        return F.relu(self.fc7(F.relu(self.fc6(F.relu(self.second(maps)).flatten(1)))))

    def outputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits float32 [R, K + 1] and deltas [R, K, 4] of [R, D]."""
        return self.cls_score(x).float(), self.bbox_pred(x).float().view(-1, self.num_classes, 4)

    def forward(self, features: Mapping[str, Tensor], boxes: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
        return self.outputs(self.trunk(F.relu(self.first(self.pooler(features, boxes, batch)))))

    def train_step(
        self, features: Mapping[str, Tensor], sampled: RoIs, is_object: Tensor
    ) -> tuple[RoIs, dict[str, LossTerm]]:
        maps = self.maps(features, sampled)
        x = self.trunk(maps)
        positives, terms = self.losses(*self.outputs(x), sampled, is_object)
        occluded = torch.zeros(len(sampled), dtype=torch.long, device=x.device)
        occluded[is_object] = (matched(select(sampled, is_object), "occlude_rate") > HIDDEN).long()
        total = F.cross_entropy(self.occlusion(x).float(), occluded, self.weights, reduction="sum")
        terms["loss_occlusion"] = LossTerm(total, self.weights[occluded].sum())
        return replace(positives, shared=maps[is_object]), terms

    def detect(
        self,
        features: Mapping[str, Tensor],
        proposals: list[Tensor],
        sizes: list[tuple[int, int]],
        rescore: Rescore,
        threshold: float | None = None,
    ) -> RoIs:
        rois = super().detect(features, proposals, sizes, rescore, threshold)
        return replace(rois, shared=self.maps(features, rois))


class ASNLike(Branch):
    """Two mask heads on pooled maps joined with the box side's, enlarged."""

    title = "ASN, as a toy"
    settings = ASNConfig
    box_head = TwoStreams

    def __init__(self, config: ModelConfig, num_classes: int, prior: Prior | None) -> None:
        super().__init__(config, num_classes, prior)
        width = config.backbone.channels
        self.pooler = Pooler(config.mask_head.pool_size)
        self.enlarge = nn.ConvTranspose2d(width, width, 2, stride=2)
        self.join = nn.Conv2d(2 * width, width, 3, padding=1)
        self.amodal = MaskHead(width, num_classes, config.mask_head)
        self.visible = MaskHead(width, num_classes, config.mask_head)

    def forward(self, features: dict[str, Tensor], rois: RoIs) -> BranchOutput:
        assert rois.shared is not None
        pooled = self.pooler(features, rois.boxes, rois.batch)
        coded = F.relu(self.join(torch.cat([F.relu(self.enlarge(rois.shared)), pooled], dim=1)))
        return BranchOutput(rois.boxes, self.amodal(coded, rois.labels), self.visible(coded, rois.labels))

    def loss(self, output: BranchOutput, rois: RoIs, features: dict[str, Tensor]) -> dict[str, LossTerm]:
        assert output.visible_logits is not None
        return {
            "loss_mask_amodal": amodal_mask_term(output.amodal_logits, rois, rois.boxes, False),
            "loss_mask_visible": visible_mask_term(output.visible_logits, rois, rois.boxes, False),
        }
