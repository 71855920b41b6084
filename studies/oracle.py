"""Which stage of PGExp loses it: one at a time answers with the truth, and what follows goes on from there.

Detections that found an object (same class, IoU of B^o at least 0.5, best score first) get its truth; the others, the
scores and the weights stay. ``random priors`` goes the other way: how much do the heads rely on what is retrieved?

    python -m studies.oracle experiments/pgexp.yaml --data.root DATA --out runs/pgexp
    python -m studies.oracle --checkpoint nano-scenes-v1 --data.test ANN.json --data.test_images DIR --results OUT
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from amodal.methods.pgexp.box_head import AmodalBoxHead, KeptBox
from amodal.methods.pgexp.branch import PGExp
from amodal.methods.pgexp.recall import Recall, solve
from amodal.methods.pgexp.values import Box, Evidence, Recalled, Seen
from amodal.priors.boxes import box_deltas, expand_boxes
from amodal.priors.evidence import truth_evidence
from amodal.priors.prior import Prior
from amodal.priors.types import GRID
from amodal.structures import RoIs
from studies import one_pass
from studies.one_pass import Sample
from studies.study import Study, run, study_parser

SURE = 12.0  # logit of a true mask
GIVEN: dict[str, set[str]] = {
    "nothing": set(),
    "true B^o": {"boxes"},
    "true visible masks": {"visible"},
    "true priors": {"priors"},
    "true priors for the box": {"box priors"},
    "true priors for the mask": {"mask priors"},
    "true B^a": {"amodal boxes"},
    "true evidence": {"evidence"},
    "all": {"boxes", "visible", "priors", "amodal boxes"},
    "random priors": {"random"},
}


@dataclass
class Oracle:
    """What is known at the moment; shared by the parts that know it.

    Attributes:
        given: out of "boxes", "visible", "priors", "box priors", "mask priors", "amodal boxes", "evidence", "random".
        sample: the image at hand.
        rois: the detections that are asked about, boxes replaced where they are given.
    """

    given: set[str] = field(default_factory=set)
    sample: Sample = None  # type: ignore[assignment]  # before the first image
    rois: RoIs = None  # type: ignore[assignment]

    def objects(self) -> tuple[Tensor, Tensor]:
        """int64, detections that found an object, and rows of these in the truth."""
        rows = self.sample.found
        return rows, self.sample.match[rows]


class TrueMasks(nn.Module):
    """A visible mask head that may know the truth."""

    def __init__(self, head: nn.Module, oracle: Oracle) -> None:
        super().__init__()
        self.head, self.oracle = head, oracle

    def forward(self, pooled: Tensor, labels: Tensor) -> Tensor:
        logits: Tensor = self.head(pooled, labels).clone()
        if "visible" in self.oracle.given:
            rows, objects = self.oracle.objects()
            frames = self.oracle.rois.boxes[rows]
            truth = one_pass.crop(self.oracle.sample.truth, "visible", objects, frames, GRID)
            logits[rows] = (SURE * (2 * truth - 1)).to(logits)
        return logits


class TruePriors(nn.Module):
    """A recall that may know the truth: K times the object's own, or K slots of its class at random."""

    def __init__(self, recall: Recall, oracle: Oracle) -> None:
        super().__init__()
        self.recall, self.oracle = recall, oracle

    def forward(self, prior: Prior | None, seen: Seen, box: Box | None = None) -> Recalled | None:
        recalled = cast("Recalled | None", self.recall(prior, seen, box))
        if recalled is None or prior is None:
            return None
        changed = self._changed(recalled, prior, seen, "box priors" if box is None else "mask priors")
        if changed is recalled:
            return recalled
        boxes = expand_boxes(changed.deltas, seen.box[:, None], seen.sizes[:, None])
        # What re-ranking thought of those that were replaced is no longer true.
        changed = replace(changed, boxes=boxes, inconsistency=None)
        if self.recall.looks:
            changed.inconsistency = self.recall.judge(changed, seen, box)
        return replace(changed, flows=None if recalled.flows is None else solve(prior, changed))

    def _changed(self, recalled: Recalled, prior: Prior, seen: Seen, which: str) -> Recalled:
        truth, given = self.oracle.sample.truth, self.oracle.given
        if "random" in given:
            drawn = one_pass.uniform(0, truth.image_id, recalled.slots.numel())
            slots = (torch.from_numpy(drawn).view(recalled.slots.shape) * prior.bank.slots).long()
            deltas, amodal = prior.bank.read(seen.rois.labels, slots)
            return replace(recalled, slots=slots, deltas=deltas, amodal=amodal)
        if not given & {"priors", which}:
            return recalled
        rows, objects = self.oracle.objects()
        deltas, amodal, distance = recalled.deltas.clone(), recalled.amodal.clone(), recalled.distance.clone()
        deltas[rows] = box_deltas(truth.visible_boxes[objects], truth.boxes[objects])[:, None]
        amodal[rows] = one_pass.crop(truth, "amodal", objects, truth.boxes[objects], GRID)[:, None]
        distance[rows] = 0.0
        return replace(recalled, deltas=deltas, amodal=amodal, distance=distance)


