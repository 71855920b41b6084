from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from amodal import files as atomic
from amodal.errors import AmodalError, ConfigError, DataError, DiskError


def write(folder: Path, text: str) -> None:
    with atomic.replace_folder(folder) as fresh:
        (fresh / "a").write_text(text)
        (fresh / "sub").mkdir()
        (fresh / "sub" / "b").write_text(text)


def content(folder: Path) -> tuple[str, str]:
    return (folder / "a").read_text(), (folder / "sub" / "b").read_text()


@pytest.fixture(params=["one system call", "two renames"])
def swap(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "two renames":
        monkeypatch.setattr(atomic, "_exchange", lambda *_: False)
    return str(request.param)


def test_replaces_the_whole_folder(tmp_path: Path, swap: str) -> None:
    folder = tmp_path / "last"
    write(folder, "one")
    (folder / "stale").write_text("x")
    write(folder, "two")
    assert content(folder) == ("two", "two")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last"]
    assert not (folder / "stale").exists()


def test_an_exception_keeps_the_old_one(tmp_path: Path, swap: str) -> None:
    folder = tmp_path / "last"
    write(folder, "one")
    with pytest.raises(ZeroDivisionError), atomic.replace_folder(folder) as fresh:
        (fresh / "a").write_text(str(1 / 0))
    assert content(folder) == ("one", "one")
    assert [path.name for path in tmp_path.iterdir()] == ["last"]


class Killed(BaseException):
    pass


CALLS = [
    (os, "fsync"),
    (Path, "rename"),
    (shutil, "rmtree"),
    (Path, "mkdir"),
    (Path, "write_text"),
    (atomic, "_exchange"),
]


class Mortal:
    """Lets the first ``deadline`` calls through; then the process is dead, ``finally`` included."""

    def __init__(self, deadline: int) -> None:
        self.left = deadline

    def __call__(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self.left <= 0:
                raise Killed
            self.left -= 1
            return real(*args, **kwargs)

        return call


def killed_after(folder: Path, deadline: int, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether writing "two" was killed at call number ``deadline``."""
    mortal = Mortal(deadline)
    with monkeypatch.context() as patch:
        for owner, name in CALLS:
            patch.setattr(owner, name, mortal(getattr(owner, name)))
        try:
            write(folder, "two")
        except Killed:
            return True
    return False


def test_killed_before_every_system_call(tmp_path: Path, swap: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Die before the n-th call that touches the disk, for every n: the folder is the old or the new one, never less."""
    outcomes = []
    killed, deadline = True, 0
    while killed:
        folder = tmp_path / str(deadline) / "last"
        write(folder, "one")
        killed = killed_after(folder, deadline, monkeypatch)
        if swap == "one system call":
            assert content(folder) in {("one", "one"), ("two", "two")}, deadline
        atomic.recover(folder)
        outcomes.append(content(folder))
        assert [path.name for path in folder.parent.iterdir()] == ["last"]
        deadline += 1
    assert set(outcomes) == {("one", "one"), ("two", "two")}
    assert outcomes == sorted(outcomes), "once new, it must stay new"
    assert outcomes[-1] == ("two", "two")
    assert deadline > 8


def test_names_that_fit_stay_and_long_ones_get_a_checksum(tmp_path: Path) -> None:
    assert atomic.fitting_name("a", ".png", "x/a.jpg") == "a.png"
    assert atomic.fitting_name("k" * 251, ".png", "x") == "k" * 251 + ".png"
    marks = {atomic.fitting_name("a", ".png", source, shared=True) for source in ("x/a.jpg", "y/a.jpg")}
    assert len(marks) == 2
    assert all(len(mark) == len("a-01234567.png") for mark in marks)
    for stem in ("k" * 252, "\u00e9" * 200, "\U0001f600" * 70, os.fsdecode(b"\xff" * 260)):
        first, second = (atomic.fitting_name(stem, "_7.png", source) for source in ("one", "two"))
        assert first != second
        for name in (first, second):
            assert len(os.fsencode(name)) <= 255
            (tmp_path / name).touch()


def _full(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("role", ["text", "json", "rows", "tensors"])
def test_a_full_disk_leaves_the_old_file_and_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    path = tmp_path / "kept"
    writers: dict[str, Callable[[], None]] = {
        "text": lambda: atomic.write_text(path, "new"),
        "json": lambda: atomic.write_json(path, {"a": 1}, indent=2),
        "rows": lambda: atomic.write_rows(path, [{"a": 1}]),
        "tensors": lambda: atomic.write_tensors(path, {"a": torch.ones(2)}),
    }
    path.write_text("old")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", _full)
        with pytest.raises(AmodalError, match=r"kept: cannot be written \(No space left on device\)"):
            writers[role]()
    assert path.read_text() == "old"
    assert [other.name for other in tmp_path.iterdir()] == ["kept"]
    writers[role]()
    assert path.read_bytes() != b"old"


def test_tensor_files_of_equal_tensors_are_equal_and_open_to_those_the_umask_admits(tmp_path: Path) -> None:
    tensors = {"b": torch.arange(3), "a": torch.zeros(2, 0), "c": torch.ones(2, 2).half()}
    contents = set()
    for _ in range(8):
        atomic.write_tensors(tmp_path / "x.safetensors", tensors, {"kind": "k", "version": "1"})
        contents.add((tmp_path / "x.safetensors").read_bytes())
    assert len(contents) == 1
    read = load_file(tmp_path / "x.safetensors")
    assert all(torch.equal(read[name], value) for name, value in tensors.items())
    (tmp_path / "plain").touch()
    assert (tmp_path / "x.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_name_of_full_length_has_room(tmp_path: Path) -> None:
    path = tmp_path / ("k" * 251 + ".txt")
    atomic.write_text(path, "x")
    assert [other.name for other in tmp_path.iterdir()] == [path.name]


def test_what_a_killed_writer_left_is_taken_over(tmp_path: Path) -> None:
    with atomic.whole(tmp_path / "x") as place:
        name = place.name
    (tmp_path / name).write_bytes(b"half of an old, longer one")
    atomic.write_text(tmp_path / "x", "new")
    assert (tmp_path / "x").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_of_two_writers_at_once_the_last_one_wins_whole(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with atomic.whole(path) as first:
        first.write_text("first")
        with atomic.whole(path) as second:
            assert second != first
            second.write_text("second")
        with atomic.whole(path) as third:
            third.write_text("third")
        assert path.read_text() == "third"
        first.write_text("first, and late")
    assert path.read_text() == "first, and late"
    assert [other.name for other in tmp_path.iterdir()] == ["x"]


def test_a_writer_that_is_done_does_not_remove_the_place_of_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, real = tmp_path / "x", os.replace
    later = contextlib.ExitStack()

    def replace(source: Path, target: Path) -> None:
        real(source, target)
        monkeypatch.setattr(os, "replace", real)
        later.enter_context(atomic.whole(path)).write_text("next")

    monkeypatch.setattr(os, "replace", replace)
    atomic.write_text(path, "one")
    assert path.read_text() == "one"
    later.close()
    assert path.read_text() == "next"


def test_devices_and_links_stay_what_they_are(tmp_path: Path) -> None:
    atomic.write_text(Path(os.devnull), "x")
    assert Path(os.devnull).is_char_device()
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    atomic.write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"
    code = (
        "import sys; from pathlib import Path; from amodal.files import write_text; write_text(Path(sys.argv[1]), 'x')"
    )
    done = subprocess.run([sys.executable, "-c", code, "/dev/stdout"], capture_output=True, text=True, check=True)
    assert done.stdout == "x"


@pytest.mark.parametrize("folder", [Path("/"), Path(), Path(__file__).parent])
def test_a_folder_is_no_file_to_write(folder: Path) -> None:
    with pytest.raises(AmodalError, match=re.escape(f"{folder}: cannot be written ({os.strerror(errno.EISDIR)})")):
        atomic.write_text(folder, "x")
    with pytest.raises(AmodalError, match=re.escape(f"{folder}: cannot be written ({os.strerror(errno.EISDIR)})")):
        atomic.check_target(folder)


def test_modes_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        atomic.write_text(tmp_path / "text", "x")
        atomic.write_tensors(tmp_path / "tensors", {"a": torch.ones(2)})
        atomic.write_picture(tmp_path / "picture.png", Image.new("RGB", (4, 4)))
        with atomic.replace_folder(tmp_path / "folder") as fresh:
            atomic.write_rows(fresh / "rows", [{"a": 1}])
    finally:
        os.umask(before)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 4
    assert {path.stat().st_mode & 0o777 for path in files} == {0o640}
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o750


def test_drawn_pictures_replace_nothing_but_drawn_pictures(tmp_path: Path) -> None:
    path, picture = tmp_path / "a.png", Image.new("RGB", (4, 4), (9, 8, 7))
    for _ in range(2):
        atomic.write_picture(path, picture, drawn=True)
    assert Image.open(path).getpixel((0, 0)) == (9, 8, 7)
    atomic.write_picture(path, picture)  # A file that a user named.
    before = path.read_bytes()
    with pytest.raises(DataError, match=r"a\.png: is there already, and was not drawn by amodal"):
        atomic.write_picture(path, picture, drawn=True)
    assert path.read_bytes() == before
    with pytest.raises(ConfigError, match=r"b\.pgn: no picture is written as '\.pgn'; nearest is '\.png'"):
        atomic.write_picture(tmp_path / "b.pgn", picture)


def test_a_folder_with_something_else_in_it_is_not_replaced(tmp_path: Path) -> None:
    atomic.check_own(tmp_path / "new", ("a",), "a prior")
    atomic.check_own(tmp_path, ("a",), "a prior")
    (tmp_path / "a").touch()
    atomic.check_own(tmp_path, ("a", "b"), "a prior")
    (tmp_path / "letter.txt").touch()
    with pytest.raises(DataError, match=r"holds letter\.txt, which is no part of a prior and would be lost"):
        atomic.check_own(tmp_path, ("a", "b"), "a prior")
    with pytest.raises(DataError, match="is a file"):
        atomic.check_own(tmp_path / "a", ("a",), "a prior")


def test_what_is_read_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "in.json").write_text("{}")
    (tmp_path / "link.json").symlink_to("in.json")
    for name in ("in.json", "link.json"):
        with pytest.raises(DataError, match="is read here and would be replaced"):
            atomic.check_target(tmp_path / name, "nowhere", tmp_path / "in.json")
    atomic.check_target(tmp_path / "new" / "out.json", tmp_path / "in.json")
    atomic.check_target(os.devnull, tmp_path / "in.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.json", "link.json"]


def test_room_is_looked_for_and_nothing_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    atomic.check_room(tmp_path / "a" / "b", 1000)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(10, 9, 1_500_000))
    with pytest.raises(DiskError, match=r"a/b: 1\.5 MB are free on this disk, about 2\.0 MB are needed"):
        atomic.check_room(tmp_path / "a" / "b", 2_000_000)
    assert list(tmp_path.iterdir()) == []


def test_faults_inside_a_folder_name_it_as_it_will_be_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", _full)
    with pytest.raises(DiskError, match=r"/last/a: cannot be written"), atomic.replace_folder(tmp_path / "last") as new:
        atomic.write_text(new / "a", "x")
    with pytest.raises(DiskError, match=r"/last: cannot be written"), atomic.replace_folder(tmp_path / "last") as new:
        (new / "a").touch()
    assert list(tmp_path.iterdir()) == []
