"""What decides the numbers of a run, and the short name that follows from it: equal names, equal numbers.

A run is its resolved settings, the annotations it is trained on, and what it starts from. A setting that names a file
(initial weights, a system of the user's own) stands for what is in it. Where files lie, how many processes read them
and how often something is logged is not part of a run. A changed setting is another name, so no number of other
settings is ever shown in its place.
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
from amodal.config_io import OWN_SETTINGS, flatten, structure, to_dict
from amodal.errors import ConfigError
from amodal.model import normalised
from amodal.models.backbone import TIMM
from amodal.systems import is_own, source_file
from amodal.train.state import FREE_KEYS

_FREE = FREE_KEYS | {"data.train", "data.train_images"}
_SYSTEM, _BACKBONE, _WEIGHTS = "model.system", "model.backbone.name", "model.backbone.weights"


@dataclass(frozen=True)
class What:
    """What decides a run's numbers.

    Attributes:
        settings: nested, complete, without what does not change numbers; ``prior_fit`` only where a prior is used.
            Where one names a file, the digest of its content stands: "file DIGEST", "my_module:MySystem@DIGEST".
        train: digest of the training annotations.
        starts_from: another run, the digest of a checkpoint's weights, or None for a fresh start.
    """

    settings: dict[str, Any]
    train: str
    starts_from: What | str | None = None

    @classmethod
    def of(cls, config: TrainConfig, train: str, starts_from: What | str | None = None) -> What:
        """The run of these settings and data.

        Raises:
            ConfigError: a file that a setting names is not there.
        """
        flat = _decisive(config)
        contents = _contents(flat, fresh=starts_from is None)
        return cls(nest({**flat, **contents}), train, starts_from)

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
        defaults. None where it holds settings that are no longer known, so that it can be no run of today.

        No file that it names is opened and no module imported: it may be anybody's. So the settings of a system that is
        not the package's are taken as they stand.
        """
        start = described["starts_from"]
        known: What | str | None = None
        if start is not None:
            known = start["weights"] if "weights" in start else cls.parse(start)
            if known is None:
                return None
        settings = flatten(described["settings"])  # A section as a whole must not hide what it names.
        kept: dict[str, Any] = {}
        if is_own(str(settings.get(_SYSTEM))):
            kept = {key: value for key, value in settings.items() if key == _SYSTEM or key.startswith(OWN_SETTINGS)}
        try:
            # The parser turns numbers in lists into floats where they are, which here would be in the caller's.
            rest = nest(deepcopy({key: value for key, value in settings.items() if key not in kept}))
            flat = {**_decisive(structure(TrainConfig, rest, "run")), **kept}
            return cls(nest({key: _plain(value) for key, value in flat.items()}), described["train"], known)
        except ConfigError:
            return None

    @classmethod
    def as_written(cls, described: Mapping[str, Any]) -> What:
        """What :meth:`describe` wrote, to the letter: its name is the one that it was given then.

        Raises:
            ConfigError: a key is a value and a section at once.
        """
        start = described["starts_from"]
        if start is not None:
            start = start["weights"] if "weights" in start else cls.as_written(start)
        return cls(nest(described["settings"]), described["train"], start)


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
    return _file_digest(path)


def _decisive(config: TrainConfig) -> dict[str, Any]:
    """Dotted key -> value of the settings that decide numbers."""
    method = config.model.method
    settings = to_dict(config)
    # What the backbone's weights expect stands for a mean that is not given.
    settings["model"]["transform"] = asdict(normalised(config.model))
    # A system without settings of its own would vanish in a dotted list; it is named by model.system.
    if method is None or not asdict(method):
        del settings["model"]["method"]
    if prior_kind(method) is None:
        del settings["prior_fit"]
    return {key: _plain(value) for key, value in flatten(settings).items() if key not in _FREE}


def _contents(flat: Mapping[str, Any], fresh: bool) -> dict[str, Any]:
    """Dotted key -> what stands for the content of the file that a setting names, for those of ``flat`` that do.

    ``fresh``: the run reads its initial weights, as nothing else is there to start from.
    """
    found: dict[str, Any] = {}
    weights, system = flat[_WEIGHTS], flat[_SYSTEM]
    if (file := _shipped(flat[_BACKBONE], weights)) is not None:
        found[_WEIGHTS] = f"file {_file_digest(file)}"
    elif weights is not None and Path(weights).suffix.lower() == ".safetensors":
        if fresh and not Path(weights).is_file():
            raise ConfigError(f"{_WEIGHTS} is {weights!r}, no such file")
        found[_WEIGHTS] = _content(weights) if fresh else None
    if is_own(system):
        found[_SYSTEM] = f"{system}@{_file_digest(source_file(system))}"
        # What the texts among its settings mean, only its code knows.
        found |= {key: _content(value) for key, value in flat.items() if key.startswith(OWN_SETTINGS)}
    return found


def _shipped(backbone: str, weights: Any) -> Path | None:
    """The file of weights that come with the package, where a backbone of timm is to start from those."""
    if not backbone.startswith(TIMM):
        return None
    from amodal.models.timm_weights import SHIPPED, find_file  # timm takes a second; whoever has none need not wait.

    return find_file(backbone.removeprefix(TIMM), weights) if weights == SHIPPED else None


def _content(value: Any) -> Any:
    """A value in which the path of a file is replaced by the digest of what is in it."""
    if isinstance(value, list):
        return [_content(item) for item in value]
    return f"file {_file_digest(Path(value))}" if isinstance(value, str) and _is_file(value) else value


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # A text that can be no path: too long, or with a NUL.
        return False


def _file_digest(path: Path) -> str:
    digest = blake2b(digest_size=8)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    """1.0 as 1: YAML and the command line write the same number in several ways."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _digest(data: Mapping[str, Any], size: int) -> str:
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return blake2b(text.encode(), digest_size=size).hexdigest()
