"""How runs differ: in metrics, with the paired bootstrap where it can be had, in settings, and image by image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from amodal.compare.sources import Source, Tested
from amodal.data.reader import load
from amodal.errors import DataError, counted
from amodal.evaluation import prepare
from amodal.evaluation.metrics import Evaluation
from amodal.evaluation.table import COLUMNS, MORE, PARTS
from amodal.reproduce.bootstrap import Difference
from amodal.reproduce.bootstrap import compare as bootstrap
from amodal.reproduce.per_image import METRICS, PerImage

SAME = 0.05
"""Points below which a difference is not called one: it would be gone after rounding."""


@dataclass
class Side:
    """One run, with its numbers on the data that all have in common.

    Attributes:
        source: the run.
        tested: these numbers.
        evaluation: its results beside the truth; None where they are not there.
        per_image: what became of every detection; None where that is not known.
    """

    source: Source
    tested: Tested
    evaluation: Evaluation | None = None
    per_image: PerImage | None = None


@dataclass(frozen=True)
class Line:
    """One metric of all runs.

    Attributes:
        part, key: as in metrics.json.
        values: one a run, percent; None where undefined.
        intervals: one a run, of its difference to the first; None for the first and where it cannot be had.
    """

    part: str
    key: str
    values: list[float | None]
    intervals: list[Difference | None]

    def difference(self, place: int) -> float | None:
        """Run number ``place`` minus the first, points; None where one is undefined."""
        first, value = self.values[0], self.values[place]
        return None if first is None or value is None or place == 0 else value - first


def verdict(difference: float | None) -> str:
    """What a difference is called; every metric is the better the higher it is."""
    if difference is None:
        return ""
    return "same" if abs(difference) < SAME else "better" if difference > 0 else "worse"


def pair_up(sources: Sequence[Source]) -> list[Side]:
    """The runs with their numbers on the first data set, in the order of the first run, that all of them have.

    Raises:
        DataError: there is none.
    """
    for source in sources:
        if not source.tested:
            raise DataError("has no metrics yet; amodal test makes some", file=source.name)
    for tested in sources[0].tested:
        others = [next((t for t in other.tested if tested.same_data(t)), None) for other in sources[1:]]
        if all(other is not None for other in others):
            chosen = [tested, *(other for other in others if other is not None)]
            return [Side(source, one) for source, one in zip(sources, chosen, strict=True)]
    told = "; ".join(f"{source.name}: {', '.join(map(_told, source.tested))}" for source in sources)
    raise DataError(f"unlike data, nothing can be compared ({told}); test all of them on the same annotations")


def _told(tested: Tested) -> str:
    if tested.annotations is not None:
        return f"{tested.what} on {tested.annotations}"
    return tested.what + (f" on {counted(tested.counts[0], 'image')}" if tested.counts else "")


def evaluate(sides: Sequence[Side], annotations: Path | None, missing: list[str]) -> None:
    """Fills in evaluations and per-image records; what cannot be had is added to ``missing``, one line a run.

    Args:
        sides: the runs.
        annotations: the truth, instead of the file that was tested on.
        missing: lines for the user.
    """
    file, schema = annotations, "auto"
    for side in sides:
        if file is None and side.tested.annotations is not None and side.tested.annotations.is_file():
            file, schema = side.tested.annotations, side.tested.schema
    truth = None if file is None else load(file, schema=schema)
    for side in sides:
        name, tested = side.source.name, side.tested
        if not tested.data and annotations is None:
            missing.append(f"{name}: does not say what it was tested on; taken for the same, as the counts are equal")
        if tested.per_image is not None:
            side.per_image = tested.per_image
        elif tested.predictions is None:
            missing.append(
                f"{name}: no predictions ({tested.what}), so no intervals and no pictures; amodal test makes them"
            )
        elif truth is None:
            missing.append(f"{name}: the annotations it was tested on are not there; --annotations names them")
        else:
            side.evaluation = prepare(truth, tested.predictions)
            side.per_image = PerImage.of(side.evaluation)


def lines(sides: Sequence[Side], draws: int) -> list[Line]:
    """Every metric that at least one run has; intervals of those that a bootstrap can be had of, if ``draws``."""
    found = []
    for part, _ in PARTS:
        for key in (*COLUMNS, *MORE):
            values = [_value(side.tested.metrics, part, key) for side in sides]
            if any(value is not None for value in values):
                intervals = [_interval(sides[0], side, f"{part}.{key}", draws) for side in sides]
                found.append(Line(part, key, values, intervals))
    return found


def _value(metrics: Mapping[str, Any], part: str, key: str) -> float | None:
    value = (metrics.get(part) or {}).get(key)
    return None if value is None else float(value)


def _interval(first: Side, other: Side, metric: str, draws: int) -> Difference | None:
    a, b = first.per_image, other.per_image
    if other is first or metric not in METRICS or not draws or a is None or b is None:
        return None
    if (a.images, a.classes) != (b.images, b.classes):
        return None
    return bootstrap([(b, a)], metric, draws)


def differing_settings(sources: Sequence[Source]) -> list[tuple[str, list[Any]]]:
    """(key, value of each run) of the settings that differ; of runs whose settings are not known the value is None."""
    known = [source.settings for source in sources if source.settings is not None]
    keys = sorted({key for settings in known for key in settings})
    differing = [key for key in keys if any(settings.get(key) != known[0].get(key) for settings in known)]
    values = [{} if source.settings is None else source.settings for source in sources]
    return [(key, [settings.get(key) for settings in values]) for key in differing]


def image_scores(evaluation: Evaluation) -> npt.NDArray[np.float64]:
    """float64 [I], mean mask IoU of the objects of each image, 0 for a missed one; NaN where there is none."""
    truth = evaluation.annotations
    total, count = (np.zeros(len(truth.image_ids)) for _ in range(2))
    for match in evaluation.matches:
        total[truth.image_index[match.row]] += match.iou
        count[truth.image_index[match.row]] += 1
    with np.errstate(invalid="ignore"):
        return total / np.where(count > 0, count, np.nan)


def most_different(scores: npt.NDArray[np.float64], limit: int) -> list[int]:
    """Images on which runs differ, the largest difference first.

    Args:
        scores: [runs, I], as :func:`image_scores` gives them.
        limit: how many at most.
    """
    spread = np.nan_to_num(scores.max(0) - scores.min(0))
    order: list[int] = np.argsort(-spread, kind="stable")[:limit].tolist()
    return [index for index in order if spread[index] > 0]
