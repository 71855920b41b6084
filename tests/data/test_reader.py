"""Every schema is recognised by its keys and read as what its keys mean."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO

from amodal.data import cache, canonical, reader, rle
from amodal.data.reader import load
from amodal.data.store import AnnotationSet
from amodal.errors import DataError

H, W = 6, 8
WHOLE = np.zeros((H, W), bool)
WHOLE[1:5, 2:6] = True  # 16 pixels, box 2 1 6 5
SEEN = WHOLE & (np.arange(W) < 4)  # its left half
OUTLINE = [[2.0, 1.0, 6.0, 1.0, 6.0, 5.0, 2.0, 5.0]]
SEEN_OUTLINE = [[2, 1, 4, 1, 4, 5, 2, 5]]
BOX = [2, 1, 4, 4]


def document(
    *annotations: dict[str, Any], categories: Any = ((1, "apple"), (3, "rider"), (7, "van"))
) -> dict[str, Any]:
    return {
        "images": [{"id": 5, "file_name": "a.png", "height": H, "width": W}],
        "categories": [{"id": number, "name": name} for number, name in categories],
        "annotations": [{"id": n, "image_id": 5, "category_id": 7, **one} for n, one in enumerate(annotations, 1)],
    }


def write(tmp_path: Path, content: Any, name: str = "ann.json") -> Path:
    path = tmp_path / name
    path.write_text(json.dumps(content))
    return path


SCHEMA_CASES = {
    "canonical": {"segmentation": rle.encode(WHOLE), "visible_mask": rle.encode(SEEN), "occlude_rate": 0.5},
    "d2sa": {"segmentation": rle.encode(WHOLE), "visible_mask": rle.encode(SEEN), "occl_depth": 1, "iscrowd": False},
    "cocoa_cls": {
        "segmentation": OUTLINE,
        "visible_mask": rle.encode(SEEN),
        "invisible_mask": rle.encode(WHOLE ^ SEEN),
    },
    "kins": {"segmentation": OUTLINE, "inmodal_seg": rle.encode(SEEN), "iscrowd": 0},
    "kins2020": {"a_segm": OUTLINE, "i_segm": SEEN_OUTLINE, "a_bbox": BOX, "i_bbox": [0, 0, 1, 1], "oco_id": 1},
    "aisf": {"segmentation": OUTLINE, "i_segmentation": SEEN_OUTLINE, "i_bbox": BOX},
    "aistron": {
        "segmentation": SEEN_OUTLINE,
        "amodal_segm": OUTLINE,
        "visible_segm": SEEN_OUTLINE,
        "visible_bbox": BOX,
    },
    "uoais": {"segmentation": rle.encode(WHOLE), "visible_mask": rle.encode(SEEN), "occluded_rate": 0.5},
}


@pytest.mark.parametrize("name", SCHEMA_CASES)
def test_schema_is_recognised_and_means_the_same_masks(name: str, tmp_path: Path) -> None:
    data = load(write(tmp_path, document(SCHEMA_CASES[name])), cache=False)
    assert data.schema == name
    np.testing.assert_array_equal(data.amodal_mask(0), WHOLE)
    np.testing.assert_array_equal(data.visible_mask(0), SEEN)
    assert data.amodal_boxes[0].tolist() == [2, 1, 6, 5]
    assert data.visible_boxes[0].tolist() == [2, 1, 4, 5]
    assert (data.amodal_area[0], data.visible_area[0], data.occlude_rate[0]) == (16, 8, 0.5)
    assert data.amodal_known[0]
    assert not data.crowd[0]


@pytest.mark.parametrize(("name", "classes"), [("kins", [1, 7]), ("aistron", [1, 7]), ("canonical", [1, 3, 7])])
def test_rider_falls_away_where_it_is_never_used(name: str, classes: list[int], tmp_path: Path) -> None:
    data = load(write(tmp_path, document(SCHEMA_CASES[name])), cache=False)
    assert data.category_ids == classes
    assert data.labels.tolist() == [len(classes) - 1]
    assert [count.reason for count in data.dropped] == ["class without instances"] * (len(classes) == 2)


def test_rider_stays_where_it_is_used(tmp_path: Path) -> None:
    content = document(SCHEMA_CASES["kins"], {**SCHEMA_CASES["kins"], "category_id": 3})
    assert load(write(tmp_path, content), cache=False).category_ids == [1, 3, 7]


def test_key_that_only_a_late_annotation_has_decides(tmp_path: Path) -> None:
    plain = {"segmentation": rle.encode(WHOLE)}
    data = load(write(tmp_path, document(plain, SCHEMA_CASES["canonical"])), cache=False)
    assert data.schema == "canonical"
    np.testing.assert_array_equal(data.visible_mask(0), WHOLE)  # absent: unoccluded
    assert data.occlude_rate.tolist() == [0.0, 0.5]


@pytest.mark.parametrize(
    ("keys", "schema"),
    [
        ({"occlude_rate": 0.0}, "canonical"),
        ({"visible_bbox": BOX, "bbox": BOX}, "canonical"),
        ({"amodal_known": True}, "canonical"),
        ({"occl_depth": 0}, "d2sa"),
        ({"occluded_rate": 0.0}, "uoais"),
    ],
)
def test_a_split_in_which_nothing_is_hidden(keys: dict[str, Any], schema: str, tmp_path: Path) -> None:
    """No visible mask at all: the schema is that of the whole data set, and every object wholly visible."""
    data = load(write(tmp_path, document({"segmentation": OUTLINE, **keys})), cache=False)
    assert (data.schema, data.amodal_known.tolist(), data.occlude_rate.tolist()) == (schema, [True], [0.0])


@pytest.mark.parametrize("key", ["invisible_mask", "occluded_mask"])
@pytest.mark.parametrize("chunk", [1, 512])
def test_the_hidden_part_stored_alone_gives_the_visible_mask(
    key: str, chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("amodal.data.rows.CHUNK", chunk)
    half = {"segmentation": OUTLINE, key: rle.encode(WHOLE ^ SEEN)}
    polygon = {"segmentation": rle.encode(WHOLE), key: [[4, 1, 6, 1, 6, 5, 4, 5]]}
    nothing = {"segmentation": OUTLINE, key: rle.encode(WHOLE & False)}
    everything = {"segmentation": OUTLINE, key: rle.encode(WHOLE | True)}
    data = load(write(tmp_path, document(half, polygon, nothing, everything)), cache=False)
    assert data.amodal_known.all()
    assert data.occlude_rate.tolist() == [0.5, 0.5, 0.0, 1.0]
    np.testing.assert_array_equal(data.visible_mask(0), SEEN)
    np.testing.assert_array_equal(data.visible_mask(1), SEEN)
    with pytest.raises(DataError, match=f"annotation 2: visible_mask: from {key}: "):
        load(write(tmp_path, document(half, {**half, key: {"size": [H, W], "counts": [5]}})), cache=False)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"occlude_rate": 0.5}, "its occlude_rate is 0.5"),
        ({"occlude_rate": float("nan")}, "its occlude_rate is nan"),
        ({"bbox": BOX, "visible_bbox": [2, 1, 1, 4]}, "its visible_bbox is not its bbox"),
    ],
)
def test_an_occluded_object_without_visible_mask_is_refused(keys: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="annotation 1: has no visible_mask though " + words):
        load(write(tmp_path, document({"segmentation": OUTLINE, **keys})), cache=False)


def test_keys_elsewhere_than_in_an_annotation_decide_nothing(tmp_path: Path) -> None:
    content = document(
        {"segmentation": OUTLINE, "attributes": {"visible_mask": 1, "regions": 2}, "name": '"a_segm": 3'}
    )
    content["info"] = {"inmodal_seg": "none"}
    assert load(write(tmp_path, content), cache=False).schema == "coco"


def test_ordinary_coco_knows_only_what_is_visible(tmp_path: Path) -> None:
    data = load(write(tmp_path, document({"segmentation": OUTLINE, "bbox": BOX})), cache=False)
    assert data.schema == "coco"
    assert data.amodal_known.tolist() == [False]
    assert data.stored_boxes.tolist() == [[2, 1, 6, 5]]


def cocoa(tmp_path: Path) -> Path:
    flat = OUTLINE[0]
    regions = [
        {"segmentation": flat, "name": "a cat", "isStuff": 0, "occlude_rate": 0.5, "visible_mask": rle.encode(SEEN)},
        {"segmentation": flat, "name": "dog?", "isStuff": 0, "occlude_rate": 0.0},
        {"segmentation": flat, "name": "sky", "isStuff": 1, "occlude_rate": 0},
        {"segmentation": flat, "name": "x", "isStuff": 0, "occlude_rate": 1, "visible_mask": rle.encode(WHOLE & False)},
    ]
    content = document()
    content["annotations"] = [
        {"id": 1, "image_id": 5, "regions": regions},
        {"id": 2, "image_id": 5, "regions": regions},
    ]
    del content["categories"]
    return write(tmp_path, content)


def test_cocoa_regions(tmp_path: Path) -> None:
    data = load(cocoa(tmp_path), cache=False)
    assert (data.schema, data.class_names) == ("cocoa", ["object"])
    assert data.occlude_rate.tolist() == [0.5, 0.0, 1.0]
    assert data.visible_boxes[2].tolist() == [0, 0, 0, 0]
    counted = {count.reason: count.times for count in data.dropped}
    assert counted == {"region marked as stuff": 1, "annotator after the first of an image": 1}
    assert len(load(cocoa(tmp_path), schema="cocoa_stuff", cache=False)) == 4


def test_known_ids_give_the_labels(tmp_path: Path) -> None:
    path = write(tmp_path, document(SCHEMA_CASES["canonical"]))
    data = load(path, known_ids=[9, 7], cache=False)
    assert data.labels.tolist() == [1]
    assert data.class_names == ["9", "van"]
    with pytest.raises(DataError, match="category_id 7 is unknown, nearest known id is 8"):
        load(path, known_ids=[8, 1], cache=False)


def test_unknown_schema_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="unknown schema 'kins202'; nearest is 'kins2020'"):
        load(write(tmp_path, document()), schema="kins202", cache=False)
    with pytest.raises(DataError, match=r"unknown schema '!'; known: aisf, .*, auto, .*, uoais"):
        load(write(tmp_path, document()), schema="!", cache=False)


def test_rows_are_sorted_by_image_and_stable(tmp_path: Path) -> None:
    content = document(*[SCHEMA_CASES["canonical"]] * 5)
    content["images"].insert(0, {"id": 9, "file_name": "b.png", "height": H, "width": W})
    for annotation, image in zip(content["annotations"], [5, 9, 5, 9, 5], strict=True):
        annotation["image_id"] = image
    data = load(write(tmp_path, content), cache=False)
    assert data.annotation_ids.tolist() == [2, 4, 1, 3, 5]
    assert data.first.tolist() == [0, 2, 5]
    assert list(data.rows(1)) == [2, 3, 4]


@pytest.mark.parametrize("chunk", [1, 2, 512])
def test_chunks_do_not_matter(chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("amodal.data.rows.CHUNK", chunk)
    empty = {**SCHEMA_CASES["canonical"], "segmentation": [[1, 1, 2, 2]]}
    data = load(write(tmp_path, document(*[SCHEMA_CASES["canonical"]] * 3, empty)), cache=False)
    assert data.annotation_ids.tolist() == [1, 2, 3]
    np.testing.assert_array_equal(data.visible_mask(2), SEEN)
    assert {count.reason for count in data.dropped} == {"empty amodal mask", "polygon piece of fewer than three points"}


@pytest.mark.parametrize("content", [document(), {"images": [], "annotations": []}])
def test_no_annotations(content: dict[str, Any], tmp_path: Path) -> None:
    data = load(write(tmp_path, content), cache=False)
    assert len(data) == 0
    assert data.first.tolist() == [0] * (len(content["images"]) + 1)


def same(first: AnnotationSet, second: AnnotationSet) -> None:
    for name, value in vars(first).items():
        other = getattr(second, name)
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(value, other, err_msg=name)
        elif name in ("amodal", "visible"):
            np.testing.assert_array_equal(value.data, other.data)
            np.testing.assert_array_equal(value.offsets, other.offsets)
        else:
            assert list(value) == list(other) if isinstance(value, list) else value == other, name


def random_set() -> AnnotationSet:
    rng = np.random.default_rng(3)
    annotations = []
    for number in range(12):
        whole = rng.random((H, W)) < 0.6
        whole[0, 0] = True
        seen = whole & (rng.random((H, W)) < 0.5)
        annotations.append(
            {"image": number % 3, "label": number % 2, "amodal": whole, "visible": seen, "crowd": number == 4}
        )
    annotations[7] |= {"amodal_known": False, "visible": annotations[7]["amodal"]}
    return AnnotationSet.from_masks([(H, W)] * 3, annotations, ["cup", "dog"], category_ids=[4, 8])


def test_canonical_round_trip_and_pycocotools(tmp_path: Path) -> None:
    data = random_set()
    canonical.write(data, tmp_path / "out.json")
    again = load(tmp_path / "out.json", cache=False)
    canonical.write(again, tmp_path / "twice.json")
    assert (tmp_path / "out.json").read_bytes() == (tmp_path / "twice.json").read_bytes()
    same(data, load_like(again, data))
    coco = COCO(tmp_path / "out.json")
    for row, number in enumerate(data.annotation_ids.tolist()):
        np.testing.assert_array_equal(coco.annToMask(coco.anns[number]).astype(bool), data.amodal_mask(row))


def test_what_is_handed_out_is_plain(tmp_path: Path) -> None:
    """Through ``json``, and through releases of pycocotools whose ``loadRes`` wants ``info``; ids are Python's."""
    annotations = [{"image": 0, "label": 0, "amodal": WHOLE, "visible": SEEN, "id": np.int64(4)}]
    data = AnnotationSet.from_masks(
        [(H, W)], annotations, ["cup"], image_ids=np.array([3]), category_ids=np.array([8], np.int32)
    )
    content = json.loads(json.dumps(canonical.to_dict(data)))
    assert content["info"]["description"]
    assert [type(number) for number in data.category_ids] == [int]
    assert json.loads(json.dumps(data.visible_rle(0))) == content["annotations"][0]["visible_mask"]
    canonical.write(data, tmp_path / "out.json")
    found = [{"image_id": 3, "category_id": 8, "score": 0.5, "segmentation": data.amodal_rle(0), "bbox": BOX}]
    (tmp_path / "results.json").write_text(json.dumps(found))
    assert len(COCO(tmp_path / "out.json").loadRes(str(tmp_path / "results.json")).anns) == 1
    known = load(tmp_path / "out.json", cache=False, known_ids=np.array([8, 9]))
    json.dumps(canonical.to_dict(known))


