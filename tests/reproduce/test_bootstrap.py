"""What is kept of a run gives its metrics again, and the bootstrap is what evaluating every draw anew gives."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from tests.evaluation.conftest import draw_scene

from amodal.data.reader import load
from amodal.evaluation import evaluate, prepare
from amodal.reproduce.bootstrap import average_precision, compare, draw, resampled
from amodal.reproduce.per_image import METRICS, PerImage

pytestmark = pytest.mark.filterwarnings("ignore:no result scores below", "ignore:__array__:DeprecationWarning")


def _truth(tmp_path: Any, data: dict[str, Any]) -> Any:
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(data))
    return load(str(path))


def _kept(truth: Any, results: Any) -> PerImage:
    packed = json.loads(json.dumps(PerImage.of(prepare(truth, results)).pack()))
    return PerImage.unpack(packed)


def _value(metrics: dict[str, Any], metric: str) -> float | None:
    part, _, key = metric.partition(".")
    return metrics[part][key]


@pytest.mark.parametrize("seed", range(8))
def test_ap_of_what_is_kept_is_the_metric(tmp_path: Any, seed: int) -> None:
    data, results = draw_scene(seed, many=seed % 2 == 0, unknown=seed % 3 == 0)
    truth = _truth(tmp_path, data)
    kept, metrics = _kept(truth, results), evaluate(truth, results)
    for metric in METRICS:
        assert average_precision(kept, metric) == pytest.approx(_value(metrics, metric), abs=1e-9), metric


def test_nothing_found_and_nothing_to_find(tmp_path: Any) -> None:
    data, results = draw_scene(1)
    assert average_precision(_kept(_truth(tmp_path, data), []), "mask.AP") == 0
    assert average_precision(_kept(_truth(tmp_path, data | {"annotations": []}), results), "box.AP") is None


def _again(data: dict[str, Any], results: list[dict[str, Any]], counts: list[int]) -> tuple[Any, Any]:
    """The scene with image i ``counts[i]`` times, as images of their own."""
    images, annotations, found = [], [], []
    for image, count in zip(sorted(data["images"], key=lambda image: image["id"]), counts, strict=True):
        for copy in range(count):
            number = image["id"] * 1000 + copy
            images.append({**image, "id": number})
            annotations += [
                {**item, "id": item["id"] * 1000 + copy, "image_id": number}
                for item in data["annotations"] if item["image_id"] == image["id"]
            ]  # fmt: skip
            found += [{**item, "image_id": number} for item in results if item["image_id"] == image["id"]]
    return data | {"images": images, "annotations": annotations}, found


@pytest.mark.parametrize("seed", [3, 4])
def test_a_draw_is_evaluated_as_if_it_were_a_data_set(tmp_path: Any, seed: int) -> None:
    data, results = draw_scene(seed, steps=10**6)
    kept = _kept(_truth(tmp_path, data), results)
    weights = draw(kept.images, 6, seed)
    assert (weights.sum(axis=1) == kept.images).all()
    for metric in METRICS:
        fast = resampled(kept, metric, weights)
        for value, counts in zip(fast, weights.tolist(), strict=True):
            slow = evaluate(_truth(tmp_path, _again(data, results, counts)[0]), _again(data, results, counts)[1])
            wanted = _value(slow, metric)
            assert (None if np.isnan(value) else value) == pytest.approx(wanted, abs=1e-9), metric


def test_differences_are_paired_and_pooled_over_seeds(tmp_path: Any) -> None:
    data, results = draw_scene(5, images=12)
    truth = _truth(tmp_path, data)
    good, worse = _kept(truth, results), _kept(truth, results[::2])
    same = compare([(good, good)], "mask.AP", 200)
    assert same is not None
    assert (same.mean, same.low, same.high, same.p) == (0, 0, 0, 1)
    better = compare([(good, worse), (good, good)], "mask.AP", 200)
    assert better is not None
    assert better.seeds == 2
    assert better.mean == pytest.approx(
        (average_precision(good, "mask.AP") - average_precision(worse, "mask.AP")) / 2  # type: ignore[operator]
    )
    assert better.low <= better.mean <= better.high
    assert better == compare([(good, worse), (good, good)], "mask.AP", 200)
    assert better != compare([(good, worse), (good, good)], "mask.AP", 200, seed=1)
