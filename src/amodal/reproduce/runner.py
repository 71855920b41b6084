"""Does what is missing: steps in their order, several at a time, within a time limit, again after any kill.

A step is one ``amodal`` command in a process of its own. Its mark is written, whole or not, when it has ended well; a
step with a mark is never run again, one without is run again from the start (a training goes on where it stopped). A
lock keeps two runners, or a runner and what a killed one left behind, from doing the same step at once.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO, Any

from tqdm import tqdm

from amodal.data.jsonfile import read_object
from amodal.errors import ConfigError, named
from amodal.files import check_room, write_json
from amodal.locks import lock
from amodal.reproduce.machine import commit

GRACE_S = 20.0
"""Seconds that stopped steps have to end."""

LOCKS = "locks"
"""Folder of the lock files, below ``out``."""

_POLL_S = 0.1
_PROGRAM = ("-m", "amodal")


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        key: unique, a file name; names log and lock.
        title: what progress and errors call it.
        words: the command, without ``amodal``.
        mark: file that is there when it is done.
        after: keys of the steps that it needs.
        on_device: whether the command takes ``--device``.
    """

    key: str
    title: str
    words: tuple[str, ...]
    mark: Path
    after: tuple[str, ...] = ()
    on_device: bool = False


@dataclass
class Outcome:
    """What became of the steps: ``failed`` ones with their logs; ``stopped`` by the time limit or a signal."""

    failed: list[tuple[Step, Path]] = field(default_factory=list)
    stopped: bool = False

    def __add__(self, later: Outcome) -> Outcome:
        """Both, in their order."""
        return Outcome([*self.failed, *later.failed], self.stopped or later.stopped)


@dataclass
class _Running:
    step: Step
    process: subprocess.Popen[bytes]
    device: str
    lock: IO[bytes]
    started: float


