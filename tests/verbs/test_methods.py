"""``amodal methods``: what it prints is for people."""

from __future__ import annotations

from dataclasses import fields

import pytest

from amodal import cli
from amodal.systems import SYSTEMS


def test_systems_and_their_settings_without_internals(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["methods"]) == 0
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert lines[0].split() == ["name", "system", "paper"]
    assert [line.split()[0] for line in lines[1 : 1 + len(SYSTEMS)]] == list(SYSTEMS)
    assert not any(word in text for word in ("<", "object at", "MISSING", "factory", "Field("))
    for name, system in SYSTEMS.items():
        assert f"{system.paper}, {system.venue}" in text
        told = [line for line in lines if line.startswith(f"settings of {name} ")]
        assert len(told) == bool(fields(system.settings))
        assert all(f" {field.name}=" in told[0] for field in fields(system.settings))
    assert "k=8," in text
    assert "delta_weights=[1.0, 1.0, 1.0, 1.0]" in text
