"""A run that is told to stop saves what it has, says how to go on, and ends as if it had not been stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from amodal.config import DataConfig, OptimConfig, TrainConfig
from amodal.errors import counted
from amodal.train.signals import Signals, Stopped
from amodal.train.told import closing, expected, halted, other_length


def _signals(**how: bool) -> Signals:
    return Signals(lambda: "ended", "noted", **how)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_before_the_steps_a_signal_ends_the_run_and_handlers_come_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)

    def work() -> None:
        with _signals():
            os.kill(os.getpid(), number)
            time.sleep(1)

    with pytest.raises(Stopped, match="ended") as caught:
        work()
    assert caught.value.code == 128 + number
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_noted_and_the_second_ends_the_run(
    number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(number)

    def work() -> None:
        with _signals() as signals:
            signals.note()
            os.kill(os.getpid(), number)
            assert signals.caught == number
            assert capfd.readouterr().err == "\nnoted\n"
            os.kill(os.getpid(), number)

    with pytest.raises(Stopped, match="ended"):
        work()
    assert signal.getsignal(number) is before


def test_of_several_processes_each_gets_a_signal_twice_and_one_talks(capfd: pytest.CaptureFixture[str]) -> None:
    for main in (True, False):
        with _signals(alone=False, main=main) as signals:
            assert (signal.getsignal(signal.SIGTERM) == signal.SIG_DFL) != main
            signals.note()
            for number in (signal.SIGINT, signal.SIGINT, signal.SIGTERM):
                os.kill(os.getpid(), number)
            assert signals.caught == signal.SIGINT
        assert capfd.readouterr().err == ("\nnoted\n" if main else "")


def test_other_threads_have_no_handlers() -> None:
    before = signal.getsignal(signal.SIGINT)
    found: list[object] = []

    def work() -> None:
        with _signals() as signals:
            signals.note()
            found.append(signals.caught)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [None]
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_goes_on_to_the_same_end(
    number: signal.Signals, code: int, settings: Path, tmp_path: Path
) -> None:
    def command(out: str) -> list[str]:
        words = ["train", str(settings), "--out", str(tmp_path / out), "--steps", "25", "--save_every", "1000"]
        words += ["--eval_every", "0", "--log_every", "1", "--data.workers", "1"]
        return [sys.executable, "-m", "amodal", *words, "--resume", "auto"]

    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command("stopped"), env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    log = tmp_path / "stopped" / "log.csv"
    end = time.monotonic() + 60
    while time.monotonic() < end and (not log.is_file() or len(log.read_text().splitlines()) < 3):
        time.sleep(0.05)
    os.killpg(process.pid, number)  # As terminals and schedulers do: the loader processes get it, too.
    _, error = process.communicate(timeout=60)
    assert process.returncode == code, error
    assert "stopped after step" in error.splitlines()[-1]
    assert "--resume auto goes on" in error.splitlines()[-1]
    assert (tmp_path / "stopped" / "last" / "state.json").is_file()
    if number == signal.SIGTERM:
        return  # What follows is the same.
    for out in ("stopped", "whole"):
        done = subprocess.run(command(out), env=environment, capture_output=True, text=True, check=True)
        assert f"run folder: {tmp_path / out}" in done.stdout
        assert ("goes on from step" in done.stdout) == (out == "stopped")
        assert "expected: " in done.stderr
        assert f"amodal predict {tmp_path / out / 'best'} PICTURES" in done.stdout
    one, two = (load_file(tmp_path / out / "last" / "model.safetensors") for out in ("stopped", "whole"))
    assert all(torch.equal(value, two[name]) for name, value in one.items())


def test_what_is_told_by_hand() -> None:
    assert [counted(count, "picture") for count in (0, 1, 2)] == ["no pictures", "1 picture", "2 pictures"]
    assert expected(0.5, 100) == "expected: 50 s (0.50 s a step), evaluations not counted"
    assert expected(0.5, 1000) == "expected: 8 minutes (0.50 s a step), evaluations not counted"
    assert expected(2.0, 3600) == "expected: 2.0 hours (2.00 s a step), evaluations not counted"
    config = TrainConfig(out="runs/my run", data=DataConfig(val="v.json", val_images="images"))
    told = closing(config, {"mask": {"AP": 12.34}}, 12.34).splitlines()
    assert told[0] == "done: mask AP 12.3; checkpoint: runs/my run/best"
    assert told[2] == "  amodal test 'runs/my run/best' v.json images --out 'runs/my run/test'"
    assert closing(config, {"mask": {"AP": 12.34}}, 20.0).startswith("done: mask AP 12.3, 20.0 at its best; ")
    assert closing(config, {"mask": {"AP": None}}, 20.0).startswith("done: mask AP 20.0 at its best; ")
    assert closing(config, {"mask": {"AP": None}}, None).startswith("done: AP undefined; ")
    plain = closing(TrainConfig(out="r"), None, None)
    assert plain.startswith("done: no validation data; ")
    assert "amodal test" not in plain


_FORTY = "100 steps instead of the 40 planned before, 35 are done; the rate falls at"


@pytest.mark.parametrize(
    ("planned", "milestones", "told"),
    [
        (100, [0.5], ""),
        (40, [30.0, 90.0], f"{_FORTY} 30, 90, as planned"),
        (40, [0.5], f"{_FORTY} 50 (before: 20); the steps done had other rates than in a run planned for 100"),
        (40, [0.95], f"{_FORTY} 95 (before: 38)"),
        (200, [], "100 steps instead of the 200 planned before, 35 are done; the rate never falls, as planned"),
    ],
)
def test_another_length_is_told_with_its_rates(planned: int, milestones: list[float], told: str) -> None:
    config = TrainConfig(steps=100, optim=OptimConfig(milestones=milestones))
    assert other_length(config, planned, 35) == told


def test_what_is_told_when_a_run_ends_at_once(tmp_path: Path) -> None:
    config = TrainConfig(out=str(tmp_path), steps=9)
    anew = "no step is saved: the same command begins anew"
    assert halted(config, 0, None) == f"stopped before the first step; {anew}"
    assert halted(config, 0, 3) == f"stopped at once, after step 3 of 9; {anew}"
    assert halted(config, 2, 3).startswith(
        f"stopped at once, after step 3 of 9; step 2 is saved: {tmp_path}/last holds"
    )
    (tmp_path / "prior").mkdir()
    assert halted(config, 0, None).endswith(f"{anew}, which finds the prior in {tmp_path}/prior")
