"""ASN with multi-level coding (Qi et al., CVPR 2019): what the boxes' two streams see is coded into the masks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from amodal.config import ModelConfig
from amodal.models.box_head import BoxPredictor
from amodal.models.branch import Branch, Prior
from amodal.models.fills import msra_fill, xavier_fill
from amodal.models.losses import amodal_mask_term, matched, visible_mask_term
from amodal.models.mask_head import MaskHead
from amodal.models.pooler import Pooler
from amodal.models.sampling import select
from amodal.settings import ASNConfig
from amodal.structures import BranchOutput, LossTerm, RoIs


class Stream(nn.Module):
    """Four 3 x 3 convolutions and a fully connected layer; the first one's maps are handed on to the masks."""

    def __init__(self, channels: int, pool_size: int, width: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(4))
        self.fc = nn.Linear(channels * pool_size**2, width)
        for conv in self.convs:
            msra_fill(conv)  # type: ignore[arg-type]
        xavier_fill(self.fc)

    def first(self, pooled: Tensor) -> Tensor:
        """Pooled maps float [R, C, P, P] -> maps of the first convolution, the same shape."""
        return F.relu(self.convs[0](pooled))

    def forward(self, first: Tensor) -> Tensor:
        """These maps -> float [R, D]."""
        x = first
        for conv in self.convs[1:]:
            x = F.relu(conv(x))
        return F.relu(self.fc(x.flatten(1)))


