"""Squeezes, re-ranking and detection of visible boxes, each against a slower or hand-worked version."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from amodal.frames import tight_boxes
from amodal.methods.pgexp.mask_head import MaskExpansion
from amodal.methods.pgexp.squeeze import AttentionSqueeze, ConcatSqueeze, Gate, cues_of
from amodal.methods.pgexp.values import Box, Recalled, Seen
from amodal.model import build
from amodal.models.sampling import sought
from amodal.priors.boxes import expand_boxes
from amodal.settings import PGExpConfig

Make = Callable[..., Any]


def recalled(distance: torch.Tensor, **fields: Any) -> Recalled:
    """K priors of each of N objects, of which these fields are known."""
    rows, k = distance.shape
    known = {
        "query": torch.zeros(rows, 28, 28),
        "frames": torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(rows, 4),
        "slots": torch.arange(k).expand(rows, k),
        "deltas": torch.zeros(rows, k, 4),
        "amodal": torch.ones(rows, k, 28, 28),
        "boxes": torch.zeros(rows, k, 4),
    }
    return Recalled(distance=distance, **{**known, **fields})


def test_squeezing_one_by_one_equals_the_convolution_of_the_concatenation() -> None:
    torch.manual_seed(0)
    squeeze = ConcatSqueeze(6, 4)
    maps = torch.randn(5, 4, 6, 3, 3)
    squeezed = squeeze(lambda k: maps[:, k], recalled(torch.ones(5, 4)))
    expected = F.relu(squeeze.conv(maps.flatten(1, 2)))
    assert squeeze.conv.weight.shape == (6, 24, 1, 1)
    assert torch.allclose(squeezed, expected, atol=1e-5)


def test_attention_is_a_weighted_mean_blind_to_order_and_padding() -> None:
    torch.manual_seed(0)
    squeeze = AttentionSqueeze(6)
    maps = torch.randn(5, 4, 6, 3, 3)
    cues = recalled(torch.rand(5, 4) + 0.1, inconsistency=torch.rand(5, 4))
    plain = squeeze(lambda k: maps[:, k], cues)
    assert torch.allclose(plain, F.relu(squeeze.conv(maps.mean(dim=1))), atol=1e-5)  # as it starts
    torch.nn.init.normal_(squeeze.gate.value.weight)
    weights = squeeze.gate(cues)
    assert torch.allclose(weights.sum(dim=1), torch.ones(5))
    assert weights.std(dim=1).min() > 0.001
    found = squeeze(lambda k: maps[:, k], cues)
    assert torch.allclose(found, F.relu(squeeze.conv((maps * weights[..., None, None, None]).sum(dim=1))), atol=1e-5)
    order = [2, 0, 3, 1]
    turned = cues.choose(torch.tensor(order).expand(5, 4))
    assert torch.allclose(squeeze(lambda k: maps[:, order[k]], turned), found, atol=1e-5)
    missing = torch.full((5, 2), torch.inf)
    padded = recalled(
        torch.cat([cues.distance, missing], dim=1), inconsistency=torch.cat([cues.inconsistency, missing], dim=1)
    )
    assert torch.allclose(squeeze(lambda k: maps[:, k % 4], padded), found, atol=1e-5)
    assert torch.allclose(Gate()(recalled(torch.full((1, 4), torch.inf))), torch.full((1, 4), 0.25))


@pytest.mark.parametrize("aggregate", ["concat", "attention"])
def test_retrieved_masks_are_joined_to_the_features(aggregate: str) -> None:
    torch.manual_seed(0)
    part = MaskExpansion(8, 14, aggregate, 3)  # type: ignore[arg-type]
    pooled, masks = torch.randn(2, 8, 14, 14), (torch.rand(2, 3, 28, 28) > 0.5).float()
    priors = recalled(torch.rand(2, 3), inconsistency=torch.rand(2, 3), amodal=masks)
    small = masks.view(2, 3, 14, 2, 14, 2).mean(dim=(3, 5))
    if aggregate == "attention":
        small = small.mean(dim=1, keepdim=True)
    expected = F.relu(part.fuse(torch.cat([small, pooled], dim=1)))
    assert torch.allclose(part.expand(pooled, priors), expected, atol=1e-5)


def test_mask_head_starts_on_the_regions_own_features() -> None:
    part = MaskExpansion(8, 14, "concat", 3)
    pooled = torch.randn(2, 8, 14, 14)
    priors = recalled(torch.ones(2, 3), amodal=torch.zeros(2, 3, 28, 28))
    assert torch.allclose(part.expand(pooled, priors), F.relu(pooled), atol=1e-6)


@pytest.mark.parametrize("weight", [0.0, 2.0])
def test_reranking_chooses_k_of_the_candidates_in_both_searches(
    weight: float,
    expansion: Make,
    known: Make,
    place: Make,
    noise: Make,
    example: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prior = known(rerank_weight=weight)
    branch = expansion(prior=prior, rerank="occluder")
    # distances 1 to 5 by their mean 3 (2 to 6 by 4 in the second search); with weight 2, slots 1 and 2 cost most
    score = torch.tensor([0.0, 2.0, 2.0, 0.5, 0.0])
    monkeypatch.setattr(branch.recall, "judge", lambda found, *_: score.expand(len(found.slots), 5))
    kept: list[Recalled] = []
    for head in (branch.box_head, branch.mask_head):
        head.register_forward_pre_hook(lambda _, given: kept.append(given[-1]))
    branch(noise(1), place(example(0).targets))
    assert [asked.k for asked in prior.asked] == ([5, 5] if weight else [3, 3])
    wanted = [0, 3, 4] if weight else [0, 1, 2]
    second = [10 + slot for slot in wanted]
    assert [found.slots.tolist() for found in kept] == [[wanted] * 3, [second] * 3]
    assert expansion(rerank="occluder").recall.weight(prior) == weight
    # The setting goes before what the prior says.
    assert expansion(rerank="occluder", rerank_weight=0.0).recall.weight(prior) == 0
    assert expansion(rerank="none", rerank_weight=1.0).recall.weight(prior) == 0


def test_evidence_is_annotated_in_training_and_predicted_in_test(
    expansion: Make, place: Make, noise: Make, example: Make
) -> None:
    branch = expansion(rerank="occluder")
    one = example(4, objects=2)
    rois = place(one.targets)
    frames = torch.tensor([[0.0, 0.0, 96.0, 96.0]]).expand(2, 4)
    nothing = torch.zeros(2, 28, 28)
    for row, other in ((0, 1), (1, 0)):
        seen = branch.evidence(rois, nothing)(frames)[row]
        truth = F.interpolate(one.visible[other][None, None].float(), size=(56, 56), mode="bilinear")[0, 0] >= 0.5
        assert (seen != truth).float().mean() < 0.02
        assert truth.any()
    found = replace(rois, targets=None, gt_index=None)
    assert not branch.evidence(found, nothing)(frames).any()
    box = rois.boxes[1] * 56 / 96
    seen = branch.evidence(found, nothing + 1)(frames)[0]
    y, x = torch.meshgrid(torch.arange(56) + 0.5, torch.arange(56) + 0.5, indexing="ij")
    inside = (x > box[0]) & (x < box[2]) & (y > box[1]) & (y < box[3])
    assert (seen.bool() != inside).float().mean() < 0.02


def test_reranking_prefers_what_an_occluder_explains(expansion: Make, place: Make, example: Make) -> None:
    """A square whose right half another one hides: growing to the right is explained, growing to the left is not."""
    branch = expansion(rerank="occluder")
    rois = place(example(0, objects=2).targets)
    rois = replace(
        rois, boxes=torch.tensor([[20.0, 20.0, 60.0, 60.0], [40.0, 20.0, 80.0, 60.0]]), targets=None, gt_index=None
    )
    visible = torch.zeros(2, 28, 28)
    visible[0, :, :14] = 1  # pixels 20 to 40
    visible[1] = 1
    box = tight_boxes(visible, rois.boxes)
    seen = Seen(rois, visible, visible, box, branch.evidence(rois, visible))
    deltas = torch.tensor([[-0.5, 0.0, 0.6931472, 0.0], [0.5, 0.0, 0.6931472, 0.0], [0.0, 0.0, 0.0, 0.0]])
    boxes = expand_boxes(deltas.expand(2, 3, 4), box[:, None], seen.sizes[:, None])
    found = recalled(torch.ones(2, 3), deltas=deltas.expand(2, 3, 4), boxes=boxes)
    score = branch.recall.judge(found, seen, None)[0]
    # left: half of 0 to 40 is unexplained; right: 20 to 60 is all seen or hidden; as it is: nothing is added
    assert torch.allclose(score, torch.tensor([0.5, 0.0, 0.0]), atol=0.05)
    # for the mask, every prior stands in B^a: there B^o, and the same box 20 px further to the left
    assert torch.allclose(branch.recall.judge(found, seen, Box(rois.boxes))[0], torch.zeros(3), atol=0.05)
    further = Box(rois.boxes - torch.tensor([20.0, 0.0, 20.0, 0.0]))
    assert torch.allclose(branch.recall.judge(found, seen, further)[0], torch.full((3,), 0.5), atol=0.05)


def test_attention_sees_distance_inconsistency_and_presence(
    expansion: Make, known: Make, place: Make, noise: Make, example: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    prior = known(missing=1)
    branch = expansion(prior=prior, aggregate="attention")
    rois = place(example(0).targets)
    monkeypatch.setattr(branch.recall, "judge", lambda *_: torch.tensor([0.5, 0.25, torch.inf]).expand(3, 3))
    found = branch.recall(prior, branch.see(noise(1), rois))
    expected = torch.tensor([[1 / 1.5, 0.5, 1.0], [2 / 1.5, 0.25, 1.0], [0.0, 0.0, 0.0]])
    assert torch.allclose(cues_of(found), expected.expand(3, 3, 3))
    branch.recall.k = 5
    monkeypatch.setattr(branch.recall, "judge", lambda found, *_: torch.zeros_like(found.distance))
    assert branch(noise(1), rois).amodal_logits.shape == (3, 28, 28)


def test_what_is_sought_where_visible_boxes_are_detected(example: Make) -> None:
    targets = example(4, objects=3).targets
    targets.amodal_known[0] = False
    targets.visible_boxes[2] = 0
    assert sought(targets, "amodal") is targets
    goal = sought(targets, "visible")
    assert torch.equal(goal.boxes, targets.visible_boxes)
    assert goal.amodal_known.all()
    assert goal.ignore.tolist() == [False, False, True]
    assert targets.ignore.tolist() == [False] * 3


def test_a_detector_of_visible_boxes_expands_to_amodal_ones(
    tiny_config: Make, example: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = PGExpConfig(box_expansion="plain", mask_expansion="plain", detects="visible", box_channels=16)
    model = build("pgexp", 2, config=replace(tiny_config("pgexp", size=96), method=method), seed=1)
    one = example(4, objects=2)
    assert not torch.equal(one.targets.boxes, one.targets.visible_boxes)
    goals = []
    for name in ("rpn", "branch"):
        part = getattr(model, name)
        forward = part.forward
        monkeypatch.setattr(part, "forward", lambda *a, forward=forward: goals.append(a) or forward(*a))
    losses = model([one.image], [one.targets])
    (_, _, found, _), (_, rois) = goals
    assert torch.allclose(found[0].boxes, one.targets.visible_boxes)
    assert torch.allclose(rois.targets[0].boxes, one.targets.boxes)
    overlap = torch.tensor([[iou(a, b) for b in one.targets.visible_boxes] for a in rois.boxes])
    assert overlap[torch.arange(len(rois)), rois.gt_index].min() >= 0.5
    assert {"loss_box", "loss_box_amodal"} <= set(losses)
    assert all(torch.isfinite(value) for value in losses.values())


def iou(a: torch.Tensor, b: torch.Tensor) -> float:
    low, high = torch.maximum(a[:2], b[:2]), torch.minimum(a[2:], b[2:])
    shared = (high - low).clamp(min=0).prod()
    return float(shared / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - shared))
