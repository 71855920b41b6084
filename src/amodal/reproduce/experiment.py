"""An experiment as it is held in memory: rows that are compared, what they share, and what is shown of them.

An experiment is data; :mod:`amodal.reproduce.plan` reads it from its file, :mod:`amodal.reproduce.runs` makes runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from amodal.errors import ConfigError, nearest
from amodal.evaluation import KEYS

BOOTSTRAP = "paired bootstrap over images"
COSTS = ("parameters", "flops")
BASELINES = ("clipped", "hull")
METRICS = tuple(f"{part}.{key}" for part, keys in KEYS.items() for key in keys)
COLUMNS = ("mask.AP", "mask.AP-occ-gt", "box.AP", "box.AP-occ-gt", "visible.AP")
"""Columns of a table that names none."""


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        name: its key in the file.
        title: how tables call it.
        settings: dotted key of the training configuration -> value, what this row changes.
        seeds: its own seeds; None: the experiment's.
        run: name of a file in the runs folder with numbers that no ``amodal train`` made; None: it is trained.
    """

    name: str
    title: str
    settings: dict[str, Any]
    seeds: tuple[int, ...] | None = None
    run: str | None = None


@dataclass(frozen=True)
class Trunk:
    """The run that every row starts from.

    Attributes:
        settings: dotted key -> value, over the experiment's.
        freeze: parts that the rows do not train.
        seed: of the one trunk that all seeds share; None: each seed has its own.
    """

    settings: dict[str, Any]
    freeze: tuple[str, ...]
    seed: int | None = None


@dataclass(frozen=True)
class DataNames:
    """Data sets by name: NAME is NAME.json with its pictures in the folder NAME, below ``--data.root``.

    Attributes:
        train, tune: None where the command line names them.
        test: likewise, empty.
        digests: name -> digest of its annotations, so that finished runs are found without the files.
    """

    train: str | None = None
    tune: str | None = None
    test: tuple[str, ...] = ()
    digests: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Tune:
    """A grid, the same for every row; each row gets the point that is best by metric ``by`` on the tune split."""

    grid: dict[str, list[Any]]
    by: str = "mask.AP"

    def points(self) -> list[dict[str, Any]]:
        """Every combination of the grid's values, dotted key -> value, in the order of the file."""
        points: list[dict[str, Any]] = [{}]
        for key, values in self.grid.items():
            points = [{**point, key: value} for point in points for value in values]
        return points


@dataclass(frozen=True)
class Point:
    """One value on the horizontal axis of a figure: its label, and the settings that it stands for."""

    label: str
    settings: dict[str, Any]


@dataclass(frozen=True)
class Compare:
    """Differences of the other rows to the row ``row``, by ``draws`` draws of the bootstrap."""

    row: str
    draws: int = 1000


@dataclass(frozen=True)
class Pictures:
    """Objects to show side by side: the most hidden ones of these images, or of the first ``count`` images."""

    images: tuple[int, ...] = ()
    count: int = 4


@dataclass(frozen=True)
class Experiment:
    """An experiment file; paths are absolute or relative to the working directory.

    Attributes:
        name: file name without ``.yaml``.
        path: the file.
        title: headline of its tables.
        base: training configuration, YAML; None: the defaults.
        settings: dotted key -> value, over the base, for all rows.
        init: checkpoint folder, or name of weights that ship, that runs (or the trunk) start from.
        trunk: None: every row has the full budget.
        data, seeds, tune, rows, columns, compare: as their classes say.
        vary: dotted key -> the points of one figure panel.
        pictures: None: no pictures.
    """

    name: str
    path: Path
    title: str
    base: Path | None
    settings: dict[str, Any]
    init: str | None
    trunk: Trunk | None
    data: DataNames
    seeds: tuple[int, ...]
    tune: Tune | None
    rows: tuple[Row, ...]
    vary: dict[str, tuple[Point, ...]]
    columns: tuple[str, ...]
    compare: Compare | None
    pictures: Pictures | None

    def only(self, names: Sequence[str]) -> Experiment:
        """The same experiment with these rows alone.

        Raises:
            ConfigError: a row is unknown.
        """
        known = {row.name: row for row in self.rows}
        for name in names:
            if name not in known:
                raise ConfigError(f"--rows: {self.path} has no row {name!r}{nearest(name, list(known))}")
        compare = self.compare if self.compare is not None and self.compare.row in names else None
        return replace(self, rows=tuple(known[name] for name in dict.fromkeys(names)), compare=compare)
