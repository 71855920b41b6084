"""Every command of every page is one that the command line takes; what it does is looked at in other tests."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import pytest
from tests.docs.pages import ROOT, blocks

from amodal import cli
from amodal.arguments import Verb

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def _lines() -> Iterator[tuple[str, str]]:
    for path in PAGES:
        for block in blocks(path.read_text(), "(?:sh|bash|console)"):
            for line in block.replace("\\\n", " ").splitlines():
                if line.startswith("amodal "):
                    yield path.name, line


LINES = list(_lines())


def test_the_pages_have_commands() -> None:
    assert len(LINES) >= 25
    assert len({page for page, _ in LINES}) >= 3


@pytest.mark.parametrize(("page", "line"), LINES, ids=[f"{page}: {line[:50]}" for page, line in LINES])
def test_the_command_line_takes_it(page: str, line: str) -> None:
    verb, words = cli._split_verb(shlex.split(line, comments=True)[1:])
    if "--help" not in words:
        Verb(verb, cli._load(verb)).parse(words)
