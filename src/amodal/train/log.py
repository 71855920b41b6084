"""The run folder's tables: CSV files whose rows stop at the checkpoint a run is resumed from; and TensorBoard."""

from __future__ import annotations

import csv
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from amodal.errors import named
from amodal.files import whole


class CsvLog:
    """Appends rows that begin with ``step``; the first row decides the columns.

    Attributes:
        last: the last row that was kept, by column; empty without one.
    """

    def __init__(self, path: Path, keep_until: int) -> None:
        """
        Args:
            path: the file.
            keep_until: rows of later steps are removed; 0 starts afresh.
        """
        self.path = path
        self.columns: list[str] = []
        self.last: dict[str, str] = {}
        rows: list[list[str]] = []
        if keep_until and path.is_file():
            with path.open(newline="", encoding="utf-8") as file:
                self.columns, *rows = list(csv.reader(file)) or [[]]
        # A kill may have left half a row at the end.
        rows = [row for row in rows if len(row) == len(self.columns) and row[0].isdigit() and int(row[0]) <= keep_until]
        if rows:
            self.last = dict(zip(self.columns, rows[-1], strict=True))
        with whole(path) as fresh, fresh.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([self.columns, *rows] if self.columns else [])

    def write(self, step: int, values: Mapping[str, float | None]) -> None:
        """One row; None is an empty cell."""
        with named(self.path), self.path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            if not self.columns:
                self.columns = ["step", *values]
                writer.writerow(self.columns)
            row = [values.get(name) for name in self.columns[1:]]
            writer.writerow([step, *("" if value is None else f"{value:.6g}" for value in row)])


@contextmanager
def quiet_tensorboard() -> Iterator[None]:
    """Keeps TensorBoard's own thread from printing a traceback where it cannot write.

    It keeps the error as well, for whoever logs the next value: that is where it ends the run.
    """
    before = threading.excepthook

    def hook(fault: threading.ExceptHookArgs) -> None:
        if not (issubclass(fault.exc_type, OSError) and type(fault.thread).__module__.startswith("tensorboard")):
            before(fault)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before
