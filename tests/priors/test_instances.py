"""Instances of an annotation file in box frames."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.ops import roi_align

from amodal.data.masks import InstanceMasks
from amodal.data.rle import decode
from amodal.data.scenes.dataset import annotations_of, scene_settings
from amodal.data.scenes.scene import draw
from amodal.data.store import AnnotationSet
from amodal.priors.instances import collect


def rectangle(x0: int, y0: int, x1: int, y1: int, size: int = 80) -> np.ndarray:
    mask = np.zeros((size, size), bool)
    mask[y0:y1, x0:x1] = True
    return mask


@pytest.fixture(scope="module")
def drawn() -> AnnotationSet:
    """Four drawn scenes."""
    settings = scene_settings("scenes-v1", 96, 4)
    items = []
    for index in range(4):
        for item in annotations_of(draw(5, index, settings), index):
            masks = {"amodal": decode(item["segmentation"]), "visible": decode(item["visible_mask"])}
            items.append({"image": index, "label": item["category_id"] - 1, **masks, "id": 100 + len(items)})
    return AnnotationSet.from_masks([(96, 96)] * 4, items, list("abcd"), image_ids=[7 + 3 * n for n in range(4)])


def test_a_half_hidden_square_by_hand() -> None:
    whole, seen = rectangle(10, 20, 66, 76), rectangle(10, 20, 38, 76)
    data = AnnotationSet.from_masks(
        [(80, 80)], [{"image": 0, "label": 1, "amodal": whole, "visible": seen, "id": 41}], ["a", "b"], image_ids=[9]
    )
    instances, left_out = collect(data)
    assert left_out == {}
    assert instances.amodal.dtype == torch.bool
    assert instances.amodal.all()
    assert instances.own.all()
    left_half = torch.arange(28) < 14
    assert torch.equal(instances.visible[0], left_half.expand(28, 28))
    assert instances.boxes.tolist() == [[10, 20, 66, 76]]
    assert instances.visible_boxes.tolist() == [[10, 20, 38, 76]]
    assert instances.labels.tolist() == [1]
    assert instances.occlude_rate.tolist() == [0.5]
    assert instances.annotation_ids.tolist() == [41]
    assert instances.image_ids.tolist() == [9]


def test_every_mask_is_what_roi_align_reads_cut_in_half(drawn: AnnotationSet) -> None:
    instances, left_out = collect(drawn)
    assert len(instances) + sum(left_out.values()) == len(drawn)
    row_of = {int(number): row for row, number in enumerate(drawn.annotation_ids)}
    for n in range(len(instances)):
        row = row_of[int(instances.annotation_ids[n])]
        for part, frame, found in (
            (drawn.amodal_mask, instances.boxes, instances.amodal),
            (drawn.visible_mask, instances.boxes, instances.visible),
            (drawn.visible_mask, instances.visible_boxes, instances.own),
        ):
            mask = torch.from_numpy(part(row))[None, None].float()
            share = roi_align(mask, [frame[n : n + 1]], 28, sampling_ratio=2, aligned=True)[0, 0]
            clear = (share - 0.5).abs() > 1e-3  # rounding decides the rest
            assert clear.float().mean() > 0.9
            assert torch.equal(found[n][clear], share[clear] > 0.5)
        assert int(instances.image_ids[n]) == drawn.image_ids[drawn.image_index[row]]
        assert int(instances.labels[n]) == drawn.labels[row]


def test_crops_are_the_same_as_those_of_the_loader(drawn: AnnotationSet) -> None:
    instances, _ = collect(drawn)
    rows = [row for row in drawn.rows(0) if drawn.annotation_ids[row] in instances.annotation_ids.numpy()]
    source = InstanceMasks.from_annotations(drawn, rows, "visible")
    boxes = torch.from_numpy(drawn.amodal_boxes[rows]).float()
    expected = source.crop(torch.arange(len(rows)), boxes, 28)
    assert torch.equal(instances.visible[: len(rows)], expected > 0)


def test_what_cannot_teach_is_left_out_and_counted() -> None:
    square = {"image": 0, "label": 0, "amodal": rectangle(0, 0, 56, 56)}
    nothing, pixel = np.zeros((80, 80), bool), rectangle(30, 30, 31, 31)
    items = [
        {**square, "crowd": True, "visible": nothing},
        {**square, "amodal_known": False},
        {**square, "visible": nothing},
        {**square, "visible": pixel},  # a quarter of one cell
        {**square, "visible": rectangle(0, 0, 56, 28)},
        square,
    ]
    data = AnnotationSet.from_masks([(80, 80)], items, ["a"])
    instances, left_out = collect(data)
    assert instances.annotation_ids.tolist() == [5, 6]
    assert left_out == {"crowd": 1, "amodal unknown": 1, "nothing visible": 2}


def test_nothing_to_collect() -> None:
    for items in ([], [{"image": 0, "label": 0, "amodal": rectangle(0, 0, 9, 9), "crowd": True}]):
        instances, left_out = collect(AnnotationSet.from_masks([(80, 80)], items, ["a"]))
        assert len(instances) == 0
        assert instances.amodal.shape == (0, 28, 28)
        assert sum(left_out.values()) == len(items)
