"""Tables of finished runs, as Markdown, JSON and CSV."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from amodal.evaluation import KEYS
from amodal.reproduce.bootstrap import compare as bootstrap
from amodal.reproduce.experiment import BASELINES, COSTS
from amodal.reproduce.per_image import METRICS, PerImage

_UNITS = {"parameters": (1e6, "M"), "flops": (1e9, "G")}


@dataclass(frozen=True)
class Entry:
    """One row of a table: the runs of one configuration.

    Attributes:
        name, title: of the row.
        records: seed -> what :func:`amodal.reproduce.collect.collect` wrote; finished ones only.
    """

    name: str
    title: str
    records: Mapping[int, Mapping[str, Any]]

    def results(self, digest: str) -> dict[int, Mapping[str, Any]]:
        """Seed -> numbers on the split with that digest, of the runs that have it."""
        found = {}
        for seed, record in self.records.items():
            for result in record["splits"].values():
                if result["digest"] == digest:
                    found[seed] = result
        return found

    def values(self, column: str, digest: str) -> dict[int, float]:
        """Seed -> value of a column, where it is known: percent, or a plain count for a cost."""
        if column in COSTS:
            costs = {seed: record.get("cost", {}).get(column) for seed, record in self.records.items()}
            return {seed: float(value) for seed, value in costs.items() if value is not None}
        values = {seed: _metric(result, column) for seed, result in self.results(digest).items()}
        return {seed: value for seed, value in values.items() if value is not None}


def _metric(result: Mapping[str, Any], column: str) -> float | None:
    first, _, rest = column.partition(".")
    metrics = result.get(first) if first in BASELINES else result["metrics"]
    part, _, key = (rest if first in BASELINES else column).partition(".")
    value = ((metrics or {}).get(part) or {}).get(key)
    return None if value is None else float(value)


def column_title(column: str) -> str:
    """How a table heads a column."""
    first, _, rest = column.partition(".")
    if first in BASELINES:
        return f"{first}: {rest.replace('.', ' ')}"
    return f"{column}, {_UNITS[column][1]}" if column in _UNITS else column.replace(".", " ")


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [list(head), ["---"] * len(head), *(list(row) for row in rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def cell(values: Sequence[float], unit: float = 1.0) -> str:
    """``mean ± deviation (seeds)`` with one decimal; the deviation from two seeds on; ``-`` without a value."""
    if not values:
        return "-"
    scaled = [value / unit for value in values]
    spread = f" ± {statistics.stdev(scaled):.1f}" if len(scaled) > 1 else ""
    return f"{statistics.mean(scaled):.1f}{spread} ({len(scaled)})"


def main_table(entries: Sequence[Entry], split: str, digest: str, columns: Sequence[str]) -> str:
    """Every row with every column on one split."""
    rows = []
    for entry in entries:
        cells = [
            cell(list(entry.values(name, digest).values()), _UNITS[name][0] if name in _UNITS else 1.0)
            for name in columns
        ]
        rows.append([entry.title, *cells])
    return markdown([split, *map(column_title, columns)], rows)


def level_table(entries: Sequence[Entry], split: str, digest: str) -> str:
    """Mask AP by how much of an object is hidden."""
    head, rows = [f"{split}, mask AP at"], []
    for entry in entries:
        every = [result["levels"] for result in entry.results(digest).values()]
        if every and len(head) == 1:
            head += [f"{100 * v['low']:.0f}-{100 * v['high']:.0f} % hidden ({v['objects']})" for v in every[0]]
        columns = zip(*([level["AP"] for level in levels] for levels in every), strict=True)
        rows.append([entry.title, *(cell([v for v in column if v is not None]) for column in columns)])
    return markdown(head, rows)


def time_table(entries: Sequence[Entry]) -> str:
    """Seconds of the trainings."""
    rows = []
    for entry in entries:
        used = [record["seconds"] for record in entry.records.values() if record["seconds"]]
        rows.append(
            [
                entry.title,
                cell([u["step"] for u in used if "step" in u]),
                cell([u["total"] for u in used if "total" in u], 60.0),
            ]
        )
    return markdown(["training", "seconds a step (median)", "minutes"], rows)


def differences(
    entries: Sequence[Entry], other: str, digest: str, columns: Sequence[str], draws: int
) -> dict[str, dict[str, dict[str, Any]]]:
    """Every row minus the row ``other``, seed by seed: row -> column -> numbers.

    "mean", "least", "most" over the shared seeds, "seeds", and "interval": "low", "high" and "p" of the paired
    bootstrap over images, or "not available" where a run was kept without scores by image, and null for columns that
    no bootstrap is made of.
    """
    base = next(entry for entry in entries if entry.name == other)
    table: dict[str, dict[str, dict[str, Any]]] = {}
    for entry in entries:
        if entry.name == other:
            continue
        table[entry.name] = {}
        for column in columns:
            ours, theirs = entry.values(column, digest), base.values(column, digest)
            gains = {seed: ours[seed] - theirs[seed] for seed in sorted(set(ours) & set(theirs))}
            if column not in COSTS and gains:
                table[entry.name][column] = {
                    "mean": statistics.mean(gains.values()),
                    "least": min(gains.values()),
                    "most": max(gains.values()),
                    "seeds": len(gains),
                    "interval": _interval(entry, base, digest, column, list(gains), draws),
                }
    return table


def _interval(
    entry: Entry, base: Entry, digest: str, column: str, seeds: Sequence[int], draws: int
) -> dict[str, float] | str | None:
    if column not in METRICS:
        return None
    sides = [(entry.results(digest)[seed]["per_image"], base.results(digest)[seed]["per_image"]) for seed in seeds]
    # Runs of earlier releases.
    if any(ours is None or theirs is None for ours, theirs in sides):
        return "not available"
    found = bootstrap([(PerImage.unpack(ours), PerImage.unpack(theirs)) for ours, theirs in sides], column, draws)
    return None if found is None else {"low": found.low, "high": found.high, "p": found.p}


def difference_table(
    entries: Sequence[Entry], other: str, split: str, columns: Sequence[str], found: Mapping[str, Mapping[str, Any]]
) -> str:
    """What :func:`differences` found: mean, then the interval, or smallest and largest over the seeds."""
    titles = {entry.name: entry.title for entry in entries}
    shown = [column for column in columns if column not in COSTS]
    rows, missing = [], False
    for name, cells in found.items():
        row = [f"{titles[name]} - {titles[other]}"]
        for column in shown:
            row.append(_difference(cells[column]) if column in cells else "-")
            missing |= column in cells and cells[column]["interval"] == "not available"
        rows.append(row)
    text = markdown([split, *map(column_title, shown)], rows)
    note = "In brackets [ ] the 95 % interval of a paired bootstrap over images, in ( ) least and most over the seeds."
    if missing:
        note += " Intervals that are not available: these runs were kept without scores by image."
    return f"{text}\n\n{note}"


def _difference(found: Mapping[str, Any]) -> str:
    text, interval = f"**{found['mean']:+.1f}**", found["interval"]
    if isinstance(interval, Mapping):
        return f"{text} [{interval['low']:+.1f}, {interval['high']:+.1f}]"
    return text if found["seeds"] < 2 else f"{text} ({found['least']:+.1f} to {found['most']:+.1f})"


def table_json(
    entries: Sequence[Entry], splits: Mapping[str, str], columns: Sequence[str], facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Means, deviations and numbers of seeds of every metric and cost.

    Args:
        entries: the rows.
        splits: name -> digest; the first one is also at the top: ``"rows"``, ``"data"``.
        columns: of the table; ``clipped`` and ``hull`` are there where one of them asks for it.
        facts: further keys.
    """
    parts = [(f"{part}.{key}", part, key) for part, keys in KEYS.items() for key in keys]
    tables: dict[str, Any] = {}
    for split, digest in splits.items():
        rows: dict[str, Any] = {}
        for entry in entries:
            row: dict[str, Any] = {}
            for column, part, key in parts:
                row.setdefault(part, {})[key] = _spread(entry.values(column, digest))
            for column in columns:
                if column in COSTS or column.partition(".")[0] in BASELINES:
                    row[column] = _spread(entry.values(column, digest))
            rows[entry.name] = {"title": entry.title, **row}
        tables[split] = {"rows": rows}
    first = next(iter(tables))
    return {"rows": tables[first]["rows"], "data": first, **facts, "splits": tables}


def _spread(values: Mapping[int, float]) -> dict[str, Any]:
    known = list(values.values())
    deviation = statistics.stdev(known) if len(known) > 1 else None
    return {"mean": statistics.mean(known) if known else None, "std": deviation, "runs": len(known)}


def table_csv(entries: Sequence[Entry], splits: Mapping[str, str], columns: Sequence[str]) -> str:
    """One line for each split, row and column: mean, deviation (empty for one seed), number of seeds."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["split", "row", "column", "mean", "std", "seeds"])
    for split, digest in splits.items():
        for entry in entries:
            for column in columns:
                found = _spread(entry.values(column, digest))
                writer.writerow([split, entry.name, column, found["mean"], found["std"], found["runs"]])
    return text.getvalue()
