"""VRSP (Xiao et al., AAAI 2021): masks refined by looking at each other and at shapes from a codebook."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from amodal.config import ModelConfig
from amodal.models.branch import Branch, Prior
from amodal.models.fills import xavier_fill
from amodal.models.losses import mask_targets, mask_term, matched
from amodal.models.mask_head import MaskHead
from amodal.models.pooler import Pooler
from amodal.priors.codebook import Codebook
from amodal.settings import VRSPConfig
from amodal.structures import BranchOutput, LossTerm, RoIs

_TRUE_WEIGHT = 0.1  # of true visible masks in the re-classification loss


@dataclass
class Pass:
    """One run of a mask head over R regions.

    Attributes:
        logits: float [R, 2P, 2P], of each region's class.
        maps: float [R, C, P, P] after the last convolution, and [R, C, 2P, 2P] after the deconvolution.
    """

    logits: Tensor
    maps: tuple[Tensor, Tensor]


@dataclass
class Passes:
    """What the losses read; ``guided`` are the runs that attend to the true masks, of training alone."""

    pooled: Tensor
    coarse: dict[str, Pass]
    refined: dict[str, Pass]
    guided: dict[str, Pass]


class Reclassifier(nn.Module):
    """The class again, from what is visible: two fully connected layers on the attended map, no background."""

    class_rows: ClassVar[dict[str, tuple[int, int]]] = {"score": (0, 1)}

    def __init__(self, channels: int, pool_size: int, width: int, num_classes: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(channels * pool_size**2, width), nn.Linear(width, width)
        self.score = nn.Linear(width, num_classes)
        for layer in (self.first, self.second):
            xavier_fill(layer)
        nn.init.normal_(self.score.weight, std=0.01)
        nn.init.zeros_(self.score.bias)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps float [R, C, P, P] -> logits float32 [R, K]."""
        logits: Tensor = self.score(F.relu(self.second(F.relu(self.first(maps.flatten(1))))))
        return logits.float()


