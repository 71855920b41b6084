"""PGExp: frames of the queries, boxes and losses worked by hand, what has a gradient, training equal to test."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from amodal.draws import Draws
from amodal.errors import ConfigError
from amodal.frames import resample
from amodal.methods.pgexp.box_head import AmodalBoxHead
from amodal.methods.pgexp.values import Box, Recalled
from amodal.settings import PGExpConfig, PriorConfig
from amodal.structures import RoIs

Make = Callable[..., Any]
SETS = [(box, mask) for box in ("none", "plain", "prior") for mask in ("plain", "prior", "masks")]
LEFT = torch.where(torch.arange(28) < 14, 20.0, -20.0).expand(28, 28)  # logits: the left half is seen
BOX = [20.0, 20.0, 76.0, 76.0]  # its cells are 2 pixels


def one_region(place: Make, example: Make, label: int = 0) -> RoIs:
    """One object of class ``label`` with B^o = BOX."""
    rois = place(example(0, objects=2).targets)
    rows = torch.tensor([label])
    boxes = torch.tensor([BOX])
    assert rois.gt_index is not None
    return replace(
        rois,
        boxes=boxes,
        decoded=boxes,
        batch=rois.batch[rows],
        labels=rois.labels[rows],
        scores=rois.scores[rows],
        gt_index=rois.gt_index[rows],
    )


class Sees(nn.Module):
    """A visible mask head that always sees this mask."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, pooled: Tensor, labels: Tensor) -> Tensor:
        return self.logits.expand(len(labels), 28, 28)


def sees(branch: Any, logits: Tensor) -> None:
    """Let every visible mask be this one."""
    branch.visible_head = Sees(logits)


def grows(branch: Any, deltas: list[float]) -> None:
    """Let the AB head always say these deltas."""
    with torch.no_grad():
        branch.box_head.predictor.weight.zero_()
        branch.box_head.predictor.bias.copy_(torch.tensor(deltas))


def in_test(rois: RoIs) -> RoIs:
    return replace(rois, gt_index=None, targets=None)


@pytest.mark.parametrize("extra", [{}, {"reference": "mixed", "dropout": 0.5}])
@pytest.mark.parametrize(("box", "mask"), SETS)
def test_each_set_trains_all_it_has_and_takes_no_regions(
    box: str, mask: str, extra: dict[str, Any], expansion: Make, place: Make, noise: Make, example: Make
) -> None:
    branch = expansion(box_expansion=box, mask_expansion=mask, **extra)
    rois, features = place(example(0).targets, example(1).targets), noise(2)
    output = branch(features, rois)
    terms = branch.loss(output, rois, features)
    assert set(terms) == {"loss_mask_amodal", "loss_mask_visible", *(["loss_box_amodal"] if box != "none" else [])}
    assert torch.equal(output.boxes, rois.boxes) == (box == "none")
    assert output.amodal_logits.shape == output.visible_logits.shape == (6, 28, 28)
    sum(term.mean() for term in terms.values()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in branch.parameters())
    names = {name.split(".")[0] for name in branch.state_dict()}
    heads = (["box_head"] if box != "none" else []) + (["mask_head"] if mask != "plain" else [])
    assert names == {"visible_head", "amodal_head", *heads}  # what checkpoints of other sets have, and what is new
    none = place(example(0, objects=0).targets)
    empty = branch(noise(1), none)
    assert empty.amodal_logits.shape == (0, 28, 28)
    assert all(term.mean() == 0 for term in branch.loss(empty, none, noise(1)).values())


def test_queries_are_in_their_frames(expansion: Make, known: Make, place: Make, noise: Make, example: Make) -> None:
    prior = known()
    branch = expansion(prior=prior)
    sees(branch, LEFT.clone().requires_grad_())
    grows(branch, [0.0, 0.0, math.log(2), 0.0])
    rois = one_region(place, example)
    boxes = branch(noise(1), rois).boxes
    # B^v is the left half of B^o, (20, 20, 48, 76); twice as wide about its centre 34 is 6 to 62
    assert torch.allclose(boxes, torch.tensor([[6.0, 20.0, 62.0, 76.0]]), atol=1e-4)
    first, second = prior.asked
    assert torch.equal(first.boxes, rois.boxes)
    assert torch.equal(second.boxes, boxes)
    assert first.k == second.k == 3
    assert torch.equal(first.labels, rois.labels)
    assert torch.allclose(first.masks, (LEFT > 0).float()[None], atol=1e-6)
    expected = torch.zeros(28, 28)
    expected[:, 7:21] = 1  # 20 to 48 of 6 to 62 in cells of 2 pixels
    assert torch.allclose(second.masks, expected[None], atol=1e-6)
    assert not any(t.requires_grad for asked in prior.asked for t in (asked.masks, asked.boxes))
    visible, amodal = prior.solved[0]
    assert torch.equal(visible, second.masks.expand(3, 28, 28))
    assert amodal[:, 0].sum(dim=1).tolist() == [8, 10, 12]


