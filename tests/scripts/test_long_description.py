"""What a package index shows of the project: links that lead somewhere, pictures that show, no address made up."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("hatchling", reason="building needs hatchling")

from scripts.long_description import addresses, long_description

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TARGETS = re.compile(r"\]\(([^)]+)\)")


def test_without_an_address_nothing_is_broken_and_nothing_made_up() -> None:
    text = long_description(README, None, "1.2.3")
    assert "![" not in text
    assert all(target.startswith("http") for target in TARGETS.findall(text))
    assert "Which formats are read." in text
    assert addresses(None, "1.2.3") == {}


def test_with_an_address_every_link_and_picture_is_absolute() -> None:
    text = long_description(README, "https://example.org/me/amodal/", "1.2.3")
    assert "](https://example.org/me/amodal/raw/v1.2.3/docs/images/hero.jpg)" in text
    assert "](https://example.org/me/amodal/blob/v1.2.3/docs/datasets.md)" in text
    targets = TARGETS.findall(text)
    assert len(targets) == len(TARGETS.findall(README))
    assert all(target.startswith("https://") for target in targets)
    files = [target.partition("/v1.2.3/")[2] for target in targets if "/v1.2.3/" in target]
    assert [name for name in files if not (ROOT / name.partition("#")[0]).exists()] == []
    assert set(addresses("https://example.org/me/amodal/", "1.2.3")) == {
        "Homepage",
        "Source",
        "Documentation",
        "Issues",
    }


def test_a_wheel_carries_them(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    environment = {**os.environ, "AMODAL_REPOSITORY": "https://example.org/me/amodal"}
    subprocess.run(words, cwd=ROOT, env=environment, check=True, capture_output=True)
    (path,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(path) as wheel:
        names = wheel.namelist()
        metadata = wheel.read(next(name for name in names if name.endswith("METADATA"))).decode()
    assert {"amodal/configs/pgexp/nano.yaml", "amodal/weights/nano-scenes-v1/model.safetensors"} <= set(names)
    assert "Project-URL: Source, https://example.org/me/amodal" in metadata
    assert "](https://example.org/me/amodal/raw/v" in metadata


def test_what_is_no_address_is_refused(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    environment = {**os.environ, "AMODAL_REPOSITORY": "me/amodal"}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode != 0
    assert "AMODAL_REPOSITORY is 'me/amodal', must be the https address" in done.stderr
