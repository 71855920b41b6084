"""Answers of studies belong to the settings, run and pictures that gave them; the studies run on drawn scenes."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from studies.study import Part, Study, Subject, parts_of, run, study_parser

from amodal.data.scenes.dataset import write_dataset
from amodal.model import SHIPPED
from amodal.reproduce.plan import read_experiment
from amodal.reproduce.sources import Given, Split
from amodal.reproduce.steps import Folders
from studies import boxes, oracle, page, stress

NANO = SHIPPED / "nano-scenes-v1"


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes of the classes of the weights that ship."""
    return write_dataset(tmp_path_factory.mktemp("scenes") / "data", images=2, size=128, seed=5).parent


@pytest.fixture
def experiment(tmp_path: Path, scenes: Path) -> Path:
    """An experiment on drawn scenes with the rows s6 and plus."""
    (tmp_path / "data").mkdir()
    shutil.copy(scenes / "annotations.json", tmp_path / "data" / "val.json")
    (tmp_path / "data" / "val").symlink_to(scenes / "images")
    content = {
        "settings": {"steps": 7},
        "data": {"train": "val", "test": ["val"]},
        "rows": {"s6": {"system": "pgexp"}, "plus": {"system": "pgexp", "model.method.rerank": "occluder"}},
    }
    path = tmp_path / "drawn.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture
def asked() -> list[int | None]:
    """Notes how often the study was asked."""
    return []


@pytest.fixture
def study(asked: list[int | None]) -> Study:
    def collect(model: Any, data: Any, limit: int | None) -> dict[str, Any]:
        asked.append(limit)
        return {"images": len(data), "system": model.config.system}

    return Study("count", {"level": 1}, collect, ("s6", "plus"), ("val",))


@pytest.fixture
def do(experiment: Path, study: Study, tmp_path: Path) -> Callable[..., int]:
    """Does the study as its command does."""

    def done(*words: str, of: Study = study) -> int:
        places = ["--data.root", str(tmp_path / "data"), "--out", str(tmp_path / "out")]
        places += ["--results", str(tmp_path / "results")]
        return run(lambda _: of, study_parser("A study."), [str(experiment), *places, *words])

    return done


def train(experiment: Path, out: Path, row: str, study: Study) -> str:
    """Lets a row be trained: the weights that ship lie where its run would; returns the run's id."""
    (part,) = parts_of(study, read_experiment(experiment), Given(experiment.parent / "data"), [row])
    folders = Folders(out)
    shutil.copytree(NANO, folders.checkpoint(part.subject.id))
    folders.trained(part.subject.id).write_text("{}")
    return part.subject.id


def test_a_part_is_done_once_and_kept_with_what_decided_it(
    do: Callable[..., int], study: Study, experiment: Path, tmp_path: Path, asked: list[int | None], capsys: Any
) -> None:
    run_id = train(experiment, tmp_path / "out", "s6", study)
    assert do() == 1  # the other row is not trained
    told = capsys.readouterr()
    assert "count: plus, seed 0 on val: run " in told.err
    assert "is not trained; amodal reproduce" in told.err
    (path,) = (tmp_path / "results").iterdir()
    kept = json.loads(path.read_text())
    assert kept["value"] == {"images": 2, "system": "pgexp"}
    assert (kept["run"], kept["settings"]["level"], kept["limit"]) == (run_id, 1, None)
    before = path.read_bytes()
    assert do("--rows", "s6") == 0
    assert "there already" in capsys.readouterr().out
    assert asked == [None]
    assert path.read_bytes() == before


def test_no_old_number_answers_for_what_was_changed(
    do: Callable[..., int], study: Study, experiment: Path, tmp_path: Path, asked: list[int | None]
) -> None:
    train(experiment, tmp_path / "out", "s6", study)
    words = ("--rows", "s6")
    assert do(*words) == 0
    assert do(*words, of=replace(study, settings={"level": 2})) == 0
    assert do(*words, "--limit", "1") == 0
    content = yaml.safe_load(experiment.read_text())
    experiment.write_text(yaml.safe_dump({**content, "settings": {"steps": 8}}))
    assert do(*words) == 1  # another run, which is not trained
    train(experiment, tmp_path / "out", "s6", study)
    assert do(*words) == 0
    annotations = tmp_path / "data" / "val.json"
    data = json.loads(annotations.read_text())
    annotations.write_text(json.dumps({**data, "annotations": data["annotations"][:-1]}))
    train(experiment, tmp_path / "out", "s6", study)
    assert do(*words) == 0
    assert asked == [None, None, 1, None, None]
    assert len(list((tmp_path / "results").iterdir())) == 5


