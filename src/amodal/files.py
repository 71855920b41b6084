"""Files and folders that are either old or new, never half written, whenever the process is killed.

And tensors that are checked before anyone sees them: only safetensors are read, nothing is ever unpickled.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import platform
import shutil
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amodal.errors import AmodalError, DataError, WeightsError, printable, shown

if TYPE_CHECKING:
    import torch
    from torch import Tensor

PICKLES = (".pth", ".pt", ".pkl", ".bin", ".ckpt")
"""Endings of files that are pickles, and never loaded."""

LOCK = ".lock"
"""File by which a process holds a folder."""

NAME_BYTES = 255
"""Longest file name of the usual file systems."""

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


def shipped_files(kind: str) -> dict[str, Path]:
    """The YAML files that come with the project, by name ("mask_rcnn/nano").

    They lie in the package as it was installed, or in the checkout that it is in.

    Args:
        kind: "configs" or "experiments".
    """
    package = Path(__file__).parent
    folders = [folder for folder in (package / kind, package.parents[1] / kind) if folder.is_dir()]
    paths = [path for folder in folders[:1] for path in folder.rglob("*.yaml")]
    return dict(sorted((path.relative_to(folders[0]).with_suffix("").as_posix(), path) for path in paths))


@contextlib.contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """Yields a place beside ``path`` to write to; what lies there is on disk, then takes the place of ``path``.

    After an exception the place is empty again and ``path`` as it was. Folders are made; the mode follows the umask.

    Raises:
        AmodalError: the disk is full, the folder cannot be written to, ...; names ``path``.
    """
    path = Path(path)
    beside = path.with_name(f".{path.name}.part")
    try:
        with named(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield beside
            beside.chmod(0o666 & ~_umask())
            _sync(beside)
            os.replace(beside, path)
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()


@contextlib.contextmanager
def named(path: Path) -> Iterator[None]:
    """Gives failures to write inside the block the name of what was written, which a full disk does not tell."""
    try:
        yield
    except OSError as error:
        raise AmodalError(f"{path}: cannot be written ({error.strerror or error})") from None


def write_text(path: Path, text: str) -> None:
    """Writes ``text``; see :func:`whole`."""
    with whole(path) as beside:
        beside.write_bytes(text.encode())


def write_json(path: Path, content: Any, indent: int | None = None) -> None:
    """:func:`write_text` of JSON, on one line without ``indent``; NaN is refused."""
    write_text(path, json.dumps(content, allow_nan=False, indent=indent) + "\n")


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """A JSON list, one row a line; see :func:`whole`."""
    with whole(path) as beside, beside.open("w", encoding="utf-8", newline="\n") as file:
        for position, row in enumerate(rows):
            file.write(("[\n" if position == 0 else ",\n") + json.dumps(row))
        file.write("\n]\n" if rows else "[]\n")


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """A safetensors file; see :func:`whole`. Equal tensors give equal bytes."""
    from safetensors import SafetensorError
    from safetensors.torch import save

    # Made in memory: safetensors' own writer gives mode 0600 and an error without a file name.
    try:
        data = save(dict(sorted(tensors.items())), {"format": "pt", **dict(sorted((metadata or {}).items()))})
    except SafetensorError as error:
        raise AmodalError(f"{path}: cannot be written ({error})") from None
    length = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:length])
    # The library writes metadata in the random order of a hash table.
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with whole(path) as beside, beside.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.write(memoryview(data)[length:])


@contextlib.contextmanager
def hold(folder: str | Path) -> Iterator[None]:
    """Keeps every other process from working in ``folder`` (made where missing) until the block or this process ends.

    The system frees the lock when its holder dies, however that happens. Where the file system has no locks nothing is
    kept.

    Raises:
        DataError: another process holds the folder; names it.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not _lock(handle):
                holder = os.read(handle, 200).decode("utf-8", "replace").strip() or "another process"
                reason = f"{holder} is working in this folder; wait for it, or choose another --out"
                raise DataError(reason, file=folder)
            # The holder before removes the file when it is done: a lock on what is no longer there keeps nobody out.
            if _is_still(handle, path):
                os.truncate(handle, 0)
                os.write(handle, f"process {os.getpid()} on {platform.node()}".encode())
                try:
                    yield
                finally:
                    with contextlib.suppress(OSError):  # Windows removes no open file; an unlocked one does no harm.
                        path.unlink()
                return
        finally:
            os.close(handle)