def test_the_box_head_sees_boxes_expanded_by_the_priors(
    expansion: Make, place: Make, noise: Make, example: Make
) -> None:
    branch, pooled = expansion(), []
    sees(branch, LEFT)
    branch.box_head.pooler.register_forward_pre_hook(lambda _, asked: pooled.append(asked[1]))
    rois = one_region(place, example)
    used = branch(noise(1), rois).aux.for_box
    assert pooled[0][0].tolist() == [20.0, 20.0, 48.0, 76.0]
    # slot 2: centre (34, 48) moves by (0.2 * 28, -0.2 * 56), sides 28 and 56 grow by e^0.1 and e^0.4; image ends at 96
    x, y, w, h = 34 + 5.6, 48 - 11.2, 28 * math.exp(0.1) / 2, 56 * math.exp(0.4) / 2
    boxes = [[20.0, 20.0, 48.0, 76.0], [x - w, max(y - h, 0.0), x + w, y + h]]
    assert torch.allclose(pooled[0][[1, 3]], torch.tensor(boxes), atol=1e-3)
    assert torch.equal(pooled[0][1:], used.boxes[0])
    plain = expansion(box_expansion="plain")
    sees(plain, LEFT)
    plain.box_head.pooler.register_forward_pre_hook(lambda _, asked: pooled.append(asked[1]))
    assert plain(noise(1), rois).aux.for_box is None
    assert pooled[1].tolist() == [[20.0, 20.0, 48.0, 76.0], BOX]


def test_features_come_from_where_the_flows_point(expansion: Make, place: Make, noise: Make, example: Make) -> None:
    branch = expansion(box_expansion="none")
    sees(branch, LEFT)
    squeezed = {}

    def listen(_: nn.Module, asked: tuple[Callable[[int], Tensor], Recalled]) -> None:
        squeezed.update({k: asked[0](k) for k in range(3)})

    branch.mask_head.squeeze.register_forward_pre_hook(listen)
    rois, features = one_region(place, example), noise(1)
    branch(features, rois)
    pooled = branch.pooler(features, rois.boxes, rois.batch)
    for k in range(3):
        expected = torch.zeros_like(pooled)  # columns 0 to 6 are seen and arrive k + 1 cells further right
        expected[..., k + 1 : k + 8] = pooled[..., :7]
        assert torch.allclose(squeezed[k], expected, atol=1e-4)


@pytest.mark.parametrize("reference", ["visible", "original"])
def test_box_loss_by_hand(reference: str, expansion: Make, place: Make, noise: Make, example: Make) -> None:
    branch = expansion(reference=reference, delta_weights=[2.0, 1.0, 4.0, 1.0], mask_expansion="plain")
    sees(branch, LEFT)
    grows(branch, [0.1, 0.0, 0.0, -0.2])
    rois = one_region(place, example)
    assert rois.targets is not None
    rois.targets[0].boxes[0] = torch.tensor([27.0, 20.0, 83.0, 76.0])
    output = branch(noise(1), rois)
    term = branch.loss(output, rois, noise(1))["loss_box_amodal"]
    if reference == "visible":  # from (20, 20, 48, 76): centre 34 to 55 is 0.75 widths, weight 2; width 28 to 56
        goal = [1.5, 0.0, 4 * math.log(2), 0.0]
        box = [34 + 0.05 * 28 - 14, 48 - 28 * math.exp(-0.2), 34 + 0.05 * 28 + 14, 48 + 28 * math.exp(-0.2)]
    else:  # from (20, 20, 76, 76): centre 48 to 55 is 0.125 widths
        goal = [0.25, 0.0, 0.0, 0.0]
        box = [48 + 0.05 * 56 - 28, 48 - 28 * math.exp(-0.2), 48 + 0.05 * 56 + 28, 48 + 28 * math.exp(-0.2)]
    assert term.total.item() == pytest.approx(abs(0.1 - goal[0]) + goal[2] + 0.2, abs=1e-5)
    assert term.count == 1
    assert torch.allclose(output.boxes, torch.tensor([box]), atol=1e-4)


