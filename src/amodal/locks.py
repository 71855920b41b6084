"""Folders that belong to one process at a time, for as long as it lives."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

from amodal.errors import DataError, named

LOCK = ".lock"
"""File by which a process holds a folder."""

_held: set[int] = set()


def _let_go() -> None:
    # A forked child (a loader's worker) would keep the folder for as long as it outlives a killed parent.
    for handle in _held:
        os.close(handle)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


@contextlib.contextmanager
def hold(folder: str | Path, *, beside: bool = False) -> Iterator[None]:
    """Keeps every other process from working in ``folder`` (made where missing) until the block or this process ends.

    The system frees the lock when its holder dies, however that happens. Where the file system has no locks nothing is
    kept. A folder that was made for the block and holds nothing in the end is removed again.

    Args:
        folder: what is held.
        beside: put the lock beside the folder, which is replaced as a whole and need not be there.

    Raises:
        DataError: another process holds the folder; names it.
    """
    folder = Path(folder)
    path = folder.with_name(f".{folder.name}{LOCK}") if beside else folder / LOCK
    while True:
        with named(folder):
            made = make_folder(path.parent)
            try:
                handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            except FileNotFoundError:  # The holder before removed the folder as well.
                continue
        _held.add(handle)
        try:
            if not lock(handle):
                holder = os.read(handle, 200).decode("utf-8", "replace").strip() or "another process"
                reason = f"{holder} is working in this folder; wait for it, or choose another --out"
                raise DataError(reason, file=folder)
            # The holder before removes the file when it is done: a lock on what is no longer there keeps nobody out.
            if is_still(handle, path):
                try:
                    with named(folder):
                        os.truncate(handle, 0)
                        os.write(handle, f"process {os.getpid()} on {platform.node()}".encode())
                    yield
                finally:
                    with contextlib.suppress(OSError):  # Windows removes no open file; an unlocked one does no harm.
                        path.unlink()
                    remove_empty(made)
                return
        finally:
            if handle in _held:
                _held.remove(handle)
                os.close(handle)


def hold_as_main(folder: str | Path, *, beside: bool = False) -> contextlib.AbstractContextManager[None]:
    """:func:`hold` by the first of the processes that share a job, on behalf of all."""
    return hold(folder, beside=beside) if os.environ.get("RANK", "0") == "0" else contextlib.nullcontext()


def make_folder(folder: Path) -> list[Path]:
    """Makes a folder where it is missing; returns what was made, the deepest first."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def remove_empty(folders: list[Path]) -> None:
    """Removes what :func:`make_folder` made, as far as nothing lies in it."""
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()


def is_still(handle: int, path: Path) -> bool:
    """Whether an open file is the one that lies at ``path``."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def lock(handle: int) -> bool:
    """Locks an open file for this process, until it is closed; False where another one has done so."""
    if sys.platform == "win32":
        import msvcrt

        try:
            # Far behind what is written there, as Windows keeps others from reading what is locked.
            os.lseek(handle, 2**20, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        finally:
            os.lseek(handle, 0, os.SEEK_SET)
        return True
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as fault:
        if fault.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise
    return True
