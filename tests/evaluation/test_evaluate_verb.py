"""``amodal evaluate`` on files: the table, the JSON, the warning, and errors of one line."""

import json

import pytest

from amodal.cli import main
from amodal.evaluation import evaluate

KEYS = {
    "mask": {"AP", "AP50", "AP75", "AR100", "AP-occ", "AP-occ-gt", "AP-occ75", "AP-occ60", "mIoU", "mIoU-occ"},
    "box": {"AP", "AP50", "AP75", "AR100", "AP-occ", "AP-occ-gt", "AP-of-mask"},
    "visible": {"AP", "AP50", "AP75", "AR100"},
}


@pytest.fixture
def files(tools):
    truth, results = tools.draw_scene(5)
    return str(tools.write(truth)), tools.write(results), results


def test_table_and_json(files, tmp_path, capsys):
    truth, path, results = files
    out = tmp_path / "new" / "metrics.json"
    assert main(["evaluate", truth, str(path), "--out", str(out), "--per-class"]) == 0
    shown = capsys.readouterr()
    written = json.loads(out.read_text())
    assert written == evaluate(truth, path, per_class=True)
    assert f"{written['mask']['AP']:.2f}" in shown.out
    assert "cup" in shown.out
    fish = sum(result["category_id"] == 9 for result in results)
    assert (
        shown.err == f"{path}: left out {fish}: detection of a class without an object in the annotations (e.g. fish)\n"
    )
    for part, keys in KEYS.items():
        assert keys <= set(written[part])
    assert {"images", "instances", "coverage"} <= set(written)
    assert 0 <= written["coverage"] <= 1
    assert set(written["per_class"]) == {"cup", "car", "key", "fish"}


def test_results_cut_at_a_threshold_are_named(files, tools, capsys):
    truth, _, results = files
    cut = tools.write([r for r in results if r["score"] >= 0.5])
    assert main(["evaluate", truth, str(cut)]) == 0
    (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert error.startswith("warning: no result scores below 0.50")
    with pytest.warns(UserWarning, match="cut at a threshold"):
        evaluate(truth, cut)


def test_hundred_detections_an_image_are_no_sign_of_a_threshold(files, recwarn):
    truth, _, results = files
    evaluate(truth, [results[0] | {"score": 0.5 + n / 1000} for n in range(100)])
    assert not recwarn.list


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image_id": 999}, ["image_id is 999", "nearest known id is 16"]),
        ({"category_id": 4}, ["category_id is 4", "nearest known id is 3"]),
        ({"score": float("nan")}, ["score"]),
        ({"score": "high"}, ["score", "high"]),
        ({"segmentation": {"size": [40, 48], "counts": [5, 4]}}, ["segmentation"]),
        ({"segmentation": {"size": [48, 40], "counts": "P"}}, ["segmentation", "swapped"]),
        ({"visible_mask": None}, ["visible_mask"]),
    ],
)
def test_a_fault_is_one_line_with_its_place(files, tools, capsys, change, words):
    truth, _, results = files
    results[3] |= change
    path = tools.write(results)
    if change.get("score") == change.get("score"):  # JSON has no NaN; a list may
        assert main(["evaluate", truth, str(path)]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert str(path) in error
        assert "annotation 3" in error
        assert all(word in error for word in words), error
    from amodal.errors import DataError

    with pytest.raises(DataError, match="annotation 3") as caught:
        evaluate(truth, results)
    assert all(word in str(caught.value) for word in words)


def test_a_missing_file_is_one_line(files, capsys):
    truth, path, _ = files
    assert main(["evaluate", truth, str(path) + "x"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_schema_can_be_named(files, capsys):
    truth, path, _ = files
    assert main(["evaluate", truth, str(path), "--schema", "coco"]) == 0
    as_modal = capsys.readouterr().out
    assert main(["evaluate", truth, str(path)]) == 0
    assert capsys.readouterr().out != as_modal
    assert main(["evaluate", truth, str(path), "--schema", "canonica"]) == 2
    assert "nearest is 'canonical'" in capsys.readouterr().err
