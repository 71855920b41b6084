"""``amodal configs``: the configurations that come with the package."""

from __future__ import annotations

import os
from pathlib import Path


def configs() -> None:
    """Configurations that come with the package: "amodal train NAME ..." finds them by name.

    Each is told by its own first words, else by those of the file that it stands on.

    Example:
        amodal configs
    """
    from amodal.files import shipped_files

    known = shipped_files("configs")
    width = max(map(len, known), default=0)
    for name in known:
        print(f"{name:<{width}}  {_told(name, known)}")


def _told(name: str, known: dict[str, Path]) -> str:
    """The first comment of a configuration, else of its base."""
    lines = known[name].read_text(encoding="utf-8").splitlines()
    for line in lines:
        if line.startswith("#"):
            return line[1:].strip()
        if line.startswith("base:"):
            base = os.path.normpath(Path(name).parent / line.partition(":")[2].strip())
            return _told(Path(base).with_suffix("").as_posix(), known)
    return ""
