"""``amodal methods``: the systems and their papers."""

from __future__ import annotations


def methods() -> None:
    """The systems by name, with their settings and the papers they follow."""
    from dataclasses import fields

    from amodal.methods import METHODS

    rows = [("name", "system", "paper")]
    rows += [(name, entry.title, f"{entry.paper}, {entry.venue}") for name, entry in METHODS.items()]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for row in rows:
        print(f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]}")
    for name, entry in METHODS.items():
        settings = ", ".join(f"{setting.name}={setting.default}" for setting in fields(entry.config))
        if settings:
            print(f"\nsettings of {name} (--model.method.NAME): {settings}")
