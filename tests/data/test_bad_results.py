"""Results lists: sound ones become columns, every fault a DataError that names the position."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from amodal.data import rle
from amodal.data.results import load_results
from amodal.data.store import AnnotationSet
from amodal.errors import DataError

H, W = 4, 5
MASK = np.zeros((H, W), bool)
MASK[1:3, 1:4] = True
SEEN = MASK & (np.arange(W) < 2)
TRUTH = AnnotationSet.from_masks(
    [(H, W), (H, W)], [{"image": 0, "label": 0, "amodal": MASK}], ["a", "b"], image_ids=[5, 8], category_ids=[3, 90]
)
ONE: dict[str, Any] = {
    "image_id": 8,
    "category_id": 90,
    "score": 0.5,
    "bbox": [1, 1, 3, 2],
    "segmentation": rle.encode(MASK),
}


def test_columns_from_list_and_file_in_their_order(tmp_path: Path) -> None:
    first = {**ONE, "visible_mask": rle.encode(SEEN)}
    second = {**ONE, "image_id": 5, "score": 1, "visible_mask": rle.encode(MASK & False)}
    empty = {**second, "segmentation": rle.encode(MASK & False)}
    del second["bbox"]
    results = [first, second, empty]
    (tmp_path / "r.json").write_text(json.dumps(results))
    for given in (results, tmp_path / "r.json"):
        found = load_results(given, TRUTH)
        assert found.image_index.tolist() == [1, 0, 0]
        assert found.labels.tolist() == [1, 1, 1]
        assert found.scores.tolist() == [0.5, 1, 1]
        assert found.boxes[0].tolist() == [1, 1, 4, 3]
        assert np.isnan(found.boxes[1]).all()
        assert found.amodal_boxes[0].tolist() == [1, 1, 4, 3]
        assert found.visible_boxes[0].tolist() == [1, 1, 2, 3]
        assert found.amodal_area.tolist() == [6, 6, 0]
        np.testing.assert_allclose(found.visible_rate, [2 / 6, 0, np.nan])
        assert found.visible is not None
        assert found.visible.counts(0).decode() == first["visible_mask"]["counts"]


def test_without_visible_masks_and_without_results() -> None:
    assert load_results([ONE], TRUTH).visible is None
    assert np.isnan(load_results([ONE], TRUTH).visible_rate).all()
    assert len(load_results([], TRUTH)) == 0


def test_counts_as_bytes_and_numpy_numbers() -> None:
    packed = {"size": [H, W], "counts": ONE["segmentation"]["counts"].encode()}
    box = np.array([1.0, 1, 3, 2])
    one = {**ONE, "segmentation": packed, "image_id": np.int64(8), "score": np.float32(0.5), "bbox": box}
    assert load_results([one], TRUTH).amodal_area.tolist() == [6]


@pytest.mark.parametrize("chunk", [1, 2])
def test_chunks_do_not_matter(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("amodal.data.results._CHUNK", chunk)
    assert load_results([ONE] * 5, TRUTH).amodal_area.tolist() == [6] * 5


def test_a_hundred_thousand_detections_of_one_image_with_equal_scores() -> None:
    assert len(load_results([ONE] * 100_000, TRUTH)) == 100_000


BAD = {
    "unknown image": ({"image_id": 7}, "image_id is 7"),
    "image as text": ({"image_id": "8"}, "image_id is '8'"),
    "image bool": ({"image_id": True}, "image_id is True"),
    "unknown category": (
        {"category_id": 80},
        "category_id is 80, which the annotations do not have, nearest known id is 90",
    ),
    "category missing": ({"category_id": None}, "category_id is None"),
    "score NaN": ({"score": float("nan")}, "score is nan"),
    "score inf": ({"score": float("inf")}, "score is inf"),
    "score text": ({"score": "0.5"}, "score is '0.5'"),
    "score above 1": ({"score": 1.5}, "score is 1.5"),
    "score negative": ({"score": -0.5}, "score is -0.5"),
    "score bool": ({"score": True}, "score is True"),
    "score missing": ({"score": None}, "score is None"),
    "box of NaN": ({"bbox": [float("nan"), 0, 1, 1]}, "bbox"),
    "box of three": ({"bbox": [0, 1, 1]}, "bbox"),
    "box negative": ({"bbox": [3, 3, -1, 1]}, "negative"),
    "no mask": ({"segmentation": None}, "has no segmentation"),
    "mask of another size": ({"segmentation": rle.encode(MASK.T)}, "segmentation: size"),
    "mask with a wrong sum": ({"segmentation": {"size": [H, W], "counts": "0o"}}, "segmentation: "),
    "visible mask of one only": ({"visible_mask": rle.encode(SEEN)}, "has a visible_mask, others have none"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_result(name: str) -> None:
    change, message = BAD[name]
    with pytest.raises(DataError) as caught:
        load_results([ONE, {**ONE, **change}], TRUTH)
    assert message in str(caught.value)
    assert caught.value.annotation_id == 1
    assert "\n" not in str(caught.value)


def test_bad_visible_mask() -> None:
    with pytest.raises(DataError, match="visible_mask: counts are empty"):
        load_results([{**ONE, "visible_mask": {"size": [H, W], "counts": ""}}], TRUTH)
