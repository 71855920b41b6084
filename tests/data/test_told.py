"""Every verb that reads annotations or results says on stderr what it left out of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from amodal.cli import main
from amodal.config import DataConfig, TrainConfig
from amodal.data import rle
from amodal.data.reader import load
from amodal.errors import DataError
from amodal.evaluation import prepare
from amodal.reproduce.experiment import DataNames
from amodal.reproduce.sources import Given, find_sources
from amodal.score import match_classes
from amodal.train.data import load_data

H, W = 20, 30
LEFT, RIGHT, NOTHING = np.zeros((3, H, W), bool)
LEFT[2:12, 2:12] = True
RIGHT[2:12, 16:26] = True
POINTS = [[1, 1, 5, 5]]


def object_of(number: int, mask: Any, **more: Any) -> dict[str, Any]:
    shape = rle.encode(mask) if isinstance(mask, np.ndarray) else mask
    seen = shape if isinstance(mask, np.ndarray) else rle.encode(NOTHING)
    return {"id": number, "image_id": 1, "category_id": 1, "segmentation": shape, "visible_mask": seen, **more}


def result_of(mask: Any, category: int = 1) -> dict[str, Any]:
    one = object_of(1, mask, category_id=category, score=0.08)
    return {key: value for key, value in one.items() if key != "id"}


def write(folder: Path, annotations: list[dict[str, Any]], results: list[dict[str, Any]]) -> tuple[Path, Path]:
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": H, "width": W}],
        "categories": [{"id": 1, "name": "cup"}, {"id": 2, "name": "d\u001bog"}],
        "annotations": annotations,
    }
    (folder / "truth.json").write_text(json.dumps(content))
    (folder / "results.json").write_text(json.dumps(results))
    Image.new("RGB", (W, H)).save(folder / "a.png")
    return folder / "truth.json", folder / "results.json"


@pytest.mark.parametrize("empty", [rle.encode(NOTHING), POINTS], ids=["empty", "two points"])
@pytest.mark.parametrize("verb", ["check", "convert", "evaluate", "show"])
def test_an_object_that_is_left_out(verb: str, empty: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth, results = write(tmp_path, [object_of(7, empty), object_of(8, RIGHT)], [result_of(RIGHT)])
    rest = {
        "check": [],
        "convert": [str(tmp_path / "out.json")],
        "evaluate": [str(results)],
        "show": [str(tmp_path), str(tmp_path / "out")],
    }[verb]
    assert main([verb, str(truth), *rest]) == 0
    said = capsys.readouterr()
    if verb == "check":  # whose report it is a part of
        assert "left out: 1 x empty amodal mask (e.g. 7)" in said.out
    else:
        assert f"{truth}: left out 1: empty amodal mask (e.g. 7)\n" in said.err


def test_a_part_of_a_result_that_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth, results = write(tmp_path, [object_of(8, RIGHT)], [result_of(RIGHT), result_of(POINTS)])
    assert main(["evaluate", str(truth), str(results)]) == 0
    expected = f"{results}: left out 1: polygon piece of fewer than three points (e.g. 1)\n"
    assert capsys.readouterr().err == expected


def test_detections_of_a_class_that_the_truth_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth, results = write(tmp_path, [object_of(8, RIGHT)], [result_of(RIGHT), result_of(LEFT, 2), result_of(LEFT, 2)])
    assert main(["evaluate", str(truth), str(results)]) == 0
    reason = "detection of a class without an object in the annotations (e.g. d\\x1bog)"
    assert capsys.readouterr().err == f"{results}: left out 2: {reason}\n"


@pytest.mark.parametrize("verb", ["convert", "evaluate", "show"])
def test_a_file_of_crowds_only(verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth, results = write(tmp_path, [object_of(8, RIGHT, iscrowd=1)], [result_of(RIGHT)])
    out = str(tmp_path / "out")
    rest = {"convert": [out], "evaluate": [str(results)], "show": [str(tmp_path), out]}[verb]
    assert main([verb, str(truth), *rest]) == 0
    assert f"{truth}: no object: 1 of 1 annotations are crowds (iscrowd 1)" in capsys.readouterr().err


def _load(train: Path, val: Path | None = None) -> None:
    folder = str(train.parent)
    places = {"val": str(val), "val_images": folder} if val else {}
    load_data(TrainConfig(data=DataConfig(train=str(train), train_images=folder, **places)))


def test_what_a_training_leaves_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    modal = {**object_of(6, RIGHT), "amodal_known": False}
    objects = [object_of(7, rle.encode(NOTHING)), object_of(8, RIGHT), object_of(9, LEFT, iscrowd=1), modal]
    truth, _ = write(tmp_path, objects, [])
    content = json.loads(truth.read_text())
    content["images"].append({**content["images"][0], "id": 2})
    truth.write_text(json.dumps(content))
    (tmp_path / "val").mkdir()
    shutil.copy(write(tmp_path / "val", objects[:2], [])[0], tmp_path / "val.json")
    _load(truth, tmp_path / "val.json")
    assert capsys.readouterr().err.splitlines() == [
        f"{truth}: left out 1: empty amodal mask (e.g. 7)",
        f"{truth}: left out 1: crowd (iscrowd 1), which is not learnt (e.g. 9)",
        f"{truth}: left out 1: whole shape that is not annotated; of the object only the visible part is learnt"
        " (e.g. 6)",
        f"{truth}: left out 1: image without an object to train on (e.g. 2)",
        f"{tmp_path / 'val.json'}: left out 1: empty amodal mask (e.g. 7)",
    ]
    _load(truth, truth)
    assert capsys.readouterr().err.count("empty amodal mask") == 1


def test_a_training_on_crowds_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth, _ = write(tmp_path, [object_of(8, RIGHT, iscrowd=1)], [])
    with pytest.raises(DataError, match="no image with an object to train on"):
        _load(truth)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{truth}: no object: 1 of 1 annotations are crowds (iscrowd 1)")


def test_one_of_several_processes_tells(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    truth, _ = write(tmp_path, [object_of(7, rle.encode(NOTHING)), object_of(8, RIGHT)], [])
    _load(truth)
    classes = SimpleNamespace(class_names=["cup", "bottle"], category_ids=[1, 2])
    assert match_classes(classes, load(truth)) == {1: 1, 2: None}  # type: ignore[arg-type]
    assert not capsys.readouterr().err


def test_an_experiment_says_once_what_its_files_leave_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth, _ = write(tmp_path, [object_of(7, rle.encode(NOTHING)), object_of(8, RIGHT)], [])
    pair = (truth, tmp_path)
    find_sources(DataNames(), Given(train=pair, tune=pair, test=(pair,)))
    assert capsys.readouterr().err == f"{truth}: left out 1: empty amodal mask (e.g. 7)\n"


def test_nothing_left_out_is_nothing_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth, results = write(tmp_path, [object_of(8, RIGHT), object_of(9, LEFT, iscrowd=1)], [result_of(RIGHT)])
    assert main(["evaluate", str(truth), str(results)]) == 0
    assert capsys.readouterr().err == ""


def test_stored_rates_that_contradict_the_masks_or_are_only_partly_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One truth: metrics and the written file have the stored rate, and the command says that it differs."""
    half = RIGHT & (np.arange(W) < 21)
    hidden = object_of(8, RIGHT, visible_mask=rle.encode(half), occlude_rate=0.9)
    truth, results = write(tmp_path, [hidden, object_of(9, LEFT)], [result_of(RIGHT), result_of(LEFT)])
    assert main(["evaluate", str(truth), str(results)]) == 0
    assert capsys.readouterr().err == (
        "warning: 1 of 1 stored occlusion rates differ from those of the masks (annotation 8: 0.900 stored, 0.500 by "
        "masks); the stored ones count\n"
        "warning: 1 of 2 objects have a stored occlusion rate, which counts; the rates of the others come "
        "from their masks\n"
    )
    assert main(["convert", str(truth), str(tmp_path / "out.json")]) == 0
    written = json.loads((tmp_path / "out.json").read_text())["annotations"]
    assert [one["occlude_rate"] for one in written] == [0.9, 0.0]
    assert prepare(truth, results).rates.tolist() == pytest.approx([0.1, 1.0])
