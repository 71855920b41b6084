"""The run folder's tables: CSV files whose rows stop at the checkpoint a run is resumed from."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from amodal.files import named, whole


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