class Runner:
    """Runs steps.

    Args:
        out: folder; logs go to ``out/logs``, locks to ``out/locks``.
        jobs: how many steps run at a time.
        devices: "auto", "cpu", "cuda:0", ...; steps go round them.
        limit_s: seconds after which nothing is running any more; None: no limit.

    Raises:
        ConfigError: a value is out of range.
    """

    def __init__(self, out: Path, jobs: int = 1, devices: Sequence[str] = ("auto",), limit_s: float | None = None):
        if jobs < 1:
            raise ConfigError(f"--jobs is {jobs}, must be 1 or more")
        if limit_s is not None and limit_s <= GRACE_S:
            raise ConfigError(f"--limit-s is {limit_s:g}, must be more than the {GRACE_S:g} s that steps have to end")
        self.logs, self.locks = out / "logs", out / LOCKS
        self.jobs, self.devices = jobs, list(devices) or ["auto"]
        # Steps are asked to end early enough to be gone in time.
        self.end = None if limit_s is None else time.monotonic() + limit_s - GRACE_S
        self._signal = 0
        self._running: list[_Running] = []

    def run(self, steps: Sequence[Step], done: Callable[[Step], None] = lambda step: None) -> Outcome:
        """Runs the steps that have no mark.

        Args:
            steps: unique keys; what one needs is among them, or done.
            done: called after each step that ended well, here or, meanwhile, by another runner.

        Raises:
            KeyboardInterrupt: SIGINT or SIGTERM came; the running steps were ended.
        """
        outcome = Outcome()
        waiting = [step for step in {step.key: step for step in steps}.values() if not step.mark.exists()]
        bar = tqdm(total=len(waiting), desc="reproduce", unit="step", disable=None if waiting else True)
        with bar, self._signals():
            try:
                while waiting or self._running:
                    if self._over():
                        outcome.stopped = True
                        break
                    self._finish(outcome, waiting, bar, done)
                    self._start(waiting, bar, done)
                    time.sleep(_POLL_S if waiting or self._running else 0)
            finally:
                self._stop()
        if self._signal:
            raise KeyboardInterrupt
        return outcome

    def _over(self) -> bool:
        return bool(self._signal) or (self.end is not None and time.monotonic() > self.end)

    def _start(self, waiting: list[Step], bar: Any, done: Callable[[Step], None]) -> None:
        """Starts what is ready and not locked by another runner, as long as there is room."""
        unfinished = {step.key for step in waiting} | {running.step.key for running in self._running}
        for step in list(waiting):
            if len(self._running) >= self.jobs:
                return
            if unfinished & set(step.after):
                continue
            lock = _claim(self.locks / f"{step.key}.lock")
            if lock is None:
                continue
            waiting.remove(step)
            if step.mark.exists():  # Another runner did it meanwhile.
                lock.close()
                done(step)
                bar.update()
                continue
            self._running.append(self._launch(step, lock))
            bar.set_postfix_str(step.title)

    def _launch(self, step: Step, lock: IO[bytes]) -> _Running:
        used = [running.device for running in self._running]
        device = min(self.devices, key=used.count)
        words = [sys.executable, *_PROGRAM, *step.words]
        words += ["--device", "cuda" if device.startswith("cuda") else device] if step.on_device else []
        path = self.logs / f"{step.key}.log"
        with named(path):
            self.logs.mkdir(parents=True, exist_ok=True)
            log = path.open("ab", buffering=0)
        with log:
            with named(path):
                log.write(f"# {commit()} on {device}: {shlex.join(step.words)}\n".encode())
            # A group of its own: all that a step starts can be ended with it, and Ctrl-C reaches this process alone.
            process = subprocess.Popen(
                words, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=_environment(device),
                start_new_session=True, pass_fds=(lock.fileno(),),
            )  # fmt: skip
        # The process holds the lock too: should this runner be killed, its child goes on alone.
        return _Running(step, process, device, lock, time.time())

    def _finish(self, outcome: Outcome, waiting: list[Step], bar: Any, done: Callable[[Step], None]) -> None:
        for running in [one for one in self._running if one.process.poll() is not None]:
            self._running.remove(running)
            step = running.step
            if running.process.returncode == 0:
                write_json(step.mark, {"seconds": round(time.time() - running.started, 1), "commit": commit()})
                running.lock.close()
                done(step)
                bar.update()
            else:
                running.lock.close()
                check_room(self.logs)  # Where the disk is full, the log does not say so.
                outcome.failed.append((step, self.logs / f"{step.key}.log"))
                _drop(waiting, step.key)

    def _stop(self) -> None:
        """Ends what runs, with all of its processes: asked first, then killed."""
        for running in self._running:
            _send(running.process, signal.SIGTERM)
        patience = time.monotonic() + GRACE_S / 2
        for running in self._running:
            try:
                running.process.wait(max(0.0, patience - time.monotonic()))
            except subprocess.TimeoutExpired:
                _send(running.process, signal.SIGKILL)
                running.process.wait()
            running.lock.close()
        self._running.clear()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM end the steps before they end this process."""

        def note(number: int, frame: FrameType | None) -> None:
            self._signal = number

        old = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)


def _drop(waiting: list[Step], key: str) -> None:
    """Takes out whatever needs the step ``key``, directly or not."""
    for step in [step for step in waiting if key in step.after]:
        if step in waiting:
            waiting.remove(step)
            _drop(waiting, step.key)


def _claim(path: Path) -> IO[bytes] | None:
    """The open lock file, or None while another process holds it."""
    with named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    if lock(file.fileno()):
        return file
    file.close()
    return None


@contextlib.contextmanager
def wait_for(path: Path) -> Iterator[None]:
    """Holds a lock file for the block, after whoever has it now."""
    while (lock := _claim(path)) is None:
        time.sleep(_POLL_S)
    with lock:
        yield


def _environment(device: str) -> dict[str, str]:
    """One thread a step unless the user says otherwise, and no other GPU than its own."""
    environment = {**os.environ}
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        environment.setdefault(name, "1")
    if device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    elif device.startswith("cuda:"):
        number = int(device.removeprefix("cuda:"))
        visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
        environment["CUDA_VISIBLE_DEVICES"] = visible[number] if visible else str(number)
    return environment


def check_devices(devices: Sequence[str]) -> list[str]:
    """Device names as :class:`Runner` takes them, from a list or one text with commas.

    Raises:
        ConfigError: a name is none.
    """
    names = [name for text in devices for name in text.split(",") if name]
    for name in names:
        kind, colon, number = name.partition(":")
        known = name in ("auto", "cpu", "mps", "cuda") or (kind == "cuda" and bool(colon) and number.isdigit())
        if not known:
            raise ConfigError(f"--devices has {name!r}, must be 'auto', 'cpu', 'mps', 'cuda' or 'cuda:NUMBER'")
        visible = [item for item in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if item]
        if number and visible and int(number) >= len(visible):
            raise ConfigError(f"--devices has {name!r}, but CUDA_VISIBLE_DEVICES names {len(visible)} devices")
    return names or ["auto"]


def _send(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)


def read_mark(path: Path) -> dict[str, Any]:
    """What a mark says: "seconds", "commit"; empty where there is none. Raises DataError where it is damaged."""
    return read_object(path) if path.is_file() else {}
