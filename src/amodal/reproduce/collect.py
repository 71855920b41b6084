"""One JSON file a run: what it was, how it went, and its numbers on every split. Nothing else is needed for tables.

``{"version", "id", "row", "title", "seed", "what": {"settings", "train", "starts_from"}, "commits", "machine",
"seconds": {"total", "step"}, "curve": [...], "cost": {"parameters", "flops"}, "splits": {NAME: {"digest", "metrics",
"levels", "per_image", "clipped", "hull"}}}``; ``cost`` and the clipping baselines are there where a column asks for
them, ``per_image`` is :meth:`amodal.reproduce.per_image.PerImage.pack` or null.
"""

from __future__ import annotations

import csv
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from amodal.data.reader import load
from amodal.errors import ConfigError, DataError, counted, one_line
from amodal.evaluation import levels, prepare
from amodal.files import write_json
from amodal.reproduce.clipping import BASELINES, clip
from amodal.reproduce.experiment import COSTS
from amodal.reproduce.identity import What
from amodal.reproduce.machine import commit, machine
from amodal.reproduce.per_image import PerImage
from amodal.reproduce.record import VERSION, read_record
from amodal.reproduce.runner import read_mark
from amodal.reproduce.runs import Run
from amodal.reproduce.sources import Split
from amodal.reproduce.steps import Folders
from amodal.score import PREDICTIONS
from amodal.train.folder import LOG

Record = dict[str, Any]
_ROWS = 60  # of a curve


