"""Which files ``amodal predict`` was asked for."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from amodal.data.images import EXTENSIONS
from amodal.errors import DataError
from amodal.files import fitting_name
from amodal.predict.jobs import Item


def gather(inputs: Sequence[Path], out: Path, overlays: bool) -> list[Item]:
    """The files to predict, numbered from 1: files in the order given, folders searched through, sorted by path.

    Args:
        inputs: files, taken whatever their names end in, and folders, of which every file with a picture's ending is
            taken; hidden files and what lies in ``out`` are left out. A file named twice is taken once.
        out: folder of the results.
        overlays: whether pictures are to be drawn: ``NAME.png``, plus a checksum of the path where names clash
            or are too long for a file.

    Raises:
        DataError: an input is not there, or a folder holds no pictures.
    """
    paths = list(dict.fromkeys(path for given in inputs for path in _expand(given, out.resolve())))
    stems = Counter(path.stem.casefold() for path in paths)
    return [
        Item(
            image_id=number,
            path=path,
            file_name=path.as_posix(),
            overlay=fitting_name(path.stem, ".png", path.as_posix(), shared=stems[path.stem.casefold()] > 1)
            if overlays
            else None,
        )
        for number, path in enumerate(paths, start=1)
    ]


def _expand(given: Path, out: Path) -> Iterator[Path]:
    if not given.exists():
        raise DataError(f"no such file or folder{_nearest(given)}", file=given)
    if not given.is_dir():
        yield given
        return
    found = sorted(path for path in given.rglob("*") if path.suffix.lower() in EXTENSIONS and _wanted(path, given, out))
    if not found:
        raise DataError(f"the folder holds no pictures ({', '.join(EXTENSIONS)})", file=given)
    yield from found


def _wanted(path: Path, folder: Path, out: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return path.is_file() and not hidden and out not in path.resolve().parents


def _nearest(path: Path) -> str:
    there = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
    close = difflib.get_close_matches(path.name, there, n=1)
    return f"; the nearest name there is {close[0]!r}" if close else ""
