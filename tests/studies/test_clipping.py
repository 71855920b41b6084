"""Clipping baselines on squares: masks worked out by hand."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from studies.clipping import draw_kept

from amodal.data import rle
from amodal.data.store import AnnotationSet
from amodal.errors import DataError
from amodal.reproduce.clipping import clip
from studies import clipping

Mask = NDArray[np.bool_]


def _rectangle(x0: int, y0: int, x1: int, y1: int) -> Mask:
    mask = np.zeros((40, 60), bool)
    mask[y0:y1, x0:x1] = True
    return mask


LEFT, RIGHT, LOW = _rectangle(0, 0, 20, 20), _rectangle(20, 0, 40, 20), _rectangle(0, 30, 60, 40)
ALL = _rectangle(0, 0, 60, 40)


def _truth() -> AnnotationSet:
    items = [{"image": image, "label": 0, "amodal": LEFT} for image in (0, 1)]
    return AnnotationSet.from_masks([(40, 60)] * 2, items, ["a"], image_ids=[5, 9], category_ids=[3])


def _result(amodal: Mask, visible: Mask | None, score: float, image_id: int = 5) -> dict[str, Any]:
    entry = {"image_id": image_id, "category_id": 3, "score": score, "segmentation": rle.encode(amodal)}
    return entry if visible is None else {**entry, "visible_mask": rle.encode(visible)}


def _masks(results: list[dict[str, Any]]) -> list[Mask]:
    return [rle.decode(entry["segmentation"]) for entry in results]


def test_amodal_masks_are_cut_to_what_is_seen() -> None:
    results = [
        _result(ALL, LEFT, 0.9),
        _result(ALL, RIGHT, 0.3),
        _result(ALL, LOW, 0.29),
        _result(ALL, LOW, 0.9, image_id=9),
    ]
    found = clip(_truth(), results)
    first, second, third, elsewhere = _masks(found)
    assert np.array_equal(first, LEFT | RIGHT)
    assert np.array_equal(second, LEFT | RIGHT)
    assert np.array_equal(third, LEFT | RIGHT | LOW)
    assert np.array_equal(elsewhere, LOW)
    assert found[0]["bbox"] == [0, 0, 40, 20]
    assert [entry["score"] for entry in found] == [0.9, 0.3, 0.29, 0.9]
    assert [entry["image_id"] for entry in found] == [5, 5, 5, 9]
    assert all(entry["category_id"] == 3 for entry in found)
    assert np.array_equal(rle.decode(found[1]["visible_mask"]), RIGHT)


def test_duplicates_and_deleted_detections_are_no_evidence() -> None:
    almost = _rectangle(0, 0, 20, 38)  # IoU with the first 20 / 38
    results = [_result(ALL, LEFT, 0.9), _result(ALL, almost, 0.9), _result(ALL, RIGHT, 0.9)]
    assert np.array_equal(_masks(clip(_truth(), results))[0], LEFT | RIGHT)
    kept = np.array([True, True, False])
    assert np.array_equal(_masks(clip(_truth(), results, keep=kept))[0], LEFT)
    assert np.array_equal(_masks(clip(_truth(), results, keep=kept))[2], LEFT | almost | RIGHT)


def test_the_hull_of_the_visible_mask_is_cut_likewise() -> None:
    corner = _rectangle(0, 0, 20, 4) | _rectangle(0, 0, 4, 20)
    results = [_result(LOW, corner, 0.9), _result(LOW, _rectangle(4, 4, 60, 8), 0.9)]
    hull = _masks(clip(_truth(), results, hull=True))[0]
    # The hull's slanted side runs from (20, 4) to (4, 20): between rows 4 and 8 it holds the pixels left of x + y = 24.
    y, x = np.mgrid[:40, :60]
    inside = (x + 0.5) + (y + 0.5) < 24
    expected = corner | (inside & _rectangle(4, 4, 60, 8))
    on_the_side = np.abs(x + y + 1 - 24) <= 1
    assert np.array_equal(hull[~on_the_side], expected[~on_the_side])


def test_an_empty_visible_mask_has_an_empty_hull() -> None:
    results = [_result(ALL, LEFT & False, 0.9), _result(ALL, RIGHT, 0.9)]
    first, second = _masks(clip(_truth(), results, hull=True))
    assert not first.any()
    assert np.array_equal(second, RIGHT)


def test_a_system_without_visible_masks_is_refused() -> None:
    with pytest.raises(DataError, match="no visible masks"):
        clip(_truth(), [_result(ALL, None, 0.9)])


def test_deleted_share_is_exact_and_seeded() -> None:
    assert draw_kept(8, 25, seed=3).sum() == 6
    assert draw_kept(8, 0, seed=3).all()
    assert not draw_kept(8, 100, seed=3).any()
    assert np.array_equal(draw_kept(50, 50, seed=3), draw_kept(50, 50, seed=3))
    assert not np.array_equal(draw_kept(50, 50, seed=3), draw_kept(50, 50, seed=4))


def test_the_command_writes_both_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    annotation = {
        "id": 1, "image_id": 5, "category_id": 3, "iscrowd": 0, "bbox": [0, 0, 20, 20], "area": 400,
        "segmentation": rle.encode(LEFT), "visible_mask": rle.encode(LEFT), "occlude_rate": 0.0,
    }  # fmt: skip
    image = {"id": 5, "file_name": "a.png", "height": 40, "width": 60}
    truth = {"images": [image], "categories": [{"id": 3, "name": "a"}], "annotations": [annotation]}
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    (tmp_path / "results.json").write_text(json.dumps([_result(ALL, LEFT, 0.9), _result(ALL, RIGHT, 0.9)]))
    command = ["clip", str(tmp_path / "gt.json"), str(tmp_path / "results.json"), str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", [*command, "--deleted", "100"])
    clipping.main()
    clipped = json.loads((tmp_path / "out" / "clipped.json").read_text())
    hull = json.loads((tmp_path / "out" / "hull.json").read_text())
    assert np.array_equal(_masks(clipped)[0], LEFT)
    assert np.array_equal(_masks(hull)[1], RIGHT)
