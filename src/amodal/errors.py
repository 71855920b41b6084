"""Errors a user can mend. The command line prints them as one line and exits with code 2."""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}
_SHOWN = 100  # characters of a value in a message
_WORD, _WHOLE = 0.6, 0.74  # least likeness of a word, and of the whole name; "shwo" and "show" have 0.75
_LEAST = 3  # letters of a beginning that says enough
_NUMBER = re.compile(r"\d+")


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
    return encodable("".join(char if char.isprintable() else ascii(char)[1:-1] for char in text))


def encodable(text: str) -> str:
    """The text with escapes for lone surrogates, which names in JSON can hold and UTF-8 has no bytes for."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def is_text(value: str) -> bool:
    """Whether a text can be written to files: halves of characters, which escapes can stand for, have no encoding."""
    return encodable(value) == value


def kind_of(value: object) -> str:
    """``a list``, ``null``: what a message calls a value of JSON that is of the wrong kind."""
    return "null" if value is None else f"a {type(value).__name__}"


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


def nearest(name: str, names: Iterable[str], *, listed: int = 20, slips_only: bool = False) -> str:
    """The tail of a message about an unknown name: ``; nearest is 'x'``, or all names if no more than ``listed``.

    A name is suggested only where it may well be meant: the same but for capitals and separators, a slip of the
    fingers, a beginning or a dotted key's end that only it has. Of several that are as near as each other none is.

    Args:
        name: what was given.
        names: what there is.
        listed: most names that are listed where none is near.
        slips_only: beginnings and ends count for nothing, as in names of classes and files ("car", "carrot").
    """
    known = list(dict.fromkeys(names))
    likeness = {other: _likeness(name, other) for other in known}
    best = max(likeness.values(), default=0.0)
    close = [other for other in known if best and likeness[other] == best]
    if not close and not slips_only:
        close = _extended(name, known)
    if len(close) == 1:
        return f"; nearest is {close[0]!r}"
    return f"; known: {', '.join(sorted(known))}" if 0 < len(known) <= listed else ""


def _likeness(name: str, other: str) -> float:
    """How alike two names are, 0 to 2; 0 where nobody would take one for the other."""
    if name.casefold() == other.casefold():
        return 2.0
    first, second = _words(name), _words(other)
    if first and "".join(first) == "".join(second):
        return 1.5
    # Word by word where that can be: long parts that are the same do not make "test_images" out of "train_images".
    pairs = list(zip(first, second, strict=True)) if len(first) == len(second) else []
    if not all(_is_slip(*pair, least=_WORD) for pair in pairs):
        return 0.0
    whole = "".join(first), "".join(second)
    return difflib.SequenceMatcher(None, *whole).ratio() if _is_slip(*whole, least=_WHOLE) else 0.0


def _words(name: str) -> list[str]:
    return re.findall(r"[^\W_]+", name.casefold())


def _is_slip(word: str, other: str, least: float) -> bool:
    if _NUMBER.findall(word) != _NUMBER.findall(other):
        return False  # Another number is another thing, and not a slip.
    swapped = sorted(word) == sorted(other) and len(word) <= 4
    return swapped or difflib.SequenceMatcher(None, word, other).ratio() >= least


def _extended(name: str, known: Sequence[str]) -> list[str]:
    """Names that begin with ``name``, else end in it or with its last key, else the longest that it begins with."""
    plain = name.casefold().lstrip("-")
    bare = {other: other.casefold().lstrip("-") for other in known}
    leaf = plain.rpartition(".")[2]
    longer = [other for other, text in bare.items() if text.startswith(plain) and len(plain) >= _LEAST]
    ends = [other for other, text in bare.items() if plain and text.endswith(f".{plain}")]
    leaves = [other for other, text in bare.items() if leaf and text.rpartition(".")[2] == leaf]
    shorter = [other for other, text in bare.items() if len(text) >= _LEAST and _begins(plain, text)]
    return next((some for some in (longer, ends, leaves) if some), sorted(shorter, key=len)[-1:])


def _begins(name: str, other: str) -> bool:
    """Whether ``name`` is ``other`` and a further word, or little more."""
    rest = name.removeprefix(other)
    if rest.isdecimal() and not other[-1:].isdecimal():
        return False
    return rest != name and (rest[:1] in tuple("-_. ") or len(rest) <= len(other))


def counted(count: int, noun: str) -> str:
    """``1 picture``, ``2 pictures``, ``no pictures``; also ``2 classes`` and ``2 categories``."""
    if count != 1:
        if noun.endswith(("s", "x", "ch")):
            noun += "es"
        elif noun.endswith("y") and noun[-2:-1] not in "aeiou":
            noun = f"{noun[:-1]}ies"
        else:
            noun += "s"
    return f"{count or 'no'} {noun}"


def refuse_address(given: object, instead: str = "download it and give the file or folder") -> None:
    """Refuses what is no path but an address, which nothing here reads; ``instead`` says what to do.

    Raises:
        DataError: ``given`` begins with ``http://``, ``s3://`` or the like, also as a path, which has but one slash.
    """
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/+(?=.)", str(given))
    if found:
        address = f"{found[1]}://{str(given)[found.end() :]}"
        raise DataError(f"{address}: addresses are not read; {instead}")
