from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from amodal.errors import DataError
from amodal.locks import LOCK, hold

HOLDER = """
import sys, time
from amodal.locks import hold
with hold(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_folder_is_held_by_one_process_until_its_death(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(DataError) as caught, hold(folder):
            pass
        assert str(caught.value).startswith(f"{folder}: process {other.pid} on ")
        assert "\n" not in str(caught.value)
        other.kill()
        other.wait()
    with hold(folder):
        assert (folder / LOCK).read_text().startswith(f"process {os.getpid()} on ")
    assert list(folder.iterdir()) == []


def test_a_fault_frees_the_folder(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), hold(tmp_path):
        print(1 / 0)
    for _ in range(2):
        with hold(tmp_path):
            pass
    assert list(tmp_path.iterdir()) == []


def test_many_processes_take_turns(tmp_path: Path) -> None:
    code = """
import sys, time
from pathlib import Path
from amodal.errors import DataError
from amodal.locks import hold
done = 0
while done < 20:
    try:
        with hold(sys.argv[1]):
            path = Path(sys.argv[1]) / "count"
            count = int(path.read_text()) if path.exists() else 0
            time.sleep(0.001)
            path.write_text(str(count + 1))
            done += 1
    except DataError:
        time.sleep(0.001)
"""
    others = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(3)]
    assert [other.wait(60) for other in others] == [0, 0, 0]
    assert (tmp_path / "count").read_text() == "60", "two worked at once"


def test_a_folder_that_was_made_in_vain_is_gone(tmp_path: Path) -> None:
    with hold(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b" / LOCK).is_file()
    assert list(tmp_path.iterdir()) == []
    with hold(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "result").touch()
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["result"]


def test_a_folder_that_is_replaced_is_held_from_beside(tmp_path: Path) -> None:
    with hold(tmp_path / "prior", beside=True):
        assert not (tmp_path / "prior").exists()
        with pytest.raises(DataError, match="is working in this folder"), hold(tmp_path / "prior", beside=True):
            pass
    assert list(tmp_path.iterdir()) == []


FORKS = """
import multiprocessing, os, signal, sys, time
from amodal.locks import hold
with hold(sys.argv[1]):
    worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(30,))
    worker.start()
    print(worker.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
def test_workers_do_not_keep_the_folder_of_a_killed_holder(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FORKS, str(tmp_path)], stdout=subprocess.PIPE, text=True, timeout=60)
    os.kill(int(done.stdout), 0)
    try:
        with hold(tmp_path):
            pass
    finally:
        os.kill(int(done.stdout), signal.SIGKILL)
