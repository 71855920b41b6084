"""What can be compared: run folders of ``train``, folders of ``test``, and the JSON files of an experiment's runs."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from amodal.checkpoint import CONFIG, WEIGHTS
from amodal.config_io import flatten
from amodal.data.reader import load
from amodal.errors import AmodalError, DataError
from amodal.model import SHIPPED
from amodal.plain_yaml import read_yaml
from amodal.reproduce.collect import thin
from amodal.reproduce.identity import nest
from amodal.reproduce.per_image import PerImage
from amodal.reproduce.record import read_metrics, read_record, read_tested
from amodal.score import METRICS, PREDICTIONS, TESTED
from amodal.train.data import annotation_digest
from amodal.train.folder import EVALS, LOG

_NO_SETTINGS = ("version", "class_names", "category_ids", "out")

Points = list[tuple[float, float]]


@dataclass
class Tested:
    """Numbers on one data set.

    Attributes:
        what: where they are from, in words.
        data: digest of the annotations, or their name; "" where it is not known.
        counts: (images, objects); None where they are not known.
        metrics: as in metrics.json.
        predictions: results file; None where there is none.
        annotations, images, schema: what was tested; None where it is not known.
        per_image: what became of every detection, as an experiment's runs keep it; None where there is none.
    """

    what: str
    data: str
    counts: tuple[int, int] | None
    metrics: Mapping[str, Any]
    predictions: Path | None = None
    annotations: Path | None = None
    images: Path | None = None
    schema: str = "auto"
    per_image: PerImage | None = None

    def same_data(self, other: Tested) -> bool:
        """Whether both are of the same annotations; where one does not say, equal counts stand for it."""
        if self.data and other.data:
            return self.data == other.data
        return self.counts is not None and self.counts == other.counts


@dataclass
class Source:
    """One of the things to compare.

    Attributes:
        name: as it was given.
        tested: its numbers, the best for comparing first.
        settings: dotted key -> value; None where they are not known.
        loss: (step, training loss), thinned.
        ap: (step, amodal mask AP on the validation set, percent).
    """

    name: str
    tested: list[Tested] = field(default_factory=list)
    settings: dict[str, Any] | None = None
    loss: Points = field(default_factory=list)
    ap: Points = field(default_factory=list)


def read_source(path: Path) -> Source:
    """What is known of a run.

    Raises:
        DataError: it is neither a run folder, nor a folder of test, nor the JSON file of a run; or a file is damaged.
    """
    name = path.as_posix()
    if path.is_file():
        return _of_record(name, path)
    if (path / LOG).is_file():
        source = Source(name, [_of_test(folder, path) for folder in _tests(path)])
        _add_run(source, path)
        return source
    if (path / METRICS).is_file():
        source = Source(name, [_of_test(path)])
        _add_checkpoint(source, _mark(path).get("checkpoint"))
        return source
    what = "no such file or folder" if not path.exists() else "nothing to compare"
    raise DataError(
        f"{what}; give a run folder of train ({LOG}), a folder of test ({METRICS}), or the JSON file of a run",
        file=path,
    )


def _tests(run: Path) -> list[Path]:
    """Folders of test inside a run folder, "test" first."""
    found = (folder for folder in run.iterdir() if (folder / METRICS).is_file())
    return sorted(found, key=lambda folder: (folder.name != "test", folder.name))


def _of_test(folder: Path, run: Path | None = None) -> Tested:
    metrics, mark = read_metrics(folder / METRICS), _mark(folder)
    predictions = folder / PREDICTIONS
    return Tested(
        what="test" if run is None else f"test ({folder.name}/)",
        data=mark.get("data", ""),
        counts=_counts(metrics),
        metrics=metrics,
        predictions=predictions if predictions.is_file() else None,
        annotations=Path(mark["annotations"]) if "annotations" in mark else None,
        images=Path(mark["images"]) if "images" in mark else None,
        schema=mark.get("schema", "auto"),
    )


def _mark(folder: Path) -> dict[str, str]:
    """What ``amodal test`` noted of itself; empty for a folder of before."""
    return read_tested(folder / TESTED) if (folder / TESTED).is_file() else {}


def _counts(metrics: Mapping[str, Any]) -> tuple[int, int] | None:
    return (metrics["images"], metrics["instances"]) if {"images", "instances"} <= metrics.keys() else None


def _add_run(source: Source, run: Path) -> None:
    """Curves, settings and the validation of a run folder."""
    log, evals = _table(run / LOG), _table(run / EVALS)
    rows = thin([{"step": row["step"], "loss": row["loss"]} for row in log if {"step", "loss"} <= row.keys()])
    source.loss = [(row["step"], row["loss"]) for row in rows]
    source.ap = [(row["step"], row["mask.AP"]) for row in evals if {"step", "mask.AP"} <= row.keys()]
    settings = flatten(read_yaml(run / CONFIG)) if (run / CONFIG).is_file() else None
    source.settings = None if settings is None else _plain(settings)
    if evals and settings is not None:
        best = max(evals, key=lambda row: row.get("mask.AP", -1.0))
        metrics = nest({key: value for key, value in best.items() if key != "step"})
        data = _digest(settings.get("data.val"))
        if metrics.get("mask"):
            what = f"best validation, step {best['step']:.0f}"
            source.tested.append(Tested(what, data, None, metrics))


def _add_checkpoint(source: Source, checkpoint: str | None) -> None:
    """Curves and settings of the run that a tested checkpoint is from; its own settings where that is not there."""
    if checkpoint is None:
        return
    shipped = SHIPPED / checkpoint
    folder = shipped if shipped.is_dir() else Path(checkpoint)
    for run in (folder, folder.parent):
        if (run / LOG).is_file():
            tested, source.tested = source.tested, []
            _add_run(source, run)
            source.tested = tested  # A validation is no test of what was asked for.
            return
    if (folder / WEIGHTS).is_file() and (folder / CONFIG).is_file():
        content = read_yaml(folder / CONFIG)
        model = content.get("model")
        settings = {"model": {"system": content.get("system"), **(model if isinstance(model, dict) else {})}}
        source.settings = _plain(flatten(settings))


def _of_record(name: str, path: Path) -> Source:
    record = read_record(path)
    source = Source(
        name, loss=[(row["step"], row["loss"]) for row in record["curve"] if {"step", "loss"} <= row.keys()]
    )
    for split, result in record["splits"].items():
        metrics, packed = result["metrics"], result["per_image"]
        per_image = None if packed is None else PerImage.unpack(packed)
        source.tested.append(Tested(f"split {split}", result["digest"], _counts(metrics), metrics, per_image=per_image))
    if record["what"] is not None:
        source.settings = _plain(record["what"]["settings"])
    return source


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in _NO_SETTINGS}


def _digest(annotations: Any) -> str:
    """Of the validation file; its name where it is not there or cannot be read any more."""
    if not annotations:
        return ""
    try:
        return annotation_digest(load(annotations))
    except (AmodalError, OSError):
        return str(annotations)


def _table(path: Path) -> list[dict[str, float]]:
    """Rows of a run's CSV file; cells that are no finite number are left out, and so is half a row at the end."""
    if not path.is_file():
        return []
    rows = []
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        for row in csv.DictReader(file):
            numbers = {str(key): _number(value) for key, value in row.items()}
            rows.append({key: value for key, value in numbers.items() if value is not None})
    return [row for row in rows if "step" in row]


def _number(text: Any) -> float | None:
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None
