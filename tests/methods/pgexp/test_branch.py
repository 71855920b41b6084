"""PGExp: frames of the queries, boxes and losses worked by hand, what has a gradient, training equal to test."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from amodal.errors import ConfigError
from amodal.frames import resample
from amodal.settings import PGExpConfig
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


def sees(branch: Any, logits: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every visible mask be this one."""
    monkeypatch.setattr(branch, "see", lambda features, rois: logits.expand(len(rois), 28, 28))


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


def test_queries_are_in_their_frames(
    expansion: Make, known: Make, place: Make, noise: Make, example: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    prior = known()
    branch = expansion(prior=prior)
    sees(branch, LEFT.clone().requires_grad_(), monkeypatch)
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
    expansion: Make, place: Make, noise: Make, example: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    branch = expansion()
    sees(branch, LEFT, monkeypatch)
    given = {}
    forward = branch.box_head.forward
    monkeypatch.setattr(branch.box_head, "forward", lambda *a: given.update(seen=a[2], others=a[3]) or forward(*a))
    rois = one_region(place, example)
    branch(noise(1), rois)
    assert given["seen"].tolist() == [[20.0, 20.0, 48.0, 76.0]]
    # slot 2: centre (34, 48) moves by (0.2 * 28, -0.2 * 56), sides 28 and 56 grow by e^0.1 and e^0.4; image ends at 96
    x, y, w, h = 34 + 5.6, 48 - 11.2, 28 * math.exp(0.1) / 2, 56 * math.exp(0.4) / 2
    boxes = [[20.0, 20.0, 48.0, 76.0], [x - w, max(y - h, 0.0), x + w, y + h]]
    assert torch.allclose(given["others"][0, [0, 2]], torch.tensor(boxes), atol=1e-3)
    plain = expansion(box_expansion="plain")
    sees(plain, LEFT, monkeypatch)
    forward = plain.box_head.forward
    monkeypatch.setattr(plain.box_head, "forward", lambda *a: given.update(seen=a[2], others=a[3]) or forward(*a))
    plain(noise(1), rois)
    assert given["seen"].tolist() == [[20.0, 20.0, 48.0, 76.0]]
    assert given["others"].tolist() == [[BOX]]


def test_features_come_from_where_the_flows_point(
    expansion: Make, place: Make, noise: Make, example: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    branch = expansion(box_expansion="none")
    sees(branch, LEFT, monkeypatch)
    squeezed = {}
    squeeze = branch.mask_head.squeeze.forward

    def spy(maps: Callable[[int], Tensor], cues: Tensor) -> Any:
        squeezed.update({k: maps(k) for k in range(3)})
        return squeeze(maps, cues)

    monkeypatch.setattr(branch.mask_head.squeeze, "forward", spy)
    rois, features = one_region(place, example), noise(1)
    branch(features, rois)
    pooled = branch.pooler(features, rois.boxes, rois.batch)
    for k in range(3):
        expected = torch.zeros_like(pooled)  # columns 0 to 6 are seen and arrive k + 1 cells further right
        expected[..., k + 1 : k + 8] = pooled[..., :7]
        assert torch.allclose(squeezed[k], expected, atol=1e-4)


@pytest.mark.parametrize("reference", ["visible", "original"])
def test_box_loss_by_hand(
    reference: str, expansion: Make, place: Make, noise: Make, example: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    branch = expansion(reference=reference, delta_weights=[2.0, 1.0, 4.0, 1.0], mask_expansion="plain")
    sees(branch, LEFT, monkeypatch)
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
    expands: str, expansion: Make, place: Make, noise: Make, example: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    branch = expansion(reference="mixed", k=3, mask_expansion="plain", box_expansion=expands)
    sees(branch, LEFT, monkeypatch)
    assert branch.box_head is not None
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
    assert branch.box_head is not None
    torch.nn.init.normal_(branch.box_head.predictor.weight)
    rois = one_region(place, example)

    def boxes(step: int, seed: int = 0) -> Any:
        branch.set_step(seed, step)
        return branch(noise(1), rois).boxes

    assert torch.equal(boxes(1), boxes(1))
    assert not torch.equal(boxes(1), boxes(2))
    assert not torch.equal(boxes(1), boxes(1, seed=1))
    found = replace(rois, targets=None, gt_index=None)
    branch.set_step(0, 1)
    assert torch.equal(branch(noise(1), found).boxes, branch(noise(1), found).boxes)
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


def test_masks_are_trained_in_their_frames(
    expansion: Make, place: Make, noise: Make, example: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    expansion: Make, known: Make, place: Make, noise: Make, example: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    for prior, there in ((known(absent=1), 0), (known(missing=1), 2)):
        branch = expansion(prior=prior)
        sees(branch, LEFT, monkeypatch)
        rois = one_region(place, example, label=1)
        found = branch.retrieve_boxes(LEFT[None].sigmoid(), torch.tensor([[20.0, 20.0, 48.0, 76.0]]), rois)
        boxes = branch.prior_boxes(found, torch.tensor([[20.0, 20.0, 48.0, 76.0]]), rois)
        flows = branch.flows(LEFT[None].sigmoid(), found)
        assert (boxes[0, there:] == torch.tensor([20.0, 20.0, 48.0, 76.0])).all()
        assert (flows[0, there:] == 0).all()
        assert (flows[0, :there, 0] != 0).all()
        output = branch(noise(1), rois)
        assert torch.isfinite(output.amodal_logits).all()
        assert torch.isfinite(output.boxes).all()


def test_nothing_seen_is_b_o_as_it_is(
    expansion: Make, place: Make, noise: Make, example: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    branch = expansion(rerank="occluder", rerank_weight=1.0)
    sees(branch, torch.full((28, 28), -20.0), monkeypatch)
    for rois in (one_region(place, example), in_test(one_region(place, example))):
        assert torch.equal(branch.seen_boxes(torch.zeros(1, 28, 28), rois), rois.boxes)
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
    expansion: Make, place: Make, noise: Make, example: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    branch = expansion(box_expansion="none")
    sees(branch, LEFT * 5, monkeypatch)
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
            branch.others = lambda visible, rois, context: torch.zeros(len(rois), 56, 56)
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


def test_decoded_boxes_stand_for_b_o(
    expansion: Make, known: Make, place: Make, noise: Make, example: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    prior = known()
    branch = expansion(prior=prior, train_boxes="decoded")
    rois = place(example(0).targets)
    rois = replace(rois, decoded=rois.boxes + torch.tensor([3.0, 1.0, 3.0, 1.0]))
    output = branch(noise(1), rois)
    assert torch.equal(prior.asked[0].boxes, rois.decoded)
    assert torch.allclose(prior.asked[0].masks, branch.see(noise(1), replace(rois, boxes=rois.decoded)).sigmoid())
    assert torch.equal(output.visible_logits, branch.see(noise(1), rois))
    assert output.visible_logits.requires_grad
    expected = resample(prior.asked[0].masks, rois.decoded, output.boxes, 28)
    assert torch.allclose(prior.asked[1].masks, expected)
    base = expansion(train_boxes="decoded", box_expansion="none", mask_expansion="plain")
    assert torch.equal(base(noise(1), rois).boxes, rois.decoded)
    looked = []
    see = branch.see
    monkeypatch.setattr(branch, "see", lambda f, r: looked.append(r.boxes) or see(f, r))
    branch(noise(1), in_test(replace(rois, decoded=rois.boxes)))
    assert len(looked) == 1


def test_warm_up_works_in_jittered_true_boxes(expansion: Make, place: Make, noise: Make, example: Make) -> None:
    branch = expansion(warmup_steps=5, warmup_jitter=0.1)
    rois = place(example(0).targets, example(1).targets)
    far = replace(rois, boxes=rois.boxes * 0.5)
    true = torch.cat([t.boxes for t in rois.targets])
    sides = (true[:, 2:] - true[:, :2]).repeat(1, 2)
    branch.set_step(7, 4)
    boxes = branch(noise(2), far).boxes
    off = ((boxes - true) / sides).abs()
    assert off.max() <= 0.15 + 1e-5  # a shift of a tenth and half of a tenth more for the growth
    assert off.max() > 0.02
    alone = branch(noise(2), place(example(1).targets)).boxes  # of (seed, step, image) alone
    assert torch.allclose(alone, boxes[3:], atol=1e-4)
    branch.set_step(7, 3)
    assert not torch.allclose(branch(noise(2), far).boxes, boxes)
    branch.set_step(7, 5)
    late = branch(noise(2), far).boxes
    branch.set_step(7, 0)
    assert torch.equal(branch(noise(2), in_test(far)).boxes, late)


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
    expansion: Make, place: Make, noise: Make, example: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    branch = expansion(detects="visible")
    assert branch.detects == "visible"
    rois = one_region(place, example)
    assert torch.equal(branch.seen_boxes(LEFT[None].sigmoid(), rois), rois.boxes)


def test_what_does_not_go_together_is_refused(tiny_config: Make, known: Make) -> None:
    from amodal.methods.pgexp.branch import PGExp
    from amodal.settings import PGExpConfig

    config = replace(tiny_config("pgexp"), method=PGExpConfig())
    with pytest.raises(ConfigError, match="needs an expansion prior"):
        PGExp(config, 2)
    small = replace(config, mask_head=replace(config.mask_head, pool_size=7))
    with pytest.raises(ConfigError, match="pool_size is 7, must be 14"):
        PGExp(small, 2, known())
    PGExp(replace(small, method=PGExpConfig(box_expansion="plain", mask_expansion="plain")), 2)
