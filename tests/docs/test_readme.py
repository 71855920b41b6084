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

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
# Sizes that would take minutes are cut; nothing else about a command changes.
SMALLER = {"--images 400": "--images 6", "--images 50": "--images 3", "--steps 1000": "--steps 2"}
NANO = ["--model.backbone.weights", "null", "--steps", "1", "--model.transform.min_size", "[64]"]
NANO += ["--model.transform.test_min_size", "64", "--data.workers", "0"]
PRIOR = ["--prior_fit.slots", "40", "--prior_fit.encoder_steps", "20", "--prior_fit.flow_steps", "2"]
FIT = ["--slots", "40", "--encoder-steps", "20", "--flow-steps", "2"]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.S)


def commands() -> list[str]:
    lines = [line.split("#")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    return [line for line in lines if line]


def run(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    for long, short in SMALLER.items():
        line = line.replace(long, short)
    words = shlex.split(line)
    if words[0] == "make":
        words = ["make", "-n", "-C", str(ROOT), *words[1:]]
    elif words[0] == "amodal":
        words = [sys.executable, "-m", "amodal", *words[1:]]
        if words[3:5] == ["prior", "fit"]:
            words += FIT
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
    shutil.copy(next((folder / "kins_test/images").iterdir()), folder / "scene.png")
    return folder


def test_the_readme_has_commands() -> None:
    assert {"make demo", "make test"} <= set(commands())
    assert len(commands()) >= 14
    assert len(blocks("python")) == 1


def test_every_command_runs_in_the_order_of_the_page(sandbox: Path) -> None:
    for line in commands():
        done = run(line, sandbox)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    assert (sandbox / "runs/scenes/test/report.html").is_file()
    assert (sandbox / "runs/kins/test/metrics.json").is_file()


def test_the_python_lines_run(sandbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(sandbox)
    exec(compile(blocks("python")[0], "README.md", "exec"), {})
    assert (sandbox / "out.png").stat().st_size > 0


def test_links_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"
