"""Steps in order, once, resumable after any kill."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from amodal.errors import ConfigError, DataError
from amodal.reproduce import runner
from amodal.reproduce.runner import Runner, Step, check_devices, read_mark

SCRIPT = """
import sys, time
name, seconds, code, journal = sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
with open(journal, 'a') as file: file.write(f'{name} starts\\n')
time.sleep(seconds)
with open(journal, 'a') as file: file.write(f'{name} ends\\n')
sys.exit(code)
"""


@pytest.fixture(autouse=True)
def _program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "_PROGRAM", ("-c", SCRIPT))
    monkeypatch.setattr(runner, "_POLL_S", 0.02)


def _step(out: Path, name: str, *after: str, seconds: float = 0.0, code: int = 0) -> Step:
    return Step(name, name, (name, str(seconds), str(code), str(out / "journal")), out / f"{name}.done", after)


def _journal(out: Path) -> list[str]:
    return (out / "journal").read_text().splitlines()


def test_a_step_waits_for_what_it_needs_and_is_done_once(tmp_path: Path) -> None:
    steps = [_step(tmp_path, "c", "a", "b"), _step(tmp_path, "a"), _step(tmp_path, "b", "a"), _step(tmp_path, "a")]
    done: list[str] = []
    outcome = Runner(tmp_path, jobs=3).run(steps, lambda step: done.append(step.key))
    assert (outcome.failed, outcome.stopped, done) == ([], False, ["a", "b", "c"])
    assert _journal(tmp_path) == ["a starts", "a ends", "b starts", "b ends", "c starts", "c ends"]
    assert set(read_mark(tmp_path / "a.done")) == {"seconds", "commit"}
    Runner(tmp_path).run(steps)
    assert len(_journal(tmp_path)) == 6
    assert "a" in (tmp_path / "logs" / "a.log").read_text()


def test_a_damaged_mark_is_named(tmp_path: Path) -> None:
    mark = tmp_path / "a.done"
    assert read_mark(mark) == {}
    for text in ("", "{", "[]"):
        mark.write_text(text)
        with pytest.raises(DataError, match=f"^{re.escape(str(mark))}: "):
            read_mark(mark)


def test_steps_run_side_by_side(tmp_path: Path) -> None:
    Runner(tmp_path, jobs=2).run([_step(tmp_path, name, seconds=0.5) for name in "ab"])
    assert sorted(_journal(tmp_path)[:2]) == ["a starts", "b starts"]


def test_a_failure_leaves_out_what_needs_it_and_nothing_else(tmp_path: Path) -> None:
    steps = [_step(tmp_path, "a", code=3), _step(tmp_path, "b", "a"), _step(tmp_path, "c", "b"), _step(tmp_path, "d")]
    outcome = Runner(tmp_path).run(steps)
    assert [(step.key, log) for step, log in outcome.failed] == [("a", tmp_path / "logs" / "a.log")]
    assert not (tmp_path / "a.done").exists()
    assert (tmp_path / "d.done").exists()
    assert not any(line.startswith(("b", "c")) for line in _journal(tmp_path))


def test_the_time_limit_ends_what_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "GRACE_S", 0.2)
    outcome = Runner(tmp_path, limit_s=0.6).run([_step(tmp_path, "a", seconds=60), _step(tmp_path, "b")])
    assert outcome.stopped
    assert _journal(tmp_path) == ["a starts"]
    assert not Runner(tmp_path).run([_step(tmp_path, "a")]).stopped
    assert _journal(tmp_path)[-2:] == ["a starts", "a ends"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_steps_first(tmp_path: Path, number: signal.Signals) -> None:
    threading.Timer(0.5, os.kill, (os.getpid(), number)).start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        Runner(tmp_path).run([_step(tmp_path, "a", seconds=60)])
    assert time.monotonic() - started < 15
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


MAIN = """
import sys
from pathlib import Path
from amodal.reproduce import runner
runner._PROGRAM, runner._POLL_S = ('-c', sys.argv[2]), 0.02
out = Path(sys.argv[1])
names = 'abcd'
steps = [runner.Step(n, n, (n, '0.3', '0', str(out / 'journal')), out / f'{n}.done', tuple(names[:i][-1:]))
         for i, n in enumerate(names)]
runner.Runner(out).run(steps)
"""


def test_killed_at_any_point_and_started_again_each_step_ends_well_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", MAIN, str(tmp_path), SCRIPT]
    for seconds in (0.4, 0.55, 0.7, 0.85, 1.0):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        time.sleep(seconds)
        process.kill()
        process.wait()
    assert subprocess.run(command, stderr=subprocess.DEVNULL).returncode == 0
    lines = _journal(tmp_path)
    # What a killed runner left behind goes on alone, and the next runner waits for it: never two of a kind at once.
    assert all(line.split()[0] == after.split()[0] for line, after in zip(lines[::2], lines[1::2], strict=True))
    assert all(line.endswith("starts") for line in lines[::2])
    assert set(Counter(line.split()[0] for line in lines)) == set("abcd")
    assert sorted(lines, key=lambda line: line[0]) == lines


def test_gpus_are_handed_out_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    show = "import os, sys; open(sys.argv[1], 'w').write(os.environ['CUDA_VISIBLE_DEVICES'] + ' '.join(sys.argv[2:]))"
    monkeypatch.setattr(runner, "_PROGRAM", ("-c", "import time; time.sleep(0.3);" + show))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    steps = [Step(n, n, (str(tmp_path / n),), tmp_path / f"{n}.done", on_device=True) for n in "ab"]
    Runner(tmp_path, jobs=2, devices=check_devices(["cuda:0,cuda:1"])).run(steps)
    assert [(tmp_path / n).read_text() for n in "ab"] == ["5--device cuda", "7--device cuda"]
    with pytest.raises(ConfigError, match="--devices has 'cuda:2', but CUDA_VISIBLE_DEVICES names 2 devices"):
        check_devices(["cuda:2"])
    with pytest.raises(ConfigError, match="--devices has 'gpu'"):
        check_devices(["gpu"])


def test_values_out_of_range_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--jobs is 0"):
        Runner(tmp_path, jobs=0)
    with pytest.raises(ConfigError, match="--limit-s is 5"):
        Runner(tmp_path, limit_s=5)