@pytest.mark.parametrize("expands", ["plain", "prior"])
def test_deltas_may_start_from_a_mixed_box(
    expands: str, expansion: Make, place: Make, noise: Make, example: Make
) -> None:
    branch = expansion(reference="mixed", k=3, mask_expansion="plain", box_expansion=expands)
    sees(branch, LEFT)
    assert isinstance(branch.box_head, AmodalBoxHead)
    torch.nn.init.zeros_(branch.box_head.predictor.weight)
    rois = one_region(place, example)
    assert rois.targets is not None
    # B^o is (20, 20, 76, 76), B^v (20, 20, 48, 76); the median of three deltas is (0.1, -0.1, 0.05, 0.2),
    # of its box the centre is (36.8, 42.4). Fresh weights make the mean of all edges.
    wide, high = 14 * math.exp(0.05), 28 * math.exp(0.2)
    boxes = [[20.0, 20.0, 76.0, 76.0], [20.0, 20.0, 48.0, 76.0]]
    boxes += [[36.8 - wide, 42.4 - high, 36.8 + wide, 42.4 + high]] * (expands == "prior")
    expected = torch.tensor(boxes).mean(dim=0, keepdim=True)
    output = branch(noise(1), rois)
    assert torch.allclose(output.boxes, expected, atol=1e-4)
    rois.targets[0].boxes[0] = expected[0]
    assert branch.loss(output, rois, noise(1))["loss_box_amodal"].total.item() == pytest.approx(0, abs=1e-5)


def test_dropout_is_drawn_anew_each_step_and_rests_in_test(
    expansion: Make, place: Make, noise: Make, example: Make
) -> None:
    branch = expansion(dropout=0.5, mask_expansion="plain")
    assert isinstance(branch.box_head, AmodalBoxHead)
    torch.nn.init.normal_(branch.box_head.predictor.weight)
    rois = one_region(place, example)

    def boxes(step: int, seed: int = 0) -> Any:
        return branch(noise(1), replace(rois, draws=Draws(seed, step))).boxes

    assert torch.equal(boxes(1), boxes(1))
    assert not torch.equal(boxes(1), boxes(2))
    assert not torch.equal(boxes(1), boxes(1, seed=1))
    first, second = (replace(in_test(rois), draws=Draws(0, step)) for step in (1, 2))
    assert torch.equal(branch(noise(1), first).boxes, branch(noise(1), second).boxes)
    with pytest.raises(ConfigError, match=r"dropout is 1\.0"):
        PGExpConfig(dropout=1.0)


def test_objects_of_unknown_amodal_shape_have_no_box_loss(
    expansion: Make, place: Make, noise: Make, example: Make
) -> None:
    branch = expansion()
    rois = place(example(0).targets)
    output = branch(noise(1), rois)
    every = branch.loss(output, rois, noise(1))["loss_box_amodal"]
    rois.targets[0].amodal_known[1] = False
    some = branch.loss(output, rois, noise(1))["loss_box_amodal"]
    one = replace(rois, targets=[replace(rois.targets[0], amodal_known=torch.tensor([False, True, False]))])
    rest = branch.loss(output, one, noise(1))["loss_box_amodal"]
    assert (every.count, some.count, rest.count) == (3, 2, 1)
    assert (some.total + rest.total).item() == pytest.approx(every.total.item(), rel=1e-5)
    rois.targets[0].amodal_known[:] = False
    nothing = branch.loss(output, rois, noise(1))["loss_box_amodal"]
    assert nothing.mean() == 0
    nothing.total.backward()


