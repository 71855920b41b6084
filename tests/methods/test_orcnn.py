"""ORCNN's occlusion logits and losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from amodal.methods.orcnn import ORCNN, hidden_logits
from amodal.structures import BranchOutput

Make = Callable[..., Any]


def test_hidden_is_amodal_and_not_surely_visible() -> None:
    amodal = torch.tensor([3.0, 3.0, 3.0, -2.0, -2.0])
    visible = torch.tensor([-5.0, 0.0, 7.0, 1.0, -1.0])
    assert hidden_logits(amodal, visible).tolist() == [3.0, 3.0, -4.0, -3.0, -2.0]


def test_the_hidden_part_trains_both_heads_and_is_where_the_crops_differ(
    tiny_config: Make, example: Make, place: Make, noise: Make
) -> None:
    branch = ORCNN(tiny_config("orcnn"), 2, None)
    one = example(4, objects=2)
    assert one.targets.occlude_rate[0] > 0.2
    rois = place(one.targets)
    branch.loss(branch(noise(1), rois), rois, noise(1))["loss_mask_hidden"].mean().backward()
    assert {name.split(".")[0] for name, value in branch.named_parameters() if value.grad is not None} == {
        "amodal_head",
        "visible_head",
    }
    truth = {part: getattr(one.targets, part).crop(rois.gt_index, rois.boxes, 28) for part in ("amodal", "visible")}
    # z_H = 40 where hidden, -40 where both are, -20 outside.
    amodal = torch.where(truth["amodal"] > 0, 40.0, -20.0)
    visible = torch.where(truth["visible"] > 0, 80.0, -20.0)
    terms = branch.loss(BranchOutput(rois.boxes, amodal, visible), rois, noise(1))
    assert all(term.mean().item() == pytest.approx(0.0, abs=1e-6) for term in terms.values())
    wrong = branch.loss(BranchOutput(rois.boxes, amodal, amodal), rois, noise(1))["loss_mask_hidden"]
    hidden = (truth["amodal"] - truth["visible"]).abs()
    # Everything is taken for visible: logits 0 where the object is, instead of 40 on the hidden part.
    expected = hidden.sum() * torch.log(torch.tensor(2.0)) + (truth["visible"].sum()) * torch.log(torch.tensor(2.0))
    assert wrong.total.item() == pytest.approx(expected.item(), rel=1e-4)
