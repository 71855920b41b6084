"""Asking the bank (Sec. 3.1, Search), and in PGExp+ choosing among its answers by what else is seen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from amodal.frames import resample
from amodal.methods.pgexp.values import Box, Recalled, Seen
from amodal.models.losses import matched
from amodal.priors.boxes import expand_boxes
from amodal.priors.consistency import context_boxes, inconsistency, rerank_order
from amodal.priors.prior import Prior
from amodal.priors.types import GRID


class Recall(nn.Module):
    """The K priors of each object: for the box asked with M^v in B^o, for the mask with M^{v,e} in B^a.

    Args:
        k: K.
        for_box, for_mask: whether the set asks at all; None is answered where it does not.
        flows: whether the mask expansion needs T^f (Eq. 3).
        looks: whether the heads read how consistent a prior is, re-ranking or not.
        candidates: priors retrieved before re-ranking; None: no re-ranking (the paper).
        rerank_weight: of a candidate's inconsistency beside its relative distance; None: the prior's fitted one.
        exclude: priors that an object in training does not retrieve: "none", those made from the object itself
            ("instance"), or from any object of its image ("image").

    Attributes:
        k: may be changed after training where the heads take any K.
    """

    def __init__(
        self,
        k: int,
        *,
        for_box: bool,
        for_mask: bool,
        flows: bool = False,
        looks: bool = False,
        candidates: int | None = None,
        rerank_weight: float | None = None,
        exclude: Literal["none", "instance", "image"] = "none",
    ) -> None:
        super().__init__()
        self.k = k
        self.box, self.mask, self.flows, self.looks = for_box, for_mask, flows, looks
        self.candidates, self.rerank_weight, self.exclude = candidates, rerank_weight, exclude

    def forward(self, prior: Prior | None, seen: Seen, box: Box | None = None) -> Recalled | None:
        """Priors for the box, or with ``box`` for the mask; None where the set asks for none."""
        if prior is None or not (self.box if box is None else self.mask):
            return None
        recalled = self.candidates_of(prior, seen, box)
        weight = self.weight(prior)
        if weight > 0 or self.looks:
            recalled.inconsistency = self.judge(recalled, seen, box)
        if weight > 0 and recalled.inconsistency is not None:
            # Flows are solved after this, for the K that stay: they cost more than the search.
            order = rerank_order(recalled.distance, recalled.inconsistency, weight, self.k)
            recalled = recalled.choose(order)
        if box is not None and self.flows:
            recalled.flows = solve(prior, recalled)
        return recalled

    def weight(self, prior: Prior) -> float:
        """Weight of the inconsistency in re-ranking; 0: plain retrieval."""
        if self.candidates is None:
            return 0.0
        return prior.rerank_weight if self.rerank_weight is None else self.rerank_weight

    def candidates_of(self, prior: Prior, seen: Seen, box: Box | None) -> Recalled:
        """What plain retrieval gives: K priors, or with re-ranking all that it chooses from."""
        query, frames = asked(seen, box)
        count = self.k if self.candidates is None or self.weight(prior) == 0 else max(self.candidates, self.k)
        found = prior.search(query, frames, seen.rois.labels, count, **self._excluded(seen))
        # Padding's deltas are 0: it stays at B^v.
        boxes = expand_boxes(found.deltas, seen.box[:, None], seen.sizes[:, None])
        return Recalled(query, frames, found.slots, found.distance, found.deltas, found.amodal, boxes)

    def judge(self, recalled: Recalled, seen: Seen, box: Box | None) -> Tensor:
        """float32 [R, M], how little each prior agrees with what is seen, where it is used: T^r_m(B^v), or B^a."""
        placed = standing(recalled, box)
        context = context_boxes(placed, seen.box)
        return inconsistency(seen.mask, seen.rois.boxes, recalled.amodal, placed, seen.others(context), context)

    def _excluded(self, seen: Seen) -> Mapping[str, Tensor]:
        rois = seen.rois
        if rois.targets is None or self.exclude == "none":
            return {}
        if self.exclude == "instance":
            return {"exclude_annotations": matched(rois, "annotation_ids")}
        # Slots know their image by id, regions by its place in the batch.
        images = rois.batch.new_tensor([targets.image_id for targets in rois.targets])
        return {"exclude_images": images[rois.batch]}


def asked(seen: Seen, box: Box | None) -> tuple[Tensor, Tensor]:
    """The query float32 [R, 28, 28] and its frames [R, 4]: M^v in B^o, or M^{v,e} in B^a, zero outside B^o."""
    if box is None:
        return seen.mask, seen.rois.boxes
    # M^v is known inside B^o alone; where B^a reaches beyond, nothing was seen.
    return resample(seen.mask, seen.rois.boxes, box.boxes, GRID), box.boxes


def standing(recalled: Recalled, box: Box | None) -> Tensor:
    """float32 [R, M, 4], where the priors are used: for the box in T^r_m(B^v), for the mask all in B^a."""
    return recalled.boxes if box is None else box.boxes[:, None].expand_as(recalled.boxes)


def solve(prior: Prior, recalled: Recalled) -> Tensor:
    """T^f_k = S^f(M^{v,e}, amodal mask of slot k) (Eq. 3), float32 [R, K, 2, 14, 14]; 0 for a missing prior."""
    count, k = recalled.distance.shape
    flows = prior.solve(recalled.query.repeat_interleave(k, dim=0), recalled.amodal.flatten(0, 1))
    there = recalled.distance.isfinite()[..., None, None, None]
    return torch.where(there, flows.view(count, k, *flows.shape[1:]), 0.0)