def test_masks_are_trained_in_their_frames(expansion: Make, place: Make, noise: Make, example: Make) -> None:
    branch = expansion()
    one = example(4, objects=2)
    rois = place(one.targets)
    grows(branch, [0.2, 0.1, 0.3, -0.1])
    output = branch(noise(1), rois)
    assert not torch.allclose(output.boxes, rois.boxes, atol=1.0)
    index = torch.arange(2)
    output.amodal_logits = (one.targets.amodal.crop(index, output.boxes) * 2 - 1) * 20
    output.visible_logits = (one.targets.visible.crop(index, rois.boxes) * 2 - 1) * 20
    terms = branch.loss(output, rois, noise(1))
    assert terms["loss_mask_amodal"].mean() < 1e-4
    assert terms["loss_mask_visible"].mean() < 1e-4
    output.amodal_logits = (one.targets.amodal.crop(index, rois.boxes) * 2 - 1) * 20
    output.visible_logits = (one.targets.visible.crop(index, output.boxes) * 2 - 1) * 20
    assert all(branch.loss(output, rois, noise(1))[f"loss_mask_{n}"].mean() > 0.5 for n in ("amodal", "visible"))


def test_what_an_unknown_class_and_missing_slots_leave(
    expansion: Make, known: Make, place: Make, noise: Make, example: Make
) -> None:
    for prior, there in ((known(absent=1), 0), (known(missing=1), 2)):
        branch = expansion(prior=prior)
        sees(branch, LEFT)
        rois = one_region(place, example, label=1)
        seen = branch.see(noise(1), rois)
        assert seen.box.tolist() == [[20.0, 20.0, 48.0, 76.0]]
        boxes = branch.recall(prior, seen).boxes
        flows = branch.recall(prior, seen, Box(rois.boxes)).flows
        assert (boxes[0, there:] == torch.tensor([20.0, 20.0, 48.0, 76.0])).all()
        assert (flows[0, there:] == 0).all()
        assert (flows[0, :there, 0] != 0).all()
        output = branch(noise(1), rois)
        assert torch.isfinite(output.amodal_logits).all()
        assert torch.isfinite(output.boxes).all()


def test_nothing_seen_is_b_o_as_it_is(expansion: Make, place: Make, noise: Make, example: Make) -> None:
    branch = expansion(rerank="occluder", rerank_weight=1.0)
    sees(branch, torch.full((28, 28), -20.0))
    for rois in (one_region(place, example), in_test(one_region(place, example))):
        assert torch.equal(branch.see(noise(1), rois).box, rois.boxes)
        output = branch(noise(1), rois)
        assert torch.isfinite(output.amodal_logits).all()
        assert torch.isfinite(output.boxes).all()


def test_gradient_flows_through_features_only(expansion: Make, place: Make, noise: Make, example: Make) -> None:
    branch = expansion()
    rois = place(example(0).targets)

    def reached(name: str, features: dict[str, Tensor]) -> set[str]:
        branch.zero_grad()
        branch.loss(branch(features, rois), rois, features)[name].mean().backward()
        return {n.split(".")[0] for n, p in branch.named_parameters() if p.grad is not None and p.grad.any()}

    assert reached("loss_mask_visible", noise(1)) == {"visible_head"}
    assert reached("loss_box_amodal", noise(1)) == {"box_head"}
    assert reached("loss_mask_amodal", noise(1)) == {"mask_head", "amodal_head"}

    with torch.no_grad():  # close the direct way of F^e: what is left goes through F^e * M^{v,e} and the warp
        branch.mask_head.fuse.weight[:, 32:] = 0
    features = {name: level.requires_grad_() for name, level in noise(1).items()}
    reached("loss_mask_amodal", features)
    assert features["0"].grad is not None
    assert features["0"].grad.any()


def test_gradient_of_the_product_stops_where_nothing_is_seen(
    expansion: Make, place: Make, noise: Make, example: Make
) -> None:
    branch = expansion(box_expansion="none")
    sees(branch, LEFT * 5)
    with torch.no_grad():
        branch.mask_head.fuse.weight[:, 32:] = 0
    features = {name: level.requires_grad_() for name, level in noise(1).items()}
    branch(features, one_region(place, example)).amodal_logits.sum().backward()
    grad = features["0"].grad
    assert grad is not None
    assert grad[..., 5:12].any()  # pixels 20 to 48
    assert not grad[..., 14:].any()


