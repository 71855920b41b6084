"""An experiment from file to table: the page that tells what ``amodal reproduce`` does, from top to bottom."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amodal.errors import ConfigError, DataError
from amodal.reproduce.collect import Library, Record, collect
from amodal.reproduce.experiment import BASELINES, COSTS, Experiment, Point, Row, Tune
from amodal.reproduce.runner import LOCKS, Outcome, Runner, Step, wait_for
from amodal.reproduce.runs import Plan, Run
from amodal.reproduce.sources import Sources, Split
from amodal.reproduce.steps import RUNS, Folders, prepare, steps_of
from amodal.reproduce.tables import Entry


@dataclass(frozen=True)
class Member:
    """A row, or a point of a figure, with its runs by seed; a row of numbers that are taken as they are has none."""

    name: str
    title: str
    runs: Mapping[int, Run]
    record: Record | None = None


class Study:
    """The runs of an experiment: which there are, which are missing, and what they gave.

    Args:
        experiment: the file.
        sources: its data.
        plan: makes runs of rows.
        out: where new runs lie.
        runs: further folders of finished runs.
        runner: does what is missing.

    Raises:
        DataError: the file of a run is damaged.
    """

    def __init__(
        self, experiment: Experiment, sources: Sources, plan: Plan, out: Path, runs: Iterable[Path], runner: Runner
    ) -> None:
        self.experiment, self.sources, self.plan, self.runner = experiment, sources, plan, runner
        self.folders = Folders(out)
        self.library = Library([out / RUNS, *runs])
        self.repeated = 0
        """Runs that were found finished."""

    def do(self) -> tuple[list[Member], Outcome]:
        """Chooses the grid's points, then trains and tests every row, as far as it comes.

        A step that fails holds up what needs it and nothing else: a row whose grid is not whole has no point yet, and
        so no runs.

        Raises:
            ConfigError: two rows are one run, or a setting is faulty; found before anything is started.
        """
        self._check_rows()
        points, outcome = self._tuned()
        members = [self._row(row, points.get(row.name)) for row in self.experiment.rows]
        members += [
            self._point(row, key, point, points.get(row.name))
            for key, panel in self.experiment.vary.items()
            for row in self.experiment.rows
            if row.run is None  # Numbers that are taken as they are have no settings to vary.
            for point in panel
        ]
        if not outcome.stopped:
            outcome += self._make([run for member in members for run in member.runs.values()], self.sources.test)
        return members, outcome

    def _check_rows(self) -> None:
        """A row whose name or key is misspelt trains what another row trains, and would be shown as something else."""
        known: dict[tuple[str, ...], Row] = {}
        for row in self.experiment.rows:
            if row.run is None:
                ids = tuple(self.plan.run(row, seed).id for seed in self.plan.seeds(row))
                twin = known.setdefault(ids, row)
                if twin is not row:
                    reason = f"rows.{row.name}: trains the same as rows.{twin.name}; a row must change something"
                    raise ConfigError(f"{self.experiment.path}: {reason}")

    def entries(self, members: Sequence[Member]) -> list[Entry]:
        """The members as rows of tables, with the runs that are finished."""
        entries = []
        for member in members:
            records = {seed: self.library.get(run.id) for seed, run in member.runs.items()}
            known = {seed: record for seed, record in records.items() if record is not None}
            if member.record is not None:
                known = {member.record["seed"]: member.record}
            entries.append(Entry(member.name, member.title, known))
        return entries

    def _row(self, row: Row, point: Mapping[str, Any] | None) -> Member:
        if row.run is not None:
            return Member(row.name, row.title, {}, self._external(row.run))
        return Member(row.name, row.title, self._runs(row, point))

    def _point(self, row: Row, key: str, point: Point, tuned: Mapping[str, Any] | None) -> Member:
        label = f"{key}={point.label}"
        runs = self._runs(row, None if tuned is None else {**tuned, **point.settings}, label)
        return Member(f"{row.name} {label}", f"{row.title}, {key} = {point.label}", runs)

    def _runs(self, row: Row, point: Mapping[str, Any] | None, label: str = "") -> dict[int, Run]:
        seeds = () if point is None else self.plan.seeds(row)
        return {seed: self.plan.run(row, seed, point, label) for seed in seeds}

    def _external(self, name: str) -> Record:
        record = self.library.get(name)
        if record is None:
            places = ", ".join(map(str, self.library.folders))
            raise DataError(f"no run is called {name!r} in {places}", file=self.experiment.path)
        return record

    def _tuned(self) -> tuple[dict[str, dict[str, Any]], Outcome]:
        """Row -> the point of the grid that is best on the tune split, by one seed; none where a point has no value."""
        trained = [row for row in self.experiment.rows if row.run is None]
        tune = self.experiment.tune
        if tune is None:
            return {row.name: {} for row in self.experiment.rows}, Outcome()
        if self.sources.tune is None:
            raise DataError("tunes settings, which needs --data.tune", file=self.experiment.path)
        split = self.sources.tune
        tried = {row.name: self._grid(row, tune) for row in trained}
        outcome = self._make([run for pairs in tried.values() for _, run in pairs], (split,))
        best: dict[str, dict[str, Any]] = {}
        for name, pairs in tried.items():
            scored = [(self._score(run, split, tune.by), point) for point, run in pairs]
            if all(score is not None for score, _ in scored):
                best[name] = max(scored, key=lambda pair: pair[0] or 0.0)[1]
        return best, outcome

    def _grid(self, row: Row, tune: Tune) -> list[tuple[dict[str, Any], Run]]:
        seed = self.plan.seeds(row)[0]
        labels = [(point, ", ".join(f"{key}={value}" for key, value in point.items())) for point in tune.points()]
        return [(point, self.plan.run(row, seed, point, label)) for point, label in labels]

    def _score(self, run: Run, split: Split, by: str) -> float | None:
        """What the grid goes by; None where the run is not finished.

        Raises:
            DataError: it is finished, and the split has nothing to measure that by.
        """
        if not self.library.complete(run.id, (split,)):
            return None
        record = self.library.get(run.id) or {}
        values = Entry(run.row, run.title, {run.seed: record}).values(by, split.digest)
        if run.seed not in values:
            raise DataError(f"tune.by is {by}, which is undefined on {split.name}", file=self.experiment.path)
        return values[run.seed]

    def _make(self, runs: Sequence[Run], splits: Sequence[Split]) -> Outcome:
        """Trains and tests the runs that are missing."""
        unique = {run.id: run for run in runs}
        missing = {key: run for key, run in unique.items() if not self._complete(run, splits)}
        self.repeated += len(unique) - len(missing)
        steps: list[Step] = []
        owner: dict[str, Run] = {}
        for run in missing.values():
            made = steps_of(run, splits, self.folders, self.sources)
            steps += made
            owner |= {step.key: run for step in made[-len(splits) :]}
            if not self.folders.trained(run.id).exists():
                prepare(run, self.folders, self.sources)
            self._collect(run, splits)
        outcome = self.runner.run(steps, lambda step: self._collect(owner.get(step.key), splits))
        for run in missing.values():
            # Another runner may have ended a step between the look at its mark and the start of ours.
            if not self.library.complete(run.id, splits):
                self._collect(run, splits)
        return outcome

    def _complete(self, run: Run, splits: Sequence[Split]) -> bool:
        """Whether its numbers are there; those that new columns ask for can only be added where its folder is."""
        if not self.library.complete(run.id, splits):
            return False
        if not self.folders.trained(run.id).exists():
            return True
        record = self.library.get(run.id) or {}
        asked = [name for name in BASELINES if any(c.startswith(f"{name}.") for c in self.experiment.columns)]
        results = [self.library.result(run.id, split) or {} for split in splits]
        costs = [name for name in COSTS if name in self.experiment.columns]
        return all(name in result for name in asked for result in results) and all(
            name in record.get("cost", {}) for name in costs
        )

    def _collect(self, run: Run | None, splits: Sequence[Split]) -> None:
        if run is not None and all(self.folders.tested(run.id, split).exists() for split in splits):
            with wait_for(self.folders.out / LOCKS / f"{run.id}-record.lock"):
                self.library.add(collect(run, splits, self.folders, self.experiment.columns))
