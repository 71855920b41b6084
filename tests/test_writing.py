"""Nothing is written past :mod:`amodal.files`: whole or not at all, and named where it cannot be."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "amodal"

WRITERS = {
    *("write_text", "write_bytes", "save", "savez", "savez_compressed", "save_file", "savefig", "tofile", "to_csv"),
    *("touch", "memmap", "open_memmap", "savetxt"),
}
OWN = {"files.py", "locks.py"}
"""Where it is done."""

EXCEPTIONS = {
    ("checkpoint.py", "maker_of(kind).save"): "a prior, whose files go through amodal.files",
    ("data/reader.py", "cached.save"): "a cache entry, likewise",
    ("train/prior.py", "maker.save"): "likewise",
    ("report/pictures.py", "Image.fromarray(image).save"): "into memory",
    ("terminal.py", "os.open"): "nowhere",
    ("terminal.py", "open"): "nowhere",
    ("train/log.py", "self.path.open"): "a table that grows, row by row",
    ("reproduce/runner.py", "path.open"): "the log of a step, which grows, and locks, which hold nothing",
}
"""(file, call): why it may."""


def _places(tree: ast.AST) -> set[str]:
    """Names of the places that ``with whole(...) as NAME`` gives."""
    return {
        item.optional_vars.id
        for node in ast.walk(tree)
        if isinstance(node, ast.With)
        for item in node.items
        if isinstance(item.context_expr, ast.Call) and ast.unparse(item.context_expr.func) == "whole"
        if isinstance(item.optional_vars, ast.Name)
    }


def _opens_to_write(call: ast.Call, name: str) -> bool:
    arguments = [*call.args, *(word.value for word in call.keywords if word.arg == "mode")]
    modes = [arg.value for arg in arguments if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
    flags = " ".join(ast.unparse(arg) for arg in call.args)
    if name == "open" and any(set(mode) <= set("rwaxbt+") and set(mode) & set("wax+") for mode in modes):
        return True
    return name == "open" and any(flag in flags for flag in ("O_CREAT", "O_WRONLY", "O_RDWR"))


def writes(text: str) -> Iterator[tuple[int, str]]:
    """(line, call) of whatever writes a file in a source text, but into a place of :func:`amodal.files.whole`."""
    tree = ast.parse(text)
    places = _places(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        function = ast.unparse(node.func)
        owner, _, name = function.rpartition(".")
        into_file = name == "dump" and owner in ("json", "yaml", "pickle") and (len(node.args) > 1)
        if owner in places or function == "write_text":  # The other one is amodal.files' own.
            continue
        if (name in WRITERS or into_file or (owner == "shutil" and "copy" in name)) or _opens_to_write(node, name):
            yield node.lineno, function


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("path.write_text('x')", ["path.write_text"]),
        ("open(path, 'w')", ["open"]),
        ("path.open(mode='ab')", ["path.open"]),
        ("path.open('rb'); Image.open(path, formats=f); open(path)", []),
        ("json.dump(x, file); json.dumps(x)", ["json.dump"]),
        ("picture.save(path)", ["picture.save"]),
        ("np.save(path, x); x.copy()", ["np.save"]),
        ("shutil.copytree(a, b)", ["shutil.copytree"]),
        ("with whole(path) as beside:\n    beside.write_bytes(b'')", []),
        ("os.open(path, os.O_RDWR | os.O_CREAT)", ["os.open"]),
    ],
)
def test_the_walk_finds_what_writes(text: str, found: list[str]) -> None:
    assert [call for _, call in writes(text)] == found


def test_nothing_is_written_past_the_one_room() -> None:
    found = {
        (path.relative_to(SOURCE).as_posix(), call): line
        for path in sorted(SOURCE.rglob("*.py"))
        if path.relative_to(SOURCE).as_posix() not in OWN
        for line, call in writes(path.read_text())
    }
    assert not [f"{file}:{line}: {call}" for (file, call), line in found.items() if (file, call) not in EXCEPTIONS]
