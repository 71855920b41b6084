"""Pictures that crash, hang or fool: each ends in a one-line DataError that names the file."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from amodal.data.images import FORMATS, probe, read_image, safe_join
from amodal.errors import DataError


def refused(path: Path, reason: str, **options: object) -> None:
    with pytest.raises(DataError, match=reason) as caught:
        read_image(path, image_id=5, **options)
    message = str(caught.value)
    assert path.name in message
    assert "image 5" in message
    assert "\n" not in message


def fault_of(path: Path) -> str | None:
    """The message of the DataError, or None for a picture; any other exception fails the test."""
    try:
        pixels = read_image(path, max_pixels=10**6)
    except DataError as fault:
        return str(fault)
    assert pixels.dtype == np.uint8
    assert pixels.shape[2] == 3
    return None


def encoded(kind: str, size: tuple[int, int] = (40, 30)) -> bytes:
    noise = np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).save(out, kind)
    return out.getvalue()


def test_missing_names_the_neighbour_with_another_extension(tmp_path: Path) -> None:
    refused(tmp_path / "a.jpg", "no such file$")
    (tmp_path / "a.png").write_bytes(encoded("PNG"))
    refused(tmp_path / "a.jpg", r"no such file; there is a\.png")


def test_empty_folder_and_text(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    refused(tmp_path / "empty.png", "0 bytes")
    (tmp_path / "d.png").mkdir()
    refused(tmp_path / "d.png", "folder")
    (tmp_path / "t.png").write_text("hello")
    refused(tmp_path / "t.png", "none of PNG, JPEG")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_named_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    refused(tmp_path / "pipe.png", "no regular file")


def test_symlink_loop_and_too_long_name(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to(tmp_path / "b.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "a.png")
    refused(tmp_path / "a.png", "cannot be read: .*symbolic links")
    refused(tmp_path / ("x" * 300 + ".png"), "cannot be read")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser reads everything")
def test_no_permission(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded("PNG"))
    path.chmod(0)
    refused(path, "cannot be read: Permission denied")


@pytest.mark.parametrize("kind", FORMATS)
def test_truncated_at_any_place(tmp_path: Path, kind: str) -> None:
    data = encoded(kind)
    path = tmp_path / "cut.img"
    faults = 0
    for length in np.linspace(1, len(data) - 1, 25).astype(int):
        path.write_bytes(data[:length])
        faults += fault_of(path) is not None  # a missing end marker alone is no fault
    assert faults >= 20


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(FORMATS), seed=st.integers(0, 2**32 - 1), count=st.integers(1, 20))
def test_flipped_bytes_give_pixels_or_a_data_error(tmp_path: Path, kind: str, seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    data = np.frombuffer(encoded(kind), np.uint8).copy()
    data[rng.integers(0, min(len(data), 400), count)] = rng.integers(0, 256, count)
    path = tmp_path / "fuzz.img"
    path.write_bytes(data.tobytes())
    fault = fault_of(path)
    assert fault is None or "\n" not in fault


def png_header(width: int, height: int) -> bytes:
    data = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + data + struct.pack(">I", zlib.crc32(b"IHDR" + data))
    idat = zlib.compress(b"\0" * 10)
    rest = struct.pack(">I", len(idat)) + b"IDAT" + idat + struct.pack(">I", zlib.crc32(b"IDAT" + idat))
    return b"\x89PNG\r\n\x1a\n" + chunk + rest


@pytest.mark.parametrize("size", [(10_000, 10_000), (60_000, 60_000), (2**31 - 1, 2**31 - 1), (0, 5)])
def test_header_bombs_are_refused_from_the_header(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(*size))
    refused(path, "limit of|damaged|none of|cannot be read")
    with pytest.raises(DataError):
        probe(path)


def test_the_limit_can_be_set(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded("PNG", (40, 30)))
    assert read_image(path, max_pixels=1200).shape == (40, 30, 3)
    refused(path, "30 x 40 pixels are more than the limit of 1199", max_pixels=1199)


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "is HEIC; convert it to one of PNG"),
        ("a.avif", b"\0\0\0\x18ftypavif\0\0\0\0mif1avif", "is AVIF"),
        ("a.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is SVG"),
        ("a.png", b"%PDF-1.7", "is PDF"),
        ("a.jpg", b"SIMPLE  =                    T" + b" " * 4000, "none of"),  # FITS
        ("a.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n", "none of"),
        ("a.png", b"\x1f\x8b\x08\0" + b"\0" * 60, "none of"),  # gzip
        ("a.png", b"P6 2 2 255\n" + b"\0" * 12, "none of"),  # PPM
    ],
)
def test_formats_without_a_place_here(tmp_path: Path, name: str, data: bytes, reason: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    refused(path, reason)


def test_pixels_without_agreed_range(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0.1, 2.0]], np.float32)).save(tmp_path / "f.tif")
    refused(tmp_path / "f.tif", "pixel type F")
    Image.fromarray(np.array([[-1, 70000]], np.int32)).save(tmp_path / "i.tif")
    refused(tmp_path / "i.tif", "from -1 to 70000")


def test_huge_text_chunk(tmp_path: Path) -> None:
    text = b"Comment\0\0" + zlib.compress(b"x" * 80_000_000, 9)
    chunk = struct.pack(">I", len(text)) + b"zTXt" + text + struct.pack(">I", zlib.crc32(b"zTXt" + text))
    data = encoded("PNG")
    path = tmp_path / "a.png"
    path.write_bytes(data[:33] + chunk + data[33:])
    refused(path, "damaged picture|cannot be read|none of")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "..",
        "../a.png",
        "sub/../../a.png",
        "/etc/passwd",
        "C:/a.png",
        "C:a.png",
        "..\\a.png",
        "sub\\a.png",
        "\\\\host\\share\\a.png",
        "http://host/a.png",
        "file:///a.png",
        "a\0.png",
        ".",
    ],
)
def test_file_names_that_leave_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="inside the image folder") as caught:
        safe_join(tmp_path, name, image_id=3)
    assert "image 3" in str(caught.value)
    assert "\n" not in str(caught.value)


def png(rows: np.ndarray, height: int, kind: int = 0) -> bytes:
    """A PNG of 8 bits whose header says ``height``, whatever there is of ``rows``; every chunk is sound."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", rows.shape[1], height, 8, kind, 0, 0, 0)
    stream = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", stream) + chunk(b"IEND", b"")


