"""``amodal methods``: the systems and their papers."""

from __future__ import annotations


def methods() -> None:
    """The systems by name, with their settings and the papers they follow.

    Example:
        amodal methods
    """
    from dataclasses import asdict

    from amodal.systems import SYSTEMS

    rows = [("name", "system", "paper")]
    rows += [(name, system.title, f"{system.paper}, {system.venue}") for name, system in SYSTEMS.items()]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for row in rows:
        print(f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]}")
    for name, system in SYSTEMS.items():
        settings = ", ".join(f"{key}={value}" for key, value in asdict(system.settings()).items())
        if settings:
            print(f"\nsettings of {name} (--model.method.NAME): {settings}")
