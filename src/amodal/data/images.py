"""Pictures in, RGB bytes out: whatever a camera or an annotation tool wrote, or a one-line :class:`DataError`.

Decisions:

- Formats: PNG (first frame), JPEG, BMP, TIFF (first page), WEBP and GIF (first frame). No other decoder of Pillow is
  ever reached, however a file is named: the extension does not count, the content does.
- Size: refused above ``MAX_PIXELS`` from the header alone, before pixels are allocated.
- Orientation: the EXIF tag is applied. Annotations drawn on the stored, unrotated pixels are recognised by their width
  and height (only possible for quarter turns) and then get those pixels; ``probe`` tells which.
- Grey of more than 8 bits: the header's bits a sample decide what is white, ``round(v * 255 / (2^bits - 1))``, and
  where a TIFF says that 0 is white, so it is. 16 bit RGB: Pillow keeps the high byte, ``v // 256``, at most one level
  away from that. 32 bit integers are read as 16 bit if they fit; floats have no agreed range and are refused.
- A picture whose stream ends early is refused, although its decoder does not complain (:mod:`amodal.data.cut`).
- Alpha, palette transparency: composited over black, as what cannot be seen carries no picture.
- CMYK (Adobe's inverted kind in JPEG too): the plain formula ``(1 - C)(1 - K)``. Embedded colour profiles are ignored.
"""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from amodal.data.cut import missing_rows
from amodal.errors import DataError, refuse_address

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF")
EXTENSIONS = (
    ".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".apng", ".jpe", ".jfif", ".dib"
)  # fmt: skip
OTHER_EXTENSIONS = (
    ".heic", ".heif", ".avif", ".jp2", ".j2k", ".jpx", ".jxl", ".svg", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".ico",
    ".psd", ".exr", ".hdr", ".pcx", ".dds", ".fits", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf",
    ".raw"
)  # fmt: skip
"""Endings of pictures in formats that are not read."""
MAX_PIXELS = 89_478_485  # 256 MiB as RGB; Pillow's own limit