class VRSP(Branch):
    """Coarse masks; the visible one again where the amodal one looks; the amodal one again where the visible one looks,
    with the shapes that resemble it beside."""

    def __init__(self, config: ModelConfig, num_classes: int, prior: Prior | None = None) -> None:
        super().__init__(config, num_classes, prior)
        method, head = config.method, config.mask_head
        assert isinstance(method, VRSPConfig)
        self.k, self.alpha, self.by_code = method.k, method.alpha, method.follow == "code"
        self.matching, self.reclass_weight = tuple(method.matching), method.reclass_weight
        self.guided_weight = method.guided_weight
        self.rescores, self.rescores_class = method.rescore, method.rescore_class
        channels = config.backbone.channels
        self.pooler = Pooler(head.pool_size)
        self.amodal_head = MaskHead(channels, num_classes, head)
        self.visible_head = MaskHead(channels, num_classes, head)
        self.fuse = nn.Conv2d(channels + method.k, channels, 3, padding=1)
        self.reclassify = Reclassifier(channels, head.pool_size, method.reclass_channels, num_classes)

    def forward(self, features: dict[str, Tensor], rois: RoIs) -> BranchOutput:
        x = self.pooler(features, rois.boxes, rois.batch)
        coarse = {
            "amodal": run(self.amodal_head, x, rois.labels),
            "visible": run(self.visible_head, x, rois.labels),
        }
        # Attention is not detached: the refined masks train the coarse ones through it.
        visible = run(self.visible_head, x * attention(coarse["amodal"].logits), rois.labels)
        shapes = self.shapes(coarse["amodal"].logits, rois.labels).to(x)
        amodal = self.fused(x * attention(visible.logits), shapes, rois.labels)
        guided = {}
        if rois.targets is not None:
            seen, whole = (
                mask_targets(rois, part, rois.boxes, x.shape[-1])[:, None].to(x) for part in ("visible", "amodal")
            )
            guided = {
                "amodal": self.fused(x * seen, shapes, rois.labels),
                "visible": run(self.visible_head, x * whole, rois.labels),
            }
        refined = {"amodal": amodal, "visible": visible}
        aux = Passes(x, coarse, refined, guided)
        return BranchOutput(rois.boxes, amodal.logits, visible.logits, aux=aux)

    def shapes(self, logits: Tensor, labels: Tensor) -> Tensor:
        """float32 [R, K, P, P], 0 to 1: the shapes of each region's class nearest to its coarse amodal mask."""
        return F.avg_pool2d(self.codebook.shapes(self.query(logits), labels, self.k), 2)

    def query(self, logits: Tensor) -> Tensor:
        """float32 [R, 28, 28] that the codebook is asked with: the mask, or as in the code its logits."""
        logits = logits.detach().float()
        return logits if self.by_code else (logits > 0).float()

    @property
    def codebook(self) -> Codebook:
        assert isinstance(self.prior, Codebook)
        return self.prior

    def fused(self, attended: Tensor, shapes: Tensor, labels: Tensor) -> Pass:
        """The amodal head on attended maps [R, C, P, P] and shapes [R, K, P, P]."""
        return run(self.amodal_head, self.fuse(torch.cat([attended, shapes], dim=1)), labels)

    def loss(self, output: BranchOutput, rois: RoIs, features: dict[str, Tensor]) -> dict[str, LossTerm]:
        passes: Passes = output.aux
        size = output.amodal_logits.shape[-1]
        whole, seen = (mask_targets(rois, part, rois.boxes, size) for part in ("amodal", "visible"))
        known = matched(rois, "amodal_known")
        coarse = {part: one.logits for part, one in passes.coarse.items()}
        # A refined mask counts as much as the mask that it looked at is right.
        by_visible, by_amodal = iou(coarse["visible"] > 0, seen > 0.5), iou(coarse["amodal"] > 0, whole > 0.5)
        guided_truth, guided_known = (whole, known) if self.by_code else (seen, None)
        terms = {
            "loss_coarse_amodal": mask_term(coarse["amodal"], whole, known),
            "loss_coarse_visible": mask_term(coarse["visible"], seen),
            "loss_mask_amodal": mask_term(output.amodal_logits, whole, known, by_visible),
            "loss_mask_visible": mask_term(passes.refined["visible"].logits, seen, None, by_amodal),
            "loss_guided_amodal": mask_term(passes.guided["amodal"].logits, whole, known),
            "loss_guided_visible": mask_term(passes.guided["visible"].logits, guided_truth, guided_known),
            "loss_matching": self.matching_term(passes),
            "loss_reclass": self.reclass_term(passes, seen, rois.labels),
        }
        weights = dict.fromkeys(("loss_guided_amodal", "loss_guided_visible"), self.guided_weight)
        weights["loss_reclass"] = self.reclass_weight
        return {name: term.times(weights.get(name, 1.0)) for name, term in terms.items()}

    def matching_term(self, passes: Passes) -> LossTerm:
        """Coarse maps shall be those that attention to the true masks gives: 1 - cosine, both heads, both places."""
        total = passes.pooled.new_zeros((), dtype=torch.float32)
        for part, coarse in passes.coarse.items():
            for weight, own, true in zip(self.matching, coarse.maps, passes.guided[part].maps, strict=True):
                cosine = F.cosine_similarity(own.float().flatten(1), true.detach().float().flatten(1))
                total = total + weight * (1 - cosine).sum()
        return LossTerm(total, total.new_tensor(float(len(passes.pooled))))

    def reclass_term(self, passes: Passes, seen: Tensor, labels: Tensor) -> LossTerm:
        """Cross-entropy with the predicted visible mask (weighted by its IoU) and with the true one, over 2R rows."""
        found = passes.refined["visible"].logits
        weight = torch.cat([iou(found > 0, seen > 0.5), seen.new_full((len(seen),), _TRUE_WEIGHT)])
        truth = F.avg_pool2d(seen[:, None], 2).to(passes.pooled)
        maps = torch.cat([self.attended(passes.pooled, found), passes.pooled * truth])
        loss = F.cross_entropy(self.reclassify(maps), labels.repeat(2), reduction="none")
        return LossTerm((loss * weight).sum(), loss.new_tensor(float(len(loss))))

    def attended(self, pooled: Tensor, visible: Tensor) -> Tensor:
        """Maps float [R, C, P, P] for the re-classification; the visible mask gets no gradient from it."""
        visible = visible.detach()
        return pooled * (F.avg_pool2d(visible[:, None], 2).to(pooled) if self.by_code else attention(visible))

    def rescore(self, features: dict[str, Tensor], candidates: RoIs) -> Tensor | None:
        """Geometric mean of the score and the score times what shape and re-classification say of it."""
        if not (self.rescores or self.rescores_class):
            return None
        output = self(features, candidates)
        scores, terms = candidates.scores.float(), 1
        if self.rescores_class:
            classes = self.reclassify(self.attended(output.aux.pooled, output.aux.refined["visible"].logits))
            sure = classes.softmax(dim=1).gather(1, candidates.labels[:, None])[:, 0]
            scores, terms = scores * (0.4 * sure + 0.6), terms + 1
        if self.rescores:
            found = output.amodal_logits
            shape = self.codebook.shapes(self.query(found), candidates.labels, 1)[:, 0] > 0.5
            distance = ((found > 0) != shape).float().mean(dim=(1, 2))
            alpha = distance.new_tensor(self.alpha)
            scores, terms = scores * torch.relu(torch.log(alpha - distance) / torch.log(alpha)), terms + 1
        return scores ** (1 / terms)


def run(head: MaskHead, maps: Tensor, labels: Tensor) -> Pass:
    """A mask head on maps float [R, C, P, P], with what it saw on the way."""
    before: Tensor = head.convs(maps)
    after = torch.relu(head.deconv(before))
    return Pass(head.predictor(after, labels), (before, after))


def attention(logits: Tensor) -> Tensor:
    """float [R, 1, P, P], 0 to 1, of mask logits [R, 2P, 2P]: the sigmoid of their means over 2 x 2 cells."""
    return F.avg_pool2d(logits[:, None], 2).sigmoid()


def iou(one: Tensor, two: Tensor) -> Tensor:
    """float32 [R] of masks bool [R, S, S]; 0 where both are empty."""
    either = (one | two).flatten(1).sum(dim=1)
    return (one & two).flatten(1).sum(dim=1) / either.clamp(min=1)
