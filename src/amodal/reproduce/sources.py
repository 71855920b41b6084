"""The data sets of an experiment: named by its file below one folder, or given one by one on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from amodal.data.reader import load
from amodal.data.told import tell
from amodal.errors import ConfigError, counted
from amodal.reproduce.experiment import DataNames
from amodal.train.data import annotation_digest


@dataclass(frozen=True)
class Split:
    """Annotated pictures.

    Attributes:
        name: how tables call it.
        digest: of the annotations.
        annotations, images: file and folder; None where only the digest is known, so that nothing can be run on it.
        schema: what the annotations are read as, "auto": what their keys say.
    """

    name: str
    digest: str
    annotations: Path | None = None
    images: Path | None = None
    schema: str = "auto"

    @property
    def schema_words(self) -> tuple[str, ...]:
        """How a command is told the schema; empty where it finds it out itself."""
        return () if self.schema == "auto" else ("--schema", self.schema)

    def paths(self) -> tuple[Path, Path]:
        """Annotation file and picture folder.

        Raises:
            ConfigError: they are not known.
        """
        if self.annotations is None or self.images is None:
            raise ConfigError(f"{self.name} is needed for runs that are missing; give --data.root, the folder it is in")
        return self.annotations, self.images


@dataclass(frozen=True)
class Given:
    """Data sets as the command line names them; None or empty where the experiment's own are meant.

    Attributes:
        root: folder that names of the experiment file are relative to.
        train, tune: (annotation file, picture folder).
        test: as many of them as there are splits.
    """

    root: Path | None = None
    train: tuple[Path, Path] | None = None
    tune: tuple[Path, Path] | None = None
    test: tuple[tuple[Path, Path], ...] = ()


@dataclass(frozen=True)
class Sources:
    """The data sets of an experiment; ``tune`` is None where it has none."""

    train: Split
    tune: Split | None
    test: tuple[Split, ...]


class _Reader:
    """Digests of files; one file may stand for several splits, and is read, and what it lacks told, once."""

    def __init__(self, schema: str) -> None:
        self.schema = schema
        self._known: dict[Path, str] = {}

    def digest(self, path: Path) -> str:
        if path not in self._known:
            annotations = load(path, schema=self.schema)
            tell(annotations)
            self._known[path] = annotation_digest(annotations)
        return self._known[path]


def pair_up(flag: str, annotations: Sequence[Path], images: Sequence[Path]) -> tuple[tuple[Path, Path], ...]:
    """Annotation files with their picture folders, for the flags ``--data.FLAG`` and ``--data.FLAG_images``.

    Raises:
        ConfigError: one of the two is given more often than the other.
    """
    if len(annotations) != len(images):
        counts = f"{counted(len(annotations), 'annotation file')}, {counted(len(images), 'folder')}"
        raise ConfigError(f"--data.{flag} and --data.{flag}_images go together: {counts}")
    return tuple(zip(annotations, images, strict=True))


def find_sources(names: DataNames, given: Given, schema: str = "auto") -> Sources:
    """The data sets, their annotations read for their digests; ``given`` comes first.

    What is left out of a file is said on stderr. ``schema`` is what the files are read as.

    Raises:
        ConfigError: one is missing, or its annotations are not those that the experiment file names.
        DataError: a file is faulty.
    """
    reader = _Reader(schema)
    train = _split("train", names.train, given.train, names, given.root, reader)
    if train is None:
        raise ConfigError("--data.train is missing: the experiment names no data of its own")
    tests = given.test or (None,) * len(names.test)
    test_names = [None] * len(tests) if given.test else list(names.test)
    pairs = zip(test_names, tests, strict=True)
    test = [_split("test", name, pair, names, given.root, reader) for name, pair in pairs]
    if not test:
        raise ConfigError("--data.test is missing: the experiment names no data of its own")
    found = tuple(split for split in test if split is not None)
    if len({split.name for split in found}) < len(found):
        raise ConfigError(f"--data.test: two splits are called {found[0].name!r}; rename a file or its folder")
    return Sources(train, _split("tune", names.tune, given.tune, names, given.root, reader), found)


def split_name(annotations: Path) -> str:
    """``FOLDER/FILE`` without its ending; the folder alone where the file is called annotations."""
    path = annotations.absolute()
    return path.parent.name if path.stem == "annotations" else f"{path.parent.name}/{path.stem}"


def _split(
    role: str,
    name: str | None,
    pair: tuple[Path, Path] | None,
    names: DataNames,
    root: Path | None,
    reader: _Reader,
) -> Split | None:
    if pair is not None:
        return Split(split_name(pair[0]), reader.digest(pair[0]), *pair, reader.schema)
    if name is None:
        return None
    stated = (names.digests or {}).get(name)
    if root is not None:
        return _below(root, name, stated, reader)
    if stated is None:
        raise ConfigError(
            f"--data.{role} or --data.root is missing: runs are found by the digest of their annotations, and the"
            f" experiment names none for {name} (data.digests)"
        )
    return Split(name, stated)


def _below(root: Path, name: str, stated: str | None, reader: _Reader) -> Split:
    """The split NAME below ``--data.root``; ``stated`` is the digest that the experiment file names, if any."""
    path = root / f"{name}.json"
    if not path.is_file():
        way = (
            "leave --data.root out, as the experiment names its digest" if stated else f"name it in data.digests.{name}"
        )
        raise ConfigError(
            f"--data.root {root}: {name}.json is not there; runs, finished ones too, are found by the digest of their"
            f" annotations: give the folder that holds it, or for finished runs alone {way}"
        )
    digest = reader.digest(path)
    if stated not in (None, digest):
        raise ConfigError(
            f"{path}: not the annotations of this experiment: their digest is {digest}, data.digests.{name} is {stated}"
        )
    return Split(name, digest, path, root / name, reader.schema)