def load_like(read: AnnotationSet, made: AnnotationSet) -> AnnotationSet:
    """``read`` without what only a file has."""
    np.testing.assert_allclose(read.stored_rate, made.occlude_rate)
    np.testing.assert_array_equal(read.stored_boxes, made.amodal_boxes)
    read.path, read.schema = made.path, made.schema
    read.stored_rate, read.stored_boxes = made.stored_rate, made.stored_boxes
    return read


def test_from_masks_refuses_wrong_shapes_and_empty_masks() -> None:
    with pytest.raises(ValueError, match="its image"):
        AnnotationSet.from_masks([(H, W)], [{"image": 0, "label": 0, "amodal": WHOLE.T}], ["a"])
    with pytest.raises(ValueError, match="empty"):
        AnnotationSet.from_masks([(H, W)], [{"image": 0, "label": 0, "amodal": WHOLE & False}], ["a"])


def test_cache_gives_the_same_set_and_follows_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMODAL_CACHE", str(tmp_path / "cache"))
    path = write(tmp_path, document(*[SCHEMA_CASES["kins"]] * 3))
    first = load(path)
    monkeypatch.setattr("amodal.data.reader._read", lambda *_: pytest.fail("the cache was not used"))
    second = load(path)
    same(first, second)
    assert second.amodal_boxes.flags.writeable
    monkeypatch.undo()
    monkeypatch.setenv("AMODAL_CACHE", str(tmp_path / "cache"))
    write(tmp_path, document(SCHEMA_CASES["kins"]))
    assert len(load(path)) == 1
    assert len(list((tmp_path / "cache").iterdir())) == 1  # the old state's entry is gone


