"""What decides the numbers of a run, and the short name that follows from it: equal names, equal numbers.

A run is its resolved settings, the annotations it is trained on, and what it starts from. Where files lie, how many
processes read them and how often something is logged is not part of it. A changed setting is another name, so no
number of other settings is ever shown in its place.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from amodal.checkpoint import WEIGHTS, prior_kind
from amodal.config import TrainConfig
from amodal.config_io import flatten, structure, to_dict
from amodal.errors import ConfigError
from amodal.train.state import FREE_KEYS

_FREE = FREE_KEYS | {"data.train", "data.train_images"}


@dataclass(frozen=True)
class What:
    """What decides a run's numbers.

    Attributes:
        settings: nested, complete, without what does not change numbers; ``prior_fit`` only where a prior is used.
        train: digest of the training annotations.
        starts_from: another run, the digest of a checkpoint's weights, or None for a fresh start.
    """

    settings: dict[str, Any]
    train: str
    starts_from: What | str | None = None

    @classmethod
    def of(cls, config: TrainConfig, train: str, starts_from: What | str | None = None) -> What:
        """The run of these settings and data."""
        return cls(_decisive(config), train, starts_from)

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits."""
        start = self.starts_from
        name = f"run {start.id}" if isinstance(start, What) else None if start is None else f"weights {start}"
        return _digest({"settings": self.settings, "train": self.train, "starts_from": name}, 6)

    @property
    def prior(self) -> str | None:
        """The name of the prior that it uses, equal for runs that share one; None where it uses none."""
        fit = self.settings.get("prior_fit")
        return None if fit is None else _digest({"prior_fit": fit, "train": self.train}, 6)

    def describe(self) -> dict[str, Any]:
        """Plain data that :meth:`parse` reads back; settings are flat and dotted."""
        start = self.starts_from
        described = start.describe() if isinstance(start, What) else None if start is None else {"weights": start}
        return {"settings": flatten(self.settings), "train": self.train, "starts_from": described}

    @classmethod
    def parse(cls, described: Mapping[str, Any]) -> What | None:
        """What :meth:`describe` wrote, perhaps by an earlier release: settings that were not known then have their
        defaults. None where it holds settings that are no longer known, so that it can be no run of today."""
        start = described["starts_from"]
        known: What | str | None = None
        if start is not None:
            known = start["weights"] if "weights" in start else cls.parse(start)
            if known is None:
                return None
        try:
            # The parser turns numbers in lists into floats where they are, which here would be in the caller's.
            config = structure(TrainConfig, nest(deepcopy(described["settings"])), "run")
        except ConfigError:
            return None
        return cls.of(config, described["train"], known)


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys as nested mappings, the inverse of :func:`amodal.config_io.flatten`.

    Raises:
        ConfigError: a key is a value and a section at once.
    """
    data: dict[str, Any] = {}
    for key, value in flat.items():
        *sections, leaf = key.split(".")
        inner = data
        for section in sections:
            inner = inner.setdefault(section, {})
            if not isinstance(inner, dict):
                raise ConfigError(f"{key}: {section} is {inner!r} and a section at once")
        inner[leaf] = value
    return data


def weights_digest(folder: Path) -> str:
    """Hexadecimal digits that tell the weights of one checkpoint folder from those of another.

    Raises:
        ConfigError: the folder holds none.
    """
    path = folder / WEIGHTS
    if not path.is_file():
        raise ConfigError(f"init: {folder} is no checkpoint folder, {WEIGHTS} is missing")
    digest = blake2b(digest_size=8)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _decisive(config: TrainConfig) -> dict[str, Any]:
    method = config.model.method
    settings = to_dict(config)
    # A system without settings of its own would vanish in a dotted list; it is named by model.system.
    if method is None or not asdict(method):
        del settings["model"]["method"]
    if prior_kind(method) is None:
        del settings["prior_fit"]
    return nest({key: _plain(value) for key, value in flatten(settings).items() if key not in _FREE})


def _plain(value: Any) -> Any:
    """1.0 as 1: YAML and the command line write the same number in several ways."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _digest(data: Mapping[str, Any], size: int) -> str:
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return blake2b(text.encode(), digest_size=size).hexdigest()
