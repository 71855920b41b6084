from __future__ import annotations

import ast
from pathlib import Path

from amodal.errors import nearest

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
