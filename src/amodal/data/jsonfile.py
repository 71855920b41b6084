"""JSON files that somebody gives us: read with every fault as one line."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec

from amodal.errors import DataError

T = TypeVar("T")
_BOM = b"\xef\xbb\xbf"


def read_bytes(path: str | Path) -> bytes:
    """The file's bytes without a byte order mark. Raises DataError where it cannot be read or cannot be JSON."""
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
    return data.removeprefix(_BOM)


def parse(data: bytes | msgspec.Raw, kind: type[T], path: str | Path) -> T:
    """``data`` as ``kind``; raises DataError for anything that is not JSON of that shape.

    NaN, Infinity and numbers beyond float64 are refused.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        raise DataError(f"unexpected content: {error}", file=path) from None
    except msgspec.DecodeError as error:
        raise DataError(f"is not valid JSON: {error}", file=path) from None
    except (RecursionError, UnicodeDecodeError, ValueError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else str(error)
        raise DataError(f"is not valid JSON: {reason}", file=path) from None
