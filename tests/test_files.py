from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from amodal import files as atomic
from amodal.errors import AmodalError


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
