"""JSON files that somebody gives us: read with every fault as one line.

msgspec reads them, a part at a time. What it refuses though Python's ``json`` writes it (NaN, Infinity, 1e400, integers
of thousands of digits, lone surrogates) goes through ``json`` instead, so that it disturbs only where it matters. An
object with the same key twice is a fault everywhere: readers disagree about which of the two counts.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from amodal.errors import DataError, kind_of, nearest, refuse_address

_BOM = b"\xef\xbb\xbf"
_MAX_DIGITS = 300  # a float holds integers of up to 308
_SPACED = re.compile(rb'"\s+:')
_KEY_END = re.compile(rb'"\s*:')
_TOP = msgspec.json.Decoder(dict[str, msgspec.Raw] | list[msgspec.Raw])
_LIST = msgspec.json.Decoder(list[msgspec.Raw])
_KEYS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ANY = msgspec.json.Decoder()


class BadValueError(ValueError):
    """A part of a file that cannot be used.

    Attributes:
        entry: what could be read of it, or None.
    """

    def __init__(self, reason: str, entry: Any = None) -> None:
        super().__init__(reason)
        self.entry = entry


def read_bytes(path: str | Path) -> bytes:
    """The file's bytes. Raises DataError where it cannot be read or cannot be JSON."""
    refuse_address(path)
    try:
        data = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise DataError(f"cannot be read ({getattr(error, 'strerror', None) or error})", file=path) from None
    if not data.strip():
        raise DataError("is empty", file=path)
    if data[:2] in (b"\x1f\x8b", b"PK"):
        raise DataError("is compressed; unpack it first", file=path)
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError("is UTF-16, must be UTF-8", file=path)
    return data


def read_object(path: str | Path) -> dict[str, Any]:
    """A small JSON file that holds an object. Raises DataError where it cannot be read, or holds anything else."""
    try:
        content = strict_json(read_bytes(path).removeprefix(_BOM))
    except BadValueError as fault:
        raise DataError(str(fault), file=path) from None
    if not isinstance(content, dict):
        raise DataError(f"holds {kind_of(content)}, must be an object", file=path)
    return content


