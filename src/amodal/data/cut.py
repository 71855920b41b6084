"""Pictures whose data end early without a word: the stream was closed in the middle, so no decoder complains.

A decoder of PNG, GIF, BMP or TIFF leaves the pixels of missing rows as the buffer was; libjpeg makes them grey. Both is
found out by decoding again: into a buffer of another value, or with other bytes behind the end of a JPEG's data. Only a
picture whose last rows are even is decoded twice, as the last rows of a cut one always are, and progressive JPEGs.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

_JPEG_BLOCK = 8  # pixels a side; a chroma block may cover more
_JPEG_END = b"\xff\xd9"
_FILLING = b"\x55" * 4096  # behind a whole stream it is skipped, in a cut one it is read as data


def missing_rows(image: Image.Image, path: Path, formats: tuple[str, ...]) -> int:
    """How many rows of a loaded picture were never in its file; 0 for a whole one.

    Args:
        image: as it was decoded.
        path: its file.
        formats: what Pillow may take it for.
    """
    if image.format == "JPEG":
        # The end of a progressive one is there from its first, coarse scan on.
        suspect = "progressive" in image.info or _even_end(image, _JPEG_BLOCK, _JPEG_BLOCK)
        return _missing_in_jpeg(image, path, formats) if suspect else 0
    # Of an interlaced picture only every other row may be missing.
    if image.format == "WEBP" or not any(_even_end(image, image.width, 1, above=above) for above in (0, 1)):
        return 0
    with Image.open(path, formats=formats) as again:
        again.load_prepare = _filled(again)  # type: ignore[method-assign]
        again.load()
        return _unequal_rows(image, again)


def _even_end(image: Image.Image, width: int, height: int, above: int = 0) -> bool:
    """Whether the pixels in the last corner, ``above`` rows higher, all have one value."""
    bottom = image.height - above
    if bottom <= 0:
        return False
    part = np.asarray(image.crop((max(0, image.width - width), max(0, bottom - height), image.width, bottom)))
    return bool((part == part[0, 0]).all())


def _filled(image: Image.Image) -> Callable[[], None]:
    """``load_prepare`` of a picture, then a buffer of another value than the usual one."""
    prepare = image.load_prepare  # type: ignore[attr-defined]

    def prepare_and_fill() -> None:
        prepare()
        if getattr(image, "map", None) is not None:
            return  # The file itself is the buffer: all of it is there, and it cannot be written.
        bands = image.im.bands
        ink = 255 if image.mode == "1" else 0x55
        image.im.paste(ink if bands == 1 else (ink,) * bands, (0, 0, *image.size))

    return prepare_and_fill


def _missing_in_jpeg(image: Image.Image, path: Path, formats: tuple[str, ...]) -> int:
    data = path.read_bytes()
    end = data.rfind(_JPEG_END)
    if end < 0:
        return 0
    try:
        with Image.open(io.BytesIO(data[:end] + _FILLING + data[end:]), formats=formats) as again:
            again.load()
            return _unequal_rows(image, again)
    except OSError:
        return 0  # What was put in is at fault; without it the picture could be decoded.


def _unequal_rows(first: Image.Image, second: Image.Image) -> int:
    if first.size != second.size or first.mode != second.mode:
        return 0
    one, other = (np.asarray(image).reshape(image.height, -1) for image in (first, second))
    return int((one != other).any(axis=1).sum())