NOISE = np.random.default_rng(1).integers(0, 255, (64, 64, 3), np.uint8)


@pytest.mark.parametrize(("kind", "bands"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_a_png_whose_stream_ends_early(tmp_path: Path, kind: int, bands: int) -> None:
    rows = np.random.default_rng(0).integers(1, 255, (64, 64, bands), np.uint8)
    path = tmp_path / "a.png"
    path.write_bytes(png(rows[:20], 64, kind))
    refused(path, "is cut inside the picture: 44 of 64 rows are missing")
    path.write_bytes(png(rows, 64, kind))
    assert fault_of(path) is None


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
def test_a_jpeg_whose_stream_is_closed_early(tmp_path: Path, progressive: bool, share: float) -> None:
    whole = io.BytesIO()
    Image.fromarray(NOISE).save(whole, "JPEG", progressive=progressive)
    path = tmp_path / "a.jpg"
    path.write_bytes(whole.getvalue()[: int(len(whole.getvalue()) * share)] + b"\xff\xd9")
    refused(path, "is cut inside the picture: [0-9]+ of 64 rows are missing")
    path.write_bytes(whole.getvalue())
    assert fault_of(path) is None


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("value", [0, 85, 128, 255])
def test_even_pictures_are_whole(tmp_path: Path, kind: str, value: int) -> None:
    """What a cut picture looks like is no proof that one is cut."""
    pixels = NOISE.copy()
    pixels[20:] = value
    modes = {"JPEG": ("RGB", "L", "CMYK"), "WEBP": ("RGB", "RGBA"), "TIFF": ("RGB", "L", "P", "1", "RGBA", "CMYK")}
    for mode in modes.get(kind, ("RGB", "L", "P", "1")):
        Image.fromarray(pixels).convert(mode).save(tmp_path / mode, kind)
        assert fault_of(tmp_path / mode) is None
