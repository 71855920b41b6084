"""The table of retrievals and the report, by objects whose numbers can be told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from amodal.data.store import AnnotationSet
from amodal.errors import DataError
from amodal.priors.fit import fit_prior
from amodal.priors.prior import Prior
from amodal.priors.quality import detector_rows, judged_file, judged_objects, retrieval_table
from amodal.priors.report import make_report, report_lines
from amodal.priors.yardstick import detector_boxes
from amodal.settings import PriorConfig


def stripes(count: int) -> AnnotationSet:
    """Images with an object of 40 x 20 pixels whose right half is hidden, in front of it one of which nothing is."""
    items = []
    for image in range(count):
        x, y = 10 + image, 20 + image
        whole, front = np.zeros((2, 96, 96), bool)
        whole[y : y + 20, x : x + 40] = True
        front[y : y + 20, x + 20 : x + 50] = True
        items.append({"image": image, "label": 0, "amodal": whole, "visible": whole & ~front})
        items.append({"image": image, "label": 1, "amodal": front, "visible": front})
    return AnnotationSet.from_masks([(96, 96)] * count, items, ["bar", "front"], image_ids=range(5, 5 + count))


@pytest.fixture(scope="module")
def prior() -> Prior:
    """A bank of nothing but such objects; every retrieval is right, whatever E and the query's frame are."""
    return fit_prior(stripes(10), PriorConfig(slots=10, encoder_steps=2, flow="nearest", flow_steps=1))[0]


def test_equal_objects_give_a_perfect_table(prior: Prior) -> None:
    judged = judged_file(stripes(3), prior)
    assert (len(judged), judged.images, judged.exclude) == (3, 3, False)
    first, *rows = retrieval_table(prior, judged)
    assert (first.box, first.median, first.shape) == (None, pytest.approx(0.5), pytest.approx(0.5))
    assert len(rows) == 7
    for row in rows:
        assert (row.box, row.median, row.shape, row.objects) == (pytest.approx(1), pytest.approx(1), 1, 3), row.name


def test_wrong_deltas_lower_the_boxes_as_computed(prior: Prior) -> None:
    wrong = fit_prior(stripes(10), PriorConfig(slots=10, encoder_steps=2, flow="nearest", flow_steps=1))[0]
    wrong.bank.deltas[0, ::2] = 0  # 5 of the 10 slots leave the visible box as it is: IoU 0.5
    wrong.bank.amodal[0, ::2] = 0
    row = retrieval_table(wrong, judged_file(stripes(1), wrong))[1]
    # Equal codes: slots 0 to 7 are found, of which every second one is wrong.
    assert row.box == pytest.approx(0.75)
    assert row.median == pytest.approx(0.5**0.5)  # half the shift, half the log of 2
    assert row.shape == 1  # half of the votes are enough


def test_own_images_are_left_out_of_the_bank(prior: Prior) -> None:
    data = stripes(10)
    _, report = fit_prior(data, prior.config)
    judged = judged_objects(data, report.instances.take(report.held_out), exclude=True)
    assert len(judged) == 1
    alone = fit_prior(stripes(1), prior.config)[0]  # whose only objects are those of image 5
    other = replace(judged, objects=replace(judged.objects, image_ids=torch.tensor([5])))
    row = retrieval_table(alone, other)[1]
    assert (row.box, row.shape) == (pytest.approx(0.5), 0)  # nothing is found: boxes stay, no mask


def test_classes_of_another_file_are_found_by_name(prior: Prior, capsys: pytest.CaptureFixture[str]) -> None:
    swapped = replace(stripes(2), class_names=["front", "bar"], category_ids=[2, 1])
    swapped.labels[:] = 1 - swapped.labels
    assert judged_file(swapped, prior).objects.labels.tolist() == [0, 0]
    more = replace(stripes(2), class_names=["cup", "front"], category_ids=[7, 2])
    assert len(judged_file(more, prior)) == 0  # hidden ones are cups, which the prior does not know
    told = capsys.readouterr().err
    assert "warning: classes of the annotations that the prior does not have: 'cup'" in told
    other_ids = replace(stripes(2), category_ids=[101, 102])
    assert judged_file(other_ids, prior).objects.labels.tolist() == [0, 0]


