"""The arithmetic behind docs/benchmarks/pgexp.md: matching, thinning, gains, drawn instances."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from benchmarks import pgexp, pgexp_boxes, pgexp_page, pgexp_pass, pgexp_sets
from benchmarks.pgexp_pair import drawn_instances
from tests.conftest import DenseMasks

from amodal.frames import tight_boxes
from amodal.structures import RoIs, Targets


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
    assert pgexp_pass.match(rois, truth).tolist() == [1, 0, -1, -1, -1]
    unknown = replace(truth, amodal_known=torch.tensor([False, True, True]))
    assert pgexp_pass.match(rois, unknown).tolist() == [-1, 1, -1, -1, -1]
    assert pgexp_pass.match(rois, _truth([[90.0, 90.0, 99.0, 99.0]], [0])).tolist() == [-1] * 5


def test_what_is_deleted_stays_deleted_at_the_next_level() -> None:
    drawn = pgexp_pass.uniform(0, 7, 1000)
    kept = [drawn >= deleted / 100 for deleted in (0, 25, 50, 75, 100)]
    assert [abs(int(k.sum()) - n) < 40 for k, n in zip(kept, (1000, 750, 500, 250, 0), strict=True)] == [True] * 5
    assert all(bool((more >= fewer).all()) for more, fewer in itertools.pairwise(kept))
    assert not np.array_equal(drawn, pgexp_pass.uniform(0, 8, 1000))


def test_iou_of_boxes_with_their_own_truth() -> None:
    truth = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 4.0, 4.0]])
    boxes = torch.tensor([[0.0, 0.0, 5.0, 10.0], [0.0, 0.0, 4.0, 4.0]])
    assert pgexp_boxes.pairwise(boxes, truth).tolist() == [0.5, 1.0]
    several = torch.stack([boxes, truth], dim=1)
    assert pgexp_boxes.pairwise(several, truth).tolist() == [0.75, 1.0]


def test_curves_are_means_and_seconds_are_weighted_by_steps() -> None:
    log = [{"step": step, "loss": loss, "seconds": seconds} for step, loss, seconds in
           [(20, 4.0, 1.0), (40, 2.0, 1.0), (60, 3.0, 4.0), (70, 1.0, 2.0)]]  # fmt: skip
    assert pgexp.thin(log, most=2) == [
        {"step": 40, "loss": 3.0, "seconds": 1.0},
        {"step": 70, "loss": 2.0, "seconds": 3.0},
    ]
    assert pgexp.seconds(log) == {"total": 20 + 20 + 80 + 20, "step": 2.0}
    assert pgexp.seconds([]) == {}


def test_sets_and_seeds_by_name() -> None:
    every = pgexp_sets.chosen([])
    assert [run.name for run in every[:7]] == ["s1-0", "s6-0", "plus-0", "s3-0", "s4-0", "s2-0", "s5-0"]
    assert sorted(run.name for run in every[7:]) == ["plus-1", "plus-2", "s1-1", "s1-2", "s6-1", "s6-2"]
    (run,) = pgexp_sets.chosen(["plus:4"], "+lr", {"optim.lr": "0.1"})
    assert run.name == "plus+lr-4"
    assert run.flags()[-4:] == ["--seed", "4", "--optim.lr", "0.1"]
    with pytest.raises(ValueError, match="no set 's7'"):
        pgexp_sets.chosen(["s7"])


def _run(ap: float) -> dict[str, object]:
    metrics = {"mask": {"AP": ap, "AP-occ-gt": ap / 2}, "box": {}, "visible": None}
    return {"splits": {"val": {"metrics": metrics}}}


def test_gains_are_seed_by_seed() -> None:
    runs = {"s1": {0: _run(20.0), 1: _run(22.0)}, "s6": {0: _run(24.0), 1: _run(25.0), 2: _run(90.0)}}
    row = pgexp_page.gains(runs, "val").splitlines()[2]
    assert row.startswith("| #6 PGExp - #1 | **+3.5** (+3.0 to +4.0) | **+1.8** (+1.5 to +2.0) | - |")
    assert row.endswith("| 2 |")


def test_drawn_instances_are_what_a_prior_expects() -> None:
    drawn = drawn_instances(3, 5)
    assert bool((drawn.visible <= drawn.amodal).all())
    assert bool(drawn.visible.flatten(1).any(1).all())
    frame = torch.tensor([[0.0, 0.0, 28.0, 28.0]]).expand(len(drawn), 4)
    sides = (drawn.boxes[:, 2:] - drawn.boxes[:, :2]).repeat(1, 2)
    tight = drawn.boxes[:, :2].repeat(1, 2) + tight_boxes(drawn.visible.float(), frame) / 28 * sides
    # Right edges are those of the masks; a cut ellipse may start a cell further in than its box.
    assert torch.allclose(tight[:, 2], drawn.visible_boxes[:, 2], atol=1e-3)
    assert bool((tight[:, :2] - drawn.visible_boxes[:, :2]).abs().le(sides[:, :2] / 28 + 1e-3).all())
    assert drawn.own[:, :, -1].any(1).all()


def test_result_files_name_no_paths() -> None:
    settings = {
        "steps": 4,
        "out": "runs/x",
        "prior": "runs/prior",
        "data": {"train": "a.json", "val": None, "flip": 0.5},
    }
    assert pgexp._without_paths(settings) == {"steps": 4, "data": {"val": None, "flip": 0.5}}
