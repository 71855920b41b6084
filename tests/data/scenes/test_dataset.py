"""``amodal scenes``: files on disk, canonical annotations, mistakes of the user."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from amodal.cli import main
from amodal.data.reader import load
from amodal.data.scenes import CLASS_NAMES, SETTINGS, dataset, draw, write_dataset
from amodal.errors import ConfigError
from amodal.locks import hold


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scenes") / "set"
    write_dataset(out, images=5, size=96, seed=3, classes=10)
    return out


@pytest.fixture(scope="module")
def content(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "annotations.json").read_text())


def test_images_are_the_drawn_pixels(folder: Path, content: dict[str, Any]) -> None:
    settings = replace(SETTINGS["scenes-v1"], size=96, classes=10)
    assert sorted(p.name for p in folder.iterdir()) == ["annotations.json", "images"]
    assert [image["file_name"] for image in content["images"]] == [f"{k:06d}.png" for k in range(1, 6)]
    for image in content["images"]:
        assert (image["width"], image["height"]) == (96, 96)
        pixels = np.asarray(Image.open(folder / "images" / image["file_name"]))
        np.testing.assert_array_equal(pixels, draw(3, image["id"] - 1, settings).image)


def test_annotations_hold_the_exact_masks(content: dict[str, Any]) -> None:
    settings = replace(SETTINGS["scenes-v1"], size=96, classes=10)
    assert [c["name"] for c in content["categories"]] == list(CLASS_NAMES[:10])
    assert [c["id"] for c in content["categories"]] == list(range(1, 11))
    assert [a["id"] for a in content["annotations"]] == list(range(1, len(content["annotations"]) + 1))
    rows = iter(content["annotations"])
    for index in range(5):
        scene = draw(3, index, settings)
        for amodal, visible, label in zip(scene.amodal, scene.visible, scene.labels, strict=True):
            row = next(rows)
            assert (row["image_id"], row["category_id"], row["iscrowd"]) == (index + 1, label + 1, 0)
            np.testing.assert_array_equal(coco_mask.decode(row["segmentation"]).astype(bool), amodal)
            np.testing.assert_array_equal(coco_mask.decode(row["visible_mask"]).astype(bool), visible)
            assert row["bbox"] == coco_mask.toBbox(row["segmentation"]).tolist()
            assert row["visible_bbox"] == coco_mask.toBbox(row["visible_mask"]).tolist()
            assert row["area"] == amodal.sum()
            assert row["occlude_rate"] == 1 - visible.sum() / amodal.sum()
    assert next(rows, None) is None


def test_info_names_settings_and_seed(content: dict[str, Any]) -> None:
    assert "Drawn" in content["info"]["description"]
    assert (content["info"]["settings"], content["info"]["seed"]) == ("scenes-v1", 3)


def test_workers_and_length_do_not_change_the_scenes(folder: Path, content: dict[str, Any], tmp_path: Path) -> None:
    write_dataset(tmp_path / "b", images=3, size=96, seed=3, classes=10, workers=2)
    for name in ("000001.png", "000003.png"):
        assert (tmp_path / "b/images" / name).read_bytes() == (folder / "images" / name).read_bytes()
    shorter = json.loads((tmp_path / "b/annotations.json").read_text())["annotations"]
    assert shorter == content["annotations"][: len(shorter)]


def test_command_writes_a_set_and_says_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "set"
    assert main(["scenes", str(out), "--images", "2", "--size", "64", "--seed", "1", "--classes", "2"]) in (0, None)
    captured = capsys.readouterr()
    assert str(out / "annotations.json") in captured.out
    assert "2/2" in captured.err
    assert len(list((out / "images").iterdir())) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--size", "20"], ["--size", "20", "64"]),
        (["--size", "4000"], ["--size", "2048"]),
        (["--classes", "1"], ["--classes", "2"]),
        (["--classes", "13"], ["--classes", "nearest valid value is 12"]),
        (["--images", "0"], ["--images", "1"]),
        (["--seed", "-1"], ["--seed", "0"]),
        (["--seed", "4294967296"], ["--seed", "4294967295"]),
        (["--workers", "0"], ["--workers", "1"]),
    ],
)
def test_numbers_out_of_range(
    arguments: list[str], said: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["scenes", str(tmp_path / "set"), *arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert all(word in lines[0] for word in said)
    assert not (tmp_path / "set").exists()


def test_folder_with_something_in_it_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert main(["scenes", str(tmp_path), "--images", "1", "--size", "64"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert str(tmp_path) in lines[0]
    assert "--overwrite" in lines[0]
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_overwrite_replaces_scenes_and_keeps_other_files(tmp_path: Path) -> None:
    write_dataset(tmp_path / "set", images=3, size=64)
    (tmp_path / "set/images/mine.png").write_bytes(b"x")
    write_dataset(tmp_path / "set", images=1, size=64, overwrite=True)
    assert sorted(p.name for p in (tmp_path / "set/images").iterdir()) == ["000001.png", "mine.png"]


def test_out_that_is_a_file_and_unknown_settings(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="file"):
        write_dataset(tmp_path / "file", images=1, size=64)
    with pytest.raises(ConfigError, match="scenes-v1"):
        write_dataset(tmp_path / "set", images=1, size=64, settings="scenes-v9")


def test_reader_takes_the_set_as_canonical(folder: Path, content: dict[str, Any]) -> None:
    annotations = load(folder / "annotations.json", cache=False)
    assert annotations.schema == "canonical"
    assert annotations.dropped == []
    assert annotations.class_names == list(CLASS_NAMES[:10])
    np.testing.assert_array_equal(annotations.occlude_rate, [a["occlude_rate"] for a in content["annotations"]])
    np.testing.assert_array_equal(annotations.stored_boxes, annotations.amodal_boxes)


def drawn(capsys: pytest.CaptureFixture[str], *words: Any) -> tuple[int, str]:
    code = main(["scenes", *map(str, words), "--size", "64"])
    return code, capsys.readouterr().err.splitlines()[-1]


def test_pictures_of_others_are_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """KITTI's pictures have six digits, too."""
    (tmp_path / "images").mkdir()
    (tmp_path / "images/000002.png").write_bytes(b"a street")
    code, line = drawn(capsys, tmp_path, "--images", 2, "--overwrite")
    assert (code, line) == (2, f"amodal scenes: {tmp_path}/images/000002.png: {NOT_OURS}")
    (tmp_path / "images/000002.png").rename(tmp_path / "images/000009.png")
    (tmp_path / "annotations.json").write_text('{"images": [{"file_name": "000009.png"}]}')
    code, line = drawn(capsys, tmp_path, "--images", 2, "--overwrite")
    assert (code, line) == (2, f"amodal scenes: {tmp_path}/annotations.json: {NOT_OURS}")
    (tmp_path / "annotations.json").rename(tmp_path / "mine.json")
    assert drawn(capsys, tmp_path, "--images", 2, "--overwrite")[0] == 0
    assert drawn(capsys, tmp_path, "--images", 1, "--overwrite")[0] == 0
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == [
        "000001.png", "000009.png", "annotations.json", "mine.json"
    ]  # fmt: skip


