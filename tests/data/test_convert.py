"""convert writes what was kept and says what was not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from amodal.data import rle
from amodal.data.reader import load
from amodal.errors import AmodalError
from amodal.verbs.convert import convert

WHOLE = np.zeros((6, 8), bool)
WHOLE[1:5, 2:6] = True
OUTLINE = [[2.0, 1.0, 6.0, 1.0, 6.0, 5.0, 2.0, 5.0]]


def source(tmp_path: Path) -> Path:
    base = {"image_id": 5, "category_id": 7, "segmentation": OUTLINE, "inmodal_seg": rle.encode(WHOLE)}
    content = {
        "images": [{"id": 5, "file_name": "a.png", "height": 6, "width": 8}],
        "categories": [{"id": 3, "name": "rider"}, {"id": 7, "name": "van"}],
        "annotations": [{"id": 1, **base}, {"id": 2, **base, "segmentation": [[1, 1, 2, 2]]}],
    }
    path = tmp_path / "kins.json"
    path.write_text(json.dumps(content))
    return path


def test_convert(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    convert(str(source(tmp_path)), str(tmp_path / "new" / "out.json"))
    said = capsys.readouterr().err
    for line in ("left out 1: empty amodal mask (e.g. 2)", "left out 1: class without instances (e.g. rider)"):
        assert line in said
    data = load(tmp_path / "new" / "out.json", cache=False)
    assert (data.schema, data.category_ids, data.annotation_ids.tolist()) == ("canonical", [7], [1])
    np.testing.assert_array_equal(data.amodal_mask(0), WHOLE)


def test_convert_to_where_nothing_can_be_written(tmp_path: Path) -> None:
    path = source(tmp_path)
    with pytest.raises(AmodalError, match="cannot be written"):
        convert(str(path), str(path / "below.json"))
    assert [entry.name for entry in tmp_path.iterdir()] == ["kins.json"]


def test_the_stored_rate_survives(tmp_path: Path) -> None:
    seen = WHOLE.copy()
    seen[1:3] = False  # half of it, whatever the file says
    base = {"image_id": 5, "category_id": 7, "segmentation": rle.encode(WHOLE), "visible_mask": rle.encode(seen)}
    content = {
        "images": [{"id": 5, "file_name": "a.png", "height": 6, "width": 8}],
        "categories": [{"id": 7, "name": "van"}],
        "annotations": [{"id": 1, **base, "occlude_rate": 0.1}, {"id": 2, **base}],
    }
    (tmp_path / "in.json").write_text(json.dumps(content))
    convert(str(tmp_path / "in.json"), str(tmp_path / "out.json"))
    written = json.loads((tmp_path / "out.json").read_text())["annotations"]
    assert [annotation["occlude_rate"] for annotation in written] == [0.1, 0.5]
