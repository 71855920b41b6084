"""Folders that are either old or new, never half written, whenever the process is killed."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


@contextlib.contextmanager
def replace_folder(folder: str | Path) -> Iterator[Path]:
    """Yields an empty folder beside ``folder`` that takes its place when the block ends without an exception.

    Everything in it is on disk before the swap. On Linux the swap is one system call; elsewhere it is two renames, and
    :func:`recover` mends the moment between them.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh, old = _side(folder, "new"), _side(folder, "old")
    recover(folder)
    fresh.mkdir()
    try:
        yield fresh
        _sync_tree(fresh)
        if folder.exists() and _exchange(fresh, folder):
            fresh.rename(old)
        else:
            if folder.exists():
                folder.rename(old)
            fresh.rename(folder)
        _sync(folder.parent)
    finally:
        recover(folder)


def recover(folder: str | Path) -> None:
    """Removes what a killed :func:`replace_folder` left beside ``folder``; puts the old one back if none is there."""
    folder = Path(folder)
    fresh, old = _side(folder, "new"), _side(folder, "old")
    if old.is_dir() and not folder.exists():
        old.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(fresh, ignore_errors=True)


def _side(folder: Path, role: str) -> Path:
    return folder.with_name(f".{folder.name}.{role}")


def _exchange(first: Path, second: Path) -> bool:
    """Swaps two folders in one step; False where the system cannot."""
    if not sys.platform.startswith("linux"):
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    return bool(rename(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE) == 0)


def _sync_tree(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
