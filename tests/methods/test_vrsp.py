"""VRSP's attention, its shapes beside a slow search, its weights and its scores."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from amodal.methods import vrsp
from amodal.methods.vrsp import VRSP, attention, iou
from amodal.priors.codebook import Codebook
from amodal.priors.encoder import MaskEncoder
from amodal.settings import CodebookConfig, VRSPConfig

Make = Callable[..., Any]


def _codebook(counts: list[int]) -> Codebook:
    torch.manual_seed(3)
    codes = torch.rand(len(counts), max(counts), 392)
    names, ids = [f"c{i}" for i in range(len(counts))], list(range(1, len(counts) + 1))
    return Codebook(CodebookConfig(slots=max(counts)), names, ids, MaskEncoder(392), codes, torch.tensor(counts))


def _branch(tiny_config: Make, counts: tuple[int, ...] = (6, 5), **more: Any) -> VRSP:
    torch.manual_seed(0)
    method = VRSPConfig(**{"k": 3, "reclass_channels": 8, **more})
    branch = VRSP(replace(tiny_config("vrsp"), method=method), len(counts), _codebook(list(counts)))
    for head in (branch.amodal_head, branch.visible_head):
        nn.init.normal_(head.predictor.weight)
    return branch


def test_shapes_are_the_nearest_codes_of_the_class() -> None:
    book, masks = _codebook([6, 5, 0]), (torch.rand(4, 28, 28) > 0.5).float()
    labels = torch.tensor([1, 0, 2, 1])
    found = book.shapes(masks, labels, 3)
    for row, label in enumerate(labels.tolist()):
        query = book.encoder(masks[row : row + 1])[0]
        own = [book.codes[label, i] for i in range(int(book.counts[label]))]
        nearest = sorted(own, key=lambda code: float((code - query).square().sum()))[:3] or [query] * 3
        slow = torch.stack([book.encoder.decode(code[None])[0] for code in nearest])
        assert torch.allclose(found[row], slow, atol=1e-5)
    assert not found.requires_grad


def test_few_codes_are_repeated() -> None:
    found = _codebook([2, 5]).shapes(torch.rand(1, 28, 28), torch.tensor([0]), 4)[0]
    assert torch.equal(found[1], found[2])
    assert torch.equal(found[1], found[3])
    assert not torch.equal(found[0], found[1])


def test_attention_is_the_sigmoid_of_the_mean_logit() -> None:
    logits = torch.tensor([[[4.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0], [0.0] * 4, [-8.0, 0.0, 0.0, 0.0]]])
    expected = torch.tensor([[1.0, 1.0], [-2.0, 0.0]]).sigmoid()
    assert torch.allclose(attention(logits)[0, 0], expected)


def test_each_pass_looks_where_the_last_one_said(tiny_config: Make, example: Make, place: Make, noise: Make) -> None:
    branch = _branch(tiny_config)
    rois = place(example(0).targets)
    output = branch(noise(1), rois)
    aux, labels = output.aux, rois.labels
    x, amodal, visible = aux.pooled, branch.amodal_head, branch.visible_head

    def halved(masks: Tensor) -> Tensor:
        return masks.unflatten(2, (14, 2)).unflatten(1, (14, 2)).mean(dim=(2, 4))[:, None]

    coarse = amodal(x, labels)
    seen = visible(x * halved(coarse).sigmoid(), labels)
    assert torch.allclose(output.visible_logits, seen, atol=1e-4)
    shapes = halved(branch.codebook.shapes((coarse > 0).float(), labels, 3).flatten(0, 1)).unflatten(0, (-1, 3))[
        :, :, 0
    ]
    fused = branch.fuse(torch.cat([x * halved(seen).sigmoid(), shapes], dim=1))
    assert torch.allclose(output.amodal_logits, amodal(fused, labels), atol=1e-3)
    true = rois.targets[0].visible.crop(rois.gt_index, rois.boxes, 14)[:, None]
    fused = branch.fuse(torch.cat([x * true, shapes], dim=1))
    assert torch.allclose(aux.guided["amodal"].logits, amodal(fused, labels), atol=1e-3)


def test_attention_has_a_gradient_and_shapes_have_none(
    tiny_config: Make, example: Make, place: Make, noise: Make
) -> None:
    branch = _branch(tiny_config)
    rois = place(example(0).targets)
    branch(noise(1), rois).visible_logits.sum().backward()
    assert branch.amodal_head.predictor.weight.grad is not None  # through the attention alone
    assert all(value.grad is None for value in branch.codebook.parameters())


def test_refined_masks_weigh_as_much_as_the_mask_that_they_looked_at_is_right(
    tiny_config: Make, example: Make, place: Make, noise: Make
) -> None:
    branch = _branch(tiny_config)
    one = example(4, objects=2)
    rois = place(one.targets)
    output = branch(noise(1), rois)
    whole, seen = (getattr(one.targets, part).crop(rois.gt_index, rois.boxes, 28) for part in ("amodal", "visible"))
    coarse = output.aux.coarse
    terms = branch.loss(output, rois, noise(1))
    for name, logits, truth, looked, at in (
        ("amodal", output.amodal_logits, whole, coarse["visible"].logits, seen),
        ("visible", output.visible_logits, seen, coarse["amodal"].logits, whole),
    ):
        each = F.binary_cross_entropy_with_logits(logits, truth, reduction="none").sum(dim=(1, 2))
        both = ((looked > 0) & (at > 0)).sum(dim=(1, 2)) / ((looked > 0) | (at > 0)).sum(dim=(1, 2))
        assert terms[f"loss_mask_{name}"].total.item() == pytest.approx(float((each * both).sum()), rel=1e-4)
        assert terms[f"loss_mask_{name}"].count == 2 * 28 * 28
    guided = output.aux.guided["visible"].logits
    by_paper = F.binary_cross_entropy_with_logits(guided, seen, reduction="sum").item()
    by_code = F.binary_cross_entropy_with_logits(guided, whole, reduction="sum").item()
    assert terms["loss_guided_visible"].total.item() == pytest.approx(by_paper, rel=1e-5)
    branch.by_code = True
    terms = branch.loss(output, rois, noise(1))
    assert terms["loss_guided_visible"].total.item() == pytest.approx(by_code, rel=1e-5)


def test_matching_pulls_coarse_maps_to_those_of_the_true_masks(
    tiny_config: Make, example: Make, place: Make, noise: Make
) -> None:
    branch = _branch(tiny_config)
    rois = place(example(0).targets)
    output = branch(noise(1), rois)
    expected = 0.0
    for part in ("amodal", "visible"):
        for weight, own, true in zip(
            (0.01, 0.05), output.aux.coarse[part].maps, output.aux.guided[part].maps, strict=True
        ):
            for row in range(len(rois)):
                a, b = own[row].flatten(), true[row].flatten()
                expected += weight * float(1 - a @ b / (a.norm() * b.norm()))
    term = branch.matching_term(output.aux)
    assert term.total.item() == pytest.approx(expected, rel=1e-4)
    assert term.count == len(rois)


def test_scores_fall_with_the_distance_to_the_nearest_shape(
    tiny_config: Make, example: Make, place: Make, noise: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    rois = replace(place(example(0).targets), targets=None, gt_index=None)
    rois = replace(rois, scores=torch.full((len(rois),), 0.64))
    branch = _branch(tiny_config, rescore_class=False, alpha=3.0)
    found = branch(noise(1), rois).amodal_logits > 0
    mask = branch.codebook.shapes(found.float(), rois.labels, 1)[:, 0] > 0.5
    distance = (mask != found).float().mean(dim=(1, 2)).tolist()
    expected = [math.sqrt(0.64 * math.log(3 - d) / math.log(3)) for d in distance]
    assert branch.rescore(noise(1), rois).tolist() == pytest.approx(expected, rel=1e-4)
    monkeypatch.setattr(vrsp, "iou", None)  # Nothing of the losses is needed in test.
    sure = _branch(tiny_config, rescore=False)
    pooled, visible = (out := sure(noise(1), rois)).aux.pooled, out.visible_logits
    share = sure.reclassify(pooled * attention(visible)).softmax(dim=1).gather(1, rois.labels[:, None])[:, 0]
    expected = (0.64 * (0.4 * share + 0.6)).sqrt().tolist()
    assert sure.rescore(noise(1), rois).tolist() == pytest.approx(expected, rel=1e-4)
    assert _branch(tiny_config, rescore=False, rescore_class=False).rescore(noise(1), rois) is None


def test_iou_of_nothing_is_nothing() -> None:
    masks = torch.tensor([[[True, False]], [[False, False]], [[True, True]]])
    assert iou(masks, torch.tensor([[[True, True]], [[False, False]], [[True, True]]])).tolist() == [0.5, 0.0, 1.0]
