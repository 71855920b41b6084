"""From a run to the commands that make it: prior, what it starts from, training, one test a split."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from amodal.config import TrainConfig
from amodal.config_io import to_yaml
from amodal.errors import counted
from amodal.files import write_text
from amodal.reproduce.runner import Step
from amodal.reproduce.runs import Run
from amodal.reproduce.sources import Sources, Split
from amodal.settings import PriorConfig

RUNS, PRIORS, DATA = "runs", "priors", "data"


class Folders:
    """Where everything of an experiment lies below its ``out``.

    ``runs/ID`` is a run folder of ``amodal train``, ``runs/ID/tests/...`` what was tested of it, ``runs/ID.json`` its
    numbers, ``priors/ID`` a prior.
    """

    def __init__(self, out: Path) -> None:
        self.out = out

    def run(self, run_id: str) -> Path:
        """The run folder."""
        return self.out / RUNS / run_id

    def record(self, run_id: str) -> Path:
        """The file of its numbers."""
        return self.out / RUNS / f"{run_id}.json"

    def checkpoint(self, run_id: str) -> Path:
        """Its last weights: all rows are compared at their last step."""
        return self.run(run_id) / "last"

    def trained(self, run_id: str) -> Path:
        """The mark of a finished training."""
        return self.run(run_id) / "trained.json"

    def test(self, run_id: str, split: Split) -> Path:
        """Predictions and metrics on a split."""
        return self.run(run_id) / "tests" / f"{split.name.replace('/', '_')}-{split.digest[:8]}"

    def tested(self, run_id: str, split: Split) -> Path:
        """The mark of a finished test."""
        return self.test(run_id, split) / "tested.json"

    def prior(self, prior_id: str) -> Path:
        """A prior's folder."""
        return self.out / PRIORS / prior_id


def steps_of(run: Run, splits: Iterable[Split], folders: Folders, sources: Sources) -> list[Step]:
    """The steps that train a run and test it on ``splits``, those that it shares with others first.

    Raises:
        ConfigError: data that are needed have no files.
    """
    steps = _training(run, folders, sources)
    train = steps[-1].key
    for split in splits:
        annotations, images = split.paths()
        target = folders.test(run.id, split)
        base = ("test", str(folders.checkpoint(run.id)), str(annotations), str(images), "--out", str(target))
        words = (*base, *split.schema_words)
        title = f"test {run.label} on {split.name}"
        mark = folders.tested(run.id, split)
        steps.append(Step(f"{run.id}-{target.name}", title, words, mark, (train,), on_device=True))
    return steps


def prepare(run: Run, folders: Folders, sources: Sources) -> None:
    """Writes the settings that the training step of a run (and of what it starts from) reads."""
    if run.start is not None:
        prepare(run.start, folders, sources)
    annotations, images = sources.train.paths()
    data = replace(run.config.data, train=str(annotations), train_images=str(images), val=None, val_images=None)
    shared = _shared_prior(run)
    prior = None if shared is None else str(folders.prior(shared[0]))
    out = folders.run(run.id)
    config: TrainConfig = replace(run.config, data=data, out=str(out), prior=prior)
    write_text(_settings(out), to_yaml(config))


def scenes_step(out: Path, images: int, size: int, seed: int) -> tuple[Step, tuple[Path, Path]]:
    """Draws scenes; with the annotation file and the picture folder that they will have."""
    folder = out / DATA / f"scenes-{images}-{size}px-seed{seed}"
    words = ("scenes", str(folder), "--images", str(images), "--size", str(size), "--seed", str(seed), "--overwrite")
    step = Step(f"scenes-{folder.name}", f"draw {counted(images, 'scene')}", words, folder / "drawn.json")
    return step, (folder / "annotations.json", folder / "images")


def _training(run: Run, folders: Folders, sources: Sources) -> list[Step]:
    steps: list[Step] = []
    needs: list[str] = []
    out = folders.run(run.id)
    words = ["train", str(_settings(out)), "--resume", "auto"]
    if run.start is not None:
        steps += _training(run.start, folders, sources)
        needs.append(steps[-1].key)
        words += ["--init", str(folders.checkpoint(run.start.id))]
    elif run.init is not None:
        words += ["--init", str(run.init)]
    if (shared := _shared_prior(run)) is not None:
        step = _prior(*shared, folders, sources)
        steps.append(step)
        needs.append(step.key)
    mark = folders.trained(run.id)
    return [*steps, Step(f"{run.id}-train", f"train {run.label}", tuple(words), mark, tuple(needs))]


def _shared_prior(run: Run) -> tuple[str, PriorConfig] | None:
    """Name and settings of a prior that ``amodal prior fit`` makes for all runs that use it.

    None where none is used, and for kinds that this command does not know: their training fits them by itself.
    """
    name, fit = run.what.prior, run.config.prior_fit
    return None if name is None or not isinstance(fit, PriorConfig) else (name, fit)


def _prior(prior_id: str, fit: PriorConfig, folders: Folders, sources: Sources) -> Step:
    train = sources.train.paths()[0]
    # Named, so that the fit keeps no images back for its report: what is fitted must not hang on what is reported.
    judged = train if sources.tune is None or sources.tune.annotations is None else sources.tune.annotations
    out = folders.prior(prior_id)
    words = ["prior", "fit", str(train), str(out), "--val", str(judged), *_flags(fit), *sources.train.schema_words]
    return Step(f"prior-{prior_id}", f"fit a prior ({prior_id})", tuple(words), out.with_suffix(".json"))


def _flags(settings: PriorConfig) -> list[str]:
    words: list[str] = []
    for field in fields(settings):
        value: Any = getattr(settings, field.name)
        flag = "--" + field.name.replace("_", "-")
        if field.type in (bool, "bool"):
            words += [flag] if value else []
        else:
            words += [flag, str(value)]
    return words


def _settings(out: Path) -> Path:
    return out / "settings.yaml"
