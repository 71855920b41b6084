"""Checked annotation sets kept as flat files, so that the second reading of a big file is a read of one buffer.

An entry belongs to a path, the hash of all that the file holds, the schema and the version of this format. The hash of
a new entry is that of the very bytes that were read, so a file that changes meanwhile is a miss, too. An entry holds a
checksum: a damaged one is a miss and gets rewritten. Entries live in ``$AMODAL_CACHE``, else in
``$XDG_CACHE_HOME/amodal``, else in ``~/.cache/amodal``; a folder that cannot be written means no cache.
How large they may grow together: :mod:`amodal.data.cache_limit`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import zlib
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from amodal.data.cache_limit import used
from amodal.data.problems import Count
from amodal.data.store import AnnotationSet, MaskBuffer
from amodal.errors import AmodalError
from amodal.files import whole

VERSION = 2  # of the layout and of what reading means; raise it when either changes
_MAGIC = np.frombuffer(b"amodal-1", np.uint8)
_START = 24  # magic, checksum, length of the header
# Arrays are views of what was read, and must begin where their numbers may.
_ALIGN = 16
_BLOCK = 2**20


class _Array(msgspec.Struct):
    """Where one array lies, in bytes from the start of the file's body."""

    name: str
    dtype: str
    shape: list[int]
    offset: int


class _Header(msgspec.Struct):
    """All but the arrays."""

    path: str
    schema: str
    class_names: list[str]
    category_ids: list[int]
    file_names: list[str]
    dropped: list[tuple[str, int, list[int | str]]]
    noted: list[tuple[str, int, list[int | str]]]
    arrays: list[_Array]


def folder() -> Path:
    """Where entries live."""
    if os.environ.get("AMODAL_CACHE"):
        return Path(os.environ["AMODAL_CACHE"])
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "amodal"


def find(path: str | Path, schema: str, known_ids: Sequence[int] | None) -> AnnotationSet | None:
    """The set of a file as it is now, if there is an entry of it; None otherwise, and for anything but a plain file."""
    try:
        source = Path(path).resolve()
        owner = _owner(source, schema, known_ids)
        # A first reading must not hash the file twice, and looking must not use up a pipe.
        if not source.is_file() or not any(folder().glob(f"{owner}-*.bin")):
            return None
        state = _start_hash()
        with source.open("rb") as stream:
            while block := stream.read(_BLOCK):
                state.update(block)
        return read(folder() / f"{owner}-{state.hexdigest()}.bin")
    except (OSError, ValueError, RuntimeError):
        return None


def entry_path(path: str | Path, data: bytes, schema: str, known_ids: Sequence[int] | None) -> Path | None:
    """Where the set of a file belongs that holds ``data``; None where there is no place for it."""
    try:
        source = Path(path).resolve()
        if not source.is_file():
            return None
        state = _start_hash()
        state.update(data)
        return folder() / f"{_owner(source, schema, known_ids)}-{state.hexdigest()}.bin"
    except (OSError, ValueError, RuntimeError):
        return None


def _owner(source: Path, schema: str, known_ids: Sequence[int] | None) -> str:
    ids = None if known_ids is None else [int(number) for number in known_ids]
    return hashlib.sha256(repr((str(source), schema, ids)).encode(errors="surrogateescape")).hexdigest()[:24]


def _start_hash() -> Any:
    return hashlib.sha256(f"{VERSION}:".encode())


def save(annotations: AnnotationSet, entry: Path) -> None:
    """Writes an entry, complete or not at all, and removes those of the file's earlier states."""
    with contextlib.suppress(OSError, AmodalError):
        with whole(entry) as beside, beside.open("wb") as stream:
            for part in _pack(annotations):
                stream.write(part)
        for old in entry.parent.glob(f"{entry.name.split('-')[0]}-*.bin"):
            if old != entry:
                old.unlink(missing_ok=True)


def read(entry: Path) -> AnnotationSet | None:
    """The set of an entry; None where there is none or it is damaged."""
    try:
        data = np.fromfile(entry, np.uint8)
    except OSError:
        return None
    if len(data) < _START or (data[:8] != _MAGIC).any():
        return None
    checksum, length = (int(number) for number in data[8:_START].view(np.uint64))
    if zlib.crc32(data.data[16:]) != checksum:
        return None
    try:
        header = msgspec.json.decode(data.data[_START : _START + length], type=_Header)
        stored = _unpack(header, data[_START + length :])
    except (msgspec.MsgspecError, ValueError, KeyError, TypeError):
        return None
    used(entry)
    return stored


def _pack(annotations: AnnotationSet) -> list[bytes]:
    arrays = {name: np.ascontiguousarray(array) for name, array in _arrays(annotations).items()}
    described: list[_Array] = []
    body: list[bytes] = []
    offset = 0
    for name, array in arrays.items():
        described.append(_Array(name, array.dtype.str, list(array.shape), offset))
        padding = -array.nbytes % _ALIGN
        body += [array.tobytes(), b"\0" * padding]
        offset += array.nbytes + padding
    header = msgspec.json.encode(
        _Header(
            annotations.path,
            annotations.schema,
            annotations.class_names,
            annotations.category_ids,
            list(annotations.file_names),
            [_plain(count) for count in annotations.dropped],
            [_plain(count) for count in annotations.noted],
            described,
        )
    )
    header += b" " * (-(_START + len(header)) % _ALIGN)
    parts: list[bytes] = [np.uint64(len(header)).tobytes(), header, *body]
    checksum = 0
    for part in parts:
        checksum = zlib.crc32(part, checksum)
    return [_MAGIC.tobytes(), np.uint64(checksum).tobytes(), *parts]


def _unpack(header: _Header, body: npt.NDArray[np.uint8]) -> AnnotationSet:
    arrays: dict[str, Any] = {}
    for item in header.arrays:
        count = int(np.prod(item.shape, dtype=np.int64)) * np.dtype(item.dtype).itemsize
        arrays[item.name] = body[item.offset : item.offset + count].view(item.dtype).reshape(item.shape)
    for part in ("amodal", "visible"):
        arrays[part] = MaskBuffer(arrays.pop(f"{part}.data"), arrays.pop(f"{part}.offsets"))
    return AnnotationSet(
        path=header.path,
        schema=header.schema,
        class_names=header.class_names,
        category_ids=header.category_ids,
        file_names=header.file_names,
        dropped=[Count(reason, times, tuple(ids)) for reason, times, ids in header.dropped],
        noted=[Count(reason, times, tuple(ids)) for reason, times, ids in header.noted],
        **arrays,
    )


def _arrays(annotations: AnnotationSet) -> dict[str, npt.NDArray[Any]]:
    arrays: dict[str, npt.NDArray[Any]] = {}
    for item in fields(annotations):
        value = getattr(annotations, item.name)
        if isinstance(value, MaskBuffer):
            arrays |= {f"{item.name}.data": value.data, f"{item.name}.offsets": value.offsets}
        elif isinstance(value, np.ndarray):
            arrays[item.name] = value
    return arrays


def _plain(count: Count) -> tuple[str, int, list[int | str]]:
    return count.reason, count.times, [one if isinstance(one, int) else str(one) for one in count.examples]