def test_the_detector_is_compared_on_what_it_finds(prior: Prior) -> None:
    judged = judged_file(stripes(3), prior)
    boxes = judged.objects.boxes.clone()
    boxes[1, 2] -= 10  # three quarters of the object
    rows = detector_rows(prior, judged, boxes, torch.tensor([True, True, False]))
    assert [row.objects for row in rows] == [2, 2, 2]
    assert [row.median for row in rows] == [pytest.approx(value) for value in (0.875, 0.5, 1.0)]
    assert [row.objects for row in detector_rows(prior, judged, boxes, torch.zeros(3, dtype=torch.bool))] == [0]


def test_the_surest_detection_that_fits_is_the_detectors_box(prior: Prior, tmp_path: Path) -> None:
    from PIL import Image

    data = stripes(1)
    Image.new("RGB", (96, 96)).save(tmp_path / data.file_names[0])
    judged = judged_file(data, prior)
    truth = judged.objects.boxes[0]
    shift = torch.tensor([[0, 0, 0, 0], [2, 0, 2, 0], [30, 0, 30, 0], [1, 0, 1, 0]], dtype=torch.float32)
    found = SimpleNamespace(
        boxes=torch.zeros(4, 4),
        frames=truth + shift,
        scores=torch.tensor([0.2, 0.6, 0.9, 0.8]),
        labels=torch.tensor([1, 1, 1, 0]),
        class_names=["front", "bar"],
        category_ids=[8, 9],
    )
    boxes, there = detector_boxes(lambda image: found, judged, tmp_path)
    assert there.tolist() == [True]
    assert torch.equal(boxes[0], truth + shift[1])
    found.scores[:] = 0.5
    found.frames = truth + 30
    assert detector_boxes(lambda image: found, judged, tmp_path)[1].tolist() == [False]


def test_classes_of_one_name_are_told_apart_by_their_ids(prior: Prior, tmp_path: Path) -> None:
    from PIL import Image

    data = stripes(1)
    Image.new("RGB", (96, 96)).save(tmp_path / data.file_names[0])
    judged = judged_file(data, prior)
    judged.annotations.class_names[:] = ["bar", "bar"]
    truth = judged.objects.boxes[0]
    found = SimpleNamespace(
        boxes=torch.stack([truth, truth + 2]), frames=None,
        scores=torch.tensor([0.9, 0.2]), labels=torch.tensor([0, 1]),
        class_names=["bar", "bar"], category_ids=[2, 1],
    )  # fmt: skip
    boxes, there = detector_boxes(lambda image: found, judged, tmp_path)
    assert there.tolist() == [True]
    assert torch.equal(boxes[0], truth + 2)  # The surer one is of the other class.
    found.category_ids = [7, 8]
    with pytest.raises(DataError, match="'bar' stands for categories 7, 8 of the detector and 1, 2 of the annotations"):
        detector_boxes(lambda image: found, judged, tmp_path)


@pytest.mark.parametrize("count", [3, 0])
def test_the_report_is_finite_json_and_readable(prior: Prior, count: int) -> None:
    fitted = fit_prior(stripes(10), prior.config)[1]
    judged = judged_file(stripes(max(count, 1)), prior)
    judged = judged_objects(judged.annotations, judged.objects.take(torch.arange(count)), exclude=False)
    report = make_report(prior, fitted, judged)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert report["coverage"] == 1.0
    assert [entry["objects"] for entry in report["classes"]] == [10, 10]
    lines = list(report_lines(report, {"encoder": 1.0}))
    text = "\n".join(lines)
    assert f"judged on {count or 'no'} held-out objects" in text
    assert "bar         10     10  every object" in text
    assert report["banked"] == report["objects"] == 20
    fewer = {**report, "banked": 7, "fit": {**report["fit"], "min_occlusion": 0.25}}
    assert "7 of them, of which at least 25 % is hidden" in list(report_lines(fewer, {"encoder": 1.0}))[1]
    assert max(len(line) for line in lines) < 160
    assert (report["flow"]["own"]["iou28"] is None) == (count == 0)
    assert (report["encoder"]["iou_amodal"] is None) == (count == 0)


def test_many_classes_are_counted_and_absent_ones_named(tiny_prior: Prior) -> None:
    classes = [{"name": f"c{n}", "objects": 0 if n < 12 else 900 + 100 * (n % 3), "slots": 1000} for n in range(40)]
    fit = {"slots": 1000, "encoder": 392}
    from amodal.priors.report import _class_lines

    lines = list(_class_lines(classes, fit["slots"]))
    assert lines == [
        "28 classes with 1000 slots each: 9 of medoids, 19 filled up with augmented objects",
        "no objects, so no prior: c0, c1, c2, c3, c4, c5, c6, c7, c8, c9 and 2 more",
    ]
