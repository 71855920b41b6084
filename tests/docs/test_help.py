"""Every verb answers ``--help`` quickly, with its arguments, and without loading torch."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

VERBS = [
    "demo", "scenes", "convert", "check", "show", "prior fit", "prior show", "train", "test", "predict", "evaluate",
    "compare", "reproduce", "methods", "info",
]  # fmt: skip


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb(verb: str) -> None:
    done = subprocess.run([sys.executable, "-m", "amodal", *verb.split(), "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert verb in done.stdout
    assert len(done.stdout) > 80


def test_help_lists_every_verb() -> None:
    done = subprocess.run([sys.executable, "-m", "amodal", "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert all(verb in done.stdout for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_help_does_not_load_torch(verb: str) -> None:
    code = (
        "import sys\nfrom amodal.cli import main\n"
        f"sys.argv = ['amodal', *{verb.split()!r}, '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_importing_the_package_is_cheap() -> None:
    code = "import time; t = time.perf_counter(); import amodal, sys; d = time.perf_counter() - t\n"
    code += "sys.exit(0 if d < 0.5 and 'torch' not in sys.modules and 'numpy' not in sys.modules else 1)"
    started = time.perf_counter()
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    assert time.perf_counter() - started < 10
