"""Help answers from outside, too, and never loads torch."""

from __future__ import annotations

import subprocess
import sys
import time

from amodal.cli import VERBS


def test_help_lists_every_verb() -> None:
    done = subprocess.run([sys.executable, "-m", "amodal", "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert all(f"  {verb} " in done.stdout for verb in VERBS)


def test_help_of_no_verb_loads_torch() -> None:
    code = (
        "import sys\nfrom amodal.cli import VERBS, main\n"
        "codes = [main([*verb.split(), '--help-all']) for verb in VERBS]\n"
        "assert not any(codes), codes\nassert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(f"usage: amodal {verb}" in done.stdout for verb in VERBS)


def test_importing_the_package_is_cheap() -> None:
    code = "import time; t = time.perf_counter(); import amodal, sys; d = time.perf_counter() - t\n"
    code += "sys.exit(0 if d < 0.5 and 'torch' not in sys.modules and 'numpy' not in sys.modules else 1)"
    started = time.perf_counter()
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    assert time.perf_counter() - started < 10
