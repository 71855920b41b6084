"""Every command and every line of Python in the README runs, on small data, laid out as the page names it."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.docs.pages import ROOT, SMALL_FIT, blocks, commands

README = (ROOT / "README.md").read_text()
NANO = ["--model.backbone.weights", "null", "--steps", "1", "--model.transform.min_size", "[64]"]
NANO += ["--model.transform.test_min_size", "64", "--data.workers", "0"]
PRIOR = ["--prior_fit.slots", "40", "--prior_fit.encoder_steps", "20", "--prior_fit.flow_steps", "2"]


def run(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    words = shlex.split(line)
    if words[0] == ".":
        words = ["grep", f"^VENV := {Path(words[1]).parts[0]}$", str(ROOT / "Makefile")]
    elif words[0] == "make":
        words = ["make", "-n", "-C", str(ROOT), *words[1:]]
    elif words[0] == "amodal":
        words = [sys.executable, "-m", "amodal", *words[1:]]
        if words[3:5] == ["prior", "fit"]:
            words += SMALL_FIT
        if words[3] == "train":
            words[4] = str(ROOT / words[4])
            words += [*PRIOR, *(NANO if "kins" in words[4] else ["--data.workers", "0"])]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(folder / "cache")}
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)


def as_kins_2020(source: Path, target: Path) -> None:
    """The drawn annotations under the 2020 KINS keys (masks as RLE, which the readers take as well)."""
    data = json.loads(source.read_text())
    keys = {"segmentation": "a_segm", "visible_mask": "i_segm", "bbox": "a_bbox", "visible_bbox": "i_bbox"}
    for annotation in data["annotations"]:
        for old, new in keys.items():
            annotation[new] = annotation.pop(old)
        annotation["a_area"] = annotation.pop("area")
        annotation.pop("occlude_rate", None)
    target.write_text(json.dumps(data))


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("readme")
    for split, seed in (("train", 5), ("test", 6)):
        done = run(f"amodal scenes kins_{split} --images 2 --size 96 --seed {seed}", folder)
        assert done.returncode == 0, done.stderr
        as_kins_2020(folder / f"kins_{split}/annotations.json", folder / f"update_{split}_2020.json")
        place = folder / "KITTI" / ("training" if split == "train" else "testing") / "image_2"
        place.parent.mkdir(parents=True)
        shutil.copytree(folder / f"kins_{split}/images", place)
    (folder / "docs").symlink_to(ROOT / "docs")
    return folder


def test_the_readme_has_commands() -> None:
    assert {"make demo", "make test"} <= set(commands(README))
    assert len(commands(README)) >= 14
    assert len(blocks(README, "python")) == 1


def test_every_command_runs_in_the_order_of_the_page(sandbox: Path) -> None:
    for line in commands(README):
        done = run(line, sandbox)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    assert (sandbox / "runs/scenes/test/report.html").is_file()
    assert (sandbox / "runs/kins/test/metrics.json").is_file()


def test_the_python_lines_run(sandbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(sandbox)
    exec(compile(blocks(README, "python")[0], "README.md", "exec"), {})
    assert (sandbox / "out.png").stat().st_size > 0


def test_a_shell_that_knows_amodal(tmp_path: Path) -> None:
    """In a folder that looks as if it were set up."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "scripts").mkdir()
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    for name in ("pyproject.toml", "constraints.txt", "scripts/setup.sh", ".venv/.current"):
        (tmp_path / name).touch()
    (tmp_path / ".venv/bin/activate").write_text("PATH=$PWD/.venv/bin:$PATH; export PATH\n")
    program = tmp_path / ".venv/bin/amodal"
    program.write_text("#!/bin/sh\necho it is me\n")
    program.chmod(0o755)
    environment = {**os.environ, "SHELL": "/bin/sh"}
    words = ["make", "-C", str(tmp_path), "shell"]
    done = subprocess.run(words, input="amodal\n", env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "it is me" in done.stdout


def test_links_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"
