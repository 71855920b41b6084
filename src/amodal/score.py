"""A checkpoint against annotated images: predict, evaluate, report. Behind ``amodal test`` and ``amodal demo``."""

from __future__ import annotations

import os
import time
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amodal.data.classes import Classes, match
from amodal.data.images import safe_join
from amodal.data.problems import Count
from amodal.data.reader import load as load_annotations
from amodal.data.results import translate
from amodal.data.told import tell
from amodal.errors import DataError, WeightsError, counted
from amodal.evaluation import prepare, table
from amodal.evaluation.remarks import rate_remarks, unjudged
from amodal.files import write_json, write_rows
from amodal.launch import warn
from amodal.locks import hold
from amodal.model import SHIPPED as SHIPPED_FOLDER
from amodal.model import load
from amodal.pictures import explain_image, seen_size
from amodal.predict import jobs
from amodal.predict.team import Team
from amodal.report import write_report
from amodal.report.priors import explain_cases
from amodal.train.data import annotation_digest
from amodal.version import __version__

if TYPE_CHECKING:
    import torch

    from amodal.data.store import AnnotationSet
    from amodal.models.rcnn import AmodalRCNN

THRESHOLD = 0.05
"""Lowest score that counts in AP."""

TESTED = "test.json"
"""File in which a test notes what was tested on what, for comparisons."""

PREDICTIONS, METRICS = "predictions.json", "metrics.json"

WRITTEN = (PREDICTIONS, METRICS, "report.html", TESTED)
"""What a test leaves in its folder."""

SHIPPED = SHIPPED_FOLDER / "nano-scenes-v1"
DEMO_SEED = 20_260_000
"""Seed of the demo's scenes; no training or tuning uses it."""


def run_demo(out: Path, device: str = "auto", images: int = 40) -> dict[str, Any]:
    """Draws scenes into OUT/scenes and tests the weights that ship with the package on them.

    Raises:
        WeightsError: the package was installed without its weights.
        DataError: OUT/scenes is not the demo's, or another process works in OUT.
    """
    from amodal.data.scenes.dataset import drawn_seed, write_dataset

    if not SHIPPED.is_dir():
        raise WeightsError(f"{SHIPPED}: the weights that ship with the package are not there; install it anew")
    folder = out / "scenes"
    with hold(out):
        jobs.check_out(out, WRITTEN)
        if folder.exists() and drawn_seed(folder) != DEMO_SEED:
            raise DataError("is there already, and the demo did not draw it; choose another --out", file=folder)
        scenes = write_dataset(folder, images=images, seed=DEMO_SEED, overwrite=True, progress=True)
        return run_test(str(SHIPPED), scenes, folder / "images", out, device=device, title="amodal demo: drawn scenes")


def run_test(
    checkpoint: str,
    annotations: Path,
    images: Path,
    out: Path,
    *,
    device: str = "auto",
    batch: int = 1,
    schema: str = "auto",
    title: str | None = None,
) -> dict[str, Any]:
    """Predicts, evaluates, writes predictions.json, metrics.json, test.json and report.html into ``out``, prints the
    table.

    Args:
        checkpoint: folder or hub id.
        annotations: annotation file in any known schema.
        images: folder that its file names are relative to.
        out: folder for the results.
        device: name, or "auto".
        batch: images of equal size that go through the network together.
        schema: schema of the annotation file; "auto" recognises it by the keys of its annotations.
        title: headline of the report; None: named after the annotation file.

    Returns:
        The metrics; empty in all processes but the main one.

    Raises:
        DataError: an image is missing or unreadable, or no class of the checkpoint is annotated.
    """
    jobs.check_out(out, WRITTEN)
    truth = load_annotations(annotations, schema=schema)
    items = list_items(truth, images)
    team = Team(device)
    tell(truth)
    for remark in rate_remarks(truth):
        warn(f"warning: {remark}")
    model = load(checkpoint, team.device)
    if team.is_main:
        print(seen_size(model.config.transform))
    category_of = match_classes(model, truth)
    started = time.monotonic()
    outcome = jobs.run(model, items, out, threshold=THRESHOLD, batch=batch, team=team)
    seconds = time.monotonic() - started
    team.close()
    if outcome is None:
        return {}
    _require_all_read(outcome, annotations)
    results = translate(outcome.results, category_of)
    lost = [result["category_id"] for result in outcome.results if category_of[result["category_id"]] is None]
    write_rows(out / PREDICTIONS, results)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Not cut at a threshold, whatever their lowest score is.
        evaluation = prepare(truth, results)
    tell(evaluation.detections, [*_not_annotated(model, lost), *unjudged(evaluation)])
    metrics = evaluation.metrics(per_class=True)
    kept = {key: value for key, value in metrics.items() if key != "per_class"}
    write_json(out / METRICS, kept, indent=2)
    write_json(out / TESTED, _tested(checkpoint, truth, annotations, images, schema), indent=2)
    explains = model.prior is not None and model.branch.explains
    priors = explain_cases(evaluation, images, partial(explain_image, model)) if explains else []
    report = write_report(
        out,
        evaluation,
        images,
        metrics=metrics,
        title=title or f"{model.config.system} on {annotations.name}",
        facts=_facts(model, checkpoint, annotations, team.device, len(items) / max(seconds, 1e-9)),
        priors=priors,
    )
    jobs.clear(out)
    print(table(kept))
    print(f"\nreport: {report}")
    return kept


