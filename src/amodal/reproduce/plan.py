"""Experiment files: strict YAML to an :class:`~amodal.reproduce.experiment.Experiment`, each mistake in one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from amodal.config import TrainConfig
from amodal.config_io import find_config, flatten
from amodal.errors import ConfigError, nearest, refuse_address
from amodal.files import shipped_files
from amodal.plain_yaml import read_yaml
from amodal.reproduce.experiment import (
    BASELINES,
    BOOTSTRAP,
    COLUMNS,
    COSTS,
    METRICS,
    Compare,
    DataNames,
    Experiment,
    Pictures,
    Point,
    Row,
    Trunk,
    Tune,
)
from amodal.systems import SYSTEMS

_KEYS = ("title", "base", "settings", "init", "budget", "data", "seeds", "tune", "rows", "vary", "columns", "compare",
         "pictures")  # fmt: skip
_ROW_KEYS = ("title", "seeds", "run", "system")
_SECTIONS = tuple(field.name for field in fields(TrainConfig))
# Decided by the experiment or by the runner, never by a row.
_TAKEN = {
    "seed": "seeds", "out": "--out", "prior": "prior_fit", "data.train": "data", "data.train_images": "data",
    "data.val": "data", "data.val_images": "data",
}  # fmt: skip


def find_experiment(name: str) -> Path:
    """The file of an experiment: a path that ends in ``.yaml``, or the name of one that comes with the project.

    Raises:
        ConfigError: there is none.
    """
    refuse_address(name)
    if name.endswith((".yaml", ".yml")):
        return Path(name)
    found = shipped_files("experiments")
    if name not in found:
        raise ConfigError(f"no experiment {name!r}{nearest(name, list(found))}")
    return found[name]


def read_experiment(path: str | Path) -> Experiment:
    """Reads and checks an experiment file; settings of the training are checked when runs are made of it.

    Raises:
        ConfigError: one line with the file, the key, and the nearest key where one is unknown.
    """
    path = Path(path)
    return _Reader(path, read_yaml(path)).read()


class _Reader:
    """Takes the keys of one file; its methods say what each key may hold."""

    def __init__(self, path: Path, data: dict[str, Any]) -> None:
        self.path, self.data = path, data

    def fail(self, message: str) -> ConfigError:
        return ConfigError(f"{self.path}: {message}")

    def read(self) -> Experiment:
        data = self.data
        self.check(data, _KEYS, "")
        rows = tuple(self.row(str(name), value) for name, value in self.mapping("rows", data.get("rows")).items())
        if not rows:
            raise self.fail("rows is missing; it names what is compared")
        for row in rows:
            self.check_row(row)
        known = {row.name: row for row in rows}
        return Experiment(
            name=self.path.stem,
            path=self.path,
            title=self.text("title", data.get("title", self.path.stem)),
            base=None if data.get("base") is None else self.base(self.text("base", data["base"])),
            settings=self.settings("settings", data.get("settings")),
            init=None if data.get("init") is None else self.init(self.text("init", data["init"])),
            trunk=self.trunk(data.get("budget", "full"), known),
            data=self.data_names(data.get("data")),
            seeds=self.seeds("seeds", data.get("seeds", [0])),
            tune=self.tune(data.get("tune")),
            rows=rows,
            vary={key: self.points(key, value) for key, value in self.mapping("vary", data.get("vary")).items()},
            columns=self.columns(data.get("columns", list(COLUMNS))),
            compare=self.compare(data.get("compare"), known),
            pictures=self.pictures(data.get("pictures")),
        )

    def check(self, data: Mapping[str, Any], keys: Sequence[str], prefix: str) -> None:
        for key in data:
            if key not in keys:
                raise self.fail(f"unknown key {prefix + str(key)!r}{nearest(str(key), list(keys))}")

    def mapping(self, key: str, value: Any) -> dict[str, Any]:
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self.fail(f"{key} is {value!r}, must be a mapping")
        return value

    def text(self, key: str, value: Any) -> str:
        if not isinstance(value, str) or not value:
            raise self.fail(f"{key} is {value!r}, must be text")
        return value

    def list_of(self, key: str, value: Any) -> list[Any]:
        if not isinstance(value, list) or not value:
            raise self.fail(f"{key} is {value!r}, must be a list of values")
        return value

    def base(self, name: str) -> Path:
        """A file relative to this one, or the name of a configuration that comes with the package."""
        try:
            return find_config(name, self.path.parent)
        except ConfigError as error:
            raise self.fail(f"base: {error}") from None

    def init(self, value: str) -> str:
        beside = self.path.parent / value
        return str(beside) if beside.is_dir() else value

    def seeds(self, key: str, value: Any) -> tuple[int, ...]:
        for seed in self.list_of(key, value):
            if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
                raise self.fail(f"{key} has {seed!r}, must be whole numbers from 0 on")
        if len(set(value)) < len(value):
            raise self.fail(f"{key} is {value!r}, a seed is given twice")
        return tuple(value)

    def settings(self, key: str, value: Any) -> dict[str, Any]:
        """Nested or dotted settings as dotted ones."""
        flat: dict[str, Any] = {}
        for name, inner in self.mapping(key, value).items():
            for leaf, setting in flatten({str(name): inner}).items():
                if leaf in flat:
                    raise self.fail(f"{key}: {leaf!r} is given twice, dotted and nested")
                if leaf in _TAKEN:
                    raise self.fail(f"{key}: {leaf!r} is no setting of a row; it is decided by {_TAKEN[leaf]!r}")
                flat[leaf] = setting
        return flat

    def row(self, name: str, value: Any) -> Row:
        key = f"rows.{name}"
        given = dict(self.mapping(key, value))
        title, seeds, run, system = (given.pop(word, None) for word in _ROW_KEYS)
        for word in given:
            if (section := str(word).split(".")[0]) not in _SECTIONS:
                raise self.fail(f"{key}: unknown key {section!r}{nearest(section, [*_ROW_KEYS, *_SECTIONS])}")
        flat = self.settings(key, given)
        if system is not None:
            flat = {"model.system": self.text(f"{key}.system", system), **flat}
        elif name in SYSTEMS and "model.system" not in flat and run is None:
            flat = {"model.system": name, **flat}
        if run is not None and flat:
            raise self.fail(
                f"{key}: 'run' names numbers that are taken as they are, so {next(iter(flat))!r} has no use"
            )
        return Row(
            name=name,
            title=name if title is None else self.text(f"{key}.title", title),
            settings=flat,
            seeds=None if seeds is None else self.seeds(f"{key}.seeds", seeds),
            run=None if run is None else self.text(f"{key}.run", run),
        )

    def check_row(self, row: Row) -> None:
        """A row that says nothing is one of a system; with the name misspelt it would train the base's instead."""
        if not row.settings and row.run is None and row.title == row.name:
            rule = "is no system, and a row that trains the base as it is needs a title"
            raise self.fail(f"rows.{row.name}: {row.name!r} {rule}{nearest(row.name, list(SYSTEMS))}")

    def trunk(self, value: Any, rows: Mapping[str, Row]) -> Trunk | None:
        if value == "full":
            return None
        if not isinstance(value, dict) or list(value) != ["shared-trunk"]:
            raise self.fail(f"budget is {value!r}, must be 'full' or shared-trunk: {{trunk: ..., freeze: [...]}}")
        shared = self.mapping("budget.shared-trunk", value["shared-trunk"])
        self.check(shared, ("trunk", "freeze", "seed"), "budget.shared-trunk.")
        trunk = shared.get("trunk")
        if isinstance(trunk, str):
            if trunk not in rows:
                raise self.fail(f"budget.shared-trunk.trunk is {trunk!r}, no row{nearest(trunk, list(rows))}")
            settings = rows[trunk].settings
        else:
            settings = self.row("trunk", trunk).settings
        freeze = self.list_of("budget.shared-trunk.freeze", shared.get("freeze"))
        seed = shared.get("seed")
        if seed is not None:
            (seed,) = self.seeds("budget.shared-trunk.seed", [seed])
        return Trunk(settings, tuple(self.text("budget.shared-trunk.freeze", part) for part in freeze), seed)

    def data_names(self, value: Any) -> DataNames:
        given = self.mapping("data", value)
        self.check(given, ("train", "tune", "test", "digests"), "data.")
        train, tune = (
            None if given.get(key) is None else self.text(f"data.{key}", given[key]) for key in ("train", "tune")
        )
        test = given.get("test")
        tests = [] if test is None else self.list_of("data.test", test)
        digests = self.mapping("data.digests", given.get("digests"))
        known = [name for name in (train, tune, *tests) if name is not None]
        self.check(digests, known, "data.digests.")
        return DataNames(
            train,
            tune,
            test=tuple(self.text("data.test", name) for name in tests),
            digests={name: self.text(f"data.digests.{name}", digest) for name, digest in digests.items()},
        )

    def tune(self, value: Any) -> Tune | None:
        if value is None:
            return None
        given = dict(self.mapping("tune", value))
        by = given.pop("by", Tune.by)
        if by not in METRICS:
            raise self.fail(f"tune.by is {by!r}, no metric{nearest(str(by), list(METRICS))}")
        grid = self.settings("tune", given)
        if not grid:
            raise self.fail("tune names no setting to choose")
        return Tune({key: self.list_of(f"tune.{key}", values) for key, values in grid.items()}, by)

    def points(self, key: str, value: Any) -> tuple[Point, ...]:
        """Plain values of ``key``, or mappings: ``as``, the label, and the settings that stand for it."""
        made = []
        for item in self.list_of(f"vary.{key}", value):
            if isinstance(item, dict):
                settings = dict(item)
                label = settings.pop("as", None)
                if label is None:
                    raise self.fail(f"vary.{key}: a point of several settings needs a label, 'as'")
                made.append(Point(str(label), self.settings(f"vary.{key}", settings)))
            else:
                made.append(Point(str(item), self.settings("vary", {key: item})))
        return tuple(made)

    def columns(self, value: Any) -> tuple[str, ...]:
        known = [*METRICS, *COSTS, *(f"{name}.{metric}" for name in BASELINES for metric in METRICS)]
        for column in self.list_of("columns", value):
            if column not in known:
                raise self.fail(f"columns: unknown column {column!r}{nearest(str(column), known)}")
        return tuple(value)

    def compare(self, value: Any, rows: Mapping[str, Row]) -> Compare | None:
        if value is None:
            return None
        given = self.mapping("compare", value)
        self.check(given, ("with", "by", "draws"), "compare.")
        name, by, draws = given.get("with"), given.get("by", BOOTSTRAP), given.get("draws", Compare.draws)
        if name not in rows:
            raise self.fail(f"compare.with is {name!r}, no row{nearest(str(name), list(rows))}")
        if by != BOOTSTRAP:
            raise self.fail(f"compare.by is {by!r}, must be {BOOTSTRAP!r}")
        if not isinstance(draws, int) or isinstance(draws, bool) or draws < 100:
            raise self.fail(f"compare.draws is {draws!r}, must be a whole number from 100 on")
        return Compare(str(name), draws)

    def pictures(self, value: Any) -> Pictures | None:
        if value is None:
            return None
        given = self.mapping("pictures", value)
        self.check(given, ("images", "count"), "pictures.")
        images, count = given.get("images", []), given.get("count", Pictures.count)
        if not isinstance(images, list) or not all(type(number) is int for number in images):
            raise self.fail(f"pictures.images is {images!r}, must be a list of image ids")
        if type(count) is not int or count < 1:
            raise self.fail(f"pictures.count is {count!r}, must be a whole number from 1 on")
        return Pictures(tuple(images), count)