@pytest.mark.parametrize("aggregate", ["concat", "attention"])
@pytest.mark.parametrize(("box", "mask"), [("prior", "prior"), ("plain", "masks")])
def test_training_and_test_give_equal_numbers(
    box: str, mask: str, aggregate: str, expansion: Make, place: Make, noise: Make, example: Make
) -> None:
    settings = {"box_expansion": box, "mask_expansion": mask, "aggregate": aggregate}
    rois, features = place(example(0).targets, example(1).targets), noise(2)
    results, grads = [], []
    for checkpoint in (False, True):
        branch = expansion(**settings, checkpoint=checkpoint)
        if aggregate == "attention":  # what is seen of other objects differs between training and test
            branch.evidence = lambda rois, visible: lambda context: torch.zeros(len(context), 56, 56)
        leaves = {name: level.clone().requires_grad_() for name, level in features.items()}
        trained = branch.train()(leaves, rois)
        (trained.amodal_logits.square().sum() + trained.boxes.sum()).backward()
        grads.append([*(p.grad for p in branch.parameters()), leaves["0"].grad])
        with torch.no_grad():
            results += [trained, branch.eval()(features, in_test(rois))]
    for other in results[1:]:
        assert torch.allclose(other.boxes, results[0].boxes, atol=1e-5)
        assert torch.allclose(other.amodal_logits, results[0].amodal_logits, atol=1e-6)
    for one, two in zip(*grads, strict=True):
        assert (one is None) == (two is None)
        assert one is None or torch.allclose(one, two, atol=1e-6)


def test_decoded_boxes_stand_for_b_o(expansion: Make, known: Make, place: Make, noise: Make, example: Make) -> None:
    prior = known()
    branch = expansion(prior=prior, train_boxes="decoded")
    rois = place(example(0).targets)
    rois = replace(rois, decoded=rois.boxes + torch.tensor([3.0, 1.0, 3.0, 1.0]))
    output = branch(noise(1), rois)
    assert torch.equal(prior.asked[0].boxes, rois.decoded)
    seen = branch.see(noise(1), in_test(replace(rois, boxes=rois.decoded)))
    assert torch.allclose(prior.asked[0].masks, seen.mask)
    assert torch.equal(output.visible_logits, branch.see(noise(1), in_test(rois)).logits)
    assert output.visible_logits.requires_grad
    expected = resample(prior.asked[0].masks, rois.decoded, output.boxes, 28)
    assert torch.allclose(prior.asked[1].masks, expected)
    base = expansion(train_boxes="decoded", box_expansion="none", mask_expansion="plain")
    assert torch.equal(base(noise(1), rois).boxes, rois.decoded)
    looked: list[Any] = []
    branch.visible_head.register_forward_hook(lambda *_: looked.append(1))
    branch(noise(1), in_test(replace(rois, decoded=rois.boxes)))
    assert len(looked) == 1
    branch(noise(1), rois)
    assert len(looked) == 3  # in training once in the proposals, once in B^o


def test_warm_up_works_in_jittered_true_boxes(expansion: Make, place: Make, noise: Make, example: Make) -> None:
    branch = expansion(warmup_steps=5, warmup_jitter=0.1)
    rois = place(example(0).targets, example(1).targets)
    far = replace(rois, boxes=rois.boxes * 0.5)
    true = torch.cat([t.boxes for t in rois.targets])
    sides = (true[:, 2:] - true[:, :2]).repeat(1, 2)
    boxes = branch(noise(2), replace(far, draws=Draws(7, 4))).boxes
    off = ((boxes - true) / sides).abs()
    assert off.max() <= 0.15 + 1e-5  # a shift of a tenth and half of a tenth more for the growth
    assert off.max() > 0.02
    second = replace(place(example(1).targets), draws=Draws(7, 4))
    assert torch.allclose(branch(noise(2), second).boxes, boxes[3:], atol=1e-4)  # of (seed, step, image) alone
    assert not torch.allclose(branch(noise(2), replace(far, draws=Draws(7, 3))).boxes, boxes)
    late = branch(noise(2), replace(far, draws=Draws(7, 5))).boxes
    assert torch.equal(branch(noise(2), replace(in_test(far), draws=Draws(7, 0))).boxes, late)