def _tested(checkpoint: str, truth: AnnotationSet, annotations: Path, images: Path, schema: str) -> dict[str, str]:
    """What :data:`TESTED` holds: absolute paths, and the digest of the annotations."""
    return {
        "checkpoint": os.path.abspath(checkpoint) if os.path.exists(checkpoint) else checkpoint,
        "annotations": os.path.abspath(annotations),
        "images": os.path.abspath(images),
        "schema": schema,
        "data": annotation_digest(truth),
    }


def list_items(truth: AnnotationSet, images: Path) -> list[jobs.Item]:
    """The images of an annotation set as files to predict.

    Raises:
        DataError: the folder or a file is not there.
    """
    if not images.is_dir():
        raise DataError("no such image folder", file=images)
    items = []
    for number, name, height, width in zip(
        truth.image_ids.tolist(), truth.file_names, truth.heights.tolist(), truth.widths.tolist(), strict=True
    ):
        path = safe_join(images, name, image_id=number)
        if not path.is_file():
            raise DataError(f"{name} is not in {images}", file=truth.path, image_id=number)
        items.append(jobs.Item(number, path, name, size=(height, width)))
    return items


def match_classes(model: AmodalRCNN, truth: AnnotationSet) -> dict[int, int | None]:
    """Category id of the annotations for each one of the checkpoint, None for a class that is not annotated.

    Classes without partner are told on stderr.

    Raises:
        DataError: no class of the checkpoint is annotated, or some cannot be told apart.
    """
    ours = Classes(model.class_names, model.category_ids, "the checkpoint")
    matched = match(ours, Classes(truth.class_names, truth.category_ids, "the annotations"), file=truth.path)
    if not matched:
        own, others = ", ".join(model.class_names[:5]), ", ".join(truth.class_names[:5])
        raise DataError(f"no class of the checkpoint ({own}) is annotated ({others})", file=truth.path)
    for line in matched.told():
        warn(line)
    return matched.category_of


def _not_annotated(model: AmodalRCNN, lost: list[int]) -> list[Count]:
    """Detections, given as category ids of the checkpoint, that :func:`translate` leaves out."""
    names = dict(zip(model.category_ids, model.class_names, strict=True))
    examples = tuple(names[number] for number in sorted(set(lost))[:5])
    return [Count("detection of a class that is not annotated", len(lost), examples)] if lost else []


def _require_all_read(outcome: jobs.Outcome, annotations: Path) -> None:
    if outcome.failed:
        first, more = outcome.failed[0], len(outcome.failed) - 1
        others = f" (and {counted(more, 'more image')})" if more else ""
        raise DataError(f"{first['file_name']}: {first['error']}{others}", file=annotations, image_id=first["id"])


def _facts(model: AmodalRCNN, checkpoint: str, annotations: Path, device: torch.device, speed: float) -> dict[str, str]:
    """What the report tells about the run."""
    import torch

    parameters = sum(value.numel() for value in model.parameters())
    shown = Path(checkpoint).name if Path(checkpoint).exists() else checkpoint
    return {
        "System": model.config.system,
        "Checkpoint": shown,
        "Backbone": model.config.backbone.name,
        "Parameters": f"{parameters / 1e6:.1f} million",
        "Classes": ", ".join(model.class_names),
        "Annotations": annotations.name,
        "Lowest score": f"{THRESHOLD}",
        "Device": device.type if device.type == "cpu" else torch.cuda.get_device_name(device),
        "Speed": f"{speed:.1f} images a second, reading and encoding included",
        "Versions": f"amodal {__version__}, torch {torch.__version__}",
    }
