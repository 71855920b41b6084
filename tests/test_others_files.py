"""Nothing is replaced that the verb did not make, and no two processes work in one folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from amodal.cli import main
from amodal.data.scenes.dataset import write_dataset
from amodal.locks import hold

SHIPPED = "nano-scenes-v1"
PRIOR = Path(__file__).resolve().parents[1] / "src" / "amodal" / "weights" / SHIPPED / "prior"
JOB = "is there already, and no prediction or test wrote it; choose another --out"
RUN = "is there already, and no run wrote it; choose another --out"
LOST = "which is no part of a {} and would be lost; choose another folder"

Command = Callable[[str, Path], list[str]]


@pytest.fixture
def command(settings: Path, scenes: Path) -> Command:
    """The words of a verb that writes into a folder."""
    ann, images = scenes / "annotations.json", scenes / "images"

    def words(verb: str, out: Path) -> list[str]:
        given = {
            "demo": ("--images", "1", "--out", out),
            "scenes": (out, "--images", "1", "--size", "64", "--overwrite"),
            "prior fit": (ann, out, "--slots", "4", "--encoder-steps", "3", "--flow-steps", "3"),
            "train": (settings, "--out", out, "--steps", "1"),
            "reproduce": ("table1", "--drawn", "--out", out),
            "test": (SHIPPED, ann, images, "--out", out),
            "predict": (SHIPPED, images / "000001.png", "--out", out),
        }[verb]
        return [*verb.split(), *map(str, given)]

    return words


@pytest.mark.parametrize(
    ("verb", "name", "said"),
    [
        ("demo", "scenes/mine.txt", "scenes: is there already, and the demo did not draw it; choose another --out"),
        ("demo", "report.html", f"report.html: {JOB}"),
        ("test", "metrics.json", f"metrics.json: {JOB}"),
        ("test", "parts/wheel.png", "parts: unfinished work is kept there, but it holds something else"),
        ("predict", "predictions.json", f"predictions.json: {JOB}"),
        ("predict", "parts/wheel.png", "parts: unfinished work is kept there, but it holds something else"),
        ("train", "config.yaml", f"config.yaml: {RUN}"),
        ("train", "log.csv", f"log.csv: {RUN}"),
        ("train", "best/notes.md", f"best: holds notes.md, {LOST.format('checkpoint')}"),
        ("train", "last/notes.md", "last: holds notes.md, " + LOST.format("checkpoint")),
        ("prior fit", "notes.md", f": holds notes.md, {LOST.format('prior')}"),
        ("reproduce", "table1.md", "table1.md: is there already, and is no table of an experiment"),
        ("scenes", "annotations.json", "annotations.json: would be replaced, but was not drawn here"),
        ("scenes", "images/000001.png", "000001.png: would be replaced, but was not drawn here"),
    ],
)
def test_files_of_others_are_refused_in_one_line(
    verb: str, name: str, said: str, command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "out" / name
    file.parent.mkdir(parents=True)
    file.write_text("mine")
    assert main(command(verb, tmp_path / "out")) == 2
    error = capsys.readouterr().err
    assert said in error.splitlines()[-1]
    assert error.splitlines()[-1].startswith(f"amodal {verb}: {tmp_path}/out")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [file]
    assert file.read_text() == "mine"


def test_the_demo_replaces_its_own_scenes_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_dataset(tmp_path / "scenes", 1, 64, seed=5)
    before = (tmp_path / "scenes/annotations.json").read_bytes()
    assert main(["demo", "--out", str(tmp_path), "--images", "1"]) == 2
    assert "the demo did not draw it" in capsys.readouterr().err
    assert (tmp_path / "scenes/annotations.json").read_bytes() == before


def test_parts_of_a_job_go_and_other_files_stay(command: Command, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "parts").mkdir(parents=True)
    (out / "parts/job.txt").write_text("of another job")
    (out / "parts/000000-0.json").write_text("[]")
    (out / "parts/wheel.png").write_text("mine")
    assert main(command("predict", out)) == 0
    assert [path.name for path in (out / "parts").iterdir()] == ["wheel.png"]


def test_drawings_replace_no_pictures(scenes: Path, command: Command, tmp_path: Path) -> None:
    """Of one picture, and no reason to draw no other ones."""
    out = tmp_path / "out"
    picture = Image.new("RGB", (5, 5))
    for name in ("overlays/000001.png", "show/1_000001.png"):
        (out / name).parent.mkdir(parents=True)
        picture.save(out / name)
    assert main(command("predict", out)) == 0
    words = ["show", str(scenes / "annotations.json"), str(scenes / "images"), str(out / "show"), "--limit", "2"]
    for _ in range(2):
        assert main(words) == 0
    assert Image.open(out / "overlays/000001.png").size == (5, 5)
    assert Image.open(out / "show/1_000001.png").size == (5, 5)
    assert Image.open(out / "show/2_000002.png").size != (5, 5)


def test_files_that_are_read_are_not_written(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "ann.json"
    file.write_bytes((scenes / "annotations.json").read_bytes())
    for verb, words in {
        "convert": [file, file],
        "evaluate": [file, tmp_path / "results.json", "--out", file],
    }.items():
        assert main([verb, *map(str, words)]) == 2
        line = f"amodal {verb}: {file}: is read here and would be replaced by what is written; name another file\n"
        assert capsys.readouterr().err == line
    assert file.read_bytes() == (scenes / "annotations.json").read_bytes()


@pytest.mark.parametrize("verb", ["demo", "scenes", "prior fit", "train", "test", "predict"])
def test_one_process_works_in_a_folder(
    verb: str, command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    with hold(out, beside=verb == "prior fit"):
        assert main(command(verb, out)) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"amodal {verb}: {out}: process {os.getpid()} on ")
    assert list(tmp_path.iterdir()) == []


def test_equal_priors_are_equal_files(command: Command, tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert main(command("prior fit", tmp_path / name)) == 0
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert one == two
    assert len(one) == 5