_ORIENTATION_TAG, _BITS_TAG, _PHOTOMETRIC_TAG = 0x0112, 258, 262
_WHITE_IS_ZERO = 0
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_BACK = {**_UPRIGHT, 6: _UPRIGHT[8], 8: _UPRIGHT[6]}
_HEADERS = (
    (4, (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypmsf1", b"ftyphevc"), "HEIC"),
    (4, (b"ftypavif", b"ftypavis"), "AVIF"),
    (0, (b"<svg", b"<?xml"), "SVG or XML"),
    (0, (b"%PDF",), "PDF"),
)


@dataclass(frozen=True)
class ImageInfo:
    """What the header of a picture says.

    Attributes:
        width, height: pixels of the upright picture.
        orientation: EXIF orientation, 1 to 8.
        format: Pillow's name of the format.
    """

    width: int
    height: int
    orientation: int
    format: str

    def stored(self) -> tuple[int, int]:
        """(width, height) of the stored pixels, before the orientation is applied."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)

    def is_unrotated(self, width: int, height: int) -> bool:
        """Whether only the stored, unrotated pixels have this size."""
        return (self.width, self.height) != (width, height) and self.stored() == (width, height)


def safe_join(folder: str | Path, file_name: str, *, image_id: object = None) -> Path:
    """Path of an annotation's ``file_name`` inside ``folder``; symbolic links below the folder are followed.

    Raises:
        DataError: the name is empty, absolute, a URL, has backslashes or NULs, or climbs out of the folder.
    """
    parts = PurePosixPath(file_name).parts
    bad = (
        not parts
        or "\0" in file_name
        or "\\" in file_name
        or "://" in file_name
        or ".." in parts
        or PurePosixPath(file_name).is_absolute()
        or bool(PureWindowsPath(file_name).drive)
    )
    if bad:
        reason = f"file_name {file_name!r} must be a relative path inside the image folder, with '/' between folders"
        raise DataError(reason, file=folder, image_id=image_id)
    return Path(folder, *parts)


def probe(path: str | Path, *, max_pixels: int = MAX_PIXELS, image_id: object = None) -> ImageInfo:
    """Size, orientation and format from the header; no pixel is decoded.

    Raises:
        DataError: as :func:`read_image`, except for faults that only show in the pixels.
    """
    with _opened(Path(path), max_pixels, image_id) as image:
        return _info(image)


def read_image(
    path: str | Path,
    file_name: str | None = None,
    *,
    size: tuple[int, int] | None = None,
    max_pixels: int = MAX_PIXELS,
    image_id: object = None,
) -> NDArray[np.uint8]:
    """Decode a picture.

    Args:
        path: the file, or with ``file_name`` the folder it must lie in.
        file_name: relative path as annotations have it.
        size: (height, width) that the annotations say.
        max_pixels: refuse larger pictures before decoding.
        image_id: named in errors.

    Returns:
        uint8 [H, W, 3] RGB, upright (or as stored, if only that has the annotated size).

    Raises:
        DataError: the file is missing, no regular file, unreadable, truncated, of another format, too large, of a pixel
            type without agreed range, or not of the annotated size.
    """
    file = Path(path) if file_name is None else safe_join(path, file_name, image_id=image_id)
    with _opened(file, max_pixels, image_id) as image:
        info = _info(image)
        stored = size is not None and info.is_unrotated(size[1], size[0])
        if size is not None and not stored and (info.height, info.width) != tuple(size):
            reason = f"picture is {info.width} x {info.height}, annotations say {size[1]} x {size[0]} (width x height)"
            raise DataError(reason, file=file, image_id=image_id)
        image.load()
        if missing := missing_rows(image, file, FORMATS):
            reason = f"is cut inside the picture: {missing} of {image.height} rows are missing"
            raise DataError(reason, file=file, image_id=image_id)
        grey = grey_range(image)
        # Pillow turns TIFF upright while loading, and only TIFF.
        turn = _BACK if image.format == "TIFF" else _UPRIGHT
        needs_turn = info.orientation > 1 and stored == (image.format == "TIFF")
        try:
            return to_rgb(image.transpose(turn[info.orientation]) if needs_turn else image, grey)
        except DataError as fault:
            raise DataError(fault.reason, file=file, image_id=image_id) from None


def grey_range(image: Image.Image) -> tuple[int, int]:
    """(black, white) of integer samples, as the header of an opened file says; 16 bit where it says nothing.

    Ask before the picture is turned or copied: only the opened file has its header.
    """
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(_BITS_TAG, (16,))
    bits = bits[0] if isinstance(bits, tuple) else bits
    white = 2**bits - 1 if bits in range(9, 17) else 65535
    # Pillow turns 8 bit samples round itself.
    return (white, 0) if tags.get(_PHOTOMETRIC_TAG) == _WHITE_IS_ZERO else (0, white)


def to_rgb(image: Image.Image, grey: tuple[int, int] = (0, 65535)) -> NDArray[np.uint8]:
    """uint8 [H, W, 3] RGB of a Pillow picture of any mode, as the module's docstring says; EXIF is not looked at.

    Args:
        image: the picture.
        grey: what is black and white where samples are integers of more than 8 bits (:func:`grey_range`).

    Raises:
        DataError: the mode has no agreed range (32 bit float) or no conversion (LAB).
    """
    if image.mode.startswith("I"):
        return _from_integers(np.asarray(image), *grey)
    if image.mode in ("F", "LAB"):
        raise DataError(f"pixel type {image.mode} cannot be shown without a choice; save as 8 or 16 bit grey or RGB")
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        rgba = image.convert("LA").convert("RGBA") if image.mode == "La" else image.convert("RGBA")
        black = Image.new("RGBA", rgba.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, rgba)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _from_integers(values: NDArray[Any], black: int, white: int) -> NDArray[np.uint8]:
    wide = values.astype(np.int64)
    if wide.size and (wide.min() < 0 or wide.max() > 65535):
        raise DataError(f"integer pixels from {wide.min()} to {wide.max()} do not fit 16 bit; save as 8 or 16 bit")
    span = abs(white - black)
    grey = ((np.abs(wide - black).clip(0, span) * 255 + span // 2) // span).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


def _info(image: Image.Image) -> ImageInfo:
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # damaged EXIF must not cost the picture
        orientation = 1
    orientation = orientation if orientation in _UPRIGHT else 1
    width, height = image.size
    # A TIFF already reports its upright size.
    if orientation >= 5 and image.format != "TIFF":
        width, height = height, width
    return ImageInfo(width, height, orientation, str(image.format))


@contextmanager
def _opened(path: Path, max_pixels: int, image_id: object) -> Iterator[Image.Image]:
    """The picture, header read; every fault in the block that a decoder can raise becomes a DataError."""

    def fail(reason: str) -> DataError:
        return DataError(reason, file=path, image_id=image_id)

    _require_regular_file(path, fail)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # damaged metadata is no reason to speak up, and our limit stands below
            with Image.open(path, formats=FORMATS) as image:
                width, height = image.size
                if width * height > max_pixels:
                    raise fail(f"{width} x {height} pixels are more than the limit of {max_pixels}")
                yield image
    except DataError:
        raise
    except UnidentifiedImageError:
        raise fail(_unknown_format(path)) from None
    except Image.DecompressionBombError:
        raise fail(f"more pixels than the limit of {max_pixels}") from None
    except OSError as fault:
        raise fail(f"cannot be read: {fault.strerror or fault}") from None
    except Exception as fault:  # decoders raise anything from struct.error to MemoryError on foreign bytes
        raise fail(f"damaged picture: {fault or type(fault).__name__}") from None


def _require_regular_file(path: Path, fail: Any) -> None:
    """Checked before opening, as opening a pipe would wait for ever."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        refuse_address(path)
        near = next((p for p in _with_other_extension(path) if p.is_file()), None)
        raise fail("no such file" + (f"; there is {near.name}" if near else "")) from None
    except (OSError, ValueError) as fault:
        raise fail(f"cannot be read: {getattr(fault, 'strerror', None) or fault}") from None
    if stat.S_ISDIR(status.st_mode):
        raise fail("is a folder, not a picture")
    if not stat.S_ISREG(status.st_mode):
        raise fail("is no regular file")
    if status.st_size == 0:
        raise fail("is empty (0 bytes)")


def _with_other_extension(path: Path) -> list[Path]:
    if not path.name:
        return []
    return [path.with_suffix(ext) for low in EXTENSIONS for ext in (low, low.upper())]


def _unknown_format(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            head = stream.read(16)
    except OSError as fault:
        return f"cannot be read: {fault.strerror or fault}"
    kind = next((name for at, marks, name in _HEADERS if head[at:].startswith(marks)), None)
    readable = ", ".join(FORMATS)
    return f"is {kind}; convert it to one of {readable}" if kind else f"is none of {readable}, or its header is damaged"
