"""Every command and every line of Python of the page runs, in its order, in a folder like a clone."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from tests.docs.pages import ROOT, SMALL_FIT, blocks, commands

from amodal.cli import main

PAGE = (ROOT / "docs/first-five-minutes.md").read_text()
NO_COMMANDS = (". .venv/bin/activate",)  # Of the shell; the README's test looks at it.


def test_the_page_is_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("configs", "docs"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AMODAL_CACHE", str(tmp_path / "cache"))
    lines = [line for line in commands(PAGE) if line not in NO_COMMANDS]
    assert len(lines) == 10
    for line in lines:
        program, *words = shlex.split(line)
        assert program == "amodal"
        if words[:2] == ["prior", "fit"]:
            words += SMALL_FIT
        elif words[0] == "train":
            words += ["--data.workers", "0"]
        assert main(words) == 0, line
    exec(compile(blocks(PAGE, "python")[0], "first-five-minutes.md", "exec"), {})
    made = [
        "runs/first/overlays/scene.png",
        "runs/show",
        "runs/prior-pictures",
        "runs/mine/test/report.html",
        "out.png",
    ]
    assert [name for name in made if not (tmp_path / name).exists()] == []


def test_no_picture_is_trained_on_and_judged_by() -> None:
    lines = [line for line in commands(PAGE) if "--data.train " in line]
    assert lines
    for line in lines:
        words = shlex.split(line)
        given = {flag: words[words.index(flag) + 1] for flag in ("--data.train_images", "--data.val_images")}
        assert len(set(given.values())) == 2
