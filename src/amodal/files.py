"""Files and folders that are either old or new, never half written, whenever the process is killed.

Everything that the package writes goes through here, but for logs that grow. And tensors that are checked before anyone
sees them: only safetensors are read, nothing is ever unpickled.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import io
import json
import os
import shutil
import sys
import threading
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amodal.errors import (
    AmodalError,
    ConfigError,
    DataError,
    DiskError,
    WeightsError,
    named,
    nearest,
    printable,
    shown,
)
from amodal.locks import is_still, lock, make_folder, remove_empty

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import Tensor

PICKLES = (".pth", ".pt", ".pkl", ".bin", ".ckpt")
"""Endings of files that are pickles, and never loaded."""

NAME_BYTES = 255
"""Longest file name of the usual file systems."""

_PROBE = 2**16
_FORMATS = {
    ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF", ".bmp": "BMP"
}  # fmt: skip
_MARK = "amodal"  # what pictures that were drawn say under "Software"
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


@contextlib.contextmanager
def replace_folder(folder: str | Path) -> Iterator[Path]:
    """Yields an empty folder beside ``folder`` that takes its place when the block ends without an exception.

    Everything in it is on disk before the swap. On Linux the swap is one system call; elsewhere it is two renames, and
    :func:`recover` mends the moment between them.
    """
    folder = Path(folder)
    fresh, old = _side(folder, "new"), _side(folder, "old")
    with named(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        recover(folder)
        fresh.mkdir()
    try:
        try:
            yield fresh
        except AmodalError as fault:
            # Whoever reads it knows the folder by the name that it will have.
            raise type(fault)(str(fault).replace(str(fresh), str(folder))) from None
        with named(folder):
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


def check_own(folder: str | Path, own: Collection[str], what: str) -> None:
    """Refuses a folder that is to be replaced as a whole and holds files of somebody else.

    Args:
        folder: need not be there; an empty one is nobody's.
        own: names of all that may lie in it; none of them has to.
        what: what it should be.

    Raises:
        DataError: it holds something else, or is a file; names that.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise DataError(f"is a file, no folder for {what}; choose another one", file=folder)
    others = sorted(path.name for path in folder.iterdir() if path.name not in own) if folder.is_dir() else []
    if others:
        reason = f"holds {others[0]}, which is no part of {what} and would be lost; choose another folder"
        raise DataError(reason, file=folder)


@contextlib.contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """Yields a place beside ``path`` to write to; what lies there is on disk, then takes the place of ``path``.

    After an exception the place is empty again and ``path`` as it was. Folders are made; the mode follows the umask. Of
    several writers at once the last one wins, whole. A link stays one, and what it leads to is replaced; a device or a
    pipe (``/dev/stdout``) is written to as it is.

    Raises:
        AmodalError: the folder cannot be written to, ``path`` is a folder, ...; names ``path``.
        DiskError: the disk is full or faulty.
    """
    path = Path(path)
    with named(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if path.exists() and not path.is_file():
            yield path
            return
        target = Path(os.path.realpath(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        with _place_beside(target) as beside:
            yield beside
            _sync(beside)
            os.replace(beside, target)


@contextlib.contextmanager
def _place_beside(target: Path) -> Iterator[Path]:
    """Yields an empty file of this writer alone, in the folder of ``target``; it is gone afterwards.

    Its name is always the same, so that the next writer takes over what a killed one left; while another one is at
    work it is a name of this one's own.
    """
    mark = f"{zlib.crc32(os.fsencode(target.name)):08x}"  # A name of full length has no room for an ending.
    for name in (f".{mark}.part", f".{mark}-{os.getpid()}-{threading.get_ident():x}.part"):
        beside = target.with_name(name)
        handle = os.open(beside, os.O_RDWR | os.O_CREAT, 0o666)
        if sys.platform == "win32":  # No open file can be replaced there.
            os.close(handle)
            yield beside
            return
        try:
            if not (lock(handle) and is_still(handle, beside)):
                continue
            try:
                yield beside
            finally:
                # By now the name may be the next writer's.
                if is_still(handle, beside):
                    with contextlib.suppress(OSError):
                        beside.unlink()
            return
        finally:
            os.close(handle)
    raise FileExistsError(errno.EEXIST, "others are writing it, too")


def check_room(folder: str | Path, need: int = 0) -> None:
    """Makes sure, before long work, that its results can be written into ``folder``. Leaves nothing behind.

    Args:
        folder: where they will lie; made then.
        need: about how many bytes they will have.

    Raises:
        AmodalError: nothing can be written there.
        DiskError: fewer than ``need`` bytes are free, or not even a small file has room.
    """
    folder = Path(folder)
    with named(folder):
        made = make_folder(folder)
        probe = folder / f".{os.getpid()}.room"
        try:
            probe.write_bytes(b"\0" * max(1, min(need, _PROBE)))
            free = shutil.disk_usage(folder).free
        finally:
            probe.unlink(missing_ok=True)
            remove_empty(made)
    if free < need:
        raise DiskError(f"{folder}: {free / 1e6:.1f} MB are free on this disk, about {need / 1e6:.1f} MB are needed")


def check_target(path: str | Path, *inputs: str | Path) -> None:
    """:func:`check_room` for one file, which must be none of the ``inputs``.

    Raises:
        DataError: it is one of them; names it.
    """
    path = Path(path)
    for read in inputs:
        if path.is_file() and Path(read).is_file() and path.samefile(read):
            raise DataError("is read here and would be replaced by what is written; name another file", file=path)
    with named(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if path.is_file() or not path.exists():  # A device or a pipe needs no room.
        check_room(path.parent)


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


def write_picture(path: Path, picture: Image, *, drawn: bool = False, **options: Any) -> None:
    """A picture in the format that its ending tells; see :func:`whole`.

    Args:
        path: the file.
        picture: what is written.
        drawn: the file gets a mark, and only a file that has it is replaced: folders of drawings may be folders of
            other pictures, too.
        options: of Pillow's writer.

    Raises:
        ConfigError: the ending is unknown.
        DataError: there is another picture, which nobody drew here.
    """
    from PIL.PngImagePlugin import PngInfo

    if path.suffix.lower() not in _FORMATS:
        raise ConfigError(f"{path}: no picture is written as {path.suffix!r}{nearest(path.suffix, _FORMATS)}")
    if drawn:
        if os.path.lexists(path) and not _is_drawn(path):
            raise DataError("is there already, and was not drawn by amodal; choose another folder", file=path)
        marked = PngInfo()
        marked.add_text("Software", _MARK)
        options["pnginfo"] = marked
    held = io.BytesIO()
    picture.save(held, _FORMATS[path.suffix.lower()], **options)
    with whole(path) as beside:
        beside.write_bytes(held.getbuffer())


def _is_drawn(path: Path) -> bool:
    """Whether the first bytes of a PNG file tell that :func:`write_picture` drew it."""
    try:
        with path.open("rb") as file:
            return b"tEXtSoftware\0" + _MARK.encode() in file.read(256)
    except OSError:
        return False


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
