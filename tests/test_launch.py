"""How threads wait is set by the command line alone, and only where the user has not said it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from amodal.launch import THREADS

SHOWN = "import os; print(os.environ.get('OMP_WAIT_POLICY'))"


def _run(*words: str, **given: str) -> str:
    clean = {key: value for key, value in os.environ.items() if key not in THREADS}
    done = subprocess.run([sys.executable, *words], env={**clean, **given}, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize(
    ("given", "found"),
    [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE"), ({"GOMP_SPINCOUNT": "9"}, "None")],
)
def test_the_command_line_lets_threads_sleep(given: dict[str, str], found: str) -> None:
    # Before torch is loaded, and handed on to the processes that it starts.
    code = f"import sys; from amodal.cli import main; sys.argv[1:] = ['--version']; main()\n{SHOWN}"
    child = f"\nimport subprocess; subprocess.run([sys.executable, '-c', {SHOWN!r}])\nassert 'torch' not in sys.modules"
    assert _run("-c", code + child, **given).split()[-2:] == [found, found]


def test_the_library_leaves_the_environment_alone() -> None:
    assert _run("-c", f"import amodal, amodal.cli; amodal.cli.main(['--version'])\n{SHOWN}").split()[-1] == "None"


def test_info_says_how_threads_wait(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from amodal.cli import main

    for key in THREADS:
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert main(["info"]) == 0
    assert "OMP_NUM_THREADS=3, OMP_WAIT_POLICY=PASSIVE" in capsys.readouterr().out
