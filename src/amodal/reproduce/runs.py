"""Runs of an experiment: which settings each row, seed and point of a grid stands for."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amodal.config import TrainConfig
from amodal.config_io import merge, read_layers, structure
from amodal.errors import ConfigError
from amodal.model import SHIPPED, shipped_names
from amodal.reproduce.experiment import Experiment, Row
from amodal.reproduce.identity import What, nest, weights_digest


@dataclass(frozen=True)
class Run:
    """A training, named by what decides its numbers.

    Attributes:
        what: that.
        config: all settings; data, folders and prior are filled in by the runner.
        row: name of the row; "trunk" for what rows start from.
        title: how tables call the row.
        seed: of the run.
        point: label of the grid's or the figure's point, empty for a plain row.
        start: the run that it starts from, None where it starts from ``init`` or afresh.
        init: checkpoint folder that it starts from.
    """

    what: What
    config: TrainConfig
    row: str
    title: str
    seed: int
    point: str = ""
    start: Run | None = None
    init: Path | None = None

    @property
    def id(self) -> str:
        """Of :attr:`what`."""
        return self.what.id

    @property
    def label(self) -> str:
        """What a progress line calls it."""
        return f"{self.row}{f' ({self.point})' if self.point else ''}, seed {self.seed}"


class Plan:
    """Makes runs of an experiment.

    Args:
        experiment: the file.
        train: digest of the training annotations.
        settings: dotted key -> value, over every row and the trunk but not over points, as on the command line.
        base: training configuration instead of the experiment's.

    Raises:
        ConfigError: the base is faulty, or the checkpoint to start from is not there.
    """

    def __init__(
        self, experiment: Experiment, train: str, settings: Mapping[str, Any] | None = None, base: Path | None = None
    ) -> None:
        self.experiment, self.train, self.settings = experiment, train, dict(settings or {})
        base = base or experiment.base
        self._base = {} if base is None else read_layers(base)
        self._init = None if experiment.init is None else _checkpoint(experiment.init)
        self._weights = None if self._init is None else weights_digest(self._init)

    def seeds(self, row: Row) -> tuple[int, ...]:
        """The seeds of a row."""
        return self.experiment.seeds if row.seeds is None else row.seeds

    def run(self, row: Row, seed: int, point: Mapping[str, Any] | None = None, label: str = "") -> Run:
        """The run of a row with a seed.

        Args:
            row: of the experiment, one that is trained.
            seed: of the run.
            point: dotted key -> value, over all others: of a grid or a figure.
            label: what the point is called.

        Raises:
            ConfigError: naming file, row and key, where a setting is unknown or out of range.
        """
        trunk = self.experiment.trunk
        frozen = {} if trunk is None else {"freeze": list(trunk.freeze)}
        config = self._configure(f"rows.{row.name}", seed, frozen, row.settings, point=point)
        start = None
        if trunk is not None:
            start = self._trunk(seed if trunk.seed is None else trunk.seed)
        what = What.of(config, self.train, self._weights if start is None else start.what)
        return Run(what, config, row.name, row.title, seed, label, start, None if start is not None else self._init)

    def _trunk(self, seed: int) -> Run:
        trunk = self.experiment.trunk
        assert trunk is not None
        config = self._configure("budget.shared-trunk.trunk", seed, trunk.settings)
        what = What.of(config, self.train, self._weights)
        return Run(what, config, "trunk", "trunk", seed, init=self._init)

    def _configure(
        self, where: str, seed: int, *layers: Mapping[str, Any], point: Mapping[str, Any] | None = None
    ) -> TrainConfig:
        source = f"{self.experiment.path}: {where}"
        # The point last: a grid whose points all have the command line's value would compare a run with itself.
        layers = (self.experiment.settings, *layers, {**self.settings, "seed": seed}, point or {})
        try:
            nested = [nest(layer) for layer in layers]
        except ConfigError as error:
            raise ConfigError(f"{source}: {error}") from None
        data = self._base
        for layer in nested:
            data = merge(data, layer)  # Another system does not inherit the settings of one.
        # A copy: the parser changes lists where they are, and the base serves every row.
        return structure(TrainConfig, deepcopy(data), source)


def _checkpoint(name: str) -> Path:
    shipped = SHIPPED / name
    folder = Path(name) if Path(name).is_dir() or not shipped.is_dir() else shipped
    if not folder.is_dir():
        raise ConfigError(
            f"init: {name} is no checkpoint folder, and no weights that ship ({', '.join(shipped_names())})"
        )
    return folder