def test_a_checkpoint_that_no_experiment_made_is_named_by_its_weights(
    do: Callable[..., int], scenes: Path, tmp_path: Path
) -> None:
    words = ["--checkpoint", "nano-scenes-v1", "--data.test", str(scenes / "annotations.json")]
    assert do(*words, "--data.test_images", str(scenes / "images")) == 0
    (path,) = (tmp_path / "results").iterdir()
    assert json.loads(path.read_text())["run"].startswith("weights ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--rows", "s66x"), "has no row 's66x'"),
        (("--splits", "vall"), "has no split 'vall'; nearest is 'val'"),
        (("--checkpoint", "nano-scenes-v1"), "--data.test is missing"),
        (
            ("--checkpoint", "nano-scenes-v1", "--data.test", "two.json", "--data.test_images", "."),
            "two.json: its classes",
        ),
    ],
)
def test_what_is_not_there_is_named_in_one_line(
    do: Callable[..., int], scenes: Path, tmp_path: Path, words: tuple[str, ...], message: str, capsys: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    content = json.loads((scenes / "annotations.json").read_text())
    content["categories"][0]["name"] = "mug"
    (tmp_path / "two.json").write_text(json.dumps(content))
    monkeypatch.chdir(tmp_path)
    assert do(*words) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1


def test_a_damaged_result_is_named(
    do: Callable[..., int], study: Study, experiment: Path, tmp_path: Path, capsys: Any
) -> None:
    train(experiment, tmp_path / "out", "s6", study)
    do("--rows", "s6")
    (path,) = (tmp_path / "results").iterdir()
    good = json.loads(path.read_text())
    for text in ("{", "5", "{}", json.dumps({**good, "version": 2})):
        path.write_text(text)
        capsys.readouterr()
        assert do("--rows", "s6") == 2
        assert re.match(rf"error: {re.escape(str(path))}: .+\n$", capsys.readouterr().err)
    path.write_text(json.dumps({**good, "run": "other"}))
    assert do("--rows", "s6") == 2
    assert "run is 'other', its name stands for" in capsys.readouterr().err


STUDIES = {"oracle": oracle.STUDY, "boxes": boxes.STUDY, "stress": stress.study()}


@pytest.mark.parametrize("name", STUDIES)
def test_the_study_runs_on_drawn_scenes_and_fills_a_page(
    do: Callable[..., int], experiment: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = STUDIES[name]
    train(experiment, tmp_path / "out", "s6", study)
    assert do("--rows", "s6", of=study) == 0
    sheet = tmp_path / "sheet.md"
    sheet.write_text(f"Before.\n\n<!-- study: {name} -->\n<!-- end -->\n\nAfter.\n")
    monkeypatch.setattr(page, "Given", lambda: Given(tmp_path / "data"))
    assert page.main([str(sheet), "--experiment", str(experiment), "--results", str(tmp_path / "results")]) == 0
    text = sheet.read_text()
    assert text.startswith("Before.\n\n<!-- study")
    assert text.endswith("<!-- end -->\n\nAfter.\n")
    rows = {"oracle": "| true B^a |", "boxes": "| B^v |", "stress": "| 100 % |"}
    assert rows[name] in text
    assert "s6, seed 0, val" in text
    assert (tmp_path / "sheet-stress.svg").is_file() == (name == "stress")


def test_settings_of_every_study_decide() -> None:
    part = Part(STUDIES["stress"], Subject("a", "A"), Split("val", "d"))
    others = [replace(part, study=stress.study(1)), replace(part, study=STUDIES["boxes"]), replace(part, limit=1)]
    others += [replace(part, subject=Subject("b", "A")), replace(part, split=replace(part.split, digest="e"))]
    paths = {other.path(Path()) for other in (part, *others)}
    assert len(paths) == 6
    assert part.path(Path()) == replace(part, subject=Subject("a", "B")).path(Path())
