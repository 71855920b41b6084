"""``amodal reproduce``: experiment file and data in, tables and figures out."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from amodal.errors import DataError, counted
from amodal.files import check_room, write_json, write_text
from amodal.reproduce.experiment import Experiment
from amodal.reproduce.figures import line_figure
from amodal.reproduce.machine import commit
from amodal.reproduce.pages import fill_page
from amodal.reproduce.pictures import picture_sheet
from amodal.reproduce.plan import find_experiment, read_experiment
from amodal.reproduce.runner import Outcome, Runner, check_devices
from amodal.reproduce.runs import Plan
from amodal.reproduce.sources import Given, Sources, find_sources
from amodal.reproduce.steps import scenes_step
from amodal.reproduce.study import Member, Study
from amodal.reproduce.tables import (
    Entry,
    difference_table,
    differences,
    level_table,
    main_table,
    table_csv,
    table_json,
)

DONE, FAILED, TIME_UP = 0, 1, 3
_SEEDS = {"train": 1, "tune": 2, "test": 3}  # of drawn scenes


@dataclass(frozen=True)
class Asked:
    """What the command line asks for.

    Attributes:
        experiment: name or path.
        out: folder of runs and tables.
        given: data sets that win over the experiment's own.
        drawn: (training scenes, side in pixels) to draw instead; tune and test splits have a quarter as many.
        settings: dotted key -> value, over every row.
        seeds, rows: instead of the experiment's; empty: its own.
        base: training configuration instead of the experiment's.
        jobs, devices, limit_s: see :class:`~amodal.reproduce.runner.Runner`.
        runs: further folders of finished runs.
        page: Markdown page whose marked tables are rewritten.
    """

    experiment: str
    out: Path
    given: Given = field(default_factory=Given)
    drawn: tuple[int, int] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    seeds: Sequence[int] = ()
    rows: Sequence[str] = ()
    base: Path | None = None
    jobs: int = 1
    devices: Sequence[str] = ("auto",)
    limit_s: float | None = None
    runs: Sequence[Path] = ()
    page: Path | None = None


def reproduce(asked: Asked) -> int:
    """Does what is missing of an experiment, then writes its tables and figures from what is there.

    Returns:
        0 done, 1 a step failed (its log is named), 3 time is up and the same command goes on.

    Raises:
        ConfigError, DataError: the experiment, a setting or the data are faulty.
        KeyboardInterrupt: SIGINT or SIGTERM came; the same command goes on.
    """
    experiment = read_experiment(find_experiment(asked.experiment))
    _check_tables(asked.out, experiment.name)
    check_room(asked.out)
    if asked.rows:
        experiment = experiment.only(asked.rows)
    if asked.seeds:
        rows = tuple(replace(row, seeds=None) for row in experiment.rows)
        experiment = replace(experiment, seeds=tuple(dict.fromkeys(asked.seeds)), rows=rows)
    runner = Runner(asked.out, asked.jobs, check_devices(asked.devices), asked.limit_s)
    given = asked.given
    if asked.drawn is not None:
        given, outcome = _draw(asked.drawn, asked.out, runner)
        if _code(outcome) != DONE:
            return _say(outcome)
    schema = asked.settings.get("data.schema", experiment.settings.get("data.schema", "auto"))
    sources = find_sources(experiment.data, given, str(schema))
    plan = Plan(experiment, sources.train.digest, asked.settings, asked.base)
    study = Study(experiment, sources, plan, asked.out, [experiment.path.parent / "runs", *asked.runs], runner)
    members, outcome = study.do()
    _write(study, members, asked)
    return _say(outcome)


def _check_tables(out: Path, name: str) -> None:
    """Refuses a folder whose files of these names are no tables of an experiment."""
    try:
        content = json.loads((out / f"{name}.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        content = None
    if isinstance(content, dict) and {"rows", "splits", "commit"} <= content.keys():
        return
    for ending in ("json", "md", "csv", "png"):
        if (path := out / f"{name}.{ending}").exists():
            raise DataError("is there already, and is no table of an experiment; choose another --out", file=path)


def _draw(drawn: tuple[int, int], out: Path, runner: Runner) -> tuple[Given, Outcome]:
    count, size = drawn
    made = {
        name: scenes_step(out, count if name == "train" else max(count // 4, 1), size, seed)
        for name, seed in _SEEDS.items()
    }
    outcome = runner.run([step for step, _ in made.values()])
    return Given(None, made["train"][1], made["tune"][1], (made["test"][1],)), outcome


def _write(study: Study, members: Sequence[Member], asked: Asked) -> None:
    """``out/NAME.md``, ``.json``, ``.csv``, and the figures that the experiment asks for."""
    experiment, sources, out = study.experiment, study.sources, asked.out
    entries = study.entries(members)
    text, content = tables(experiment, sources, entries)
    content["steps"] = next((run.config.steps for member in members for run in member.runs.values()), None)
    write_json(out / f"{experiment.name}.json", content)
    write_text(out / f"{experiment.name}.md", text)
    splits = {split.name: split.digest for split in sources.test}
    write_text(out / f"{experiment.name}.csv", table_csv(entries, splits, experiment.columns))
    print(text)
    if study.repeated:
        print(f"{counted(study.repeated, 'run')} found and not repeated")
    if experiment.vary:
        for path in line_figure(experiment, sources, entries, out):
            print(f"figure: {path}")
    if experiment.pictures is not None:
        name = f"{experiment.name}{'-pictures' if experiment.vary else ''}.png"
        print(f"pictures: {picture_sheet(study, members, out / name)}")
    if asked.page is not None:
        fill_page(asked.page, experiment, splits_of(sources), entries)
        print(f"page: {asked.page}")


def splits_of(sources: Sources) -> dict[str, str]:
    """Name -> digest of all splits that runs may have numbers on."""
    tune = () if sources.tune is None else (sources.tune,)
    return {split.name: split.digest for split in (*sources.test, *tune)}


def tables(experiment: Experiment, sources: Sources, entries: Sequence[Entry]) -> tuple[str, dict[str, Any]]:
    """The Markdown page of an experiment, and what its JSON file holds."""
    parts = [f"# {experiment.title}", "Percent; mean ± deviation over the seeds, in brackets how many."]
    splits = {split.name: split.digest for split in sources.test}
    content = table_json(entries, splits, experiment.columns, {"commit": commit()})
    compare = experiment.compare
    for name, digest in splits.items():
        parts += [f"## {name}", main_table(entries, name, digest, experiment.columns)]
        if compare is not None:
            found = differences(entries, compare.row, digest, experiment.columns, compare.draws)
            content["splits"][name]["compare"] = {"with": compare.row, "rows": found}
            parts.append(difference_table(entries, compare.row, name, experiment.columns, found))
        parts.append(level_table(entries, name, digest))
    return "\n\n".join(parts) + "\n", content


def _code(outcome: Outcome) -> int:
    return FAILED if outcome.failed else TIME_UP if outcome.stopped else DONE


def _say(outcome: Outcome) -> int:
    if outcome.failed:
        step, log = outcome.failed[0]
        more = f" (and {counted(len(outcome.failed) - 1, 'more step')})" if len(outcome.failed) > 1 else ""
        print(f"amodal reproduce: {step.title} failed, see {log}{more}", file=sys.stderr)
    elif outcome.stopped:
        print("amodal reproduce: time is up; the same command goes on", file=sys.stderr)
    return _code(outcome)
