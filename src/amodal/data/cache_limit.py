"""How large the cache of read annotations may grow: beyond the limit the entries that were used longest ago go first.

The limit is ``$AMODAL_CACHE_GB`` (10^9 bytes), else :data:`DEFAULT_GB`; 0 keeps nothing. When an entry was used last is
the time of its file.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
from pathlib import Path

from amodal.errors import ConfigError

DEFAULT_GB = 5.0
_ENTRY = re.compile(r"[0-9a-f]{24}-[0-9a-f]+\.bin")


def limit_bytes() -> float:
    """Most bytes that all entries together may take.

    Raises:
        ConfigError: the environment says something that is no number of gigabytes.
    """
    text = os.environ.get("AMODAL_CACHE_GB") or str(DEFAULT_GB)
    try:
        gigabytes = float(text)
    except ValueError:
        gigabytes = math.nan
    if math.isnan(gigabytes) or gigabytes < 0:
        raise ConfigError(f"AMODAL_CACHE_GB is {text!r}, must be gigabytes: 0 (no cache) or more")
    return gigabytes * 1e9


def used(entry: Path) -> None:
    """Notes that an entry was used now; where the folder cannot be written, nothing is noted."""
    with contextlib.suppress(OSError):
        os.utime(entry)


def entries(folder: Path) -> list[tuple[float, int, Path]]:
    """(seconds of its last use, bytes, path) of every entry, the last used first; files of others do not count."""
    found = []
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if _ENTRY.fullmatch(path.name):
                with contextlib.suppress(OSError):  # Another process may have removed it meanwhile.
                    status = path.stat()
                    found.append((status.st_mtime, status.st_size, path))
    return sorted(found, reverse=True)


def prune(folder: Path) -> None:
    """Removes the entries that were used longest ago, until the others keep to the limit."""
    limit, total = limit_bytes(), 0
    for _, size, path in entries(folder):
        total += size
        if total > limit:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
