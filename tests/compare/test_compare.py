"""``amodal compare``: what it reads, what it refuses, what stands on its page."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from amodal.cli import main
from amodal.compare.differences import verdict
from amodal.compare.sources import read_source
from amodal.data import rle
from amodal.data.canonical import write
from amodal.data.reader import load
from amodal.data.store import AnnotationSet
from amodal.errors import DataError
from amodal.evaluation import prepare
from amodal.reproduce.identity import What
from amodal.reproduce.per_image import PerImage
from amodal.train.data import annotation_digest

# Results of one score are not cut at a threshold.
pytestmark = pytest.mark.filterwarnings("ignore:no result scores below")

SIDE, IMAGES = 40, 6
RUNS = sorted((Path(__file__).parents[2] / "experiments" / "runs").glob("*.json"))
RUN = json.loads(RUNS[0].read_text())


def square(shift: int) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[10:30, 5 + shift : 25 + shift] = True
    return mask


def visible(mask: np.ndarray) -> np.ndarray:
    """The left half of a square of 20 pixels."""
    left = int(np.flatnonzero(mask.any(0))[0])
    seen = mask.copy()
    seen[:, left + 10 :] = False
    return seen


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with ``ann.json`` and its pictures: a half-hidden square each."""
    items = [{"image": k, "label": 0, "amodal": square(0), "visible": visible(square(0))} for k in range(IMAGES)]
    names = [f"{k}.png" for k in range(IMAGES)]
    for k, name in enumerate(names):
        Image.new("RGB", (SIDE, SIDE), (200, 30 * k, 90)).save(tmp_path / name)
    truth = AnnotationSet.from_masks([(SIDE, SIDE)] * IMAGES, items, ["<b>cup</b>"], file_names=names)
    write(truth, tmp_path / "ann.json")
    return tmp_path


def results(shifts: list[int]) -> list[dict[str, Any]]:
    """A detection an image, moved by so many pixels."""
    return [
        {"image_id": k, "category_id": 1, "score": 0.9 - k / 100, "bbox": [5.0 + shift, 10.0, 20.0, 20.0]}
        | {"segmentation": rle.encode(square(shift)), "visible_mask": rle.encode(visible(square(shift)))}
        for k, shift in enumerate(shifts, start=1)
    ]


def after_test(place: Path, name: str, shifts: list[int], **mark: Any) -> Path:
    """A folder as ``amodal test`` leaves it; a mark of None takes its file away."""
    folder = place / name
    folder.mkdir(parents=True)
    (folder / "predictions.json").write_text(json.dumps(results(shifts)))
    truth = load(place / "ann.json")
    metrics = prepare(truth, folder / "predictions.json").metrics()
    (folder / "metrics.json").write_text(json.dumps(metrics))
    known = {"annotations": str(place / "ann.json"), "images": str(place), "data": annotation_digest(truth)}
    (folder / "test.json").write_text(json.dumps({**known, **mark}))
    return folder


def after_training(place: Path, name: str, rate: float, ap: float) -> Path:
    """A run folder without a test."""
    folder = place / name
    folder.mkdir()
    (folder / "config.yaml").write_text(
        f"steps: 20\nout: {name}\noptim: {{lr: {rate}}}\ndata: {{val: {place}/ann.json}}\n"
    )
    (folder / "log.csv").write_text("step,lr,loss\n10,0.1,2.5\n20,0.1,1.5\n30,0.1")
    (folder / "eval.csv").write_text(f"step,mask.AP,box.AP\n10,{ap - 5},20\n20,{ap},\n")
    return folder


def run(place: Path, *words: object) -> tuple[int, str]:
    code = main(["compare", *map(str, words), "--out", str(place / "page.html")])
    return code, (place / "page.html").read_text() if code == 0 else ""


