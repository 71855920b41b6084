"""What a page says in its blocks of code."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Sizes that would take minutes are cut; nothing else about a command changes.
SMALLER = {"--images 400": "--images 6", "--images 50": "--images 3", "--steps 1000": "--steps 2"}

# Settings for which the same holds.
SMALL_FIT = ["--slots", "40", "--encoder-steps", "20", "--flow-steps", "2"]


def blocks(page: str, language: str) -> list[str]:
    """The blocks of code of a page, as they are printed."""
    return re.findall(rf"```{language}\n(.*?)```", page, flags=re.S)


def commands(page: str) -> list[str]:
    """The command lines of a page in their order, small enough for a test."""
    lines = [line.split("#")[0].strip() for block in blocks(page, "sh") for line in block.splitlines()]
    return [smaller(line) for line in lines if line]


def smaller(line: str) -> str:
    """The command on less data."""
    for long, short in SMALLER.items():
        line = line.replace(long, short)
    return line
