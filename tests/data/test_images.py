"""Pictures as cameras and tools write them, compared with pixels worked out by hand."""

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from amodal.data.images import probe, read_image, safe_join, to_rgb
from amodal.errors import DataError
from amodal.pictures import as_pixels

RAMP = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 13


def save(path: Path, array: np.ndarray, mode: str | None = None, **options: object) -> Path:
    image = Image.fromarray(array)
    (image if mode is None else image.convert(mode)).save(path, **options)
    return path


@pytest.mark.parametrize("extension", ["png", "bmp", "tiff", "webp"])
def test_lossless_formats_give_their_pixels(tmp_path: Path, extension: str) -> None:
    options = {"lossless": True} if extension == "webp" else {}
    pixels = read_image(save(tmp_path / f"a.{extension}", RAMP, **options))
    assert pixels.dtype == np.uint8
    assert pixels.flags["C_CONTIGUOUS"]
    assert pixels.flags["WRITEABLE"]
    assert np.array_equal(pixels, RAMP)


def test_jpeg_and_wrong_extension(tmp_path: Path) -> None:
    flat = np.full((16, 16, 3), 90, np.uint8)
    path = save(tmp_path / "photo.JPG", flat, quality=95)
    assert np.abs(read_image(path).astype(int) - 90).max() <= 2
    named = path.rename(tmp_path / "photo.png")  # content decides
    assert probe(named).format == "JPEG"


def test_16_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    values = np.array([[0, 128, 129, 257, 20000, 40000, 65535]], np.uint16)
    for name in ("a.png", "a.tiff"):
        pixels = read_image(save(tmp_path / name, values))
        assert pixels[0, :, 0].tolist() == [0, 0, 1, 1, 78, 156, 255]  # round(v / 257)
        assert np.array_equal(pixels[..., 0], pixels[..., 2])
    assert to_rgb(Image.fromarray(values.astype(np.int32)))[0, :, 0].tolist() == [0, 0, 1, 1, 78, 156, 255]


def test_16_bit_rgb_keeps_the_high_byte(tmp_path: Path) -> None:
    """A PNG of colour type 2 with 16 bit written by hand, as Pillow cannot write one."""
    import struct
    import zlib

    row = np.array([0, 255, 256, 40000, 65535, 513], ">u2").tobytes()

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    assert read_image(path).reshape(-1).tolist() == [0, 0, 1, 156, 255, 2]


def test_grey_bilevel_and_palette(tmp_path: Path) -> None:
    grey = np.array([[0, 100, 255]], np.uint8)
    assert read_image(save(tmp_path / "l.png", grey))[0].tolist() == [[0] * 3, [100] * 3, [255] * 3]
    assert read_image(save(tmp_path / "1.png", grey > 50))[0, :, 1].tolist() == [0, 255, 255]
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.putdata([1, 0])
    palette.save(tmp_path / "p.png")
    assert read_image(tmp_path / "p.png")[0].tolist() == [[200, 100, 50], [10, 20, 30]]
    palette.save(tmp_path / "t.png", transparency=0)
    assert read_image(tmp_path / "t.png")[0].tolist() == [[200, 100, 50], [0, 0, 0]]
    palette.save(tmp_path / "t.gif", transparency=0)
    assert read_image(tmp_path / "t.gif")[0].tolist() == [[200, 100, 50], [0, 0, 0]]


def test_alpha_is_composited_over_black(tmp_path: Path) -> None:
    rgba = np.array([[[200, 100, 50, 255], [200, 100, 50, 0], [200, 100, 50, 128]]], np.uint8)
    pixels = read_image(save(tmp_path / "a.png", rgba))[0].tolist()
    assert pixels == [[200, 100, 50], [0, 0, 0], [100, 50, 25]]  # 200 * 128 / 255 = 100.4
    la = np.array([[[200, 255], [200, 0]]], np.uint8)
    path = tmp_path / "la.png"
    Image.frombytes("LA", (2, 1), la.tobytes()).save(path)
    assert read_image(path)[0].tolist() == [[200] * 3, [0] * 3]
    for mode in ("La", "PA", "RGBa", "RGBX", "YCbCr", "HSV"):
        assert to_rgb(Image.new(mode, (2, 3))).shape == (3, 2, 3)


def test_cmyk_adobe_jpeg_and_tiff(tmp_path: Path) -> None:
    """Cyan ink alone is (0, 255, 255); Pillow writes JPEG in Adobe's inverted kind."""
    cmyk = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    for name in ("a.jpg", "a.tif"):
        cmyk.save(tmp_path / name)
        assert np.abs(read_image(tmp_path / name).astype(int) - [0, 255, 255]).max() <= 2