def test_excluded_sources_are_named_in_training_only(
    expansion: Make, known: Make, place: Make, noise: Make, example: Make
) -> None:
    rois = place(example(0, image_id=70).targets, example(1, image_id=71).targets)
    expected = {"none": (None, None), "instance": ([100, 101, 102] * 2, None), "image": (None, [70] * 3 + [71] * 3)}
    for exclude, (instances, images) in expected.items():
        prior = known()
        branch = expansion(prior=prior, exclude=exclude)
        branch(noise(2), rois)
        branch(noise(2), in_test(rois))
        for number, asked in enumerate(prior.asked):
            wanted = (instances, images) if number < 2 else (None, None)
            given = (asked.exclude_annotations, asked.exclude_images)
            assert tuple(None if ids is None else ids.tolist() for ids in given) == wanted
        assert len(prior.asked) == 4


def test_detections_of_visible_boxes_are_not_cut_again(
    expansion: Make, place: Make, noise: Make, example: Make
) -> None:
    branch = expansion(detects="visible")
    assert branch.detects == "visible"
    rois = one_region(place, example)
    sees(branch, LEFT)
    assert torch.equal(branch.see(noise(1), rois).box, rois.boxes)


def test_what_does_not_go_together_is_refused(tiny_config: Make) -> None:
    from amodal.methods.pgexp.branch import PGExp

    config = replace(tiny_config("pgexp"), method=PGExpConfig())
    with pytest.raises(ConfigError, match="needs an expansion prior"):
        PGExp(config, 2)
    head = replace(config.mask_head, pool_size=7)
    with pytest.raises(ConfigError, match="pool_size is 7, must be 14"):
        replace(config, mask_head=head)
    PGExp(replace(tiny_config("pgexp"), mask_head=head), 2)


def test_a_fitted_reranking_weight_is_for_the_k_of_candidates_it_was_fitted_for() -> None:
    fitted = PriorConfig(k=4, candidates=16)
    for k, candidates in ((4, 32), (8, 16)):
        method = PGExpConfig(k=k, candidates=candidates, rerank="occluder")
        with pytest.raises(ConfigError, match=f"keeps {k} of {candidates} candidates.* fitted for 4 of 16"):
            method.check_prior(fitted)
        replace(method, rerank_weight=1.0).check_prior(fitted)
        replace(method, rerank="none").check_prior(fitted)
    PGExpConfig(k=4, candidates=16, rerank="occluder").check_prior(fitted)


class Fixed(nn.Module):
    """Answers with what it was made with, and remembers what it was asked."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer, self.asked = answer, []

    def forward(self, *given: Any) -> Any:
        self.asked.append(given)
        return self.answer


def test_a_study_puts_its_own_modules_in_the_place_of_each_step(
    expansion: Make, place: Make, noise: Make, example: Make
) -> None:
    branch, rois = expansion(), one_region(place, example)
    nothing, elsewhere = Fixed(None), Fixed(Box(rois.boxes + 2))
    flat = Fixed(torch.zeros(1, 32, 14, 14))
    contexts: list[Tensor] = []
    branch.recall, branch.box_head, branch.mask_head = nothing, elsewhere, flat
    branch.evidence = lambda rois, visible: lambda context: contexts.append(context) or torch.zeros(1, 56, 56)
    output = branch(noise(1), rois)
    assert torch.equal(output.boxes, rois.boxes + 2)
    (_, seen), (_, again, box) = nothing.asked
    assert seen is again
    assert box is elsewhere.answer
    assert elsewhere.asked[0][1:] == (seen, None)
    assert flat.asked[0][1:] == (seen, box, None)
    assert torch.equal(output.amodal_logits, branch.amodal_head(flat.answer, rois.labels))
    assert not contexts
    seen.others(rois.boxes)
    assert torch.equal(contexts[0], rois.boxes)


def test_a_study_puts_its_own_evidence_before_the_reranking(
    expansion: Make, place: Make, noise: Make, example: Make
) -> None:
    branch, rois = expansion(rerank="occluder"), one_region(place, example)
    given, contexts = [], []

    def evidence(*asked: Any) -> Callable[[Tensor], Tensor]:
        given.append(asked)
        return lambda context: contexts.append(context) or torch.ones(1, 56, 56)  # all could be hidden

    branch.evidence = evidence
    steps = branch(noise(1), rois).aux
    assert [(where is rois, mask is steps.seen.mask) for where, mask in given] == [(True, True)]
    assert len(contexts) == 2  # for the box and for the mask
    assert torch.equal(steps.seen.others(rois.boxes), torch.ones(1, 56, 56))
