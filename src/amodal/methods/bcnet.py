"""BCNet (Ke et al., CVPR 2021): two layers, each with a graph convolution; the first sees what is in front."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from amodal.config import ModelConfig
from amodal.models.backbone import group_norm
from amodal.models.branch import Branch, Prior
from amodal.models.fills import msra_fill
from amodal.models.losses import mask_targets, mask_term, matched
from amodal.models.mask_head import ClassPredictor
from amodal.models.occluders import occluder_targets, occluder_term
from amodal.models.pooler import Pooler
from amodal.settings import BCNetConfig
from amodal.structures import BranchOutput, LossTerm, RoIs


class GraphConvolution(nn.Module):
    """Every cell gets a weighted mean of all cells: x + Norm(W_out . softmax(q . k / sqrt(C)) . v) (Eq. 1).

    The paper's norm takes statistics of the batch, which depend on which regions share it; here it is
    GroupNorm, which has as many parameters.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query, self.key, self.value, self.output = (
            nn.Conv2d(channels, channels, 1, bias=False) for _ in range(4)
        )  # fmt: skip
        self.norm = group_norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Maps float [R, C, P, P] -> the same."""
        query, key, value = (layer(x).flatten(2).transpose(1, 2) for layer in (self.query, self.key, self.value))
        mixed = F.scaled_dot_product_attention(query, key, value)
        result: Tensor = x + self.norm(self.output(mixed.transpose(1, 2).reshape(x.shape)))
        return result


class Layer(nn.Module):
    """Four 3 x 3 convolutions with ReLU, a graph convolution between the second and the third."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(4))
        self.graph = GraphConvolution(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Maps float [R, C, P, P] -> the same."""
        for index, conv in enumerate(self.convs):
            x = F.relu(conv(x))
            if index == 1:
                x = self.graph(x)
        return x


class Output(nn.Module):
    """A 2 x 2 deconvolution with ReLU and a predictor, of one map for all classes or of one a class."""

    def __init__(self, channels: int, num_classes: int, class_specific: bool) -> None:
        super().__init__()
        self.class_specific = class_specific
        self.deconv = nn.ConvTranspose2d(channels, channels, 2, stride=2)
        self.predictor = ClassPredictor(channels, num_classes) if class_specific else nn.Conv2d(channels, 1, 1)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """Maps float [R, C, P, P], classes int64 [R] -> logits float [R, 2P, 2P]."""
        x = F.relu(self.deconv(x))
        logits: Tensor = self.predictor(x, labels) if self.class_specific else self.predictor(x)[:, 0]
        return logits


class BCNet(Branch):
    """The occluder layer sees the pooled map, the occludee layer the sum of that map and the occluder's.

    Each predicts a mask and its contour. Visible masks are not predicted."""

    def __init__(self, config: ModelConfig, num_classes: int, prior: Prior | None = None) -> None:
        super().__init__()
        method = config.method
        assert isinstance(method, BCNetConfig)
        self.boundary_weight, self.occluder_weight = method.boundary_weight, method.occluder_weight
        self.pooler = Pooler(config.mask_head.pool_size)
        channels = config.backbone.channels  # the occluder's maps are added to pooled ones, so the width is theirs
        self.occluder, self.occludee = Layer(channels), Layer(channels)
        names = ("occluder_mask", "occluder_boundary", "mask", "boundary")
        self.outputs = nn.ModuleDict({name: Output(channels, num_classes, method.class_specific) for name in names})
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                msra_fill(layer)
        for output in self.outputs.values():
            nn.init.normal_(output.predictor.weight, std=0.001)  # type: ignore[arg-type, union-attr]

    def forward(self, features: dict[str, Tensor], rois: RoIs) -> BranchOutput:
        pooled = self.pooler(features, rois.boxes, rois.batch)
        front = self.occluder(pooled)
        behind = self.occludee(pooled + front)
        logits = {
            name: output(front if name.startswith("occluder") else behind, rois.labels)
            for name, output in self.outputs.items()
        }
        return BranchOutput(rois.boxes, logits["mask"], aux=logits)

    def loss(self, output: BranchOutput, rois: RoIs, features: dict[str, Tensor]) -> dict[str, LossTerm]:
        logits: dict[str, Tensor] = output.aux
        size = output.amodal_logits.shape[-1]
        whole, known = mask_targets(rois, "amodal", rois.boxes, size), matched(rois, "amodal_known")
        others = occluder_targets(rois, rois.boxes, size)
        terms = {
            "loss_mask_amodal": (mask_term(logits["mask"], whole, known), 1.0),
            "loss_boundary": (mask_term(logits["boundary"], contour(whole), known), self.boundary_weight),
            "loss_mask_occluder": (occluder_term(logits["occluder_mask"], others, rois), self.occluder_weight),
            "loss_boundary_occluder": (
                occluder_term(logits["occluder_boundary"], contour(others), rois, others), self.boundary_weight,
            ),
        }  # fmt: skip
        return {name: term.times(weight) for name, (term, weight) in terms.items()}


def contour(masks: Tensor) -> Tensor:
    """float32 [R, S, S], 1 on contours about two cells thick of masks 0 or 1: where their dilation by the four
    neighbours differs from their erosion. The border of the crop is no contour."""
    padded = F.pad(masks, (1, 1, 1, 1), value=float("nan"))
    around = torch.stack(
        [masks, padded[:, :-2, 1:-1], padded[:, 2:, 1:-1], padded[:, 1:-1, :-2], padded[:, 1:-1, 2:]]
    )  # fmt: skip
    dilated = around.nan_to_num(nan=0.0).amax(dim=0)
    eroded = around.nan_to_num(nan=1.0).amin(dim=0)
    return dilated - eroded