def test_first_frame_of_animations_and_pages(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 3), colour) for colour in ("red", "lime")]
    for name in ("a.gif", "a.png", "a.tif", "a.webp"):
        options = {"lossless": True} if name == "a.webp" else {}
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
        assert read_image(tmp_path / name)[0, 0].tolist() == [255, 0, 0]


# What each orientation must do to stored pixels [[a b c], [d e f]], from the EXIF standard: where row 0 / column 0 lie.
UPRIGHT = {
    1: ["abc", "def"],
    2: ["cba", "fed"],
    3: ["fed", "cba"],
    4: ["def", "abc"],
    5: ["ad", "be", "cf"],
    6: ["da", "eb", "fc"],
    7: ["fc", "eb", "da"],
    8: ["cf", "be", "ad"],
}


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, orientation: int, name: str) -> None:
    stored = np.array([[10, 20, 30], [40, 50, 60]], np.uint8)
    image = Image.fromarray(np.repeat(stored[:, :, None], 3, 2))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / name, exif=exif, **({"lossless": True} if name == "a.webp" else {}))
    want = np.array([["abcdef".index(c) * 10 + 10 for c in row] for row in UPRIGHT[orientation]])
    info = probe(tmp_path / name)
    assert (info.height, info.width) == want.shape
    assert info.orientation == orientation
    assert np.array_equal(read_image(tmp_path / name)[..., 0], want)
    assert np.array_equal(read_image(tmp_path / name, size=want.shape)[..., 0], want)
    if orientation >= 5:  # annotations drawn on the stored pixels
        assert info.is_unrotated(3, 2)
        assert np.array_equal(read_image(tmp_path / name, size=(2, 3))[..., 0], stored)
    else:
        assert not info.is_unrotated(3, 2)


def test_damaged_exif_costs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(RAMP).save(path, exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\xff\xff\xff")
    assert read_image(path).shape == (2, 3, 3)


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (200, 1)])
def test_thin_pictures(tmp_path: Path, size: tuple[int, int]) -> None:
    path = save(tmp_path / "a.png", np.full((*size, 3), 7, np.uint8))
    assert read_image(path).shape == (*size, 3)


def test_names_inside_the_folder(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    save(tmp_path / "sub" / "bild_ä 1.png", RAMP)
    assert np.array_equal(read_image(tmp_path, "sub/bild_ä 1.png"), RAMP)
    assert safe_join(tmp_path, "./sub//x.png") == tmp_path / "sub" / "x.png"
    assert safe_join(tmp_path, "..a/b..png") == tmp_path / "..a" / "b..png"


def test_size_that_does_not_fit_names_both(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", RAMP)
    with pytest.raises(DataError, match=r"a\.png: image 9: picture is 3 x 2, annotations say 2 x 3") as caught:
        read_image(path, size=(3, 2), image_id=9)
    assert caught.value.image_id == 9


def tiff(path: Path, rows: list[list[int]], bits: int, white_is_zero: bool = False) -> Path:
    """A grey TIFF written by hand, samples of ``bits`` bits packed behind each other."""
    width, height = len(rows[0]), len(rows)
    data = b"".join(
        int("".join(f"{value:0{bits}b}" for value in row).ljust(-(-width * bits // 8) * 8, "0"), 2).to_bytes(
            -(-width * bits // 8), "big"
        )
        for row in rows
    )
    if bits == 16:
        data = np.array(rows, "<u2").tobytes()
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, int(not white_is_zero)), (273, 122), (277, 1)]
    tags += [(278, height), (279, len(data))]
    head = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in tags)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8) + head + struct.pack("<I", 0) + data)
    return path


def test_the_bits_of_the_header_decide_what_is_white(tmp_path: Path) -> None:
    ramp = [0, 8, 9, 2048, 4000, 4095]
    want = [0, 0, 1, 128, 249, 255]  # round(v * 255 / 4095)
    path = tiff(tmp_path / "a.tif", [ramp, ramp[::-1]], 12)
    assert read_image(path)[..., 1].tolist() == [want, want[::-1]]
    with Image.open(path) as opened:
        assert as_pixels(opened)[..., 0].tolist() == [want, want[::-1]]
    assert read_image(tiff(tmp_path / "b.tif", [[0, 4095, 65535]], 16))[0, :, 0].tolist() == [0, 16, 255]


def test_a_tiff_may_say_that_zero_is_white(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.tif", [[0, 257, 65535]], 16, white_is_zero=True)
    assert read_image(path)[0, :, 0].tolist() == [255, 254, 0]
    assert read_image(tiff(tmp_path / "b.tif", [[0, 100, 255]], 8, white_is_zero=True))[0, :, 0].tolist() == [
        255,
        155,
        0,
    ]
