"""What all studies share: which trained runs they look at, and where their answers are kept.

A study asks a question of finished runs of an experiment. Each part, one run on one split, is a file of its own,
written whole and named by what decides its numbers: the study's settings, the run's id, the digest of the annotations.
So a part that is there is not repeated, a kill loses one part at most, several processes may share the work, and a
changed setting is another file: no old number answers for it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch

from amodal.data.jsonfile import read_object
from amodal.data.reader import load as read_annotations
from amodal.datasets import AmodalDataset
from amodal.datasets import load as load_dataset
from amodal.errors import AmodalError, ConfigError, DataError, nearest
from amodal.files import write_json
from amodal.methods.pgexp.branch import PGExp
from amodal.model import AmodalModel, load, locate
from amodal.reproduce.experiment import Experiment
from amodal.reproduce.identity import weights_digest
from amodal.reproduce.machine import commit, machine
from amodal.reproduce.plan import find_experiment, read_experiment
from amodal.reproduce.runs import Plan
from amodal.reproduce.sources import Given, Split, find_sources, pair_up, split_name
from amodal.reproduce.steps import Folders
from amodal.train.data import annotation_digest
from studies.one_pass import IOU, KEYS, THRESHOLD

VERSION = 1
RESULTS = Path(__file__).parent / "results"
EXPERIMENT = Path(__file__).parents[1] / "experiments" / "pgexp.yaml"


@dataclass(frozen=True)
class Study:
    """A question.

    Attributes:
        name: of its files and of the blocks in pages.
        settings: whatever decides its numbers beside run and data; plain data.
        collect: (model, data, first images only or None) -> the answer, plain data; may change the model.
        rows, splits: what it looks at if nothing else is asked for.
    """

    name: str
    settings: Mapping[str, Any]
    collect: Callable[[AmodalModel, AmodalDataset, int | None], Any]
    rows: tuple[str, ...]
    splits: tuple[str, ...]


@dataclass(frozen=True)
class Subject:
    """A trained model.

    Attributes:
        id: of the run; ``weights DIGEST`` for a checkpoint that no run of the experiment made.
        title: how tables call it.
        folder: its checkpoint; None where only its answers are asked for.
        trained: the mark of its finished training; None where it needs none.
    """

    id: str
    title: str
    folder: Path | None = None
    trained: Path | None = None


@dataclass(frozen=True)
class Part:
    """One run on one split: what a file of results is about."""

    study: Study
    subject: Subject
    split: Split
    limit: int | None = None

    @property
    def decides(self) -> dict[str, Any]:
        """All that decides the numbers, as it stands in the file."""
        settings = {"threshold": THRESHOLD, "iou": IOU, "metrics": [".".join(key) for key in KEYS]}
        return {
            "study": self.study.name,
            "settings": {**settings, **self.study.settings},
            "limit": self.limit,
            "run": self.subject.id,
            "data": self.split.digest,
        }

    def path(self, folder: Path) -> Path:
        """Its file in a folder of results."""
        text = json.dumps(self.decides, sort_keys=True, separators=(",", ":"))
        return folder / f"{self.study.name}-{blake2b(text.encode(), digest_size=6).hexdigest()}.json"

    def read(self, folder: Path) -> Any:
        """Its answer; None where there is none.

        Raises:
            DataError: the file is damaged, or is about something else than its name says.
        """
        path = self.path(folder)
        if not path.exists():
            return None
        content = read_object(path)
        if content.get("version") != VERSION or "value" not in content:
            raise DataError("no result of a study", file=path)
        for key, wanted in self.decides.items():
            if content.get(key) != wanted:
                raise DataError(f"{key} is {content.get(key)!r}, its name stands for {wanted!r}", file=path)
        return content["value"]

    def write(self, folder: Path, value: Any) -> None:
        """Keeps its answer."""
        told = {"title": self.subject.title, "split": self.split.name, "commit": commit(), "machine": machine()}
        write_json(self.path(folder), {"version": VERSION, **self.decides, **told, "value": value}, indent=1)

    @property
    def label(self) -> str:
        """What messages call it."""
        return f"{self.study.name}: {self.subject.title} on {self.split.name}"


def run(make: Callable[[argparse.Namespace], Study], parser: argparse.ArgumentParser, words: Sequence[str]) -> int:
    """Does the parts that are missing, one after the other.

    Returns:
        0 all parts are there, 1 some runs are not trained (they are named), 2 something given is wrong.
    """
    arguments = parser.parse_args(words)
    try:
        return _run(make(arguments), arguments)
    except AmodalError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _run(study: Study, arguments: argparse.Namespace) -> int:
    torch.set_num_threads(arguments.threads)
    missing = 0
    for part in _asked(study, arguments):
        path = part.path(arguments.results)
        if part.read(arguments.results) is not None:
            print(f"{part.label}: there already, {path}", flush=True)
        elif part.subject.trained is not None and not part.subject.trained.is_file():
            command = f"amodal reproduce {arguments.experiment} --out {arguments.out}"
            print(f"{part.label}: run {part.subject.id} is not trained; {command}", file=sys.stderr)
            missing += 1
        else:
            model, data = _open(part)
            part.write(arguments.results, study.collect(model, data, part.limit))
            print(f"{part.label}: {path}", flush=True)
    return 1 if missing else 0


def _asked(study: Study, arguments: argparse.Namespace) -> Iterator[Part]:
    """The parts that the command line asks for."""
    if arguments.checkpoint is not None:
        folder = locate(arguments.checkpoint)
        subject = Subject(f"weights {weights_digest(folder)}", arguments.checkpoint, folder)
        pairs = pair_up("test", arguments.data_test, arguments.data_test_images)
        if not pairs:
            raise ConfigError("--data.test is missing: a checkpoint has no data of its own")
        for annotations, images in pairs:
            split = Split(
                split_name(annotations), annotation_digest(read_annotations(annotations)), annotations, images
            )
            yield Part(study, subject, split, arguments.limit)
        return
    experiment = read_experiment(find_experiment(arguments.experiment))
    rows = arguments.rows or [row.name for row in experiment.rows if row.name in study.rows]
    splits = arguments.splits or [name for name in experiment.data.test if name in study.splits]
    given, folders = Given(arguments.data_root), Folders(arguments.out)
    for part in parts_of(study, experiment, given, rows, arguments.seeds, splits):
        checkpoint, trained = folders.checkpoint(part.subject.id), folders.trained(part.subject.id)
        subject = replace(part.subject, folder=checkpoint, trained=trained)
        yield replace(part, subject=subject, limit=arguments.limit)


def parts_of(
    study: Study,
    experiment: Experiment,
    given: Given,
    rows: Sequence[str] = (),
    seeds: Sequence[int] = (),
    splits: Sequence[str] = (),
) -> Iterator[Part]:
    """The parts of an experiment, of some rows, seeds and splits, or of all; where checkpoints lie is left open.

    Raises:
        ConfigError: a row or split is unknown, or data are missing.
    """
    sources = find_sources(experiment.data, given)
    known = {split.name: split for split in sources.test}
    for name in splits:
        if name not in known:
            raise ConfigError(f"--splits: {experiment.path} has no split {name!r}{nearest(name, list(known))}")
    plan = Plan(experiment, sources.train.digest)
    for row in experiment.only(list(rows)).rows if rows else experiment.rows:
        for seed in () if row.run is not None else seeds or plan.seeds(row):
            subject = Subject(plan.run(row, seed).id, f"{row.title}, seed {seed}")
            yield from (Part(study, subject, known[name]) for name in splits or known)


def study_parser(description: str) -> argparse.ArgumentParser:
    """Options that the studies share."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("experiment", nargs="?", default=str(EXPERIMENT), help="experiment file, or its name")
    parser.add_argument("--out", type=Path, default=Path("runs/pgexp"), help="what `amodal reproduce --out` was given")
    parser.add_argument("--data.root", dest="data_root", type=Path, help="folder that the experiment's data are in")
    parser.add_argument("--rows", nargs="+", default=[], help="rows of the experiment")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="seeds of the rows")
    parser.add_argument("--splits", nargs="+", default=[], help="test splits of the experiment")
    parser.add_argument("--checkpoint", help="a checkpoint or weights that ship, instead of runs of an experiment")
    parser.add_argument("--data.test", dest="data_test", nargs="+", type=Path, default=[], help="its annotations")
    parser.add_argument("--data.test_images", dest="data_test_images", nargs="+", type=Path, default=[])
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results, a file a part")
    parser.add_argument("--limit", type=int, help="first images only: shows that it runs, and is kept apart")
    parser.add_argument("--threads", type=int, default=1)
    return parser


def _open(part: Part) -> tuple[AmodalModel, AmodalDataset]:
    """The last weights of a run, and a split's data."""
    annotations, images = part.split.paths()
    assert part.subject.folder is not None
    model = load(part.subject.folder, "cpu")
    if not isinstance(model.branch, PGExp):
        raise ConfigError(f"{part.subject.title} is a {model.config.system}; the studies look into pgexp")
    data = load_dataset(annotations, images)
    truth = data.annotations
    if (model.class_names, model.category_ids) != (list(truth.class_names), [int(i) for i in truth.category_ids]):
        ours, theirs = ", ".join(model.class_names), ", ".join(truth.class_names)
        raise DataError(f"its classes ({theirs}) are not those of {part.subject.title} ({ours})", file=annotations)
    return model, data