NOT_OURS = "would be replaced, but was not drawn here; name another folder"


def test_the_old_scenes_stay_until_the_new_ones_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "set"
    write_dataset(out, images=2, size=64, seed=1)
    before = {path: path.read_bytes() for path in out.rglob("*.*") if path.is_file()}
    with monkeypatch.context() as patch:
        patch.setattr(dataset, "write_json", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            write_dataset(out, images=1, size=64, seed=2, overwrite=True)
    assert {path: path.read_bytes() for path in out.rglob("*.*") if path.is_file()} == before


@pytest.mark.parametrize("deadline", range(8))
def test_killed_while_they_take_their_place(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deadline: int
) -> None:
    """Whenever it dies, the next command with --overwrite cleans up, and no half set has an annotation file."""
    out, calls = tmp_path / "set", iter(range(100))
    write_dataset(out, images=3, size=64, seed=1)

    class Killed(BaseException):
        pass

    def mortal(real: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            if next(calls) >= deadline:
                raise Killed
            return real(*args, **kwargs)

        return call

    def killed(path: Path) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", mortal(Path.replace))
            patch.setattr(Path, "unlink", mortal(Path.unlink))
            put(path)

    put = dataset._put_in_place
    with monkeypatch.context() as patch:
        patch.setattr(dataset, "_put_in_place", killed)
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        with contextlib.suppress(Killed):
            write_dataset(out, images=2, size=64, seed=2, overwrite=True)
    if (out / "annotations.json").exists():
        names = {image["file_name"] for image in json.loads((out / "annotations.json").read_text())["images"]}
        assert names == {path.name for path in (out / "images").iterdir()}
    write_dataset(out, images=1, size=64, seed=3, overwrite=True)
    assert sorted(path.name for path in out.rglob("*")) == ["000001.png", "annotations.json", "images"]


def test_one_process_draws_into_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with hold(tmp_path / "set"):
        code, line = drawn(capsys, tmp_path / "set", "--images", 1)
    assert code == 2
    assert line.startswith(f"amodal scenes: {tmp_path}/set: process {os.getpid()} on ")
    assert not (tmp_path / "set").exists()


def test_who_drew_is_told_by_the_file(folder: Path, tmp_path: Path) -> None:
    assert dataset.drawn_seed(folder) == 3
    assert dataset.drawn_seed(tmp_path) is None
    for text in ("", "[1]", '{"info": 1}', '{"info": {"settings": [], "seed": 1}}', "[" * 9999):
        (tmp_path / "annotations.json").write_text(text)
        assert dataset.drawn_seed(tmp_path) is None
