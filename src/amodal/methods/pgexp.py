"""PGExp (Chen et al., AAAI 2023): amodal masks by prior-guided expansion. This page follows the paper's Fig. 2.

The detector gives class and original amodal box B^o (Eq. 1). From there the visible mask M^v is seen, the bank is asked
how such visible parts have been expanded, the AB head expands the visible box to B^a (Sec. 3.2), and the AM head the
features inside it to the amodal mask (Sec. 3.3). The settings choose the sets of Table 1: #1 none / plain, #2 plain /
plain, #3 prior / plain, #4 none / prior, #5 plain / prior, #6 prior / prior.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from amodal.config import ModelConfig
from amodal.config_methods import PGExpConfig
from amodal.errors import ConfigError
from amodal.frames import resample, tight_boxes
from amodal.methods.base import Branch
from amodal.methods.pgexp_box import MEDIAN, AmodalBoxHead, geometry, mix_edges
from amodal.methods.pgexp_mask import FlowExpansion, MaskExpansion
from amodal.methods.pgexp_squeeze import CUES
from amodal.models.box_head import SMALLEST
from amodal.models.heads import MaskHead
from amodal.models.losses import amodal_mask_term, matched, visible_mask_term
from amodal.models.pooler import Pooler
from amodal.models.sampling import Draws, Purpose
from amodal.priors.boxes import expand_boxes
from amodal.priors.consistency import context_boxes, inconsistency, rerank
from amodal.priors.evidence import predicted_evidence, truth_evidence
from amodal.priors.prior import Prior
from amodal.priors.types import GRID, Retrieved
from amodal.structures import BranchOutput, LossTerm, RoIs


class PGExp(Branch):
    """The expansion heads behind the detector. Each step of :meth:`forward` is a method that a subclass may replace.

    Shapes: R regions, K priors of each, C channels. "Frame B^o" is ``rois.boxes``; every box is xyxy pixels of the
    network image.

    Args:
        config: settings of the model.
        num_classes: classes, background not counted.
        prior: E, S^f and the bank, frozen; needed where a set uses it.

    Attributes:
        prior: the same.
        visible_head: predicts M^v in B^o; trained in every set.
        box_head: AB head; None where B^o stays (``box_expansion: none``).
        mask_head: the part of the AM head that uses the prior; None without (``mask_expansion: plain``).
        amodal_head: the rest of the AM head, equal in all sets.
        k: priors that are retrieved; may be changed after training where ``aggregate`` is "attention".
    """

    has_visible = True

    def __init__(self, config: ModelConfig, num_classes: int, prior: Prior | None = None) -> None:
        super().__init__()
        method = config.method if isinstance(config.method, PGExpConfig) else PGExpConfig()
        _check(method, config.mask_head.pool_size, prior)
        channels = config.backbone.channels
        self.method = method
        self.k = method.k
        self.detects = method.detects
        self.prior = prior
        self.soft_targets = config.mask_head.soft_targets
        self.pooler = Pooler(config.mask_head.pool_size)
        self.visible_head = MaskHead(channels, num_classes, config.mask_head)
        self.box_head = None if method.box_expansion == "none" else AmodalBoxHead(channels, method)
        self.mask_head: FlowExpansion | MaskExpansion | None = None
        if method.mask_expansion != "plain":
            kind = FlowExpansion if method.mask_expansion == "prior" else MaskExpansion
            self.mask_head = kind(channels, method)
        self.amodal_head = MaskHead(channels, num_classes, config.mask_head)
        self._draws = Draws()

    def set_step(self, seed: int, step: int) -> None:
        self._draws = Draws(seed, step)

    def forward(self, features: dict[str, Tensor], rois: RoIs) -> BranchOutput:
        visible_logits = self.see(features, rois)
        rois, visible = self.stand(features, rois, visible_logits)
        if self.box_head is None and self.mask_head is None:
            boxes = self.warm_up(rois.boxes, rois)
            return BranchOutput(boxes, self.expand_masks(features, rois, boxes, None, None, None), visible_logits)

        seen = self.seen_boxes(visible, rois)
        boxes, aux = rois.boxes, {}
        if self.box_head is not None:
            found = self.retrieve_boxes(visible, seen, rois) if self.method.box_expansion == "prior" else None
            deltas, reference = self.box_deltas(features, rois, visible, seen, found)
            boxes = self.expand_boxes(deltas.detach(), reference, rois)
            aux = {"deltas": deltas, "reference": reference}

        boxes = self.warm_up(boxes, rois)
        expanded = found = None
        if self.mask_head is not None:
            expanded = resample(visible, rois.boxes, boxes, GRID)
            found = self.retrieve_masks(expanded, boxes, visible, seen, rois)
        cues = self.cues(found, visible, seen, rois, boxes)
        amodal_logits = self.expand_masks(features, rois, boxes, expanded, found, cues)
        return BranchOutput(boxes, amodal_logits, visible_logits, aux=aux)

    def loss(self, output: BranchOutput, rois: RoIs, features: dict[str, Tensor]) -> dict[str, LossTerm]:
        terms = {"loss_mask_amodal": amodal_mask_term(output.amodal_logits, rois, output.boxes, self.soft_targets)}
        if output.visible_logits is not None:
            terms["loss_mask_visible"] = visible_mask_term(output.visible_logits, rois, rois.boxes, self.soft_targets)
        if self.box_head is not None and output.aux:
            terms["loss_box_amodal"] = self._box_term(output.aux["deltas"], output.aux["reference"], rois)
        return terms

    # The steps, in the order of Fig. 2.

    def see(self, features: dict[str, Tensor], rois: RoIs) -> Tensor:
        """Visible masks M^v (Eq. 1): logits float [R, 28, 28] in the frames B^o, of each region's class."""
        logits: Tensor = self.visible_head(self.pooler(features, rois.boxes, rois.batch), rois.labels)
        return logits

    def stand(self, features: dict[str, Tensor], rois: RoIs, visible_logits: Tensor) -> tuple[RoIs, Tensor]:
        """Where the expansion starts: regions whose ``boxes`` are B^o, and M^v there, float32 [R, 28, 28], detached.

        In training B^o is the proposal. With ``train_boxes: decoded`` it is the box head's box, as in test, where
        another look gives the visible mask; what is trained is still the mask in the proposal.
        """
        if self.method.train_boxes == "decoded" and rois.targets is not None:
            # Test drops boxes without area; here the region stays where it was.
            sound = (rois.decoded[:, 2:] - rois.decoded[:, :2] >= SMALLEST).all(dim=1, keepdim=True)
            rois = replace(rois, boxes=torch.where(sound, rois.decoded, rois.boxes))
            with torch.no_grad():
                visible_logits = self.see(features, rois)
        return rois, visible_logits.detach().float().sigmoid()

    def seen_boxes(self, visible: Tensor, rois: RoIs) -> Tensor:
        """B^v float32 [R, 4]: the tight box of M^v; B^o where nothing is seen or where B^o is a visible box."""
        return rois.boxes if self.method.detects == "visible" else tight_boxes(visible, rois.boxes)

    def retrieve_boxes(self, visible: Tensor, seen: Tensor, rois: RoIs) -> Retrieved:
        """The K priors for the box: the query is M^v [R, 28, 28] in B^o (Sec. 3.1, Search)."""
        return self._retrieve(visible, rois.boxes, visible, seen, rois)

    def box_deltas(
        self, features: dict[str, Tensor], rois: RoIs, visible: Tensor, seen: Tensor, found: Retrieved | None
    ) -> tuple[Tensor, Tensor]:
        """What the AB head makes of B^v and the prior-expanded boxes T^r_k(B^v) (Eq. 4).

        Returns:
            Deltas float32 [R, 4] and the boxes [R, 4] that they refer to, xyxy pixels: B^v or B^o. What was regressed
            from a mixed box is expressed from B^v, so that the loss has the paper's units whatever is mixed.
        """
        if self.box_head is None:
            raise ValueError("box_expansion is none: there is no box head")
        others = rois.boxes[:, None] if found is None else self.prior_boxes(found, seen, rois)
        cues = self.cues(found, visible, seen, rois)
        mixed = self.method.reference == "mixed"
        numbers = geometry(seen, rois.boxes, found) if mixed else None
        deltas, weights = self.box_head(features, rois.batch, seen, others, cues, numbers, self._noise(rois))
        if not mixed:
            return deltas, rois.boxes if self.method.reference == "original" else seen
        candidates = [rois.boxes, seen]
        if found is not None and numbers is not None:
            candidates.append(expand_boxes(numbers[:, MEDIAN], seen, _sizes(rois)))
        start = mix_edges(torch.stack(candidates, dim=1), weights)
        return self.box_head.encode(seen, self.box_head.decode(deltas, start)), seen

    def prior_boxes(self, found: Retrieved, seen: Tensor, rois: RoIs) -> Tensor:
        """B^p = T^r_k(B^v) (Eq. 4), float32 [R, K, 4], clipped to the image; B^v itself where a prior is missing."""
        return expand_boxes(found.deltas, seen[:, None], _sizes(rois)[:, None])

    def expand_boxes(self, deltas: Tensor, reference: Tensor, rois: RoIs) -> Tensor:
        """B^a float32 [R, 4] from the AB head's deltas [R, 4] of the reference boxes, without gradient."""
        if self.box_head is None:
            raise ValueError("box_expansion is none: there is no box head")
        return self.box_head.decode(deltas, reference, _sizes(rois))

    def retrieve_masks(self, expanded: Tensor, boxes: Tensor, visible: Tensor, seen: Tensor, rois: RoIs) -> Retrieved:
        """The K priors for the mask: the query is M^{v,e} [R, 28, 28] in B^a (Sec. 3)."""
        return self._retrieve(expanded, boxes, visible, seen, rois, boxes)

    def expand_masks(
        self,
        features: dict[str, Tensor],
        rois: RoIs,
        boxes: Tensor,
        expanded: Tensor | None,
        found: Retrieved | None,
        cues: Tensor | None,
    ) -> Tensor:
        """Amodal masks (Eq. 6): logits float [R, 28, 28] in the frames B^a.

        Args:
            features: pyramid levels.
            rois: the regions.
            boxes: float32 [R, 4], B^a.
            expanded: float32 [R, 28, 28], M^{v,e}, the visible mask in B^a; this and the rest None in the plain head.
            found: K priors.
            cues: float32 [R, K, 3], what :meth:`cues` says of them.
        """
        pooled = self.pooler(features, boxes, rois.batch)
        if self.mask_head is not None:
            if expanded is None or found is None or cues is None:
                raise ValueError("the mask expansion needs a visible mask and priors")
            if isinstance(self.mask_head, FlowExpansion):
                pooled = self.mask_head(pooled, expanded, self.flows(expanded, found), cues)
            else:
                pooled = self.mask_head(pooled, found.amodal, cues)
        logits: Tensor = self.amodal_head(pooled, rois.labels)
        return logits

    def flows(self, expanded: Tensor, found: Retrieved) -> Tensor:
        """T^f_k = S^f(M^{v,e}, amodal mask of slot k) (Eq. 3), float32 [R, K, 2, 14, 14]; 0 for a missing prior."""
        count, k = found.distance.shape
        flows = self._known().solve(expanded.repeat_interleave(k, dim=0), found.amodal.flatten(0, 1))
        there = found.distance.isfinite()[..., None, None, None]
        return torch.where(there, flows.view(count, k, *flows.shape[1:]), 0.0)

    # What the steps rest on.

    def search(self, query: Tensor, frames: Tensor, rois: RoIs) -> Retrieved:
        """The nearest slots of each object's class: K, or with re-ranking ``candidates`` to choose K from.

        The query is a visible mask float32 [R, 28, 28], probabilities in ``frames`` [R, 4]; the prior cuts it at 0.5.
        """
        count = self.k if self.rerank_weight == 0 else max(self.method.candidates, self.k)
        annotations = images = None
        if rois.targets is not None and self.method.exclude == "instance":
            annotations = matched(rois, "annotation_ids")
        if rois.targets is not None and self.method.exclude == "image":
            images = rois.batch.new_tensor([targets.image_id for targets in rois.targets])[rois.batch]
        return self._known().search(
            query, frames, rois.labels, count, exclude_annotations=annotations, exclude_images=images
        )

    @property
    def rerank_weight(self) -> float:
        """Weight of the inconsistency in re-ranking; 0: plain retrieval."""
        if self.method.rerank == "none":
            return 0.0
        weight = self.method.rerank_weight
        return self._known().rerank_weight if weight is None else weight

    def inconsistency(
        self, found: Retrieved, visible: Tensor, seen: Tensor, rois: RoIs, place: Tensor | None = None
    ) -> Tensor:
        """float32 [R, M], how little each prior agrees with what is seen; 0 is best (PGExp+).

        Priors stand where they are used: for the box in T^r_m(B^v), for the mask in ``place`` [R, 4], which is B^a.
        """
        count = found.slots.shape[1]
        boxes = self.prior_boxes(found, seen, rois) if place is None else place[:, None].expand(-1, count, -1)
        context = context_boxes(boxes, seen)
        others = self.others(visible, rois, context)
        return inconsistency(visible, rois.boxes, found.amodal, boxes, others, context)

    def others(self, visible: Tensor, rois: RoIs, context: Tensor) -> Tensor:
        """What is seen of other objects, float32 [R, 56, 56], 0 or 1, in the frames ``context`` [R, 4] (PGExp+).

        Annotated visible masks in training, predicted ones (``visible``, [R, 28, 28] in B^o) in test.
        """
        if rois.targets is not None:
            return truth_evidence(rois, context)
        return predicted_evidence(rois, visible, context)

    def cues(
        self, found: Retrieved | None, visible: Tensor, seen: Tensor, rois: RoIs, place: Tensor | None = None
    ) -> Tensor:
        """float32 [R, K, 3], what attention sees of each prior: distance by the K priors' mean, inconsistency, 1.

        Zeros for a missing prior, and throughout where nothing reads them.
        """
        if found is None or self.method.aggregate == "concat":
            return visible.new_zeros(len(rois), self.k, CUES)
        there = found.distance.isfinite()
        distance = torch.where(there, found.distance, 0.0)
        mean = distance.sum(dim=1, keepdim=True) / there.sum(dim=1, keepdim=True).clamp(min=1)
        doubt = found.inconsistency
        if doubt is None:
            doubt = self.inconsistency(found, visible, seen, rois, place)
        doubt = torch.where(there & doubt.isfinite(), doubt, 0.0)
        return torch.stack([distance / mean.clamp(min=1e-6), doubt, there.to(distance)], dim=-1)

    def warm_up(self, boxes: Tensor, rois: RoIs) -> Tensor:
        """B^a of the first ``warmup_steps`` in training: true amodal boxes, moved and resized a little at random."""
        if rois.targets is None or self._draws.step >= self.method.warmup_steps:
            return boxes
        noise = self._drawn(rois, Purpose.JITTER, lambda stream, count: stream.uniform(-1, 1, (count, 4)))
        jitter = self.method.warmup_jitter * noise
        true = matched(rois, "boxes")
        return expand_boxes(torch.cat([jitter[:, :2], jitter[:, 2:].log1p()], dim=1), true, _sizes(rois))

    def _noise(self, rois: RoIs) -> Tensor | None:
        """float32 [R, F], uniform in 0..1, by which the box head drops features; None in test and without dropout.

        The numbers of an image are equal each time unless :meth:`set_step` says that another step began.
        """
        if rois.targets is None or self.box_head is None or self.method.dropout == 0:
            return None
        width = self.box_head.dropped
        return self._drawn(rois, Purpose.DROPOUT, lambda stream, count: stream.random((count, width), "float32"))

    def _drawn(self, rois: RoIs, purpose: Purpose, draw: Callable[[np.random.Generator, int], NDArray[Any]]) -> Tensor:
        """float32 [R, F], ``draw`` (stream, number of regions) of each training image, in the order of the regions."""
        parts = [
            torch.from_numpy(draw(self._draws.stream(targets.image_id, purpose), len(rows)))
            for rows, targets in zip(rois.per_image(), rois.targets or [], strict=True)
        ]
        order = torch.cat(rois.per_image())
        drawn = torch.cat(parts).to(rois.boxes)
        return torch.empty_like(drawn).index_copy(0, order, drawn)

    def _retrieve(
        self, query: Tensor, frames: Tensor, visible: Tensor, seen: Tensor, rois: RoIs, place: Tensor | None = None
    ) -> Retrieved:
        """The K priors for a query in some frames, of which V and B^v are looked at in re-ranking."""
        found = self.search(query, frames, rois)
        weight = self.rerank_weight
        if weight == 0:
            return found
        return rerank(found, self.inconsistency(found, visible, seen, rois, place), weight, self.k)

    def _known(self) -> Prior:
        if self.prior is None:
            raise ConfigError("pgexp as configured needs an expansion prior")
        return self.prior

    def _box_term(self, deltas: Tensor, reference: Tensor, rois: RoIs) -> LossTerm:
        """Eq. 5: L1 over the four deltas, averaged over the objects whose amodal box is known."""
        if self.box_head is None:
            raise ValueError("box_expansion is none: there is no box head")
        known = matched(rois, "amodal_known")
        goal = self.box_head.encode(reference, matched(rois, "boxes"))
        total = (deltas[known] - goal[known]).abs().sum()
        return LossTerm(total, known.sum().to(total.dtype))


def _sizes(rois: RoIs) -> Tensor:
    """float32 [R, 2], height and width of each region's image in pixels, without padding."""
    return rois.boxes.new_tensor(rois.image_sizes)[rois.batch]


def _check(method: PGExpConfig, pool_size: int, prior: Prior | None) -> None:
    """Refuse what does not go together, with a :class:`ConfigError`."""
    if not method.uses_prior:
        return
    if prior is None:
        raise ConfigError("pgexp as configured needs an expansion prior: give prior=FOLDER (amodal prior fit)")
    if 2 * pool_size != GRID:
        raise ConfigError(f"model.mask_head.pool_size is {pool_size}, must be {GRID // 2} for a system with a prior")