def _is_still(handle: int, path: Path) -> bool:
    """Whether an open file is the one that lies at ``path``."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _lock(handle: int) -> bool:
    """Locks an open file for this process; False where another one has done so."""
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


def fitting_name(stem: str, ending: str, source: str | Path, *, shared: bool = False) -> str:
    """File name ``stem + ending`` of what is made from ``source``, at most :data:`NAME_BYTES` bytes long.

    A name that is too long, or ``shared`` with another source, gets a checksum of ``source`` before its ending; a long
    one loses the end of its stem.
    """
    room = NAME_BYTES - len(os.fsencode(ending))
    whole = os.fsencode(stem)
    if len(whole) > room or shared:
        mark = f"-{zlib.crc32(os.fsencode(source)):08x}"
        # Cut between characters: half a character is no name on some file systems.
        stem = whole[: room - len(mark)].decode(sys.getfilesystemencoding(), "ignore") + mark
    return stem + ending


def read_weights(path: Path, expected: Mapping[str, Tensor], owner: str) -> dict[str, Tensor]:
    """Tensors of a safetensors file, by name, with the shapes and dtypes of ``expected``.

    Args:
        path: the file.
        expected: what must be there, no more and no less.
        owner: what asks for these tensors, for messages.

    Raises:
        WeightsError: naming file and tensor.
    """
    tensors: dict[str, Tensor] = {}
    with open_weights(path) as file:
        names = set(file.keys())
        missing = [name for name in expected if name not in names]
        surplus = sorted(names - set(expected))
        if missing or surplus:
            what = f"tensor {shown(missing[0])} is missing" if missing else f"tensor {shown(surplus[0])} is unknown"
            raise WeightsError(f"{path}: {what} ({len(missing)} missing, {len(surplus)} unknown); asked by {owner}")
        for name, like in expected.items():
            shape = list(file.get_slice(name).get_shape())
            if shape != list(like.shape):
                raise WeightsError(
                    f"{path}: tensor {shown(name)} has shape {shape}, {owner} asks for {list(like.shape)}"
                )
        for name, like in expected.items():
            tensors[name] = fitting(file.get_tensor(name), like.dtype, name, path)
    return tensors


def fitting(value: Tensor, dtype: torch.dtype, name: str, path: Path | str) -> Tensor:
    """A tensor of a file as ``dtype``; floats of another size are converted.

    Raises:
        WeightsError: it is of another kind, or not finite as ``dtype``; names file and tensor.
    """
    import torch

    floats = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    if value.dtype != dtype and not (value.dtype in floats and dtype in floats):
        raise WeightsError(f"{path}: tensor {shown(name)} is {value.dtype}, must be {dtype}")
    converted = value.to(dtype)  # A number that float64 holds may be none in float32.
    if dtype in floats and not bool(torch.isfinite(converted).all()):
        raise WeightsError(f"{path}: tensor {shown(name)} holds NaN or infinity")
    return converted


@contextlib.contextmanager
def open_weights(path: Path) -> Iterator[Any]:
    """A safetensors file open for reading; each of its faults is a :class:`WeightsError` that names it."""
    if not path.is_file():
        others = sorted(p.name for p in path.parent.glob("*") if p.suffix.lower() in PICKLES)
        hint = f" ({others[0]} is pickled and never loaded)" if others else ""
        raise WeightsError(f"{path}: no such file{hint}")
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: no whole safetensors file ({printable(str(error)):.300})") from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


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
