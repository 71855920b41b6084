"""Which files ``amodal predict`` was asked for."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from amodal.data.images import EXTENSIONS, OTHER_EXTENSIONS
from amodal.errors import DataError, nearest, printable
from amodal.files import fitting_name
from amodal.predict.jobs import JOB, OVERLAYS, PARTS, Item

_NAMED = 5  # files of a reason that are named


@dataclass
class Inputs:
    """What was asked for.

    Attributes:
        items: the files to predict, numbered from 1.
        left_out: reason -> the files in folders that look like pictures and are not predicted.
    """

    items: list[Item] = field(default_factory=list)
    left_out: dict[str, list[Path]] = field(default_factory=dict)

    def told(self) -> str:
        """What was left out, a line a reason; empty where nothing was."""
        lines = []
        for reason, paths in self.left_out.items():
            named = ", ".join(printable(path.as_posix()) for path in paths[:_NAMED])
            more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
            lines.append(f"{len(paths)} left out, {reason}: {named}{more}")
        return "\n".join(lines)


def gather(inputs: Sequence[Path], out: Path, overlays: bool) -> Inputs:
    """The files to predict, numbered from 1: files in the order given, folders searched through, sorted by path.

    Args:
        inputs: files, taken whatever they are called, and folders, of which everything with a picture's ending is
            taken, be it a file, a dangling link or a device: the reader says what is wrong with it. Left out and
            counted are hidden files, formats that are not read, and the pictures that a run wrote, into
            ``out`` or elsewhere. Linked folders are searched, each once. A file named twice is taken once.
        out: folder of the results; inputs may lie in it.
        overlays: whether pictures are to be drawn: ``NAME.png``, plus a checksum of the path where names clash
            or are too long for a file.

    Raises:
        DataError: an input is not there, a folder holds no pictures, or an input lies where pictures are to be drawn.
    """
    found = Inputs()
    paths = list(dict.fromkeys(path for given in inputs for path in _expand(given, found)))
    drawn = os.path.realpath(out / OVERLAYS)
    if overlays:
        for path in paths:
            # Its picture would be drawn over it.
            if os.path.realpath(path.parent) == drawn:
                reason = f"lies where the pictures of --out {out} are drawn; choose another --out, or --no-overlays"
                raise DataError(reason, file=path)
    stems = Counter(path.stem.casefold() for path in paths)
    for number, path in enumerate(paths, start=1):
        name = fitting_name(path.stem, ".png", path.as_posix(), shared=stems[path.stem.casefold()] > 1)
        found.items.append(Item(number, path, path.as_posix(), overlay=name if overlays else None))
    return found


def _expand(given: Path, found: Inputs) -> Iterator[Path]:
    if not given.is_dir():
        if not os.path.lexists(given):
            raise DataError(f"no such file or folder{_nearest(given)}", file=given)
        yield given
        return
    paths = []
    before = {reason: len(left) for reason, left in found.left_out.items()}
    for path in _walk(given, found):
        reason = _left_out(path, given)
        if reason is None:
            paths.append(path)
        elif reason:
            found.left_out.setdefault(reason, []).append(path)
    if not paths:
        counts = {reason: len(left) - before.get(reason, 0) for reason, left in found.left_out.items()}
        others = "".join(f"; {count} left out, {reason}" for reason, count in counts.items() if count)
        raise DataError(f"the folder holds no pictures ({', '.join(EXTENSIONS)}){others}", file=given)
    yield from sorted(paths)


def _walk(folder: Path, found: Inputs) -> Iterator[Path]:
    """Everything below a folder that is no folder; links to folders are followed last, so that none is met twice."""

    def unlisted(fault: OSError) -> None:
        reason = f"folders that cannot be listed ({fault.strerror})"
        found.left_out.setdefault(reason, []).append(Path(fault.filename))

    root = os.path.realpath(folder)
    seen: set[str] = set()
    waiting = [str(folder)]
    while waiting:
        for place, folders, names in os.walk(waiting.pop(0), onerror=unlisted):
            real = os.path.realpath(place)
            # A link to a folder that holds the whole search leads round in a circle, and to what nobody asked for.
            if real in seen or (place != str(folder) and root.startswith(os.path.join(real, ""))):
                folders.clear()
                continue
            seen.add(real)
            folders.sort()
            waiting += [os.path.join(place, name) for name in folders if os.path.islink(os.path.join(place, name))]
            yield from (Path(place, name) for name in names)


def _left_out(path: Path, folder: Path) -> str | None:
    """Why a file is not predicted: None where it is, "" where it does not look like a picture."""
    ending = path.suffix.lower()
    if ending not in EXTENSIONS:
        return f"not read as {ending[1:]}" if ending in OTHER_EXTENSIONS else ""
    if ending == ".png" and path.parent != folder and _is_drawn(path.parent):
        return "drawn by an earlier run"
    if any(part.startswith(".") for part in path.relative_to(folder).parts):
        return "hidden"
    return None


def _is_drawn(folder: Path) -> bool:
    """Whether a run, of this or another ``--out``, draws its pictures there: its results or its parts lie beside."""
    beside = folder.parent
    ran = (beside / "images.json").is_file() and (beside / "predictions.json").is_file()
    return folder.name == OVERLAYS and (ran or (beside / PARTS / JOB).is_file())


def _nearest(path: Path) -> str:
    there = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
    return nearest(path.name, there, listed=0, slips_only=True)