class Library:
    """The runs that are there, in several folders; found by what they are, whatever their files are called.

    Raises:
        DataError: a file is damaged.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        self.folders = list(dict.fromkeys(folders))
        self._records: dict[str, Record] = {}
        self._images: dict[str, tuple[int, Path]] = {}
        for folder in self.folders:
            for path in sorted(folder.glob("*.json")):
                record = read_record(path)
                self._same_images(path, record)
                self.add(record)

    def add(self, record: Record) -> None:
        """Takes in a run; splits that another file of the same run has stay."""
        what = None if record["what"] is None else What.parse(record["what"])
        key = record["id"] if what is None else what.id
        known = self._records.get(key)
        splits = {} if known is None else known["splits"]
        self._records[key] = record | {"splits": {**splits, **record["splits"]}}

    def _same_images(self, path: Path, record: Record) -> None:
        """Refuses runs that do not agree on how many images a split has: they could not be compared."""
        for name, split in record["splits"].items():
            count = split["metrics"]["images"]
            known, other = self._images.setdefault(split["digest"], (count, path))
            if count != known:
                raise DataError(
                    f"splits.{name} has {counted(count, 'image')}, {other} has {known} of the same digest", file=path
                )

    def get(self, run_id: str) -> Record | None:
        """The record of a run."""
        return self._records.get(run_id)

    def result(self, run_id: str, split: Split) -> dict[str, Any] | None:
        """Its numbers on a split, which is told by the digest of its annotations."""
        splits = (self.get(run_id) or {"splits": {}})["splits"].values()
        return next((result for result in splits if result["digest"] == split.digest), None)

    def complete(self, run_id: str, splits: Iterable[Split]) -> bool:
        """Whether all of these splits are there."""
        return all(self.result(run_id, split) is not None for split in splits)


def collect(run: Run, splits: Sequence[Split], folders: Folders, columns: Sequence[str]) -> Record:
    """Writes ``runs/ID.json`` of a run that was trained and tested on ``splits``; returns what it holds.

    Raises:
        ConfigError: a file that decides its numbers is no longer what it was when the run was named.
    """
    if What.of(run.config, run.what.train, run.what.starts_from) != run.what:
        raise ConfigError(
            f"{run.label}: the file of its system or initial weights changed while it was made; the same command makes"
            " the runs of the file as it is now"
        )
    out = folders.run(run.id)
    path = folders.record(run.id)
    old = read_record(path) if path.is_file() else {"splits": {}, "cost": {}}
    log = _table(out / LOG)
    record = {
        "version": VERSION,
        "id": run.id,
        "row": run.row,
        "title": run.title,
        "seed": run.seed,
        "what": run.what.describe(),
        "commits": [read_mark(folders.trained(run.id)).get("commit", "unknown")],
        "machine": machine(),
        "seconds": seconds(log),
        "curve": thin(log),
        "cost": _cost(old["cost"], folders.checkpoint(run.id), splits, columns),
        "splits": {**old["splits"], **{split.name: result(split, folders.test(run.id, split) / PREDICTIONS, columns)
                                       for split in splits}},
    }  # fmt: skip
    write_json(path, record)
    return record


def foreign(name: str, title: str, seed: int, predictions: Mapping[Split, Path], seconds: dict[str, float]) -> Record:
    """The record of a run that no ``amodal train`` made, to be saved as NAME.json among the runs.

    Args:
        name: as a row of an experiment names it: ``run: NAME``.
        title, seed: of the run.
        predictions: split -> results file.
        seconds: "step" and "total", as far as they are known.
    """
    splits = {split.name: result(split, path, ()) for split, path in predictions.items()}
    return {
        "version": VERSION, "id": name, "row": name, "title": title, "seed": seed, "what": None, "commits": [commit()],
        "machine": machine(), "seconds": seconds, "curve": [], "cost": {}, "splits": splits,
    }  # fmt: skip


def result(split: Split, predictions: Path, columns: Sequence[str]) -> dict[str, Any]:
    """Numbers of a results file on one split, with the baselines that ``columns`` ask for."""
    truth = load(split.paths()[0], schema=split.schema)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Not cut at a threshold, whatever their lowest score is.
        evaluation = prepare(truth, predictions)
        numbers: dict[str, Any] = {
            "digest": split.digest,
            "metrics": evaluation.metrics(),
            "levels": [{"low": v.low, "high": v.high, "objects": v.objects, "AP": v.ap} for v in levels(evaluation)],
            "per_image": PerImage.of(evaluation).pack(),
        }
        for name, hull in BASELINES.items():
            if any(column.startswith(f"{name}.") for column in columns):
                # A system without visible masks has nothing to clip with.
                clipped = clip(truth, predictions, hull=hull) if evaluation.detections.visible is not None else None
                numbers[name] = None if clipped is None else prepare(truth, clipped).metrics()
    return numbers


def _cost(known: dict[str, Any], checkpoint: Path, splits: Sequence[Split], columns: Sequence[str]) -> dict[str, Any]:
    if not set(columns) & set(COSTS) or set(known) >= set(COSTS):
        return known
    from amodal.reproduce.cost import measure

    return measure(checkpoint, splits[0])


def _table(path: Path) -> list[dict[str, float]]:
    """Rows of a run's CSV file, numbers with four significant digits; empty cells are left out, and so are infinite
    ones: in float16 a gradient norm is, for single steps."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        try:
            rows = [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
        except (csv.Error, TypeError, ValueError) as error:  # Cells that are no numbers, or more of them than columns.
            raise DataError(f"is no log of a training ({one_line(error)})", file=path) from None
    if not all({"step", "seconds"} <= set(row) for row in rows):
        raise DataError("is no log of a training, a row has no step or no seconds", file=path)
    return [
        {k: int(v) if k == "step" else float(f"{v:.4g}") for k, v in row.items() if math.isfinite(v)} for row in rows
    ]


def thin(rows: list[dict[str, float]], most: int = _ROWS) -> list[dict[str, float]]:
    """At most ``most`` rows, each the mean of its neighbours, so that no spike is chosen by chance."""
    size = -(-len(rows) // most) if rows else 1
    groups = [rows[i : i + size] for i in range(0, len(rows), size)]
    return [_mean(group) | {"step": group[-1]["step"]} for group in groups]


def _mean(rows: list[dict[str, float]]) -> dict[str, float]:
    """Each column's mean over the rows that have it, four significant digits."""
    known = {key: [row[key] for row in rows if key in row] for row in rows for key in row}
    return {key: float(f"{sum(values) / len(values):.4g}") for key, values in known.items()}


def seconds(log: list[dict[str, float]]) -> dict[str, float]:
    """Training time: ``total`` over all steps, and ``step``, the median of the log's intervals; empty without a log."""
    if not log:
        return {}
    steps = [row["step"] for row in log]
    lengths = [now - before for now, before in zip(steps, [0, *steps], strict=False)]
    values = sorted(row["seconds"] for row in log)
    total = sum(length * row["seconds"] for length, row in zip(lengths, log, strict=True))
    return {"total": round(total, 1), "step": values[len(values) // 2]}
