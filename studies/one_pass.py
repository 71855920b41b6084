"""One pass over a split with a trained detector: what its branch gets, and the truth of each detection.

The studies of PGExp ask the branch again and again with something put in; backbone, proposals and detections are the
same each time, so they are computed once an image.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou

from amodal.datasets import AmodalDataset
from amodal.datasets import load as load_dataset
from amodal.evaluation.api import evaluate
from amodal.model import AmodalModel, load
from amodal.models.rcnn import Regions
from amodal.structures import BranchOutput, RoIs, Targets

RESULTS = Path(__file__).parent / "results"
THRESHOLD = 0.05  # as amodal test
KEYS = (("mask", "AP"), ("mask", "AP50"), ("mask", "AP75"), ("mask", "AP-occ"), ("mask", "AP-occ-gt"), ("mask", "mIoU"),
        ("mask", "mIoU-occ"), ("box", "AP"), ("box", "AP-occ"), ("box", "AP-occ-gt"), ("visible", "AP"))  # fmt: skip


@dataclass
class Sample:
    """An image with its R detections, in the frame of the network image.

    Attributes:
        regions: the detections, best first, with the image as the network sees it and its features.
        truth: its objects.
        match: int64 [R], row in ``truth`` of the object that a detection found (:func:`match`), -1 for none.
    """

    regions: Regions
    truth: Targets
    match: Tensor

    @property
    def features(self) -> dict[str, Tensor]:
        """Pyramid levels."""
        return self.regions.features

    @property
    def rois(self) -> RoIs:
        """The detections."""
        return self.regions.rois

    @property
    def found(self) -> Tensor:
        """int64, the detections that found an object."""
        return torch.nonzero(self.match >= 0).flatten()


def match(rois: RoIs, truth: Targets, iou: float = 0.5) -> Tensor:
    """int64 [R], for each detection, best score first, the nearest object of its class that is still free, or -1.

    Near is the IoU of B^o with the amodal box, at least ``iou``; objects without a known amodal shape are left out.
    """
    overlap = box_iou(rois.boxes, truth.boxes)
    overlap[rois.labels[:, None] != truth.labels] = 0
    overlap[:, truth.ignore | ~truth.amodal_known] = 0
    rows = torch.full((len(rois),), -1)
    for detection in rois.scores.argsort(descending=True, stable=True).tolist():
        if overlap.shape[1] and float(overlap[detection].max()) >= iou:
            rows[detection] = overlap[detection].argmax()
            overlap[:, rows[detection]] = 0
    return rows


@torch.no_grad()
def passes(model: AmodalModel, data: AmodalDataset, limit: int | None = None) -> Iterator[Sample]:
    """Every image of ``data`` (the first ``limit``) through backbone and box head.

    The box head's own score threshold holds, as in ``amodal test`` (0.05).
    """
    model.eval()
    for index in range(len(data) if limit is None else min(limit, len(data))):
        image = data.image(index).to(model.device)
        (regions,) = model.regions([image])
        (height, width), (old_height, old_width) = regions.batch.sizes[0], regions.batch.originals[0]
        truth = data.targets(index).rescale(width / old_width, height / old_height)
        yield Sample(regions, truth, match(regions.rois, truth))


def results(model: AmodalModel, sample: Sample, output: BranchOutput, rois: RoIs | None = None) -> list[dict[str, Any]]:
    """Detections of one image in the results format; ``rois`` where their boxes were replaced."""
    regions = sample.regions if rois is None else sample.regions._replace(rois=rois)
    (prediction,) = model.predictions(regions, output)
    kept = prediction[prediction.scores >= THRESHOLD]
    return kept.to_coco(sample.truth.image_id)


def short(data: AmodalDataset, found: list[dict[str, Any]]) -> dict[str, Any]:
    """The metrics that the tables show, ``mask.AP`` and so on, percent; null without a result."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # not cut at a threshold, whatever their lowest score is
        metrics = evaluate(data.annotations, found)
    return {f"{part}.{key}": (metrics.get(part) or {}).get(key) for part, key in KEYS}


def crop(truth: Targets, part: str, rows: Tensor, boxes: Tensor, size: int) -> Tensor:
    """float32 [N, size, size], masks ``part`` ("amodal", "visible") of objects ``rows`` in the frames ``boxes``."""
    source = getattr(truth, part)
    masks: Tensor = source.crop(rows, boxes, size)
    return masks


def uniform(seed: int, image_id: int, count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """float64 [count], the same numbers in 0..1 for the same seed and image."""
    return np.random.default_rng([seed, image_id]).uniform(size=count)


def study_parser(description: str, splits: tuple[str, ...] = ("eth80_amodal/val",)) -> argparse.ArgumentParser:
    """Options that the studies share: data, finished runs, splits."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with eth80_amodal and eth80_clutter")
    parser.add_argument("--runs", type=Path, default=Path("runs/pgexp/runs"), help="folder `runs` of a reproduction")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result files")
    parser.add_argument(
        "--of", nargs="+", default=["s6-0", "plus-0"], metavar="RUN", help="runs by row and seed, or by id"
    )
    parser.add_argument("--splits", nargs="+", default=list(splits), help="DATA/SPLIT.json with images in DATA/SPLIT")
    parser.add_argument("--limit", type=int, help="first images only: shows that it runs, measures nothing")
    parser.add_argument("--threads", type=int, default=1)
    return parser


def open_run(arguments: argparse.Namespace, run: str, split: str) -> tuple[AmodalModel, AmodalDataset]:
    """The last weights of a run and a split's data."""
    torch.set_num_threads(arguments.threads)
    model = load(run_folder(arguments.runs, run) / "last", "cpu")
    return model, load_dataset(arguments.data / f"{split}.json", arguments.data / split)


def run_folder(runs: Path, run: str) -> Path:
    """The folder of a run that is named by its id or as ROW-SEED, out of the finished runs in ``runs``."""
    row, _, seed = run.rpartition("-")
    for path in sorted(runs.glob("*.json")):
        record = json.loads(path.read_text())
        if record["row"] == row and str(record["seed"]) == seed:
            return path.with_suffix("")
    return runs / run


def result_file(arguments: argparse.Namespace, name: str) -> Path:
    """The result file of a study: ``{run: {split: ...}}``."""
    folder: Path = arguments.results if arguments.limit is None else arguments.runs / "study"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}.json"


def left(arguments: argparse.Namespace, path: Path) -> list[tuple[str, str]]:
    """(run, split) that the study still has to do; runs without a checkpoint are named and left out."""
    content = json.loads(path.read_text()) if path.exists() else {}
    wanted = [(run, split) for run in arguments.of for split in arguments.splits if split not in content.get(run, {})]
    for run in sorted({run for run, _ in wanted if not (run_folder(arguments.runs, run) / "last").is_dir()}):
        print(f"{run} is not trained yet", flush=True)
        wanted = [pair for pair in wanted if pair[0] != run]
    return wanted


def keep(path: Path, run: str, split: str, value: Any) -> None:
    """Add one run's result on one split to a study's file, whatever others have written there meanwhile."""
    content = json.loads(path.read_text()) if path.exists() else {}
    content.setdefault(run, {})[split] = value
    path.write_text(json.dumps(content, indent=1) + "\n")


def with_boxes(rois: RoIs, boxes: Tensor) -> RoIs:
    """The same detections at other boxes B^o."""
    return replace(rois, boxes=boxes, decoded=boxes)
