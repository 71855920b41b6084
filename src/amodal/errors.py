"""Errors a user can mend. The command line prints them as one line and exits with code 2."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}
_SHOWN = 100  # characters of a value in a message


class AmodalError(Exception):
    """Something the user gave is wrong; the message is one line that names the culprit."""


class DataError(AmodalError):
    """A fault in annotations, results or images, located as exactly as it is known.

    Attributes:
        file: the file that holds the fault.
        image_id: id of the image as the file writes it, or None where the fault is not tied to one.
        annotation_id: id of the annotation (for results: position in the list), or None.
    """

    def __init__(
        self,
        message: str,
        *,
        file: str | Path | None = None,
        image_id: object = None,
        annotation_id: object = None,
    ) -> None:
        self.reason = message
        self.file = None if file is None else str(file)
        self.image_id = image_id
        self.annotation_id = annotation_id
        where = [] if self.file is None else [self.file]
        if image_id is not None:
            where.append(f"image {image_id}")
        if annotation_id is not None:
            where.append(f"annotation {annotation_id}")
        super().__init__(": ".join([*where, message]))


class ConfigError(AmodalError):
    """A setting is unknown, out of range, or does not fit the others; the message names its key."""


class WeightsError(AmodalError):
    """A weight file is missing, damaged, of the wrong kind, or does not fit the model."""


class DiskError(AmodalError):
    """The disk is full, read-only or faulty; the message names the file. Work that could go on without one of its files
    ends all the same, since the others cannot be written either."""


@contextmanager
def named(path: str | Path) -> Iterator[None]:
    """Gives failures to write inside the block the name of what was written, which a full disk does not tell.

    Raises:
        DiskError: the disk is full or faulty, so that nothing else can be written either.
        AmodalError: any other failure.
    """
    try:
        yield
    except OSError as error:
        kind = DiskError if error.errno in _DISK else AmodalError
        raise kind(f"{path}: cannot be written ({error.strerror or error})") from None


def one_line(fault: BaseException) -> str:
    """What an exception says, on one line; its kind where it says nothing or is no fault of the input."""
    if isinstance(fault, OSError) and fault.strerror:
        return fault.strerror
    text = " ".join(str(fault).split())
    if isinstance(fault, AmodalError):
        return text
    return f"{type(fault).__name__}: {text}" if text else type(fault).__name__


def is_memory(fault: BaseException) -> bool:
    """Whether a fault says that there is no more memory, of the machine or a GPU; PyTorch's has no kind of its own."""
    told = str(fault)
    no_kind = isinstance(fault, RuntimeError) and ("can't allocate memory" in told or "out of memory" in told)
    return isinstance(fault, MemoryError) or no_kind


def printable(text: str) -> str:
    """The text on one line, with escapes for control characters, and for lone surrogates, which no encoding has."""
    whole = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
    return whole.encode("utf-8", "backslashreplace").decode("utf-8")


def name_all(what: str, faults: Sequence[tuple[str, str]]) -> str:
    """``3 pictures WHAT:`` and below it each (name, reason), indented; empty without faults."""
    if not faults:
        return ""
    count = counted(len(faults), "picture")
    return "\n".join([f"{count} {what}:", *(f"  {printable(name)}: {printable(reason)}" for name, reason in faults)])


def require(ok: bool, key: str, value: object, rule: str) -> None:
    """Refuse the setting ``key`` with a :class:`ConfigError` unless it is ``ok``; ``rule`` says what it must be."""
    if not ok:
        raise ConfigError(f"{key} is {shown(value)}, must be {rule}")


def shown(value: object) -> str:
    """The value as a message shows it: its ``repr``, short and on one line, whatever it is."""
    try:
        text = printable(repr(value))
    except (ValueError, RecursionError):  # Integers of thousands of digits, nesting without end.
        return f"a {type(value).__name__} too long to show"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def nearest(name: str, names: Iterable[str], *, listed: int = 20) -> str:
    """The tail of a message about an unknown name: ``; nearest is 'x'``, or all names if no more than ``listed``.

    Names that differ in capitals alone are nearest of all.
    """
    known = list(names)
    folded = {other.casefold(): other for other in reversed(known)}
    if name.casefold() in folded:
        return f"; nearest is {folded[name.casefold()]!r}"
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f"; nearest is {close[0]!r}"
    return f"; known: {', '.join(sorted(known))}" if 0 < len(known) <= listed else ""


def counted(count: int, noun: str) -> str:
    """``1 picture``, ``2 pictures``, ``no pictures``."""
    return f"{count or 'no'} {noun}{'' if count == 1 else 's'}"