class TrueBoxes(nn.Module):
    """A box expansion that may know the truth."""

    def __init__(self, head: KeptBox, oracle: Oracle) -> None:
        super().__init__()
        self.head, self.oracle = head, oracle

    def forward(self, features: Mapping[str, Tensor], seen: Seen, recalled: Recalled | None) -> Box:
        box: Box = self.head(features, seen, recalled)
        if "amodal boxes" not in self.oracle.given:
            return box
        rows, objects = self.oracle.objects()
        boxes = box.boxes.clone()
        boxes[rows] = self.oracle.sample.truth.boxes[objects]
        return replace(box, boxes=boxes)


def applies(branch: PGExp) -> set[str]:
    """What a set has a step for."""
    known = {"boxes", "visible"}
    if branch.recall.box:
        known |= {"priors", "box priors"}
    if branch.recall.mask:
        known |= {"priors", "mask priors"}
    known |= {"amodal boxes"} if isinstance(branch.box_head, AmodalBoxHead) else set()
    prior = cast(Prior | None, branch.prior)
    known |= {"evidence"} if prior is not None and branch.recall.weight(prior) > 0 else set()
    return known | ({"random"} if "priors" in known else set())


def instruct(branch: PGExp, oracle: Oracle) -> None:
    """Puts parts that may know the truth in the place of the branch's own."""
    own: Callable[[RoIs, Tensor], Evidence] = branch.evidence

    def evidence(rois: RoIs, visible: Tensor) -> Evidence:
        if "evidence" not in oracle.given:
            return own(rois, visible)
        # A detection that found nothing has row -1 and leaves no object out.
        known = replace(rois, targets=[oracle.sample.truth], gt_index=oracle.sample.match)
        return partial(truth_evidence, known)

    branch.evidence = evidence
    branch.visible_head = TrueMasks(branch.visible_head, oracle)  # type: ignore[assignment]
    branch.recall = TruePriors(branch.recall, oracle)  # type: ignore[assignment]
    branch.box_head = TrueBoxes(branch.box_head, oracle)  # type: ignore[assignment]


def true_boxes(sample: Sample) -> RoIs:
    """The detections with the true amodal box as B^o where they found an object."""
    boxes = sample.rois.boxes.clone()
    boxes[sample.found] = sample.truth.boxes[sample.match[sample.found]]
    return one_pass.with_boxes(sample.rois, boxes)


def collect(model: Any, data: Any, limit: int | None) -> dict[str, Any]:
    """Metrics of every oracle, and how many detections found an object."""
    there, oracle = applies(model.branch), Oracle()
    instruct(model.branch, oracle)
    names = [name for name, given in GIVEN.items() if given - {"amodal boxes", "priors"} <= there]
    names = [name for name in names if name == "all" or GIVEN[name] <= there]
    found: dict[str, list[dict[str, object]]] = {name: [] for name in names}
    matched = 0
    for sample in one_pass.passes(model, data, limit):
        oracle.sample = sample
        matched += len(sample.found)
        for name in names:
            oracle.given = GIVEN[name]
            oracle.rois = true_boxes(sample) if "boxes" in oracle.given else sample.rois
            with torch.no_grad():
                output = model.branch(sample.features, oracle.rois)
            found[name] += one_pass.results(model, sample, output, oracle.rois)
    return {"matched": matched, "metrics": {name: one_pass.short(data, found[name]) for name in names}}


STUDY = Study(
    "oracle",
    {"given": {name: sorted(given) for name, given in GIVEN.items()}, "sure": SURE},
    collect,
    ("s6", "plus"),
    ("eth80_amodal/val",),
)


if __name__ == "__main__":
    sys.exit(run(lambda _: STUDY, study_parser(__doc__ or ""), sys.argv[1:]))