def test_cache_sees_a_change_anywhere_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the same length and time, as ``cp -p``, ``touch -r`` and reproducible archives leave it."""
    monkeypatch.setenv("AMODAL_CACHE", str(tmp_path / "cache"))
    content = document(*[SCHEMA_CASES["kins"]] * 3)
    content["annotations"][0]["remark"] = content["annotations"][2]["remark"] = "x" * 2**21
    path = write(tmp_path, content)
    before = path.stat()
    assert load(path).labels.tolist() == [1, 1, 1]
    content["annotations"][1]["category_id"] = 1
    write(tmp_path, content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert load(path).labels.tolist() == [1, 0, 1]


def test_cache_of_a_file_that_changes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMODAL_CACHE", str(tmp_path / "cache"))
    path = write(tmp_path, document(SCHEMA_CASES["kins"]))
    read = reader.read_bytes

    def read_and_change(name: Any) -> bytes:
        data = read(name)
        write(tmp_path, document(*[SCHEMA_CASES["kins"]] * 2))
        return data

    monkeypatch.setattr(reader, "read_bytes", read_and_change)
    assert len(load(path)) == 1
    monkeypatch.setattr(reader, "read_bytes", read)
    assert len(load(path)) == 2


def test_cache_leaves_pipes_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMODAL_CACHE", str(tmp_path / "cache"))
    text = json.dumps(document(SCHEMA_CASES["kins"]))
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=[text])
    writer.start()
    assert len(load(tmp_path / "pipe")) == 1
    writer.join()


@pytest.mark.parametrize("damage", ["cut", "flip", "header", "empty"])
def test_damaged_cache_is_rebuilt(damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMODAL_CACHE", str(tmp_path / "cache"))
    path = write(tmp_path, document(SCHEMA_CASES["canonical"]))
    first = load(path)
    (entry,) = (tmp_path / "cache").iterdir()
    good = entry.read_bytes()
    flipped = bytearray(good)
    flipped[-20 if damage == "flip" else 30] ^= 64
    entry.write_bytes({"cut": good[:-9], "empty": b""}.get(damage, bytes(flipped)))
    assert cache.read(entry) is None
    same(first, load(path))
    assert entry.read_bytes() == good


def test_cache_folder_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AMODAL_CACHE", str(tmp_path / "file" / "below"))
    assert len(load(write(tmp_path, document(SCHEMA_CASES["canonical"])))) == 1
