"""From paths to a page and a table; the work of ``amodal compare``."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from amodal.compare.differences import Line, Side, evaluate, lines, pair_up, verdict
from amodal.compare.page import interval_words, write_page
from amodal.compare.sources import read_source
from amodal.errors import ConfigError, encodable, printable
from amodal.evaluation.table import COLUMNS, PARTS
from amodal.files import check_target, write_text
from amodal.launch import warn


def compare(
    runs: Sequence[Path], out: Path, *, annotations: Path | None, images: Path | None, limit: int, draws: int
) -> str:
    """Writes the page of a comparison.

    Args:
        runs: two or more of what :func:`amodal.compare.sources.read_source` reads; the first is compared with.
        out: the page, HTML.
        annotations, images: what was tested on, instead of what the runs say.
        limit: pictures at most.
        draws: of the bootstrap, 0 for none.

    Returns:
        The table for a terminal. What is missing is said on stderr.

    Raises:
        ConfigError: there is nothing to compare with, or one is named twice.
        DataError: a run cannot be read, they are not of the same data, or ``out`` is a file that is read.
    """
    if len(runs) < 2:
        raise ConfigError("one run cannot be compared; name two or more")
    twice = [run for place, run in enumerate(runs) if run in runs[:place]]
    if twice:
        raise ConfigError(f"{twice[0]} is named twice")
    sides = pair_up([read_source(run) for run in runs])
    read = [side.tested.annotations for side in sides] + [annotations]
    check_target(out, *(path for run in runs for path in _read_of(run)), *(path for path in read if path is not None))
    missing: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Not cut at a threshold, whatever their lowest score is.
        evaluate(sides, annotations, missing)
    found = lines(sides, draws)
    if images is None:
        images = next((side.tested.images for side in sides if side.tested.images is not None), None)
    text = write_page(sides, found, images, limit, draws, missing)
    write_text(out, encodable(text))
    for line in missing:
        warn(printable(line))
    return table(sides, found)


def _read_of(run: Path) -> list[Path]:
    """The files that a run is read from: itself, or what lies in its folder and in those of its tests."""
    if run.is_file():
        return [run]
    return [path for path in (*run.glob("*.*"), *run.glob("*/*.*")) if path.suffix in (".json", ".csv", ".yaml")]


def table(sides: Sequence[Side], found: Sequence[Line]) -> str:
    """The first metrics of each part as aligned text, one row a metric."""
    names = [printable(side.source.name) for side in sides]
    titles = dict(PARTS)
    rows = [["", *names, *(f"{name} minus {names[0]}" if len(names) > 2 else "difference" for name in names[1:])]]
    for line in found:
        if line.key in COLUMNS:
            numbers = ["-" if value is None else f"{value:.2f}" for value in line.values]
            rows.append([f"{titles[line.part]} {line.key}", *numbers, *(_told(line, k) for k in range(1, len(names)))])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    count = len(names) + 1
    return "\n".join(
        "  ".join(
            cell.rjust(width) if 0 < place < count else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _told(line: Line, place: int) -> str:
    difference, interval = line.difference(place), line.intervals[place]
    if difference is None:
        return "-"
    return f"{difference:+.2f} {verdict(difference)}" + ("" if interval is None else f" ({interval_words(interval)})")
