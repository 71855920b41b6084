"""Which validation data count, by which class, and which weights are the best."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from accelerate import Accelerator

from amodal.config_io import load_config
from amodal.errors import DataError
from amodal.model import load_model
from amodal.score import SHIPPED
from amodal.train.data import load_data
from amodal.train.run import train_run
from amodal.train.validate import is_best, validate


def _changed(scenes: Path, path: Path, change: Any) -> Path:
    content = json.loads((scenes / "annotations.json").read_text())
    change(content)
    path.write_text(json.dumps(content))
    return path


def _other_ids(content: dict[str, Any]) -> None:
    for category in content["categories"]:
        category["id"] += 100
    for entry in content["annotations"]:
        entry["category_id"] += 100


def _modal(content: dict[str, Any]) -> None:
    for entry in content["annotations"]:
        keep = {key: entry[key] for key in ("id", "image_id", "category_id", "iscrowd", "segmentation", "area", "bbox")}
        entry.clear()
        entry.update(keep)


def _other_names(content: dict[str, Any]) -> None:
    for category in content["categories"]:
        category["name"] += "!"


def test_validation_finds_classes_by_name(settings: Path, scenes: Path, tmp_path: Path) -> None:
    model = load_model(SHIPPED)
    scores = []
    for path in (scenes / "annotations.json", _changed(scenes, tmp_path / "val.json", _other_ids)):
        val = {"data.val": str(path), "data.val_images": str(scenes / "images")}
        _, data = load_data(load_config(settings, val))
        assert data is not None
        metrics = validate(Accelerator(), model, data, 0, 1)
        assert metrics is not None
        scores.append(metrics["mask"]["AP"])
    assert scores[0] == scores[1]
    assert scores[0] > 5


def _steps(folder: Path) -> int:
    found = re.search(r"steps: (\d+) of", (folder / "README.md").read_text())
    assert found is not None
    return int(found[1])


@pytest.mark.parametrize("change", [_modal, _other_names, lambda content: content["annotations"].clear()])
def test_best_follows_the_newest_weights_while_ap_is_undefined(
    settings: Path, scenes: Path, tmp_path: Path, change: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    val = _changed(scenes, tmp_path / "val.json", change)
    places = {"data.val": str(val), "data.val_images": str(scenes / "images"), "out": str(tmp_path / "run")}
    train_run(load_config(settings, {**places, "steps": 2, "eval_every": 1}))
    assert _steps(tmp_path / "run/best") == _steps(tmp_path / "run/last") == 2
    assert json.loads((tmp_path / "run/last/state.json").read_text())["best"] is None
    assert "AP is undefined" in capsys.readouterr().err


def test_a_defined_score_beats_an_undefined_one() -> None:
    assert is_best(None, None)
    assert is_best(0.0, None)
    assert is_best(2.0, 1.0)
    assert not is_best(None, 0.0)
    assert not is_best(1.0, 1.0)


def test_a_damaged_picture_to_validate_on_costs_no_steps(settings: Path, scenes: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    shutil.copytree(scenes / "images", pictures)
    broken = next(pictures.iterdir())
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    val = {"data.val": str(scenes / "annotations.json"), "data.val_images": str(pictures), "eval_every": 2}
    config = load_config(settings, {**val, "steps": 3, "save_every": 100, "out": str(tmp_path / "run")})
    with pytest.raises(DataError, match=broken.name):
        train_run(config)
    assert _steps(tmp_path / "run/last") == 2
    broken.write_bytes(whole)
    train_run(config, resume=True)
    assert _steps(tmp_path / "run/last") == 3
