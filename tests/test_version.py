"""The version is written in one file; whoever repeats it says the same."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import yaml

import amodal
from amodal.version import __version__

ROOT = Path(__file__).resolve().parents[1]


def test_the_package_and_the_command_line_tell_it() -> None:
    assert amodal.__version__ == __version__
    done = subprocess.run([sys.executable, "-m", "amodal", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"amodal {__version__}\n", "")


def test_the_citation_carries_it() -> None:
    """A CITATION.cff cannot read it from a file, so it is the one copy."""
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == __version__


def test_packaging_reads_it() -> None:
    """A checkout may be run without being installed, so the metadata is not asked but what it is made from."""
    project = (ROOT / "pyproject.toml").read_text()
    assert re.search(r'^dynamic = \["version"', project, flags=re.M)
    assert re.search(r'\[tool\.hatch\.version\]\npath = "src/amodal/version\.py"', project)
    assert not re.search(r"^version\s*=", project, flags=re.M)
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.?(a|b|rc|dev)\d+)?", __version__)
