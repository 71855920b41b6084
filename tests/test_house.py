"""How the package is built: which file may import which, and words that belong to one room."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import is_dataclass, replace
from pathlib import Path

import pytest

import amodal
from amodal import config
from amodal.config import ModelConfig
from amodal.priors.prior import Prior
from amodal.settings import FitConfig, MethodConfig, PGExpConfig

SOURCE = Path(__file__).resolve().parents[1] / "src"

LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors", "terminal", "version"),
    ("bounds", "locks", "viz"),
    ("draws", "files", "frames", "launch", "plain_yaml", "settings", "transport"),
    ("structures", "systems"),
    ("data", "prediction"),
    ("config",),
    ("config_io", "datasets", "evaluation", "helptext"),
    ("report",),
    ("models",),
    ("priors",),
    ("methods",),
    ("tiles",),
    ("checkpoint", "pictures"),
    ("model",),
    ("predict", "train"),
    ("score",),
    ("reproduce",),
    ("compare",),
    ("arguments", "verbs"),
    ("cli",),
    ("__main__",),
)
"""Rooms of the package from the ground up: what stands in a line imports lines above it, and itself."""


TABLE = "amodal.systems"
"""The table of systems: the one file that names, as text, what stands above it."""


def _modules() -> dict[str, Path]:
    found = {}
    for path in sorted((SOURCE / "amodal").rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def _imports(path: Path, modules: dict[str, Path]) -> Iterator[tuple[str, bool, bool]]:
    """(module of the package, whether for types alone, whether as text) of every import in a file, wherever it stands.

    Text that is resolved when the program runs, a module or "module:NAME", is an import as well. An import that this
    cannot follow, a relative one or text that is put together, is refused.
    """
    tree = ast.parse(path.read_text())
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        hidden = isinstance(node, ast.JoinedStr) and re.search(r"\bamodal\.", ast.unparse(node))
        if hidden or (isinstance(node, ast.ImportFrom) and node.level):
            raise AssertionError(f"{path}: {ast.unparse(node)}: write the module out, as tests cannot follow it")
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in modules else node.module for name in whole]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names = [node.value.partition(":")[0]] if re.fullmatch(r"amodal(\.\w+)+(:\w+)?", node.value) else []
        else:
            continue
        yield from ((name, id(node) in for_types, isinstance(node, ast.Constant)) for name in names if name in modules)


def _graph(types: bool) -> dict[str, set[str]]:
    modules = _modules()
    graph = {}
    for name, path in modules.items():
        found = [(other, only) for other, only, as_text in _imports(path, modules) if not (as_text and name == TABLE)]
        graph[name] = {other for other, only in found if other != name and (types or not only)}
    return graph


def _room(module: str) -> str:
    return module.split(".")[1] if "." in module else module


def test_every_room_has_its_place() -> None:
    placed = {room for layer in LAYERS for room in layer}
    there = {_room(name) for name in _modules() if name != "amodal"}
    assert there <= placed, f"say where {sorted(there - placed)} stand"


@pytest.mark.parametrize("types", [False, True], ids=["imports", "types, too"])
def test_no_two_files_import_each_other(types: bool) -> None:
    """Lazy imports count: a file that needs another one only later still needs it."""
    graph = _graph(types)
    pairs = {tuple(sorted((a, b))) for a, others in graph.items() for b in others if a in graph[b]}
    assert not pairs


def test_no_imports_go_round_in_circles() -> None:
    graph, done = _graph(types=False), set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join([*way[way.index(name) :], name])
        if name not in done:
            for other in sorted(graph[name]):
                visit(other, (*way, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_what_is_named_as_text_counts_as_imported() -> None:
    graph, modules = _graph(types=False), _modules()
    assert "amodal.verbs.demo" in graph["amodal.cli"]
    assert "amodal.model" in graph["amodal"]
    in_table = {other for other, _, as_text in _imports(modules[TABLE], modules) if as_text}
    assert {"amodal.methods.mask_rcnn", "amodal.models.box_head", "amodal.priors.maker"} <= in_table


@pytest.mark.parametrize("line", ["from ..train import run", "from .. import train", 'load(f"amodal.train.{name}")'])
def test_imports_that_cannot_be_followed_are_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "room.py").write_text(f"def later(name):\n    {line}\n")
    with pytest.raises(AssertionError, match="write the module out"):
        list(_imports(tmp_path / "room.py", _modules()))


@pytest.mark.parametrize("types", [False, True], ids=["imports", "types, too"])
def test_imports_run_from_top_to_bottom(types: bool) -> None:
    height = {room: level for level, layer in enumerate(LAYERS) for room in layer}
    wrong = sorted(
        f"{name} imports {other}"
        for name, others in _graph(types).items()
        for other in others
        if "amodal" not in (name, other) and _room(name) != _room(other)
        if height[_room(other)] >= height[_room(name)]
    )
    assert not wrong


def test_a_system_is_named_in_its_own_room_its_settings_and_the_table_alone() -> None:
    allowed = {"amodal.settings", "amodal.systems"}
    named = [
        name
        for name, path in _modules().items()
        if re.search("pgexp", path.read_text(), re.IGNORECASE)
        if name not in allowed and not name.startswith("amodal.methods.pgexp")
    ]
    assert not named


SETTINGS = (MethodConfig, FitConfig, *(cls for cls in vars(config).values() if is_dataclass(cls)))


def _holds_settings(value: object) -> bool:
    """Whether a value is a settings object, or a list, tuple or dict with one in it."""
    if isinstance(value, dict):
        return any(map(_holds_settings, value.values()))
    return any(map(_holds_settings, value)) if isinstance(value, (list, tuple)) else isinstance(value, SETTINGS)


@pytest.mark.parametrize("system", ["mask_rcnn", "pgexp", "tests.systems.asn_like:ASNLike"])
def test_settings_build_modules_and_never_enter_them(
    system: str, tiny_config: Callable[..., ModelConfig], tiny_prior: Prior
) -> None:
    made, prior = tiny_config(system), None
    if system == "pgexp":
        made, prior = replace(made, method=PGExpConfig(k=2)), tiny_prior
    model = amodal.build(system, 2, config=made, prior=prior)
    assert [
        f"{name or 'the model'}.{key}"
        for name, module in model.named_modules()
        for key, value in vars(module).items()
        if _holds_settings(value)
    ] == []
