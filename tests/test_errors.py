from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch

from amodal import cli
from amodal.errors import is_memory, nearest, shown

SOURCE = Path(__file__).resolve().parents[1] / "src"


def test_nearest() -> None:
    assert nearest("steps", ["stepss", "x"]) == "; nearest is 'stepss'"
    assert nearest("qqqq", ["b", "a"]) == "; known: a, b"
    assert nearest("qqqq", []) == ""
    assert nearest("qqqq", ["b", "a"], listed=1) == ""
    assert nearest("step", ["steps"], listed=0) == "; nearest is 'steps'"


def test_unknown_names_are_answered_in_one_place() -> None:
    """So that every message about one reads alike."""
    modules = {path: ast.walk(ast.parse(path.read_text())) for path in SOURCE.rglob("*.py")}
    imports = {
        path.name
        for path, nodes in modules.items()
        for node in nodes
        if isinstance(node, ast.Import) and any(alias.name == "difflib" for alias in node.names)
    }
    assert imports == {"errors.py"}


def test_values_in_messages_are_short_and_on_one_line() -> None:
    nested: list[object] = []
    for _ in range(100_000):
        nested = [nested]
    for value, told in (
        ("a\nb", "'a\\nb'"),
        (16**5000, "a int too long"),
        (nested, "a list too long"),
        ([1] * 99, "[1, 1,"),
    ):
        assert shown(value).startswith(told)
        assert len(shown(value)) <= 103


@pytest.mark.parametrize(
    "fault",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried to"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    ],
)
def test_no_memory_is_told_from_faults_of_the_program(fault: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    def verb() -> None:
        raise fault

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(cli.VERBS, "info", "x:x")
        patch.setattr(cli, "_load", lambda _: verb)
        assert cli.main(["info"]) == 1
    assert capsys.readouterr().err.startswith("amodal info: not enough memory for what is asked (")
    assert not is_memory(RuntimeError("shape mismatch"))
