"""Which stage of PGExp loses it: one at a time answers with the truth, and what follows goes on from there.

Detections that found an object (same class, IoU of B^o at least 0.5, best score first) get its truth; the others, the
scores and the weights stay. ``random priors`` goes the other way: how much do the heads rely on what is retrieved?

    python -m studies.oracle --data ../shared/data [--of s6-0 plus-0] [--splits eth80_amodal/val]
"""

from __future__ import annotations

import json
from dataclasses import replace

import torch
from torch import Tensor

from amodal.methods.pgexp import PGExp
from amodal.priors.boxes import box_deltas
from amodal.priors.evidence import truth_evidence
from amodal.priors.types import GRID, Retrieved
from amodal.structures import RoIs
from studies import one_pass
from studies.one_pass import Sample

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


class OraclePGExp(PGExp):
    """A trained PGExp some of whose steps know the truth.

    Attributes:
        given: what is known: "visible", "priors", "box priors", "mask priors", "amodal boxes", "evidence", "random".
        sample: the image at hand.
    """

    given: set[str]
    sample: Sample

    @classmethod
    def of(cls, branch: PGExp) -> OraclePGExp:
        """The same parts; nothing is copied."""
        oracle = cls.__new__(cls)
        oracle.__dict__.update(branch.__dict__)
        oracle.given = set()
        return oracle

    def applies(self) -> set[str]:
        """What this set has a step for."""
        known = {"boxes", "visible"}
        if self.method.box_expansion == "prior":
            known |= {"priors", "box priors"}
        if self.method.mask_expansion != "plain":
            known |= {"priors", "mask priors"}
        known |= {"amodal boxes"} if self.box_head is not None else set()
        known |= {"evidence"} if self.rerank_weight > 0 else set()
        return known | ({"random"} if "priors" in known else set())

    def see(self, features: dict[str, Tensor], rois: RoIs) -> Tensor:
        logits = super().see(features, rois).clone()
        if "visible" in self.given:
            rows, objects = self._found()
            truth = one_pass.crop(self.sample.truth, "visible", objects, rois.boxes[rows], GRID)
            logits[rows] = (SURE * (2 * truth - 1)).to(logits)
        return logits

    def retrieve_boxes(self, visible: Tensor, seen: Tensor, rois: RoIs) -> Retrieved:
        return self._known_priors(super().retrieve_boxes(visible, seen, rois), rois, "box priors")

    def retrieve_masks(self, expanded: Tensor, boxes: Tensor, visible: Tensor, seen: Tensor, rois: RoIs) -> Retrieved:
        return self._known_priors(super().retrieve_masks(expanded, boxes, visible, seen, rois), rois, "mask priors")

    def expand_boxes(self, deltas: Tensor, reference: Tensor, rois: RoIs) -> Tensor:
        boxes = super().expand_boxes(deltas, reference, rois)
        if "amodal boxes" in self.given:
            rows, objects = self._found()
            boxes[rows] = self.sample.truth.boxes[objects]
        return boxes

    def others(self, visible: Tensor, rois: RoIs, context: Tensor) -> Tensor:
        if "evidence" not in self.given:
            return super().others(visible, rois, context)
        # A detection that found nothing has row -1 and leaves no object out.
        return truth_evidence(replace(rois, targets=[self.sample.truth], gt_index=self.sample.match), context)

    def _found(self) -> tuple[Tensor, Tensor]:
        rows = self.sample.found
        return rows, self.sample.match[rows]

    def _known_priors(self, found: Retrieved, rois: RoIs, which: str) -> Retrieved:
        """K times the object's own transformation and amodal mask, or K slots of its class at random."""
        if "random" in self.given:
            bank = self._known().bank
            drawn = one_pass.uniform(0, self.sample.truth.image_id, found.slots.numel())
            slots = (torch.from_numpy(drawn).view(found.slots.shape) * bank.slots).long()
            deltas, amodal = bank.read(rois.labels, slots)
            return replace(found, slots=slots, deltas=deltas, amodal=amodal, inconsistency=None)
        if not self.given & {"priors", which}:
            return found
        rows, objects = self._found()
        truth = self.sample.truth
        deltas, amodal, distance = found.deltas.clone(), found.amodal.clone(), found.distance.clone()
        deltas[rows] = box_deltas(truth.visible_boxes[objects], truth.boxes[objects])[:, None]
        amodal[rows] = one_pass.crop(truth, "amodal", objects, truth.boxes[objects], GRID)[:, None]
        distance[rows] = 0.0
        return replace(found, deltas=deltas, amodal=amodal, distance=distance, inconsistency=None)


def true_boxes(sample: Sample) -> RoIs:
    """The detections with the true amodal box as B^o where they found an object."""
    boxes = sample.rois.boxes.clone()
    boxes[sample.found] = sample.truth.boxes[sample.match[sample.found]]
    return one_pass.with_boxes(sample.rois, boxes)


def main() -> None:
    """Metrics of every oracle, one run and split after the other; what stands in the result file is not repeated."""
    arguments = one_pass.study_parser(__doc__ or "").parse_args()
    path = one_pass.result_file(arguments, "oracle")
    for run, split in one_pass.left(arguments, path):
        model, data = one_pass.open_run(arguments, run, split)
        if not isinstance(model.branch, PGExp):
            raise SystemExit(f"{run} is no pgexp")
        oracle = OraclePGExp.of(model.branch)
        names = [name for name, given in GIVEN.items() if given - {"amodal boxes", "priors"} <= oracle.applies()]
        names = [name for name in names if name == "all" or GIVEN[name] <= oracle.applies()]
        found: dict[str, list[dict[str, object]]] = {name: [] for name in names}
        matched = 0
        for sample in one_pass.passes(model, data, arguments.limit):
            oracle.sample = sample
            matched += len(sample.found)
            for name in names:
                oracle.given = GIVEN[name]
                rois = true_boxes(sample) if "boxes" in oracle.given else sample.rois
                with torch.no_grad():
                    output = oracle(sample.features, rois)
                found[name] += one_pass.results(model, sample, output, rois)
        value = {"matched": matched, "metrics": {name: one_pass.short(data, found[name]) for name in names}}
        one_pass.keep(path, run, split, value)
        print(json.dumps({"run": run, "split": split, **value}), flush=True)


if __name__ == "__main__":
    main()