class TwoStreams(BoxPredictor):
    """The box side: a stream for class and box, one for whether an object is occluded; they share the pooled maps only.

    Hands on ``RoIs.shared``, float [R, 2C, P, P]: the first maps of the occlusion stream, then of the class stream.
    """

    weights: Tensor

    def __init__(self, model: ModelConfig, num_classes: int) -> None:
        super().__init__(model, num_classes)
        method, config = model.method, model.box_head
        assert isinstance(method, ASNConfig)
        self.occluded_above = method.occluded_above
        sizes = (model.backbone.channels, config.pool_size, config.channels)
        self.classes, self.occlusion = Stream(*sizes), Stream(*sizes)
        self.add_outputs(config.channels)
        self.occluded = nn.Linear(config.channels, 2)
        nn.init.normal_(self.occluded.weight, std=0.01)
        nn.init.zeros_(self.occluded.bias)
        self.draw_outputs()
        self.register_buffer("weights", torch.tensor([1.0, method.occluded_weight]), persistent=False)

    def forward(self, features: Mapping[str, Tensor], boxes: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes float32 [S, 4], image int64 [S] -> logits float32 [S, K + 1], background first, deltas [S, K, 4]."""
        return self.outputs(self.classes(self.classes.first(self.pooler(features, boxes, batch))))

    def box_loss(self, deltas: Tensor, goal: Tensor) -> Tensor:
        """Smooth L1 with beta 1, where all others have L1."""
        return F.smooth_l1_loss(deltas, goal, reduction="sum")

    def train_step(
        self, features: Mapping[str, Tensor], sampled: RoIs, is_object: Tensor
    ) -> tuple[RoIs, dict[str, LossTerm]]:
        occlusion, classes = self.first_maps(features, sampled)
        positives, terms = self.losses(*self.outputs(self.classes(classes)), sampled, is_object)
        terms["loss_occlusion"] = self.occlusion_term(self.occlusion(occlusion), sampled, is_object)
        return replace(positives, shared=torch.cat([occlusion, classes], dim=1)[is_object]), terms

    def occlusion_term(self, x: Tensor, sampled: RoIs, is_object: Tensor) -> LossTerm:
        """Weighted cross-entropy over all sampled regions float [S, D]; background is not occluded.

        Objects of which only the visible part is annotated are left out.
        """
        positives = select(sampled, is_object)
        occluded = torch.zeros(len(sampled), dtype=torch.long, device=x.device)
        occluded[is_object] = (matched(positives, "occlude_rate") > self.occluded_above).long()
        weight = self.weights[occluded]
        weight[is_object] *= matched(positives, "amodal_known").to(weight)
        loss = F.cross_entropy(self.occluded(x).float(), occluded, reduction="none")
        return LossTerm((loss * weight).sum(), weight.sum())

    def handed_on(self, features: Mapping[str, Tensor], rois: RoIs) -> Tensor:
        """float [R, 2C, P, P], first maps of the occlusion stream, then of the class stream."""
        return torch.cat(self.first_maps(features, rois), dim=1)

    def first_maps(self, features: Mapping[str, Tensor], rois: RoIs) -> tuple[Tensor, Tensor]:
        """float [R, C, P, P], first maps of the occlusion and of the class stream in the frames ``rois.boxes``."""
        pooled = self.pooler(features, rois.boxes, rois.batch)
        return self.occlusion.first(pooled), self.classes.first(pooled)


class CodedHead(nn.Module):
    """Multi-level coding, then the usual mask head: box maps and mask maps are joined before the first convolution."""

    def __init__(self, config: ModelConfig, num_classes: int) -> None:
        super().__init__()
        channels = config.backbone.channels
        self.join_streams = nn.Conv2d(2 * channels, channels, 3, padding=1)
        self.enlarge = nn.ConvTranspose2d(channels, channels, 2, stride=2)
        self.after = nn.Conv2d(channels, channels, 3, padding=1)
        self.join_mask = nn.Conv2d(2 * channels, channels, 3, padding=1)
        self.last = nn.Conv2d(channels, channels, 3, padding=1)
        self.head = MaskHead(channels, num_classes, config.mask_head)
        for layer in (self.join_streams, self.enlarge, self.after, self.join_mask, self.last):
            msra_fill(layer)
        # Here the predictor is drawn like the layers before it, by its outputs: one a class, and the background.
        nn.init.normal_(self.head.predictor.weight, std=(2 / (num_classes + 1)) ** 0.5)

    def forward(self, shared: Tensor, pooled: Tensor, labels: Tensor) -> Tensor:
        """Maps of the box side float [R, 2C, P / 2, P / 2], pooled maps [R, C, P, P], classes int64 [R] -> mask logits
        float [R, 2P, 2P]."""
        coded = F.relu(self.after(F.relu(self.enlarge(F.relu(self.join_streams(shared))))))
        joined = F.relu(self.last(F.relu(self.join_mask(torch.cat([coded, pooled], dim=1)))))
        logits: Tensor = self.head(joined, labels)
        return logits


class ASN(Branch):
    """An amodal and a visible mask head of one shape, each with a coding of its own; mask losses train the box streams'
    first convolutions, too."""

    def __init__(self, config: ModelConfig, num_classes: int, prior: Prior | None = None) -> None:
        super().__init__()
        self.soft_targets = config.mask_head.soft_targets
        self.pooler = Pooler(config.mask_head.pool_size)
        self.amodal_head, self.visible_head = CodedHead(config, num_classes), CodedHead(config, num_classes)

    def forward(self, features: dict[str, Tensor], rois: RoIs) -> BranchOutput:
        assert rois.shared is not None
        pooled = self.pooler(features, rois.boxes, rois.batch)
        amodal, visible = (head(rois.shared, pooled, rois.labels) for head in (self.amodal_head, self.visible_head))
        return BranchOutput(rois.boxes, amodal, visible)

    def loss(self, output: BranchOutput, rois: RoIs, features: dict[str, Tensor]) -> dict[str, LossTerm]:
        assert output.visible_logits is not None
        return {
            "loss_mask_amodal": amodal_mask_term(output.amodal_logits, rois, output.boxes, self.soft_targets),
            "loss_mask_visible": visible_mask_term(output.visible_logits, rois, rois.boxes, self.soft_targets),
        }
