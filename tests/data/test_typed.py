"""Annotations that look alike are read by a typed structure, with the same columns and the same words as one by one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from amodal.data import rle
from amodal.data.jsonfile import Document
from amodal.data.reader import load
from amodal.data.rows import RowReader
from amodal.data.store import MaskBuffer
from amodal.data.typed import Layout
from amodal.errors import DataError

H, W = 6, 8
RLE = rle.encode(np.arange(H * W).reshape(H, W) % 3 == 0)
OUTLINE = [[2, 1, 6.5, 1, 6, 5, 2, 5]]
PLAIN: dict[str, Any] = {
    "image_id": 5,
    "category_id": 7,
    "iscrowd": 0,
    "bbox": [2, 1, 4, 4],
    "segmentation": OUTLINE,
    "visible_mask": RLE,
    "occlude_rate": 0.5,
}
ODD: dict[str, Callable[[dict[str, Any]], Any]] = {
    "nothing": lambda one: None,
    "several pieces": lambda one: one.update(segmentation=[*OUTLINE, [0, 0, 1, 0, 1, 1]]),
    "no polygon": lambda one: one.update(segmentation=[]),
    "piece of two points": lambda one: one.update(segmentation=[*OUTLINE, [0, 0, 1, 1]]),
    "one flat polygon": lambda one: one.update(segmentation=OUTLINE[0]),
    "odd polygon": lambda one: one.update(segmentation=[[0, 0, 1, 0, 1, 1, 2]]),
    "text in a polygon": lambda one: one.update(segmentation=[[0, 0, 1, 0, 1, "1"]]),
    "true in a polygon": lambda one: one.update(segmentation=[[0, 0, 1, 0, 1, True]]),
    "far polygon": lambda one: one.update(segmentation=[[0, 0, 1, 0, 1, 1e9]]),
    "huge integer in a polygon": lambda one: one.update(segmentation=[[0, 0, 1, 0, 1, 10**400]]),
    "list of runs": lambda one: one.update(visible_mask={"size": [H, W], "counts": [0, H * W]}),
    "other size": lambda one: one.update(visible_mask={"size": [W, H], "counts": RLE["counts"]}),
    "size of floats": lambda one: one.update(visible_mask={"size": [6.0, 8], "counts": RLE["counts"]}),
    "bad character": lambda one: one.update(visible_mask={"size": [H, W], "counts": "0\u00e9"}),
    "bad sum": lambda one: one.update(visible_mask={"size": [H, W], "counts": "04"}),
    "more in an RLE": lambda one: one.update(visible_mask={**RLE, "more": 1}),
    "null visible mask": lambda one: one.update(visible_mask=None, occlude_rate=0),
    "no visible mask": lambda one: one.pop("visible_mask"),
    "unoccluded": lambda one: (one.pop("visible_mask"), one.update(occlude_rate=0)),
    "unoccluded by its box": lambda one: (
        one.pop("visible_mask"),
        one.update(occlude_rate=0, visible_bbox=[2, 2, 4, 4]),
    ),
    "occluded by its box": lambda one: (one.pop("visible_mask"), one.update(occlude_rate=0, visible_bbox=[2, 1, 1, 4])),
    "far visible box": lambda one: (one.pop("visible_mask"), one.update(occlude_rate=0, visible_bbox=[2, 1, 1, 1e99])),
    "strange visible box": lambda one: one.update(visible_bbox="none"),
    "hidden mask": lambda one: one.update(invisible_mask=one.pop("visible_mask"), occlude_rate=0),
    "no amodal mask": lambda one: one.pop("segmentation"),
    "flat box": lambda one: one.update(bbox=[1, 1, 0, 3]),
    "box of three": lambda one: one.update(bbox=[1, 1, 3]),
    "far box": lambda one: one.update(bbox=[1, 1, 3, 1e300]),
    "no box": lambda one: one.pop("bbox"),
    "rate above 1": lambda one: one.update(occlude_rate=1.5),
    "rate 1": lambda one: one.update(occlude_rate=1),
    "true as rate": lambda one: one.update(occlude_rate=True),
    "no rate": lambda one: one.pop("occlude_rate"),
    "NaN as rate": lambda one: one.update(occlude_rate=float("nan")),
    "true as crowd": lambda one: one.update(iscrowd=True),
    "crowd 2": lambda one: one.update(iscrowd=2),
    "null crowd": lambda one: one.update(iscrowd=None),
    "unknown amodal mask": lambda one: one.update(amodal_known=False),
    "float id": lambda one: one.update(id=3.0),
    "negative id": lambda one: one.update(id=-3),
    "id of 30 digits": lambda one: one.update(id=10**30),
    "same id": lambda one: one.update(id=1),
    "no id": lambda one: one.pop("id"),
    "unknown image": lambda one: one.update(image_id=6),
    "true as image": lambda one: one.update(image_id=True),
    "unknown category": lambda one: one.update(category_id=6),
    "late key of another schema": lambda one: one.update(oco_id=1, a_segm=OUTLINE, i_segm=OUTLINE),
    "further keys": lambda one: one.update({"attributes": {"a": 1}, 'a"b': 1, "x": ['":', {"y": {"z": 1}}]}),
    "half a character": lambda one: one.update({"x": "\ud800"}),
}


def _file(tmp_path: Path, odd: Callable[[dict[str, Any]], Any]) -> Path:
    entries = [{"id": number, **PLAIN} for number in range(1, 5)]
    odd(entries[2])
    content = {
        "images": [{"id": 5, "file_name": "a.png", "height": H, "width": W}],
        "categories": [{"id": 7, "name": "van"}],
        "annotations": entries,
    }
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(content))
    return path


def _all(path: Path, strict: bool) -> Any:
    try:
        data = load(path, cache=False, strict=strict)
    except DataError as error:
        return str(error)
    found: dict[str, Any] = {}
    for item in fields(data):
        value = getattr(data, item.name)
        if isinstance(value, MaskBuffer):
            value = [value.counts(row) for row in range(len(value))]
        if item.name in ("noted", "dropped"):
            value = sorted(value)  # reasons come in the order in which chunks end
        found[item.name] = str(value.tolist()) if isinstance(value, np.ndarray) else value
    return found


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("chunk", [1, 512])
def test_the_same_is_read_and_said_as_one_by_one(
    name: str, chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _file(tmp_path, ODD[name])
    monkeypatch.setattr("amodal.data.reader.CHUNK", chunk)
    fast = [_all(path, strict) for strict in (True, False)]
    monkeypatch.setattr(Layout, "of", lambda schema, first: None)
    assert fast == [_all(path, strict) for strict in (True, False)]


def test_what_looks_alike_needs_no_look_at_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise AssertionError("one by one")

    monkeypatch.setattr(RowReader, "_read_entry", refuse)
    monkeypatch.setattr(Document, "value", lambda self, item: json.loads(bytes(item)))
    for name in (
        "nothing",
        "several pieces",
        "flat box",
        "no rate",
        "unoccluded",
        "true as crowd",
        "unknown amodal mask",
    ):
        assert len(load(_file(tmp_path, ODD[name]), cache=False)) == 4


@pytest.mark.parametrize("first", [1, 2, 512])
def test_a_late_key_decides_the_schema(first: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("amodal.data.reader._FIRST", first)
    path = _file(tmp_path, ODD["late key of another schema"])
    with pytest.raises(DataError, match="annotation 1: has no a_segm"):
        load(path, cache=False)
    assert load(path, cache=False, strict=False).schema == "kins2020"
    assert load(path, "canonical", cache=False).schema == "canonical"


def test_the_first_annotations_may_lack_all_masks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("amodal.data.reader._FIRST", 1)
    path = _file(tmp_path, ODD["nothing"])
    content = json.loads(path.read_text())
    for key in ("segmentation", "visible_mask", "occlude_rate"):
        del content["annotations"][0][key]
    path.write_text(json.dumps(content))
    assert load(path, cache=False, strict=False).annotation_ids.tolist() == [2, 3, 4]


def test_a_key_twice_is_found_where_a_colon_stands_apart(tmp_path: Path) -> None:
    path = _file(tmp_path, ODD["nothing"])
    text = path.read_text().replace('"iscrowd": 0', '"iscrowd" : 0, "category_id": 7')
    path.write_text(text)
    with pytest.raises(DataError, match="the key 'category_id' occurs twice"):
        load(path, cache=False)
