"""Loss terms that share a graph, as those of ORCNN do: the example of docs/extending.md, by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.systems.conftest import ORCNN

from amodal.models.losses import mask_targets

Make = Callable[..., Any]


def test_what_is_invisible_trains_both_heads_in_one_backward(make: Make, example: Make) -> None:
    model = make(ORCNN, hidden_weight=0.5)
    examples = [example(0), example(4, objects=2)]
    asked: list[Any] = []
    model.branch.register_forward_hook(lambda branch, given, output: asked.append((given[1], output)))
    model.train().set_step(0, 0)
    terms = model([one.image for one in examples], [one.targets for one in examples], terms=True)
    ((rois, output),) = asked
    amodal, visible = output.amodal_logits, output.visible_logits
    whole, seen = (mask_targets(rois, part, rois.boxes) for part in ("amodal", "visible"))
    by_hand = {
        "loss_mask_amodal": F.binary_cross_entropy_with_logits(amodal, whole),
        "loss_mask_visible": F.binary_cross_entropy_with_logits(visible, seen),
        "loss_mask_hidden": 0.5
        * F.binary_cross_entropy_with_logits(amodal - torch.relu(visible), (whole != seen) * 1.0),
    }
    for name, value in by_hand.items():
        assert terms[name].mean().item() == pytest.approx(value.item(), rel=1e-5)
    wanted = torch.autograd.grad(sum(by_hand.values()), (amodal, visible), retain_graph=True)
    found = torch.autograd.grad(sum(terms[name].mean() for name in by_hand), (amodal, visible), retain_graph=True)
    assert all(torch.allclose(one, two, atol=1e-9) for one, two in zip(wanted, found, strict=True))
    sum(term.mean() for term in terms.values()).backward()
    assert model.branch.visible_head.predictor.weight.grad.abs().sum() > 0


def test_what_is_hidden_of_an_object_of_unknown_shape_is_not_trained(make: Make, example: Make) -> None:
    model = make(ORCNN).train()
    one = example(0)
    known = torch.tensor([True, False, False])
    counts = []
    for targets in (one.targets, replace(one.targets, amodal_known=known)):
        terms = model([one.image], [targets], terms=True)
        assert terms["loss_mask_hidden"].count == terms["loss_mask_amodal"].count
        counts.append((terms["loss_mask_hidden"].count.item(), terms["loss_mask_visible"].count.item()))
    assert 0 < counts[1][0] < counts[0][0]
    assert counts[0][1] == counts[1][1]
