"""``amodal show``: which pictures, their names, and what a faulty picture costs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from amodal.cli import main

LONG = "k" * 245 + ".png"


def place(folder: Path, names: list[str], broken: tuple[str, ...] = ()) -> Path:
    """An annotation file with one square an image, and its pictures of 64 x 48 pixels."""
    images = [{"id": 139872 + k, "file_name": name, "width": 64, "height": 48} for k, name in enumerate(names)]
    square = [[2, 2, 12, 2, 12, 12, 2, 12]]
    annotations = [
        {"id": k, "image_id": image["id"], "category_id": 1, "segmentation": square, "visible_mask": square}
        for k, image in enumerate(images, start=1)
    ]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cup"}]}
    (folder / "ann.json").write_text(json.dumps(content))
    for name in names:
        Image.new("RGB", (64, 48), (90, 90, 90)).save(folder / name)
    for name in broken:
        (folder / name).write_bytes(b"no picture")
    return folder / "ann.json"


def test_long_names_and_broken_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ann = place(tmp_path, [LONG, "b.png", "c.png"], broken=("b.png",))
    assert main(["show", str(ann), str(tmp_path), str(tmp_path / "out")]) == 0
    printed = capsys.readouterr()
    assert f"2 pictures, drawn at 8 times 64 x 48 px: {tmp_path / 'out'}" in printed.out
    assert "1 picture could not be drawn:\n  image 139873: " in printed.err
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names[1] == "139874_c.png"
    assert names[0].startswith("139872_kkkk")
    assert len(names[0]) == 255


def test_no_picture_at_all_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ann = place(tmp_path, ["a.png", "b.png"], broken=("a.png", "b.png"))
    assert main(["show", str(ann), str(tmp_path), str(tmp_path / "out")]) == 2
    assert "none of 2 pictures could be drawn; image 139872: " in capsys.readouterr().err


def test_pictures_have_the_size_that_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ann = place(tmp_path, ["a.png"])
    for size, side in (("2000", 512), ("100", 64), ("32", 32), ("0", 64)):
        assert main(["show", str(ann), str(tmp_path), str(tmp_path / size), "--draw-size", size]) == 0
        with Image.open(tmp_path / size / "139872_a.png") as drawn:
            assert drawn.size == (side, side * 3 // 4)
    printed = capsys.readouterr().out
    for scale in ("8 times ", "", "0.5 of "):
        assert f"1 picture, drawn at {scale}64 x 48 px: " in printed
    assert main(["show", str(ann), str(tmp_path), str(tmp_path / "x"), "--draw-size", "-1"]) == 2
    assert "--draw-size is -1, must be 0" in capsys.readouterr().err