def test_two_tests(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = after_test(place, "good", [0, 0, 0, 0, 0, 0]), after_test(place, "bad", [1, 0, 9, 4, 0, 1])
    code, page = run(place, bad, good, "--draws", 100)
    assert code == 0
    printed = capsys.readouterr()
    (row,) = (line for line in printed.out.splitlines() if line.startswith("amodal mask AP "))
    assert re.search(r"\d+\.\d\d +100\.00 +\+\d+\.\d\d better \(95 %: \+\d", row)
    assert f"page: {place / 'page.html'}" in printed.out
    assert printed.err == ""
    assert "What is missing" not in page
    # Images that differ alone, the largest difference first.
    assert re.findall(r'<article class="scene"><p>(\d\.png)</p>', page) == ["2.png", "3.png", "0.png", "5.png"]
    assert page.count("<img") == 4 * 3
    assert "mean IoU 1.00" in page
    for tag in ("section", "article", "div", "figure", "table", "tr", "td", "th", "ul", "li", "p", "span", "small"):
        assert len(re.findall(rf"<{tag}[ >]", page)) == page.count(f"</{tag}>"), tag
    assert "<b>cup" not in page
    assert "http" not in page.replace("http-equiv", "")


def test_worse_and_same(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [after_test(place, name, [shift] * IMAGES) for name, shift in (("a", 0), ("b", 4), ("c", 0))]
    code, page = run(place, *folders, "--limit", 0, "--draws", 20)
    assert code == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert f"{folders[1]} minus {folders[0]}" in head
    (row,) = (line for line in rows if line.startswith("amodal mask AP "))
    assert "worse" in row
    assert row.endswith("+0.00 same (95 %: +0.00 to +0.00, may be chance)")
    assert "<img" not in page
    assert [verdict(value) for value in (None, 0.04, -0.04, 0.06, -1)] == ["", "same", "same", "better", "worse"]


def test_runs_without_a_test_have_curves_settings_and_their_validation(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, page = run(place, after_training(place, "a", 0.1, 40), after_training(place, "b", 0.2, 45.5))
    assert code == 0
    printed = capsys.readouterr()
    assert "+5.50 better" in printed.out
    assert printed.err.count("no predictions (best validation, step 20)") == 2
    assert "What is missing" in page
    assert page.count("<polyline") == 4
    assert '<th scope="row">optim.lr</th><td>0.1</td><td>0.2</td>' in page
    assert '<th scope="row">out' not in page
    (place / "ann.json").unlink()
    assert run(place, place / "a", place / "b")[0] == 0, "the same name is the same validation file"
    source = read_source(place / "a")
    assert source.loss == [(10, 2.5), (20, 1.5)], "half a row at the end is none"
    assert source.ap == [(10, 35), (20, 40)]


def test_a_test_in_the_run_folder_comes_before_its_validation(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, shift in (("a", 1), ("b", 0)):
        after_training(place, name, 0.1, 40)
        after_test(place, f"{name}/test", [shift] * IMAGES)
    code, page = run(place, place / "a", place / "b", "--draws", 20)
    assert code == 0
    assert "test (test/)" in page
    assert "<polyline" in page
    assert "<img" in page
    # A test knows the run of its checkpoint, and so its curves.
    elsewhere = after_test(place, "elsewhere", [0] * IMAGES, checkpoint=str(place / "b" / "best"))
    assert read_source(elsewhere).loss == read_source(place / "b").loss
    assert read_source(elsewhere).settings == read_source(place / "b").settings
    capsys.readouterr()


def test_runs_of_an_experiment(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth = load(place / "ann.json")
    for name, shift, rate in (("a", 1, 0.1), ("b", 0, 0.2)):
        evaluation = prepare(truth, results([shift] * IMAGES))
        record = copy.deepcopy(RUN)
        record["what"]["settings"]["optim.lr"] = rate
        record["id"] = What.as_written(record["what"]).id
        levels = next(iter(record["splits"].values()))["levels"]
        split = {"digest": annotation_digest(truth), "metrics": evaluation.metrics(), "levels": levels}
        split["per_image"] = PerImage.of(evaluation).pack()
        record |= {"curve": [{"step": 5, "loss": rate}], "splits": {"val": split}}
        (place / f"{name}.json").write_text(json.dumps(record))
    code, page = run(place, place / "a.json", place / "b.json", "--draws", 20)
    assert code == 0
    assert "better (95 %: " in capsys.readouterr().out
    assert "optim.lr" in page
    assert "<circle" in page, "a curve of one point is a dot"
    good = (place / "a.json").read_text()
    for keys, value in (
        (("splits", "val", "per_image", "arrays"), {}),
        (("splits", "val", "metrics", "mask", "AP"), "x"),
        (("splits", "val", "digest"), 5),
        (("curve",), [{"step": "a", "loss": "b"}]),
        (("what", "settings"), [1]),
        (("what", "settings", "optim.lr"), 0.7),
        (("version",), 99),
    ):
        record = place_of = json.loads(good)
        for key in keys[:-1]:
            place_of = place_of[key]
        place_of[keys[-1]] = value
        (place / "a.json").write_text(json.dumps(record))
        assert run(place, place / "a.json", place / "b.json")[0] == 2, keys
        error = capsys.readouterr().err
        assert error.startswith(f"amodal compare: {place / 'a.json'}: "), error
        assert error.count("\n") == 1


def test_unlike_data_are_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = (
        after_test(place, "a", [0] * IMAGES),
        after_test(place, "b", [0] * IMAGES, data="another", annotations="x.json"),
    )
    assert run(place, one, other)[0] == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "unlike data" in error
    assert "test on x.json" in error


def test_folders_that_do_not_say_what_they_tested(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [after_test(place, "a", [0] * IMAGES), after_test(place, "b", [2] * IMAGES)]
    for folder in folders:
        (folder / "test.json").unlink()
    assert run(place, *folders)[0] == 0
    error = capsys.readouterr().err
    assert error.count("--annotations names them") == 2
    assert error.count("does not say what it was tested on") == 2
    code, page = run(place, *folders, "--annotations", place / "ann.json", "--draws", 10)
    assert code == 0
    assert "--images names it" in capsys.readouterr().err
    assert "95 %" in page
    more = ("--annotations", place / "ann.json", "--images", place, "--draws", 0)
    code, page = run(place, *folders, *more)
    assert code == 0
    assert "95 %" not in page
    assert "<img" in page


def test_a_broken_image_costs_its_place_alone(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [after_test(place, "a", [0] * IMAGES), after_test(place, "b", [3, 3, 0, 0, 0, 0])]
    (place / "0.png").write_bytes(b"no picture")
    code, page = run(place, *folders, "--draws", 0)
    assert code == 0
    assert "0.png: not shown" in capsys.readouterr().err
    assert page.count("<img") == 3


def test_errors_are_one_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = after_test(place, "a", [0] * IMAGES)
    (place / "empty").mkdir()
    (place / "x.json").write_text("{}")
    for words, told in (
        ([good], "name two or more"),
        ([good, good], "is named twice"),
        ([good, place / "empty"], "nothing to compare; give a run folder of train"),
        ([good, place / "nowhere"], "nowhere: no such file or folder"),
        ([good, place / "x.json"], "x.json: no file of a run"),
        ([good, good, "--draws", -1], "--draws is -1"),
    ):
        assert run(place, *words)[0] == 2
        error = capsys.readouterr().err
        assert told in error
        assert error.count("\n") == 1
    assert not (place / "page.html").exists()
    (good / "test.json").write_text('{"data": 5}')
    with pytest.raises(DataError, match=r"test\.json: no note of a test, or damaged: data is 5"):
        read_source(good)
    metrics = json.loads((good / "metrics.json").read_text())
    for text, told in (
        ("{", "is not valid JSON"),
        ("[]", "holds a list, must be an object"),
        ("{}", "mask is missing"),
        (json.dumps({**metrics, "mask": {"AP": "x"}}), "mask.AP is 'x', must be a number"),
        (json.dumps({**metrics, "images": "many"}), "images is 'many'"),
    ):
        (good / "metrics.json").write_text(text)
        with pytest.raises(DataError, match=re.escape(told)) as caught:
            read_source(good)
        assert str(caught.value).startswith(str(good / "metrics.json"))


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("metrics.json", {"box": "high"}, "box is 'high'"),
        ("metrics.json", {"mask": {"AP": [1]}}, "mask.AP is a list"),
        ("metrics.json", {"mask": {"AP": float("nan")}}, ""),
        ("metrics.json", {"images": "6"}, "images is '6'"),
        ("test.json", {"annotations": None}, "annotations is null"),
        ("test.json", {"images": True}, "images is True"),
    ],
)
def test_what_no_test_wrote_is_refused_in_one_line(
    place: Path, file: str, change: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = after_test(place, "a", [0] * IMAGES), after_test(place, "b", [4] * IMAGES)
    (b / file).write_text(json.dumps({**json.loads((b / file).read_text()), **change}))
    assert main(["compare", str(a), str(b), "--out", str(place / "page.html")]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"amodal compare: {b / file}: ")
    assert said in line
    assert not (place / "page.html").exists()


@pytest.mark.parametrize("out", ["b/metrics.json", "a/predictions.json", "ann.json"])
def test_the_page_replaces_no_file_that_is_compared(place: Path, out: str, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = after_test(place, "a", [0] * IMAGES), after_test(place, "b", [4] * IMAGES)
    before = (place / out).read_bytes()
    assert main(["compare", str(a), str(b), "--out", str(place / out), "--limit", "0", "--draws", "0"]) == 2
    assert "would be replaced" in capsys.readouterr().err
    assert (place / out).read_bytes() == before
