"""What the studies of PGExp rest on: matching, thinned evidence, IoUs of boxes with their own truth."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import torch
from tests.conftest import DenseMasks

from amodal.structures import RoIs, Targets
from studies import boxes, one_pass


def _rois(boxes: list[list[float]], labels: list[int], scores: list[float]) -> RoIs:
    tensor = torch.tensor(boxes)
    batch = torch.zeros(len(boxes), dtype=torch.int64)
    return RoIs(tensor, batch, torch.tensor(labels), torch.tensor(scores), [(100, 100)], tensor)


def _truth(boxes: list[list[float]], labels: list[int]) -> Targets:
    count, masks = len(boxes), DenseMasks(torch.zeros(len(boxes), 100, 100, dtype=torch.bool))
    return Targets(
        image_id=7,
        boxes=torch.tensor(boxes),
        visible_boxes=torch.tensor(boxes),
        labels=torch.tensor(labels),
        occlude_rate=torch.zeros(count),
        amodal_known=torch.ones(count, dtype=torch.bool),
        ignore=torch.zeros(count, dtype=torch.bool),
        annotation_ids=torch.arange(count),
        amodal=masks,
        visible=masks,
    )


def test_best_score_takes_the_object_and_the_next_gets_what_is_left() -> None:
    truth = _truth([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 12.0], [50.0, 50.0, 60.0, 60.0]], [0, 0, 1])
    same = [0.0, 0.0, 10.0, 10.0]
    far = [50.0, 50.0, 60.0, 54.0]  # IoU 0.4
    rois = _rois([same, same, same, far, [50.0, 50.0, 60.0, 60.0]], [0, 0, 0, 1, 0], [0.5, 0.9, 0.4, 0.8, 0.7])
    # Second row: best score, nearest object. First: the other one (IoU 10/12). Third: nothing left. Fourth: too far.
    # Fifth: another class.
    assert one_pass.match(rois, truth).tolist() == [1, 0, -1, -1, -1]
    unknown = replace(truth, amodal_known=torch.tensor([False, True, True]))
    assert one_pass.match(rois, unknown).tolist() == [-1, 1, -1, -1, -1]
    assert one_pass.match(rois, _truth([[90.0, 90.0, 99.0, 99.0]], [0])).tolist() == [-1] * 5


def test_what_is_deleted_stays_deleted_at_the_next_level() -> None:
    drawn = one_pass.uniform(0, 7, 1000)
    kept = [drawn >= deleted / 100 for deleted in (0, 25, 50, 75, 100)]
    assert [abs(int(k.sum()) - n) < 40 for k, n in zip(kept, (1000, 750, 500, 250, 0), strict=True)] == [True] * 5
    assert all(bool((more >= fewer).all()) for more, fewer in itertools.pairwise(kept))
    assert not np.array_equal(drawn, one_pass.uniform(0, 8, 1000))


def test_iou_of_boxes_with_their_own_truth() -> None:
    truth = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 4.0, 4.0]])
    found = torch.tensor([[0.0, 0.0, 5.0, 10.0], [0.0, 0.0, 4.0, 4.0]])
    assert boxes.pairwise(found, truth).tolist() == [0.5, 1.0]
    several = torch.stack([found, truth], dim=1)
    assert boxes.pairwise(several, truth).tolist() == [0.75, 1.0]
