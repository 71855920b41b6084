"""``amodal reproduce``: an experiment file, done and shown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from amodal.verbs import File, Folder


def reproduce(
    experiment: str,
    *,
    out: Folder = Path("runs/reproduce"),
    data__root: Folder | None = None,
    data__train: File | None = None,
    data__train_images: Folder | None = None,
    data__tune: File | None = None,
    data__tune_images: Folder | None = None,
    data__test: Sequence[File] = (),
    data__test_images: Sequence[Folder] = (),
    drawn: bool = False,
    scenes: int = 400,
    scene_size: int = 192,
    seeds: Sequence[int] = (),
    rows: Sequence[str] = (),
    base: File | None = None,
    jobs: int = 1,
    devices: Sequence[str] = ("auto",),
    limit_s: float | None = None,
    runs: Sequence[Folder] = (),
    page: File | None = None,
    **settings: Any,
) -> int:
    """Do an experiment: train and test what is missing of it, then write its tables and figures.

    Writes OUT/NAME.md, NAME.json, NAME.csv, and NAME.png where it has a figure. Finished runs are found by what they
    are (settings, data, start) in OUT/runs, beside the experiment file in runs/, and in --runs; they are never
    repeated, and a changed setting is another run. After a kill or the time limit the same command goes on. Exit code
    0: done; 1: a step failed, its log is named; 3: time is up.

    Example:
        amodal reproduce table1 --drawn --out runs/table1

    Args:
        experiment: name of an experiment that comes with the project, such as table1, or a YAML file.
        out: folder for runs, priors, logs and tables.
        data__root: folder that the data sets an experiment names are in; NAME is NAME.json with its pictures in NAME.
        data__train: annotation file (JSON) to train on, in any known schema, instead of the experiment's.
        data__train_images: folder of its pictures.
        data__tune: annotation file that settings are chosen on.
        data__tune_images: folder of its pictures.
        data__test: annotation files to test on.
        data__test_images: folders of their pictures, as many.
        drawn: draw scenes and use them as data: --scenes to train on, a quarter as many each to tune and to test on.
        scenes: how many.
        scene_size: side of the drawn pictures, pixels.
        seeds: seeds of the runs, instead of the experiment's.
        rows: these rows alone, by name.
        base: training configuration (YAML) instead of the experiment's.
        jobs: steps that run at a time, one thread each.
        devices: "cpu", "cuda:0", ..., or several with commas between; steps go round them. "auto": the first GPU, or
            else the CPU.
        limit_s: seconds after which nothing is running any more; more than 20.
        runs: further folders of finished runs (ID.json).
        page: Markdown page; the tables between its markers are rewritten.
        settings: any setting of the training configuration, over every row, as --key value.
    """
    from amodal.errors import ConfigError
    from amodal.reproduce.reproduce import Asked
    from amodal.reproduce.reproduce import reproduce as run
    from amodal.reproduce.sources import Given, pair_up

    def one(flag: str, annotations: Path | None, images: Path | None) -> tuple[Path, Path] | None:
        pairs = pair_up(flag, [annotations] if annotations else [], [images] if images else [])
        return pairs[0] if pairs else None

    given = Given(
        root=data__root,
        train=one("train", data__train, data__train_images),
        tune=one("tune", data__tune, data__tune_images),
        test=pair_up("test", data__test, data__test_images),
    )
    if drawn and (given != Given(root=data__root)):
        raise ConfigError("--drawn draws all data; leave out --data.train, --data.tune and --data.test")
    return run(
        Asked(
            experiment=experiment,
            out=out,
            given=given,
            drawn=(scenes, scene_size) if drawn else None,
            settings=settings,
            seeds=seeds,
            rows=rows,
            base=base,
            jobs=jobs,
            devices=devices,
            limit_s=limit_s,
            runs=runs,
            page=page,
        )
    )
