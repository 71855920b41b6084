"""What a reader found: faults, counted drops and counted remarks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from amodal.errors import DataError, printable

_EXAMPLES = 5
_LONGEST = 10**40


class Problem(NamedTuple):
    """One fault of a file.

    Attributes:
        kind: short stable name, such as "bad mask" or "unknown category".
        severity: "error" stops ``load``; "warning" was mended or left out, and counted.
        image_id, annotation_id: ids as the file writes them, or None.
        message: one line.
    """

    kind: str
    severity: Literal["error", "warning"]
    image_id: object
    annotation_id: object
    message: str


class Count(NamedTuple):
    """A reason, how often it applied, and the ids of the first few (annotations where there are any, else images)."""

    reason: str
    times: int
    examples: tuple[object, ...]


@dataclass
class Findings:
    """Collects what is wrong with one file.

    Attributes:
        path: the file.
        strict: an error is raised at once; otherwise it is kept in ``problems``.
        problems: errors and warnings found so far.
    """

    path: str
    strict: bool = True
    problems: list[Problem] = field(default_factory=list)
    _dropped: dict[str, tuple[int, list[object]]] = field(default_factory=dict)
    _noted: dict[str, tuple[int, list[object]]] = field(default_factory=dict)

    def error(self, kind: str, message: str, image_id: object = None, annotation_id: object = None) -> None:
        """Raises DataError, or keeps the problem where not strict."""
        image_id, annotation_id = shown_id(image_id), shown_id(annotation_id)
        if self.strict:
            raise DataError(message, file=self.path, image_id=image_id, annotation_id=annotation_id)
        self.problems.append(Problem(kind, "error", image_id, annotation_id, message))

    def drop(self, reason: str, example: object, times: int = 1) -> None:
        """Counts something that was left out."""
        _count(self._dropped, reason, example, times)

    def note(self, reason: str, example: object, times: int = 1) -> None:
        """Counts something that is odd and was kept, or mended without loss."""
        _count(self._noted, reason, example, times)

    @property
    def dropped(self) -> list[Count]:
        """Counted drops."""
        return [Count(reason, times, tuple(ids)) for reason, (times, ids) in self._dropped.items()]

    @property
    def noted(self) -> list[Count]:
        """Counted remarks."""
        return [Count(reason, times, tuple(ids)) for reason, (times, ids) in self._noted.items()]


def shown_id(number: object) -> object:
    """An id as a message can show it: short, without control characters and halves of characters."""
    if number is None or (isinstance(number, (int, float)) and abs(number) < _LONGEST):
        return number
    text = printable(number) if isinstance(number, str) else repr(number)
    return text if len(text) <= 40 else text[:37] + "..."


def _count(table: dict[str, tuple[int, list[object]]], reason: str, example: object, times: int) -> None:
    total, examples = table.get(reason, (0, []))
    if len(examples) < _EXAMPLES:
        examples.append(example)
    table[reason] = (total + times, examples)
