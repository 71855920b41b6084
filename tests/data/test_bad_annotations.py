"""Broken annotations: a DataError that names file, image and annotation, or a counted drop; never a guess."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from amodal.data import rle
from amodal.data.reader import check_file_name, load
from amodal.errors import DataError

H, W = 4, 5
MASK = np.zeros((H, W), bool)
MASK[1:3, 1:4] = True
GOOD = rle.encode(MASK)


def run(tmp_path: Path, change: dict[str, Any], strict: bool = True, drop: str | None = None) -> Any:
    """Loads a file of a good annotation and one that is changed, both with id, image and masks."""
    good = {"id": 1, "image_id": 5, "category_id": 7, "segmentation": GOOD, "visible_mask": GOOD}
    bad = {**copy.deepcopy(good), "id": 2, **change}
    if drop:
        del bad[drop]
    content = {
        "images": [{"id": 5, "file_name": "a.png", "height": H, "width": W}],
        "categories": [{"id": 7, "name": "van"}],
        "annotations": [good, bad],
    }
    path = tmp_path / "ann.json"
    path.write_text(json.dumps(content))
    return load(path, cache=False, strict=strict)


def sized(counts: Any, size: Any = (H, W)) -> dict[str, Any]:
    return {"size": list(size) if isinstance(size, tuple) else size, "counts": counts}


BAD_MASKS = {
    "sum too small": sized([0, 3]),
    "sum too large": sized([0, 21]),
    "empty string": sized(""),
    "empty list": sized([]),
    "bytes below 48": sized(" !"),
    "zero height": sized([0, 3], (0, 5)),
    "size 2^32": sized([0, 3], (2**32, 1)),
    "size wraps": sized([0, 3], (65536, 65536)),
    "size of a 5000 digit kind": sized([0, 3], (10**300, 1)),
    "not ASCII": sized("é0"),
    "truncated chain": sized(GOOD["counts"][:-1] + chr(((ord(GOOD["counts"][-1]) - 48) | 32) + 48)),
    "double escaped": sized("\\\\\\\\"),
    "64 continuation bytes": sized("o" * 64 + "0"),
    "swapped size": sized(GOOD["counts"], (W, H)),
    "mask larger than image": sized([0, 30], (5, 6)),
    "size float": sized(GOOD["counts"], [4.0, 5.0]),
    "size bool": sized(GOOD["counts"], [True, 5]),
    "size string": sized(GOOD["counts"], "45"),
    "size of 1": sized(GOOD["counts"], [4]),
    "size of 3": sized(GOOD["counts"], [4, 5, 1]),
    "size negative": sized(GOOD["counts"], [-4, -5]),
    "size null": sized(GOOD["counts"], None),
    "negative run": sized([-1, 21]),
    "float runs": sized([5.0, 15.0]),
    "bool runs": sized([True] * 20),
    "string runs": sized(["5", "15"]),
    "nested runs": sized([[5, 15]]),
    "run of 2^70": sized([2**70]),
    "counts null": sized(None),
    "counts number": sized(20),
    "trailing newline": sized(GOOD["counts"] + "\n"),
    "trailing space": sized(GOOD["counts"] + " "),
    "trailing NUL": sized(GOOD["counts"] + "\0"),
    "trailing run": sized(GOOD["counts"] + "1"),
    "all runs zero": sized([0] * 7),
    "no counts": {"size": [H, W]},
    "no size": {"counts": GOOD["counts"]},
    "object without keys": {},
    "number": 3,
    "text": "mask",
    "2e8": [[0, 0, 2e8, 0, 2e8, 3]],
    "1e18": [[0, 0, 1e18, 0, 3, 3]],
    "string coordinate": [[0, 0, "3", 0, 3, 3]],
    "null coordinate": [[0, 0, None, 0, 3, 3]],
    "bool coordinate": [[0, 0, True, 0, 3, 3]],
    "odd length": [[0, 0, 3, 0, 3, 3, 1]],
    "nested too deep": [[[0, 0, 3, 0, 3, 3]]],
    "list of objects": [{"x": 0}],
    "mixed": [[0, 0, 3, 0, 3, 3], 4],
}


@pytest.mark.parametrize("name", BAD_MASKS)
@pytest.mark.parametrize("key", ["segmentation", "visible_mask"])
def test_bad_mask_names_the_annotation(key: str, name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        run(tmp_path, {key: BAD_MASKS[name]})
    assert (caught.value.image_id, caught.value.annotation_id) == (5, 2)
    assert "ann.json" in str(caught.value)
    assert key in caught.value.reason
    assert "\n" not in str(caught.value)
    data = run(tmp_path, {key: BAD_MASKS[name]}, strict=False)
    assert data.annotation_ids.tolist() == [1]
    assert [(problem.kind, problem.annotation_id) for problem in data.problems] == [("bad mask", 2)]


EMPTY = {
    "no polygons": [],
    "empty polygon": [[]],
    "two points": [[0, 0, 3, 3]],
    "box of four numbers": [1, 1, 2, 2],
    "outside": [[8, 0, 9, 0, 9, 3, 8, 3]],
    "collinear": [[0, 0, 0, 2, 0, 3]],
    "empty RLE": rle.encode(MASK & False),
}


@pytest.mark.parametrize("name", EMPTY)
def test_empty_amodal_mask_is_a_counted_drop(name: str, tmp_path: Path) -> None:
    data = run(tmp_path, {"segmentation": EMPTY[name]})
    assert data.annotation_ids.tolist() == [1]
    assert ("empty amodal mask", 1, (2,)) in data.dropped


@pytest.mark.parametrize("name", EMPTY)
def test_empty_visible_mask_is_full_occlusion(name: str, tmp_path: Path) -> None:
    data = run(tmp_path, {"visible_mask": EMPTY[name]})
    assert data.occlude_rate.tolist() == [0.0, 1.0]
    assert data.visible_boxes[1].tolist() == [0, 0, 0, 0]


GOOD_MASKS = {
    "list of runs": sized(rle.mask_runs(MASK).tolist()),
    "zero runs": sized([0, 0, 0, 0, *rle.mask_runs(MASK).tolist(), 0, 0]),
    "100,000 zero runs": sized([0] * 100_000 + rle.mask_runs(MASK).tolist()),
    "compressed zero runs": sized(
        rle.compress(np.array([0, 0, *rle.mask_runs(MASK).tolist(), 0], np.int64)).decode("ascii")
    ),
    "polygon": [[1, 1, 4, 1, 4, 3, 1, 3]],
    "flat polygon": [1, 1, 4, 1, 4, 3, 1, 3],
    "duplicate points": [[1, 1, 1, 1, 4, 1, 4, 1, 4, 3, 1, 3]],
    "two overlapping pieces": [[1, 1, 3, 1, 3, 3, 1, 3], [2, 1, 4, 1, 4, 3, 2, 3]],
    "a degenerate piece beside": [[1, 1, 4, 1, 4, 3, 1, 3], [0, 0, 1, 1]],
}


@pytest.mark.parametrize("name", GOOD_MASKS)
@pytest.mark.parametrize("crowd", [0, 1])
def test_unusual_but_sound_masks_are_the_mask(name: str, crowd: int, tmp_path: Path) -> None:
    data = run(tmp_path, {"segmentation": GOOD_MASKS[name], "iscrowd": crowd})
    np.testing.assert_array_equal(data.amodal_mask(1), MASK)
    assert data.amodal.counts(1).decode() == GOOD["counts"]
    assert data.crowd.tolist() == [False, bool(crowd)]
    assert bool(data.dropped) == (name == "a degenerate piece beside")


def test_polygon_beyond_the_image_gives_the_box_inside(tmp_path: Path) -> None:
    data = run(tmp_path, {"segmentation": [[-3, 1, 9, 1, 9, 9, -3, 9]], "bbox": [-3, 1, 12, 8]})
    assert data.amodal_boxes[1].tolist() == [0, 1, 5, 4]
    assert data.stored_boxes[1].tolist() == [-3, 1, 9, 9]


def test_self_crossing_polygon_is_some_mask_inside_its_hull(tmp_path: Path) -> None:
    data = run(tmp_path, {"segmentation": [[0, 0, 4, 4, 4, 0, 0, 4]]})
    assert 0 < data.amodal_area[1] <= 16


ERRORS = {
    "unknown category": ({"category_id": 9}, "category_id 9 is unknown, nearest known id is 7"),
    "category 0": ({"category_id": 0}, "category_id 0 is unknown"),
    "category as text": ({"category_id": "7"}, "category_id '7' is unknown"),
    "missing image": ({"image_id": 6}, "image_id 6 is not among"),
    "image id as text": ({"image_id": "5"}, "image_id '5' is not among"),
    "image id bool": ({"image_id": True}, "image_id True"),
    "image id list": ({"image_id": [5]}, "image_id"),
    "duplicate id": ({"id": 1}, "id occurs twice"),
    "id as text": ({"id": "2"}, "id is '2'"),
    "id bool": ({"id": True}, "id is True"),
    "id negative": ({"id": -2}, "id is -2"),
    "id 2^63": ({"id": 2**63}, "id is 9223372036854775808"),
    "id float": ({"id": 2.5}, "id is 2.5"),
    "iscrowd 2": ({"iscrowd": 2}, "iscrowd is 2"),
    "iscrowd text": ({"iscrowd": "no"}, "iscrowd is 'no'"),
    "amodal_known text": ({"amodal_known": "yes"}, "amodal_known"),
    "box of three": ({"bbox": [1, 2, 3]}, "bbox is"),
    "box of text": ({"bbox": ["1", 2, 3, 4]}, "bbox is"),
    "box of 1e300": ({"bbox": [1, 2, 1e300, 4]}, "too large"),
    "rate as text": ({"occlude_rate": "half"}, "occlude_rate is 'half'"),
    "rate without visible mask": ({"visible_mask": None, "occlude_rate": 0.3}, "has no visible_mask though"),
    "no mask": ({"segmentation": None}, "has no segmentation"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_bad_field(name: str, tmp_path: Path) -> None:
    change, message = ERRORS[name]
    with pytest.raises(DataError) as caught:
        run(tmp_path, change)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(run(tmp_path, change, strict=False).problems) == 1


@pytest.mark.parametrize("key", ["id", "image_id", "category_id", "segmentation"])
def test_missing_field(key: str, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        run(tmp_path, {}, drop=key)


@pytest.mark.parametrize("rate", [1.5, 30, -0.1])
def test_rate_out_of_range_is_noted_and_the_masks_decide(rate: float, tmp_path: Path) -> None:
    data = run(tmp_path, {"occlude_rate": rate})
    assert np.isnan(data.stored_rate[1])
    assert data.occlude_rate[1] == 0.0
    assert [count.times for count in data.noted] == [1]


@pytest.mark.parametrize("box", [[9.98, 188.56, 5.54, 0.0], [3, 3, -1, 2]])
def test_box_without_extent_is_noted_and_the_mask_decides(box: list[float], tmp_path: Path) -> None:
    data = run(tmp_path, {"bbox": box})
    assert data.amodal_boxes[1].tolist() == [1, 1, 4, 3]
    assert [count.times for count in data.noted] == [1]


def test_visible_beyond_amodal_is_kept_counted_and_never_below_zero(tmp_path: Path) -> None:
    data = run(tmp_path, {"visible_mask": rle.encode(MASK | True)})
    assert data.occlude_rate[1] == 0.0
    assert ("visible mask reaches beyond the amodal one", 1, (2,)) in data.noted


IMAGES = {
    "no height": {"height": None},
    "height as text": {"height": "4"},
    "height 0": {"height": 0},
    "height negative": {"height": -4},
    "height float": {"height": 4.5},
    "height huge": {"height": 2**40},
    "id as text": {"id": "5"},
    "id bool": {"id": True},
    "id negative": {"id": -1},
    "no name": {"file_name": None},
}


@pytest.mark.parametrize("name", IMAGES)
def test_bad_image(name: str, tmp_path: Path) -> None:
    image = {"id": 5, "file_name": "a.png", "height": H, "width": W, **IMAGES[name]}
    (tmp_path / "ann.json").write_text(json.dumps({"images": [image], "annotations": []}))
    with pytest.raises(DataError, match=r"ann\.json: image"):
        load(tmp_path / "ann.json", cache=False)


def test_image_listed_twice(tmp_path: Path) -> None:
    image = {"id": 5, "file_name": "a.png", "height": H, "width": W}
    (tmp_path / "ann.json").write_text(json.dumps({"images": [image, image], "annotations": []}))
    assert load(tmp_path / "ann.json", cache=False).dropped == [("image listed twice", 1, (5,))]
    (tmp_path / "ann.json").write_text(json.dumps({"images": [image, {**image, "width": 9}], "annotations": []}))
    with pytest.raises(DataError, match="image id occurs twice"):
        load(tmp_path / "ann.json", cache=False)


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../a.png", "a/../../b.png", "http://x/a.png", "a\\b.png", "C:/a.png", "~/a", "", "a\0b", 3]
)
def test_file_name_that_leads_elsewhere(name: object) -> None:
    with pytest.raises(ValueError, match="file_name"):
        check_file_name(name)


@pytest.mark.parametrize("name", ["a.png", "train/0001.jpg", "Zoë..png", "a..b/c.png"])
def test_file_name_inside(name: str) -> None:
    assert check_file_name(name) == name
