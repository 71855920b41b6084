"""Parts of the detector against hand-worked values and torchvision."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch.nn import functional as F
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork as TorchvisionRPN
from torchvision.ops import FrozenBatchNorm2d, batched_nms, roi_align

from amodal.config import BackboneConfig, BoxHeadConfig, MaskHeadConfig, ModelConfig, RPNConfig, TransformConfig
from amodal.draws import Draws, Purpose, choose_balanced
from amodal.errors import ConfigError
from amodal.models.backbone import build_backbone
from amodal.models.box_head import BoxHead
from amodal.models.losses import mask_targets, mask_term, matched
from amodal.models.mask_head import ClassPredictor, MaskHead
from amodal.models.matching import match
from amodal.models.pooler import Pooler, pyramid_level
from amodal.models.rpn import AnchorGrid, RegionProposalNetwork
from amodal.models.sampling import sample_rois
from amodal.models.transform import Transform
from amodal.structures import RoIs, Targets

Make = Callable[..., Any]


def pyramid(seed: int, side: int, channels: int = 8, levels: int = 4, batch: int = 2) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    names = ["0", "1", "2", "3", "pool"][:levels]
    return {n: torch.randn(batch, channels, side >> i, side >> i, generator=generator) for i, n in enumerate(names)}


def test_pyramid_levels_by_hand() -> None:
    sides = torch.tensor([10.0, 56.0, 111.0, 112.0, 223.0, 224.0, 448.0, 5000.0, 0.0])
    boxes = torch.stack([torch.zeros(9), torch.zeros(9), sides, sides], dim=1)
    assert pyramid_level(boxes).tolist() == [0, 0, 0, 1, 1, 2, 3, 3, 0]
    assert pyramid_level(torch.tensor([[0.0, 0.0, 448.0, 112.0]])).tolist() == [2]  # by area, not by the longer side


def test_every_box_is_pooled_from_its_own_level_in_the_order_given() -> None:
    features = pyramid(0, 128)
    boxes = torch.tensor(
        [[0.0, 0.0, 500.0, 460.0], [9.0, 5.0, 60.0, 30.0], [0.0, 100.0, 250.0, 350.0], [3.0, 3.0, 9.0, 9.0]]
    )
    batch = torch.tensor([1, 0, 1, 1])
    pooled = Pooler(7)(features, boxes, batch)
    for row, level in enumerate(pyramid_level(boxes).tolist()):
        region = torch.cat([batch[row, None].float(), boxes[row]])[None]
        expected = roi_align(features[str(level)], region, 7, 1 / 2 ** (level + 2), 2, True)
        assert torch.allclose(pooled[row], expected[0])
    assert Pooler(14)(features, boxes[:0], batch[:0]).shape == (0, 8, 14, 14)


def test_pooling_reads_coordinates_at_cell_centres() -> None:
    x = (torch.arange(32) + 0.5) * 4  # a map whose value is the pixel coordinate of its cell
    features = {"0": x.expand(1, 1, 32, 32)} | {k: v for k, v in pyramid(0, 32, 1, batch=1).items() if k != "0"}
    pooled = Pooler(7)(features, torch.tensor([[20.0, 20.0, 55.0, 62.0]]), torch.tensor([0]))
    assert torch.allclose(pooled[0, 0, 3], 20 + (torch.arange(7) + 0.5) / 7 * 35, atol=1e-4)


def test_pooling_of_half_precision_maps_keeps_coordinates_exact() -> None:
    features = {name: level.bfloat16() for name, level in pyramid(0, 256, 4).items()}
    boxes, batch = torch.tensor([[901.3, 850.7, 930.9, 871.1]]), torch.tensor([0])
    pooled = Pooler(7)(features, boxes, batch)
    assert pooled.dtype == torch.bfloat16
    exact = Pooler(7)({name: level.float() for name, level in features.items()}, boxes, batch)
    assert torch.equal(pooled, exact.bfloat16())


def test_anchors_equal_torchvisions_where_its_strides_are_exact() -> None:
    maps = list(pyramid(0, 64, levels=5).values())  # 256 pixels: 64, 32, 16, 8, 4 cells
    ours, counts = AnchorGrid([32, 64, 128, 256, 512], [0.5, 1.0, 2.0])(maps)
    generator = AnchorGenerator(tuple((s,) for s in (32, 64, 128, 256, 512)), ((0.5, 1.0, 2.0),) * 5)
    theirs = generator(ImageList(torch.zeros(1, 3, 256, 256), [(256, 256)]), maps)[0]
    assert torch.equal(ours, theirs)
    assert counts == [3 * 64**2, 3 * 32**2, 3 * 16**2, 3 * 8**2, 3 * 4**2]


def test_anchors_of_one_thread_are_no_other_threads() -> None:
    class Shared(AnchorGrid):
        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, value)
            if name == "_cached" and value is not None and len(value[1]) > 100:  # as another thread would, just now
                self([torch.zeros(1, 1, 2, 2)])

    grid = Shared([32], [1.0])
    anchors, counts = grid([torch.zeros(1, 1, 16, 16)])
    assert (len(anchors), counts) == (256, [256])


@pytest.mark.parametrize("training", [True, False])
def test_proposals_equal_torchvisions(training: bool, example: Make) -> None:
    torch.manual_seed(0)
    config = RPNConfig(pre_nms_train=300, pre_nms_test=200, post_nms_train=150, post_nms_test=100)
    ours = RegionProposalNetwork(8, **asdict(config))
    for parameter in ours.head.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    generator = AnchorGenerator(tuple((s,) for s in config.anchor_sizes), ((0.5, 1.0, 2.0),) * 5)
    theirs = TorchvisionRPN(
        generator,
        ours.head,
        0.7,
        0.3,
        256,
        0.5,
        {"training": 300, "testing": 200},
        {"training": 150, "testing": 100},
        0.7,
    ).train(training)
    ours.train(training)
    features, sizes = pyramid(1, 64, levels=5), [(256, 256), (200, 150)]
    images = ImageList(torch.zeros(2, 3, 256, 256), sizes)
    targets = [example(i).targets for i in range(2)] if training else None
    boxes = [{"boxes": t.boxes} for t in targets] if targets else None
    expected, expected_losses = theirs(images, features, boxes)
    found, losses = ours(features, sizes, targets, Draws())
    for one, two in zip(found, expected, strict=True):
        assert one.shape == two.shape
        assert torch.allclose(one, two, atol=1e-3)
    assert set(losses) == ({"loss_objectness", "loss_rpn_box"} if training else set())
    for name, other in (("loss_objectness", "loss_objectness"), ("loss_rpn_box", "loss_rpn_box_reg")):
        if training:  # other samples, the same kind of number
            assert losses[name].mean().item() == pytest.approx(expected_losses[other].item(), rel=0.35)


def test_anchors_over_padding_are_not_sampled(example: Make) -> None:
    torch.manual_seed(0)
    network = RegionProposalNetwork(8, **asdict(RPNConfig(anchor_sizes=[16, 32, 64, 128], batch_per_image=10_000)))
    small = {name: level[:1] for name, level in pyramid(2, 24).items()}
    large = {name: F.pad(level, (0, 8 >> i, 0, 8 >> i)) for i, (name, level) in enumerate(small.items())}
    target = [example(0).targets]
    one = network(small, [(96, 96)], target, Draws())[1]["loss_objectness"].count
    two = network(large, [(96, 96)], target, Draws())[1]["loss_objectness"].count
    assert one == two


def test_matching_by_hand(example: Make) -> None:
    targets = example(0).targets
    targets.boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 40.0, 40.0], [50.0, 50.0, 90.0, 90.0]])
    targets.ignore = torch.tensor([False, False, True])
    boxes = torch.tensor(
        [
            [0.0, 0.0, 10.0, 5.0],  # IoU 1/2 with object 0
            [20.0, 20.0, 40.0, 32.0],  # 0.6 with object 1
            [0.0, 0.0, 10.0, 4.0],  # 0.4 with object 0
            [55.0, 55.0, 60.0, 60.0],  # inside the crowd
            [80.0, 80.0, 100.0, 110.0],  # a sixth of it inside the crowd
        ]
    )
    found = match(boxes, targets, 0.5, 0.5)
    assert found.positive.tolist() == [True, True, False, False, False]
    assert found.negative.tolist() == [False, False, True, False, True]
    assert found.gt_index[:3].tolist() == [0, 1, 0]
    forced = match(boxes, targets, 0.7, 0.3, force=True)
    assert forced.positive.tolist() == [True, True, False, False, False]  # the best there is
    assert forced.negative.tolist() == [False, False, False, False, True]  # 0.4 is between the thresholds


def test_balanced_choice() -> None:
    positive = torch.arange(1000) < 300
    rows = choose_balanced(positive, ~positive, 100, 0.25, Draws(1, 2).stream(7, Purpose.ANCHORS))
    assert [len(r) for r in rows] == [25, 75]
    assert all(len(set(r.tolist())) == len(r) for r in rows)
    assert positive[rows[0]].all()
    assert not positive[rows[1]].any()
    again = choose_balanced(positive, ~positive, 100, 0.25, Draws(1, 2).stream(7, Purpose.ANCHORS))
    assert all(torch.equal(a, b) for a, b in zip(rows, again, strict=True))
    few = torch.arange(1000) < 3
    rows = choose_balanced(few, ~few, 100, 0.25, Draws().stream(-5, Purpose.SIZE))  # ids may be negative
    assert [len(r) for r in rows] == [3, 97]


def test_streams_differ_in_every_argument() -> None:
    variants = [(0, 0, 1, 0), (1, 0, 1, 0), (0, 1, 1, 0), (0, 0, 2, 0), (0, 0, 1, 1), (0, 0, -1, 0)]
    values = {Draws(a, b).stream(c, Purpose(d)).random() for a, b, c, d in variants}
    assert len(values) == len(variants)


def test_choice_is_uniform() -> None:
    hits = np.zeros(20)
    for step in range(600):
        chosen, _ = choose_balanced(
            torch.ones(20, dtype=torch.bool),
            torch.zeros(20, dtype=torch.bool),
            5,
            1.0,
            Draws(0, step).stream(0, Purpose.SIZE),
        )
        hits[chosen.numpy()] += 1
    assert hits.sum() == 3000
    assert np.abs(hits - 150).max() < 50  # four standard deviations are 42


def _sampled(proposals: list[torch.Tensor], targets: list[Targets], most: int) -> tuple[RoIs, torch.Tensor]:
    sizes, numbers = [(96, 96)] * len(targets), {"fg_iou": 0.5, "positive_fraction": 0.25}
    return sample_rois(proposals, targets, sizes, Draws(), batch_per_image=most, **numbers)


def test_sampled_regions_carry_their_objects(example: Make) -> None:
    targets = [example(0).targets, example(1, objects=0).targets, example(2).targets]
    proposals = [torch.tensor([[0.0, 0.0, 5.0, 5.0], [90.0, 90.0, 95.0, 96.0]])] * 3
    rois, is_object = _sampled(proposals, targets, 16)
    assert rois.batch.tolist() == [0] * 5 + [1] * 2 + [2] * 5
    assert is_object.tolist() == [True] * 3 + [False] * 4 + [True] * 3 + [False] * 2
    assert torch.equal(rois.boxes[:3], targets[0].boxes)
    assert rois.labels.tolist() == [0, 1, 0, -1, -1, -1, -1, 0, 1, 0, -1, -1]
    assert rois.gt_index is not None
    assert rois.gt_index.tolist() == [0, 1, 2, -1, -1, -1, -1, 0, 1, 2, -1, -1]


def test_box_losses_by_hand(example: Make) -> None:
    targets = [example(0, objects=1).targets]
    targets[0].boxes = torch.tensor([[10.0, 10.0, 30.0, 50.0]])
    config = BoxHeadConfig(channels=8)
    head = BoxHead(ModelConfig(backbone=BackboneConfig(channels=8), box_head=config), 2)
    proposal = torch.tensor([[10.0, 10.0, 30.0, 40.0], [60.0, 60.0, 70.0, 70.0]])
    rois, is_object = _sampled([proposal], targets, 4)
    with torch.no_grad():
        for layer in (head.cls_score, head.bbox_pred):
            layer.weight.zero_()
            layer.bias.zero_()
        head.cls_score.bias.copy_(torch.tensor([1.0, 2.0, 0.0]))
    positives, terms = head.train_step(pyramid(0, 24), rois, is_object)
    assert len(positives) == 1  # a quarter of 4
    total = np.log(np.exp([1.0, 2.0, 0.0]).sum())
    backgrounds = len(rois) - 1
    assert terms["loss_class"].count == len(rois)
    assert terms["loss_class"].total.item() == pytest.approx(total - 2 + backgrounds * (total - 1), rel=1e-5)
    if torch.equal(positives.boxes[0], proposal[0]):  # deltas (0, 5/30, 0, log 4/3) times (10, 10, 5, 5)
        assert terms["loss_box"].total.item() == pytest.approx(10 / 6 + 5 * np.log(4 / 3), rel=1e-5)
    else:
        assert terms["loss_box"].total.item() == 0
    assert torch.allclose(positives.decoded, positives.boxes)


def test_detection_by_hand() -> None:
    config = BoxHeadConfig(channels=8, score_threshold=0.2, nms=0.5, detections=3)
    head = BoxHead(ModelConfig(backbone=BackboneConfig(channels=8), box_head=config), 2)
    boxes = torch.tensor([[0, 0, 20, 20], [0, 0, 20, 19], [50, 50, 80, 80], [90, 90, 200, 200], [5, 5, 5, 9]]).float()
    chances = torch.tensor([[0.1, 0.5, 0.4], [0.1, 0.6, 0.3], [0.81, 0.19, 0.0], [0.5, 0.1, 0.4], [0.1, 0.9, 0.0]])
    head.forward = lambda *_: (chances.clamp(min=1e-9).log(), torch.zeros(5, 2, 4))  # type: ignore[method-assign]
    rois = head.detect({}, [boxes], [(100, 120)], lambda candidates: None)
    # box 1 beats box 0 in class 0, box 0 beats box 1 in class 1; box 2 is too weak; box 3 is clipped; box 4 is too thin
    assert rois.scores.tolist() == pytest.approx([0.6, 0.4, 0.4])
    assert rois.labels.tolist() == [0, 1, 1]
    assert rois.boxes.tolist() == [[0, 0, 20, 19], [0, 0, 20, 20], [90, 90, 120, 100]]


def test_class_predictor_is_the_wanted_row_of_a_convolution() -> None:
    torch.manual_seed(0)
    layer, features = ClassPredictor(6, 5), torch.randn(4, 6, 3, 3)
    torch.nn.init.normal_(layer.bias)
    labels = torch.tensor([4, 0, 0, 2])
    every = F.conv2d(features, layer.weight[:, :, None, None], layer.bias)
    assert torch.allclose(layer(features, labels), every[torch.arange(4), labels], atol=1e-6)


def test_mask_head_doubles_the_grid_and_takes_no_regions() -> None:
    head = MaskHead(8, 3, MaskHeadConfig(channels=16, convs=8))
    assert sum(isinstance(layer, torch.nn.Conv2d) for layer in head.convs) == 8
    assert head(torch.zeros(2, 8, 14, 14), torch.tensor([0, 2])).shape == (2, 28, 28)
    empty = head(torch.zeros(0, 8, 14, 14), torch.zeros(0, dtype=torch.int64))
    assert empty.shape == (0, 28, 28)
    empty.sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() == 0 for p in head.parameters())


def test_mask_term_is_the_mean_over_instances_of_the_mean_over_cells() -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(3, 4, 4), (torch.rand(3, 4, 4) > 0.5).float()
    each = -(target * torch.sigmoid(logits).log() + (1 - target) * torch.sigmoid(-logits).log()).mean(dim=(1, 2))
    assert mask_term(logits, target).mean().item() == pytest.approx(each.mean().item(), rel=1e-5)
    keep = torch.tensor([True, False, True])
    assert mask_term(logits, target, keep).mean().item() == pytest.approx(each[keep].mean().item(), rel=1e-5)
    assert mask_term(logits, target, ~keep & keep).mean() == 0


def test_targets_of_interleaved_regions_come_in_their_order(example: Make) -> None:
    one, two = example(0), example(1)
    rows = [(0, 1), (1, 2), (0, 0), (1, 0)]
    boxes = torch.stack([(one, two)[image].targets.boxes[index] for image, index in rows])
    rois = RoIs(
        boxes=boxes,
        batch=torch.tensor([image for image, _ in rows]),
        labels=torch.zeros(4, dtype=torch.int64),
        scores=torch.ones(4),
        image_sizes=[(96, 96)] * 2,
        decoded=boxes,
        gt_index=torch.tensor([index for _, index in rows]),
        targets=[one.targets, two.targets],
    )
    assert torch.equal(matched(rois, "boxes"), boxes)
    masks = mask_targets(rois, "visible", boxes, 14)
    for row, (image, index) in enumerate(rows):
        source = (one, two)[image].targets.visible
        assert torch.equal(masks[row], source.crop(torch.tensor([index]), boxes[row : row + 1], 14)[0])


def _transform(**settings: Any) -> Transform:
    plain = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    return Transform(**asdict(TransformConfig(**{**plain, **settings})))


def test_transform_sizes_padding_and_normalisation(example: Make) -> None:
    transform = _transform(min_size=[64], max_size=100, test_min_size=64, test_max_size=100)
    batch, targets = transform(
        [example(0, 128, 96).image, torch.zeros(3, 50, 200, dtype=torch.uint8)],
        [example(0, 128, 96).targets, example(1, 50, 200).targets],
        Draws(),
    )
    assert batch.sizes == [(85, 64), (25, 100)]
    assert batch.originals == [(128, 96), (50, 200)]
    assert batch.images.shape == (2, 3, 96, 128)
    black = -transform.mean / transform.std
    assert torch.allclose(batch.images[1, :, :25, :100], black.expand(3, 25, 100), atol=1e-5)
    assert batch.images[1, :, 25:].abs().sum() == 0
    assert batch.images[0, :, :, 64:].abs().sum() == 0
    scale = torch.tensor([64 / 96, 85 / 128]).repeat(2)
    assert torch.allclose(targets[0].boxes, example(0, 128, 96).targets.boxes * scale)


def test_training_sizes_are_drawn_for_each_image_and_step(example: Make) -> None:
    transform = _transform(min_size=[32, 48, 64, 80], max_size=200)
    image, targets = example(0).image, example(0).targets
    sizes = [transform([image], [targets], Draws(0, step))[0].sizes[0] for step in range(40)]
    assert {size[0] for size in sizes} == {32, 48, 64, 80}
    assert transform([image], [targets], Draws(0, 7))[0].sizes[0] == sizes[7]


def test_test_batches_hold_one_padded_size() -> None:
    transform = _transform(min_size=[64], max_size=128, test_min_size=64, test_max_size=128)
    shapes = [(64, 64), (64, 100), (64, 97), (100, 64), (32, 32)]
    groups = transform.batches([torch.zeros(3, *shape, dtype=torch.uint8) for shape in shapes])
    assert sorted(sorted(group) for group, _ in groups) == [[0, 4], [1, 2], [3]]
    for _, batch in groups:
        assert all(
            max(sizes) <= side
            for sizes, side in zip(zip(*batch.sizes, strict=True), batch.images.shape[2:], strict=True)
        )


@pytest.mark.parametrize(("name", "norm"), [("nano", "group"), ("nano18", "group"), ("resnet18", "frozen_bn")])
def test_backbone_levels(name: str, norm: Any) -> None:
    backbone = build_backbone(BackboneConfig(name=name, norm=norm, channels=16, trainable_layers=5))
    levels = backbone(torch.zeros(1, 3, 64, 96))
    assert {key: tuple(value.shape) for key, value in levels.items()} == {
        "0": (1, 16, 16, 24), "1": (1, 16, 8, 12), "2": (1, 16, 4, 6), "3": (1, 16, 2, 3), "pool": (1, 16, 1, 2),
    }  # fmt: skip
    assert all(p.requires_grad for p in backbone.parameters())


def test_early_stages_are_frozen_only_with_weights_to_keep() -> None:
    config = BackboneConfig(name="resnet18", channels=16, trainable_layers=3, weights="ResNet18_Weights.IMAGENET1K_V1")
    frozen = {n.split(".")[1] for n, p in build_backbone(config).named_parameters() if not p.requires_grad}
    assert frozen == {"conv1", "layer1"}


def test_unknown_backbone_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="'resnet5', no known backbone; nearest is 'resnet50'"):
        build_backbone(BackboneConfig(name="resnet5"))
    with pytest.raises(ConfigError, match="'efficient', no known backbone; known: nano, nano18, resnet101, "):
        build_backbone(BackboneConfig(name="efficient"))


def test_folded_norms_change_neither_values_nor_gradients() -> None:
    torch.manual_seed(0)
    plain = torchvision.models.resnet50(norm_layer=FrozenBatchNorm2d)
    for module in plain.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.running_var.uniform_(0.5, 2)
            module.running_mean.normal_(std=0.2)
            module.weight.uniform_(0.2, 0.6)
            module.bias.normal_(std=0.1)
    body = build_backbone(BackboneConfig(name="resnet50", channels=8)).body
    assert set(plain.state_dict()) - set(body.state_dict()) == {"fc.weight", "fc.bias"}
    body.load_state_dict({n: v for n, v in plain.state_dict().items() if not n.startswith("fc.")})
    body = copy.deepcopy(body)
    body.load_state_dict({n: v for n, v in plain.state_dict().items() if not n.startswith("fc.")})
    images = torch.randn(1, 3, 64, 64)
    expected = plain.layer2(plain.layer1(plain.maxpool(plain.relu(plain.bn1(plain.conv1(images))))))
    found = body(images)["1"]
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-3)
    expected.square().mean().backward()
    found.square().mean().backward()
    for layer in ("conv1", "layer1.0.downsample.0", "layer1.1.conv3", "layer2.3.conv2"):
        one, two = body.get_submodule(layer).weight.grad, plain.get_submodule(layer).weight.grad
        assert torch.allclose(one, two, rtol=1e-2, atol=1e-4 * two.abs().max().item())


def test_nms_over_a_prefix_keeps_what_nms_over_all_keeps() -> None:
    generator = torch.Generator().manual_seed(0)
    head = BoxHead(
        ModelConfig(backbone=BackboneConfig(channels=8), box_head=BoxHeadConfig(channels=8, detections=5, nms=0.3)),
        4,
    )
    corner, extent = torch.rand(400, 2, generator=generator) * 30, torch.rand(400, 2, generator=generator) * 40 + 20
    boxes = torch.cat([corner, corner + extent], dim=1)
    labels = torch.randint(0, 4, (400,), generator=generator)
    rois = RoIs(
        boxes=boxes,
        batch=torch.zeros(400, dtype=torch.int64),
        labels=labels,
        scores=torch.rand(400, generator=generator),
        image_sizes=[(100, 100)],
        decoded=boxes,
    )
    expected = batched_nms(boxes, rois.scores, labels, 0.3)
    assert head._suppress(rois).tolist() == expected[:5].tolist()
    head.detections = len(expected) + 10  # more than there are: the prefix grows to the end
    head.nms = 0.3
    assert head._suppress(rois).tolist() == expected.tolist()
    head.detections = len(expected)
    assert head._suppress(rois).tolist() == expected.tolist()
