"""``amodal methods``: what it prints is for people."""

from __future__ import annotations

from dataclasses import fields

import pytest

from amodal import cli
from amodal.files import shipped_files
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
        assert all(f" {field.name}: " in " ".join(text.split()) for field in fields(system.settings))
    assert all(len(line) <= 100 for line in lines if line.startswith("  "))
    assert "rerank_weight: null" in text
    assert "delta_weights: [1.0, 1.0, 1.0, 1.0]" in text


def test_every_configuration_is_told_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    """Those that say nothing themselves, by the words of what they stand on."""
    assert cli.main(["configs"]) == 0
    told = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert set(told) == set(shipped_files("configs"))
    assert told["pgexp/nano"] == told["mask_rcnn/nano"] == told["nano"]
