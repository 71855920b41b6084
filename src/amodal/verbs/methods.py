"""``amodal methods``: the systems and their papers."""

from __future__ import annotations


def methods() -> None:
    """The systems by name, with their settings and the papers they follow.

    Example:
        amodal methods
    """
    from dataclasses import asdict
    from textwrap import fill

    from amodal.systems import SYSTEMS

    rows = [("name", "system", "paper")]
    rows += [(name, system.title, f"{system.paper}, {system.venue}") for name, system in SYSTEMS.items()]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for row in rows:
        print(f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]}")
    for name, system in SYSTEMS.items():
        settings = ", ".join(f"{key}: {_as_yaml(value)}" for key, value in asdict(system.settings()).items())
        if settings:
            print(f"\nsettings of {name} with their defaults (model.method; amodal train --help-all explains them):")
            print(fill(settings, 100, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False))


def _as_yaml(value: object) -> str:
    """A setting as a configuration has it."""
    import yaml

    return yaml.safe_dump(value, default_flow_style=True).partition("\n")[0]
