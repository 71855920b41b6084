"""Stress curve: what is left of PGExp+ and of the clipping baselines when the evidence is deleted.

0, 25, 50, 75 and 100 % of the detections (each with a fixed random number, so that the deleted ones of one level are
deleted at the next, too) may not serve as evidence; they stay results. The baselines clip the run's own amodal masks,
or the hulls of its visible ones, by the same evidence (:mod:`amodal.reproduce.clipping`). At 0 % this is the
plain comparison with the baselines.

    python -m studies.stress experiments/pgexp.yaml --data.root DATA --out runs/pgexp
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from amodal.methods.pgexp.values import Evidence
from amodal.priors.evidence import predicted_evidence
from amodal.reproduce.clipping import BASELINES, clip
from amodal.structures import RoIs
from studies import one_pass
from studies.one_pass import Sample
from studies.study import Study, run, study_parser

DELETED = (0, 25, 50, 75, 100)


class Thinned:
    """Evidence of a trained PGExp, thinned.

    Attributes:
        kept: bool [R], detections of the image at hand that may serve as evidence.
    """

    kept: Tensor

    def __call__(self, rois: RoIs, visible: Tensor) -> Evidence:
        """In the place of :func:`amodal.methods.pgexp.branch.evidence`."""
        return partial(predicted_evidence, rois, visible, keep=self.kept)


def draw(sample: Sample, deleted: int, seed: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """bool [R], the detections that stay evidence, best score first."""
    return one_pass.uniform(seed, sample.truth.image_id, len(sample.rois)) >= deleted / 100


def collect(model: Any, data: Any, limit: int | None, seed: int = 0) -> list[dict[str, Any]]:
    """Metrics of the run itself and of both baselines at every level."""
    branch, thinned = model.branch, Thinned()
    branch.evidence = thinned
    # Without re-ranking nothing changes but the baselines.
    reads = branch.prior is not None and branch.recall.weight(branch.prior) > 0
    found: dict[int, list[dict[str, Any]]] = {deleted: [] for deleted in (DELETED if reads else DELETED[:1])}
    kept: dict[int, list[np.ndarray[Any, np.dtype[np.bool_]]]] = {deleted: [] for deleted in DELETED}
    for sample in one_pass.passes(model, data, limit):
        for deleted in DELETED:
            drawn = draw(sample, deleted, seed)
            kept[deleted].append(drawn[sample.rois.scores.numpy() >= one_pass.THRESHOLD])
            if deleted in found:
                thinned.kept = torch.from_numpy(drawn)
                with torch.no_grad():
                    found[deleted] += one_pass.results(model, sample, branch(sample.features, sample.rois))
    own = {deleted: one_pass.short(data, results) for deleted, results in found.items()}
    rows = []
    for deleted in DELETED:
        row = {"deleted": deleted, "own": own.get(deleted, own[0])}
        for name, hull in BASELINES.items():
            keep = np.concatenate(kept[deleted])
            # The baselines start from the results with all evidence: only their own evidence is thinned.
            results = clip(data.annotations, found[0], hull=hull, keep=keep)
            row[name] = one_pass.short(data, results)
        rows.append(row)
    return rows


def study(seed: int = 0) -> Study:
    """The study with a seed of the deletion."""
    settings = {"deleted": list(DELETED), "seed": seed}
    splits = ("eth80_amodal/val", "eth80_clutter/val")
    return Study("stress", settings, partial(collect, seed=seed), ("s1", "s6", "plus"), splits)


def _parser() -> argparse.ArgumentParser:
    parser = study_parser(__doc__ or "")
    parser.add_argument("--seed", type=int, default=0, help="of the deletion")
    return parser


if __name__ == "__main__":
    sys.exit(run(lambda arguments: study(arguments.seed), _parser(), sys.argv[1:]))