class Document:
    """A JSON file whose parts are decoded when their turn comes.

    Attributes:
        path: the file.
        top: the object or list at the top; its members are text (``msgspec.Raw``), or values where the file as a whole
            needed Python's reader.
        spaced: whether a colon stands apart from its key somewhere, so that keys cannot be counted by ``":``.
    """

    def __init__(self, data: bytes, path: str | Path) -> None:
        """Raises DataError where ``data`` is no JSON object or list, or its top object has a key twice."""
        self.path = str(path)
        data = data.removeprefix(_BOM)
        self.spaced = _SPACED.search(data) is not None
        self.top: dict[str, Any] | list[Any] = self._open(data)

    def _open(self, data: bytes) -> Any:
        try:
            try:
                top = _TOP.decode(data)
            except (msgspec.MsgspecError, RecursionError, ValueError):
                top = strict_json(data)
            else:
                if isinstance(top, dict):
                    strict_json(_skeleton(data, top))
        except BadValueError as fault:
            raise DataError(str(fault), file=self.path) from None
        if not isinstance(top, (dict, list)):
            raise DataError(f"holds {kind_of(top)}, must be an object or a list", file=self.path)
        return top

    def require(self, key: str, keys: Collection[str]) -> None:
        """Raises DataError, with the nearest of ``keys``, where ``key`` is not among them."""
        if key not in keys:
            raise DataError(f"has no {key!r}{nearest(key, keys)}", file=self.path)

    def items(self, key: str) -> list[Any]:
        """The members of the list ``key`` of the top object, to be read by :meth:`value`; none where it is absent."""
        assert isinstance(self.top, dict)
        part = self.top.get(key, [])
        if isinstance(part, msgspec.Raw):
            try:
                return _LIST.decode(part)
            except (msgspec.MsgspecError, RecursionError):
                part = _read(part, self.path)
        if not isinstance(part, list):
            raise DataError(f"{key!r} is {kind_of(part)}, must be a list", file=self.path)
        return part

    def value(self, item: Any) -> Any:
        """A member as a Python value; raises BadValueError where it is damaged or has a key twice in one object."""
        if type(item) is not msgspec.Raw:
            return item
        try:
            entry = _ANY.decode(item)
        except (msgspec.MsgspecError, RecursionError, ValueError):
            return strict_json(bytes(item))
        # Every key in the text ends in `":`, and so may a string; where keys and text agree, no key is lost.
        keys = 0
        if type(entry) is dict:
            keys = len(entry)
            for value in entry.values():
                if type(value) is dict:
                    keys += len(value)
        text = bytes(item)
        count = len(_KEY_END.findall(text)) if self.spaced else text.count(b'":')
        if count != keys:
            try:
                strict_json(text)
            except BadValueError as fault:
                raise BadValueError(str(fault), entry) from None
        return entry

    def objects(self, key: str) -> list[dict[str, Any]]:
        """The objects of a short list; raises DataError for anything else."""
        found = []
        for position, item in enumerate(self.items(key)):
            try:
                entry = self.value(item)
            except BadValueError as fault:
                raise DataError(f"{key}, number {position}: {fault}", file=self.path) from None
            if not isinstance(entry, dict):
                raise DataError(f"{key}, number {position} is {kind_of(entry)}, must be an object", file=self.path)
            found.append(entry)
        return found

    def check_rest(self, read: Collection[str]) -> None:
        """Raises DataError where a member of the top object that is not among ``read`` is damaged."""
        assert isinstance(self.top, dict)
        for key, part in self.top.items():
            if key not in read:
                _read(part, self.path)

    def keys(self, items: list[Any]) -> set[str]:
        """All keys that the objects among ``items`` have."""
        try:
            return set().union(*map(_KEYS.decode, items))
        except (msgspec.MsgspecError, RecursionError, TypeError):  # some are no objects, or no longer text
            return set().union(*map(self._keys_of, items))

    def _keys_of(self, item: Any) -> set[str]:
        """The keys of one object; none of anything else, whose own reading says what it is."""
        try:
            entry = self.value(item)
        except BadValueError as fault:
            entry = fault.entry
        return set(entry) if isinstance(entry, dict) else set()


def _read(part: Any, path: str) -> Any:
    """A whole member of the top object."""
    if type(part) is not msgspec.Raw:
        return part
    try:
        return strict_json(bytes(part))
    except BadValueError as fault:
        raise DataError(str(fault), file=path) from None


def _skeleton(data: bytes, top: dict[str, msgspec.Raw]) -> bytes:
    """The text of the top object without the values, which are views of ``data``; that of a lost value stays."""
    start = np.frombuffer(data, np.uint8).ctypes.data
    kept, end = [], 0
    views = [np.frombuffer(part, np.uint8) for part in top.values()]
    for place, length in sorted((view.ctypes.data - start, len(view)) for view in views):
        kept += [data[end:place], b"0"]
        end = place + length
    return b"".join([*kept, data[end:]])


def strict_json(data: bytes) -> Any:
    """``data`` as Python's own reader has it: slowly, but with all that Python writes, and with every key.

    Raises:
        BadValueError: it is no JSON, or an object has a key twice.
    """
    try:
        return json.loads(data.decode(), object_pairs_hook=_object, parse_int=_integer)
    except BadValueError:
        raise
    except RecursionError:
        raise BadValueError("is not valid JSON: nested too deep") from None
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are such
        raise BadValueError(f"is not valid JSON: {error}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entry = dict(pairs)
    if len(entry) < len(pairs):
        keys = [key for key, _ in pairs]
        doubled = next(key for place, key in enumerate(keys) if key in keys[:place])
        raise BadValueError(f"the key {doubled!r:.60} occurs twice in one object", entry)
    return entry


def _integer(text: str) -> int | float:
    """The integer, or infinity for one beyond all floats; where it matters, infinity is refused."""
    return int(text) if len(text) <= _MAX_DIGITS else math.copysign(math.inf, -1 if text[0] == "-" else 1)
