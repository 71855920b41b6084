"""Clipping baselines of a results file, as a command: :mod:`amodal.reproduce.clipping` says what they are.

    python -m studies.clipping GT.json predictions.json OUT [--deleted 25 --seed 0]

writes ``OUT/clipped.json`` and ``OUT/hull.json``, to be read by ``amodal evaluate``. ``--deleted`` takes that many
percent of the detections, drawn at random, from the evidence (they stay results).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from amodal.data.reader import load
from amodal.data.results import load_results
from amodal.files import write_rows
from amodal.reproduce.clipping import BASELINES, clip


def draw_kept(count: int, deleted: float, seed: int) -> NDArray[np.bool_]:
    """bool [count], False for ``deleted`` percent of the detections, the same ones for the same seed."""
    order = np.random.default_rng(seed).permutation(count)
    kept: NDArray[np.bool_] = order >= round(count * deleted / 100)
    return kept


def main() -> None:
    """Annotation file, results file, folder for the two new results files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("gt", type=Path, help="annotation file")
    parser.add_argument("results", type=Path, help="results file with visible masks")
    parser.add_argument("out", type=Path, help="folder of clipped.json and hull.json")
    parser.add_argument("--deleted", type=float, default=0.0, help="percent of the detections that are no evidence")
    parser.add_argument("--seed", type=int, default=0, help="of their draw")
    arguments = parser.parse_args()
    annotations = load(arguments.gt)
    count = len(load_results(arguments.results, annotations))
    keep = draw_kept(count, arguments.deleted, arguments.seed)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, hull in BASELINES.items():
        rows = clip(annotations, arguments.results, hull=hull, keep=keep)
        write_rows(arguments.out / f"{name}.json", rows)


if __name__ == "__main__":
    main()
