"""Which files are predicted: folders, links, results among the inputs, what is left out and said."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from amodal.errors import DataError
from amodal.predict.inputs import gather


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6)).save(path, "PNG")
    return path


def results(out: Path) -> None:
    for name in ("images.json", "predictions.json"):
        (out / name).write_text("[]")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures, 0 to 2."""
    for number in range(3):
        picture(tmp_path / "images" / f"{number}.png")
    return tmp_path / "images"


def names(inputs: list[Path], out: Path, folder: Path, overlays: bool = True) -> list[str]:
    found = gather(inputs, out, overlays)
    assert [item.image_id for item in found.items] == list(range(1, len(found.items) + 1))
    return [item.path.relative_to(folder).as_posix() for item in found.items]


def test_files_folders_and_duplicates(folder: Path, tmp_path: Path) -> None:
    picture(folder / "deep" / "0.JPG")
    (folder / "notes.txt").write_text("no picture")
    odd = picture(tmp_path / "odd.bin")
    found = gather([odd, folder, folder / "0.png"], tmp_path / "out", overlays=True)
    expected = ["odd.bin", *(f"images/{n}.png" for n in range(3)), "images/deep/0.JPG"]
    assert [item.path.relative_to(tmp_path).as_posix() for item in found.items] == expected
    overlays = [item.overlay for item in found.items]
    assert len(set(overlays)) == 5
    assert overlays[2] == "1.png"
    assert overlays[1] is not None
    assert overlays[1].startswith("0-")
    assert found.told() == ""
    assert all(item.overlay is None for item in gather([folder], tmp_path / "out", overlays=False).items)


@pytest.mark.parametrize("out", ["..", ".", "../..", "new"])
def test_results_may_lie_beside_above_or_among_the_pictures(
    folder: Path, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for given in (folder, Path(".")):
        monkeypatch.chdir(folder)
        found = gather([given], folder / out if given == folder else Path(out), overlays=True)
        assert [item.path.name for item in found.items] == ["0.png", "1.png", "2.png"]


def test_what_an_earlier_run_drew_is_left_out_and_said(folder: Path) -> None:
    picture(folder / "overlays" / "0.png")
    results(folder)
    found = gather([folder], folder.parent, overlays=True)
    assert [item.path.name for item in found.items] == ["0.png", "1.png", "2.png"], "whatever --out is now"
    assert found.told() == f"1 left out, drawn by an earlier run: {folder.as_posix()}/overlays/0.png"
    picture(folder / "overlays" / "mine" / "x.png")
    assert "overlays/mine/x.png" in names([folder], folder, folder), "no run writes there"
    (folder / "images.json").unlink()
    (folder / "parts").mkdir()
    (folder / "parts" / "job.txt").touch()
    assert "overlays/0.png" not in names([folder], folder, folder), "a run that was killed"


def test_a_folder_of_that_name_that_no_run_wrote_is_never_drawn_over(folder: Path) -> None:
    mine = picture(folder / "overlays" / "0.png")
    assert "overlays/0.png" in names([folder], folder, folder, overlays=False)
    with pytest.raises(DataError, match=r"overlays/0\.png: lies where the pictures of --out .* are drawn"):
        gather([folder], folder, overlays=True)
    results(folder)
    with pytest.raises(DataError, match="choose another --out, or --no-overlays"):
        gather([mine], folder, overlays=True)
    assert names([folder / "overlays"], folder, folder, overlays=False) == ["overlays/0.png"]


def test_every_file_that_looks_like_a_picture_is_read_or_counted(folder: Path, tmp_path: Path) -> None:
    for name in (".hidden.png", ".cache/x.jpg", "a.HEIC", "b.heic", "c.svg", "d.jfif", "e.apng"):
        picture(folder / name)
    found = gather([folder], tmp_path / "out", overlays=False)
    assert [item.path.name for item in found.items] == ["0.png", "1.png", "2.png", "d.jfif", "e.apng"]
    left = {reason: sorted(path.name for path in paths) for reason, paths in found.left_out.items()}
    assert left == {
        "hidden": [".hidden.png", "x.jpg"],
        "not read as heic": ["a.HEIC", "b.heic"],
        "not read as svg": ["c.svg"],
    }
    assert "2 left out, not read as heic: " in found.told()
    for path in found.items:
        path.path.unlink()
    with pytest.raises(DataError, match=r"holds no pictures \(.*\).*; 2 left out, not read as heic"):
        gather([folder], tmp_path / "out", overlays=False)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_links_loops_pipes_and_devices_are_listed_and_never_hang(folder: Path, tmp_path: Path) -> None:
    (folder / "gone.png").symlink_to(folder / "nowhere.png")
    (folder / "loop.png").symlink_to(folder / "loop.png")
    os.mkfifo(folder / "pipe.png")
    (folder / "zero.png").symlink_to("/dev/zero")
    (folder / "round").symlink_to(folder)
    (folder / "up").symlink_to(tmp_path)
    other = picture(tmp_path / "other" / "far.png").parent
    (folder / "linked").symlink_to(other)
    (other / "back").symlink_to(folder)
    expected = ["0.png", "1.png", "2.png", "gone.png", "linked/far.png", "loop.png", "pipe.png", "zero.png"]
    assert names([folder], tmp_path / "out", folder) == expected
    assert names([folder / "gone.png"], tmp_path / "out", folder) == ["gone.png"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser lists everything")
def test_a_folder_that_cannot_be_listed_is_said(folder: Path, tmp_path: Path) -> None:
    (folder / "closed").mkdir(mode=0)
    found = gather([folder], tmp_path / "out", overlays=False)
    assert found.left_out == {"folders that cannot be listed (Permission denied)": [folder / "closed"]}


def test_what_is_missing_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"imagse: no such file or folder; nearest is 'images'"):
        gather([tmp_path / "imagse"], tmp_path / "out", overlays=False)
    with pytest.raises(DataError, match=r"!: no such file or folder$"):
        gather([tmp_path / "!"], tmp_path / "out", overlays=False)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no pictures"):
        gather([tmp_path / "empty"], tmp_path / "out", overlays=False)
