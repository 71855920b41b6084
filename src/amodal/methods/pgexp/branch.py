"""PGExp (Chen et al., AAAI 2023): amodal masks by prior-guided expansion. This page follows the paper's Fig. 2.

The detector gives class and original amodal box B^o (Eq. 1). From there the visible mask M^v is seen, the bank is asked
how such visible parts have been expanded, the AB head expands the visible box to B^a (Sec. 3.2), and the AM head the
features inside it to the amodal mask (Sec. 3.3). What passes between the steps stands in ``values``. The settings
choose the sets of Table 1: #1 none / plain, #2 plain / plain, #3 prior / plain, #4 none / prior, #5 plain / prior,
#6 prior / prior.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import cast

import torch
from torch import Tensor

from amodal.config import ModelConfig
from amodal.errors import ConfigError
from amodal.frames import tight_boxes
from amodal.methods.pgexp import explain
from amodal.methods.pgexp.box_head import AmodalBoxHead, KeptBox
from amodal.methods.pgexp.mask_head import FlowExpansion, MaskExpansion, PlainMap
from amodal.methods.pgexp.recall import Recall
from amodal.methods.pgexp.values import Box, Evidence, Mask, Seen
from amodal.models.box_head import SMALLEST
from amodal.models.branch import Branch
from amodal.models.branch import Prior as AnyPrior
from amodal.models.losses import amodal_mask_term, matched, visible_mask_term
from amodal.models.mask_head import MaskHead
from amodal.models.pooler import Pooler
from amodal.priors.boxes import box_deltas
from amodal.priors.evidence import predicted_evidence, truth_evidence
from amodal.priors.prior import Prior
from amodal.settings import PGExpConfig
from amodal.structures import BranchOutput, LossTerm, RoIs
from amodal.viz.explanation import Explanation


class PGExp(Branch):
    """The expansion heads behind the detector.

    Args:
        config: settings of the model.
        num_classes: classes, background not counted.
        prior: E, S^f and the bank, frozen; needed where a set uses it.

    Attributes:
        visible_head: predicts M^v in B^o; trained in every set.
        evidence: what is seen of the other objects, from (regions, M^v); a study may put in another rule.
        recall: asks the bank.
        box_head: AB head, or :class:`KeptBox` where B^o stays.
        mask_head: the part of the AM head that sets differ in: the map that the amodal mask is predicted from.
        amodal_head: the rest of the AM head, equal in all sets.
    """

    def __init__(self, config: ModelConfig, num_classes: int, prior: AnyPrior | None = None) -> None:
        super().__init__(prior=prior)
        method = config.method if isinstance(config.method, PGExpConfig) else PGExpConfig()
        _check(method, prior)
        channels = config.backbone.channels
        self.detects = method.detects
        self.decoded = method.train_boxes == "decoded"
        self.soft_targets = config.mask_head.soft_targets
        self.pooler = Pooler(config.mask_head.pool_size)
        self.visible_head = MaskHead(channels, num_classes, config.mask_head)
        # An attribute and no method, so that a study puts another rule here and patches nothing.
        self.evidence = evidence
        self.recall = _recall(method)
        self.box_head = _box_head(method, channels)
        self.mask_head = _mask_head(method, channels, config.mask_head.pool_size)
        self.amodal_head = MaskHead(channels, num_classes, config.mask_head)

    def forward(self, features: dict[str, Tensor], rois: RoIs) -> BranchOutput:
        prior = cast(Prior | None, self.prior)
        seen = self.see(features, rois)
        for_box = self.recall(prior, seen)
        box: Box = self.box_head(features, seen, for_box)
        for_mask = self.recall(prior, seen, box)
        logits = self.amodal_head(self.mask_head(features, seen, box, for_mask), rois.labels)
        # The steps go along for loss, explanation and studies; nothing of a call is kept in the module.
        return BranchOutput(box.boxes, logits, seen.logits, aux=Mask(logits, seen, for_box, box, for_mask))

    def see(self, features: dict[str, Tensor], rois: RoIs) -> Seen:
        """M^v and B^v (Eq. 1) of R regions.

        In training B^o is the proposal. With ``train_boxes: decoded`` it is the box head's box, as in test, where
        another look gives the visible mask; what is trained is still the mask in the proposal. B^v is the tight box of
        M^v at 0.5; B^o where nothing is seen or where B^o is a visible box.
        """
        logits = latest = self._visible(features, rois)
        if self.decoded and rois.targets is not None:
            # Test drops boxes without area; here the region stays where it was.
            sound = (rois.decoded[:, 2:] - rois.decoded[:, :2] >= SMALLEST).all(dim=1, keepdim=True)
            rois = replace(rois, boxes=torch.where(sound, rois.decoded, rois.boxes))
            with torch.no_grad():
                latest = self._visible(features, rois)
        mask = latest.detach().float().sigmoid()
        # Without gradient (above): the box comes out of a cut at 0.5, through which none would pass.
        box = rois.boxes if self.detects == "visible" else tight_boxes(mask, rois.boxes)
        return Seen(rois, logits, mask, box, self.evidence(rois, mask))

    def loss(self, output: BranchOutput, rois: RoIs, features: dict[str, Tensor]) -> dict[str, LossTerm]:
        terms = {"loss_mask_amodal": amodal_mask_term(output.amodal_logits, rois, output.boxes, self.soft_targets)}
        if output.visible_logits is not None:
            terms["loss_mask_visible"] = visible_mask_term(output.visible_logits, rois, rois.boxes, self.soft_targets)
        box: Box = output.aux.box
        if box.deltas is not None:
            terms["loss_box_amodal"] = _box_term(box, rois)
        return terms

    def explain(self, features: dict[str, Tensor], rois: RoIs) -> list[Explanation]:
        with torch.no_grad():
            steps: Mask = self(features, rois).aux
            return explain.explanations(steps, self.recall, cast(Prior | None, self.prior))

    def meanings(self) -> dict[str, tuple[str, ...]]:
        # Deltas of other units or from other boxes; with a prior there is one box more to mix.
        mixed = isinstance(self.box_head, AmodalBoxHead) and self.box_head.reference == "mixed"
        settings = ("reference", "delta_weights", "detects")
        return {"box_head.": (*settings, "box_expansion") if mixed else settings}

    def _visible(self, features: dict[str, Tensor], rois: RoIs) -> Tensor:
        logits: Tensor = self.visible_head(self.pooler(features, rois.boxes, rois.batch), rois.labels)
        return logits


def evidence(rois: RoIs, visible: Tensor) -> Evidence:
    """What is seen of other objects: annotated visible masks in training, in test those that ``visible`` predicts.

    Args:
        rois: R regions, ``boxes`` being B^o.
        visible: float32 [R, 28, 28], M^v in B^o, probabilities.
    """
    if rois.targets is not None:
        return partial(truth_evidence, rois)
    return partial(predicted_evidence, rois, visible)


def _box_term(box: Box, rois: RoIs) -> LossTerm:
    """Eq. 5: L1 over the four deltas, averaged over the objects whose amodal box is known."""
    if box.deltas is None or box.reference is None or box.weights is None:
        raise ValueError("deltas need a reference and weights")
    # Where the whole is not annotated there is no amodal box to regress.
    known = matched(rois, "amodal_known")
    goal = box_deltas(box.reference, matched(rois, "boxes")) * box.weights
    total = (box.deltas[known] - goal[known]).abs().sum()
    return LossTerm(total, known.sum().to(total.dtype))


def _recall(method: PGExpConfig) -> Recall:
    return Recall(
        method.k,
        for_box=method.box_expansion == "prior",
        for_mask=method.mask_expansion != "plain",
        flows=method.mask_expansion == "prior",
        looks=method.aggregate == "attention",
        candidates=method.candidates if method.rerank == "occluder" else None,
        rerank_weight=method.rerank_weight,
        exclude=method.exclude,
    )


def _box_head(method: PGExpConfig, channels: int) -> KeptBox:
    if method.box_expansion == "none":
        return KeptBox(method.warmup_steps, method.warmup_jitter)
    return AmodalBoxHead(
        channels,
        prior=method.box_expansion == "prior",
        k=method.k,
        aggregate=method.aggregate,
        width=method.box_channels,
        reference=method.reference,
        delta_weights=method.delta_weights,
        dropout=method.dropout,
        warmup_steps=method.warmup_steps,
        warmup_jitter=method.warmup_jitter,
    )


def _mask_head(method: PGExpConfig, channels: int, pool_size: int) -> PlainMap:
    if method.mask_expansion == "prior":
        return FlowExpansion(channels, pool_size, method.aggregate, method.k, method.checkpoint)
    if method.mask_expansion == "masks":
        return MaskExpansion(channels, pool_size, method.aggregate, method.k)
    return PlainMap(pool_size)


def _check(method: PGExpConfig, prior: AnyPrior | None) -> None:
    """Refuses a missing prior, with a :class:`ConfigError`."""
    if method.prior_kind is not None and prior is None:
        raise ConfigError("pgexp as configured needs an expansion prior: give prior=FOLDER (amodal prior fit)")
