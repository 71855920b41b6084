"""Killed or stopped at any moment, a run is resumed to the end of one that was not; a full disk is one line."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from amodal.cli import main
from amodal.config_io import load_config
from amodal.model import load_model
from amodal.train import run as page
from amodal.train.run import train_run
from amodal.train.signals import Stopped

CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "ctypes.dlopen", "shutil.rmtree")
"""Events of Python by which a run changes files; folders are swapped by way of ctypes."""
WATCHED: list[Callable[[str, tuple[Any, ...]], None]] = []


class Killed(BaseException):
    """Raised instead of each change from a moment on: what a killed process would not have done either."""


def _audit(event: str, words: tuple[Any, ...]) -> None:
    for watch in WATCHED:
        watch(event, words)


sys.addaudithook(_audit)


@contextmanager
def killed_at(moment: int, folder: Path) -> Iterator[list[str]]:
    """While it is open, changes in ``folder`` from number ``moment`` on do not happen; yields those before."""
    seen: list[str] = []

    def watch(event: str, words: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(words[2], int) and words[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if not (writes or event in CHANGES):
            return
        name = str(words[0])
        # TensorBoard's own thread writes there; nothing is resumed from it.
        if (str(folder) not in name and event != "ctypes.dlopen") or "tensorboard" in name:
            return
        if len(seen) >= moment:
            raise Killed(event, name)
        seen.append(f"{event} {name}")

    WATCHED.append(watch)
    try:
        yield seen
    finally:
        WATCHED.remove(watch)


@pytest.fixture(scope="module")
def train(settings: Path, scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Two steps of one picture, each saved and evaluated on one picture."""
    content = json.loads((scenes / "annotations.json").read_text())
    content["images"] = content["images"][:1]
    number = content["images"][0]["id"]
    content["annotations"] = [one for one in content["annotations"] if one["image_id"] == number]
    val = tmp_path_factory.mktemp("val") / "val.json"
    val.write_text(json.dumps(content))
    places = {"data.val": str(val), "data.val_images": str(scenes / "images"), "batch_size": 1}

    def run(out: Path, steps: int = 2) -> None:
        changes = {**places, "out": str(out), "steps": steps, "save_every": 1, "eval_every": 1, "log_every": 1}
        train_run(load_config(settings, changes), resume=True)

    return run


@pytest.fixture(scope="module")
def whole(train: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """An unkilled run, and how many changes it made."""
    out = tmp_path_factory.mktemp("whole") / "run"
    with killed_at(10**9, out) as seen:
        train(out)
    return out, len(seen)


def _same(out: Path, whole: Path) -> None:
    for name in ("last/model.safetensors", "last/optimizer.safetensors", "best/model.safetensors"):
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name
    one, two = (json.loads((folder / "last/state.json").read_text()) for folder in (out, whole))
    for state in (one, two):
        del state["config"]["out"]
    assert one == two
    for table, drop in (("log.csv", 1), ("eval.csv", 0)):
        rows = [[line.split(",")[: -drop or None] for line in (folder / table).read_text().splitlines()]
                for folder in (out, whole)]  # fmt: skip
        assert rows[0] == rows[1], table
    assert not [path for path in out.rglob(".*") if path.name != ".lock"]


def _kill_and_resume(moment: int, train: Any, whole: Path, out: Path) -> None:
    with pytest.raises(Killed), killed_at(moment, out):
        train(out)
    for folder in (out / "last", out / "best"):
        if folder.exists():
            load_model(folder)
    train(out)
    _same(out, whole)


@pytest.mark.parametrize("share", [0.5, 0.999])
def test_killed_while_writing(share: float, train: Any, whole: tuple[Path, int], tmp_path: Path) -> None:
    _kill_and_resume(int(share * whole[1]), train, whole[0], tmp_path / "run")


@pytest.mark.slow
def test_killed_at_many_moments_of_writing(train: Any, whole: tuple[Path, int], tmp_path: Path) -> None:
    assert whole[1] > 60
    for moment in range(0, whole[1], 3):
        _kill_and_resume(moment, train, whole[0], tmp_path / "run")
        shutil.rmtree(tmp_path / "run")


@pytest.mark.skipif(os.name == "nt", reason="has no limit of the size of files")
def test_a_disk_that_is_full_is_one_line_and_the_last_state_stays(
    train: Any, settings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path / "run", 1)
    before = {path.name: path.read_bytes() for path in (tmp_path / "run/last").iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    words = ["train", str(settings), "--out", str(tmp_path / "run"), "--batch_size", "1", "--steps", "2"]
    capsys.readouterr()
    resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, hard))  # Less than the weights, more than all else.
    try:
        assert main([*words, "--resume", "auto", "--eval_every", "0", "--log_every", "1"]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"amodal train: {tmp_path / 'run'}/")
    assert "model.safetensors: cannot be written (File too large)" in line
    assert {path.name: path.read_bytes() for path in (tmp_path / "run/last").iterdir()} == before
    assert not [path for path in (tmp_path / "run").rglob(".*") if path.name != ".lock"]


def _signal(*numbers: signal.Signals) -> None:
    for number in numbers:
        os.kill(os.getpid(), number)
    time.sleep(0)  # Here Python runs its handlers at the latest.


def _interrupt(monkeypatch: pytest.MonkeyPatch, name: str, when: int, *numbers: signal.Signals) -> None:
    """Sends signals at the end of call number ``when`` of a function that the run's page uses."""
    function, calls = getattr(page, name), []

    def call(*words: Any, **more: Any) -> Any:
        calls.append(name)
        result = function(*words, **more)
        if len(calls) == when:
            _signal(*numbers)
        return result

    monkeypatch.setattr(page, name, call)


@pytest.mark.parametrize("name", ["load_data", "run_prior"])
def test_a_signal_before_the_first_step_ends_the_run_at_once(
    name: str, train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    _interrupt(monkeypatch, name, 1, signal.SIGTERM)
    with pytest.raises(
        Stopped, match=r"^stopped before the first step; no step is saved: the same command begins anew$"
    ):
        train(tmp_path / "run")
    assert not (tmp_path / "run/last").exists()
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("name", ["validate", "save_state"])
def test_a_signal_in_a_step_ends_the_run_after_it_and_its_evaluation(
    name: str, train: Any, whole: tuple[Path, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        _interrupt(patch, name, 1, signal.SIGINT)
        with pytest.raises(Stopped, match=r"^stopped after step 1 of 2; .*/last holds it: .* --resume auto") as caught:
            train(tmp_path / "run")
    assert caught.value.code == 130
    assert (tmp_path / "run/eval.csv").read_text().splitlines()[-1].startswith("1,")
    train(tmp_path / "run")
    _same(tmp_path / "run", whole[0])


@pytest.mark.parametrize("name", ["validate", "save_state"])
def test_a_second_signal_ends_the_run_at_once_and_leaves_the_state_before(
    name: str, train: Any, whole: tuple[Path, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tmp_path / "run", 1)
    with monkeypatch.context() as patch:
        _interrupt(patch, name, 1, signal.SIGTERM, signal.SIGTERM)
        with pytest.raises(Stopped, match=r"^stopped at once, after step 2 of 2; step 1 is saved: ") as caught:
            train(tmp_path / "run")
    assert caught.value.code == 143
    assert json.loads((tmp_path / "run/last/state.json").read_text())["step"] == 1
    train(tmp_path / "run")
    _same(tmp_path / "run", whole[0])
