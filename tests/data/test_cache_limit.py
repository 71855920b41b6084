"""The label cache keeps to its limit, and what was used longest ago goes first."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from amodal.cli import main
from amodal.data import cache, cache_limit
from amodal.data.reader import load
from amodal.errors import ConfigError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AMODAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("AMODAL_CACHE_GB", raising=False)
    return tmp_path / "cache"


def annotations(folder: Path, name: str) -> Path:
    path = folder / f"{name}.json"
    image = {"id": 1, "file_name": "a.png", "width": 8, "height": 6}
    path.write_text(json.dumps({"images": [image], "annotations": [], "categories": [{"id": 1, "name": name}]}))
    return path


def kept(folder: Path, ages: dict[str, int]) -> set[str]:
    """Names of the classes of all entries, each of which is as if it had been used that many seconds ago."""
    names = set()
    for _, _, path in cache_limit.entries(folder):
        read = cache.read(path)
        assert read is not None
        names |= set(read.class_names)
        os.utime(path, (0, time.time() - ages.get(read.class_names[0], 0)))
    return names


def test_the_entry_used_longest_ago_goes_first(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        load(annotations(tmp_path, name))
    assert kept(folder, {"a": 10, "b": 20}) == {"a", "b"}
    total = sum(size for _, size, _ in cache_limit.entries(folder))
    monkeypatch.setenv("AMODAL_CACHE_GB", repr((total + 1) / 1e9))
    load(annotations(tmp_path, "c"))
    assert kept(folder, {"a": 20, "c": 10}) == {"a", "c"}
    load(annotations(tmp_path, "d"))
    assert kept(folder, {}) == {"c", "d"}


def test_a_use_is_noted(folder: Path, tmp_path: Path) -> None:
    load(annotations(tmp_path, "a"))
    (entry,) = folder.iterdir()
    os.utime(entry, (1000, 1000))
    load(tmp_path / "a.json")
    assert entry.stat().st_mtime > 1000


def test_files_of_others_stay(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir()
    (folder / "model.bin").write_bytes(b"0" * 1000)
    monkeypatch.setenv("AMODAL_CACHE_GB", "1e-7")
    load(annotations(tmp_path, "a"))
    assert [path.name for path in folder.iterdir()] == ["model.bin"]


def test_no_cache_at_all(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMODAL_CACHE_GB", "0")
    load(annotations(tmp_path, "a"))
    assert not folder.exists()


@pytest.mark.parametrize("text", ["much", "-1", "nan"])
def test_a_limit_that_is_none(text: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMODAL_CACHE_GB", text)
    with pytest.raises(ConfigError, match=rf"^AMODAL_CACHE_GB is '{text}', must be gigabytes: 0 \(no cache\) or more$"):
        load(annotations(tmp_path, "a"))


def test_info_tells_where_it_is_and_how_large(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load(annotations(tmp_path, "a"))
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    assert f"folder            {folder} (AMODAL_CACHE)" in out
    assert "size              0.00 GB in 1 file\n" in out
    assert "limit             5 GB, least used go first (AMODAL_CACHE_GB)" in out
