"""A box side of a system's own: its features reach the branch, with gradient, and starts from other box sides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from tests.systems.asn_like import HIDDEN, ASNLike, TwoStreams
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

from amodal.config import BackboneConfig, BoxHeadConfig, MaskHeadConfig, ModelConfig
from amodal.errors import ConfigError
from amodal.model import AmodalModel, build
from amodal.models.initial_weights import load_torchvision_detector
from amodal.models.sampling import select
from amodal.structures import RoIs
from amodal.systems import SYSTEMS, System
from amodal.train.init import start_from

Make = Callable[..., Any]
ASN = "tests.systems.asn_like:ASNLike"


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[RoIs]:
    """The regions that the branch is asked about."""
    regions: list[RoIs] = []
    forward = ASNLike.forward

    def noted(branch: ASNLike, features: Any, rois: RoIs) -> Any:
        regions.append(rois)
        return forward(branch, features, rois)

    monkeypatch.setattr(ASNLike, "forward", noted)
    return regions


def step(model: AmodalModel, *examples: Any) -> dict[str, Any]:
    model.train().set_step(0, 0)
    return model([one.image for one in examples], [one.targets for one in examples], terms=True)


def pyramid(model: AmodalModel, *examples: Any) -> dict[str, torch.Tensor]:
    """The backbone's maps of pictures of one size."""
    ((_, batch),) = model.transform.batches([one.image for one in examples])
    with torch.no_grad():
        return model.backbone(batch.images)


def test_mask_losses_train_the_first_convolution_of_the_box_side(make: Make, example: Make) -> None:
    model = make(ASN)
    found = step(model, example(0), example(1))
    for name in ("loss_mask_amodal", "loss_mask_visible"):
        model.zero_grad()
        found[name].mean().backward(retain_graph=True)
        assert model.box_head.first.weight.grad.abs().sum() > 0
        assert model.box_head.second.weight.grad is None


def test_what_is_handed_on_belongs_to_the_regions(make: Make, example: Make, seen: list[RoIs]) -> None:
    """In training to the positives, in test to the final boxes, whatever NMS has dropped and reordered."""
    model = make(ASN)
    step(model, example(0), example(1))
    model.eval()([example(0).image, example(1).image])
    trained, tested = seen
    assert len(trained) > 4
    assert len(tested) > 4
    assert trained.shared is not None
    assert trained.shared.requires_grad
    features = pyramid(model, example(0), example(1))
    for rois in (trained, tested):
        with torch.no_grad():
            wanted = model.box_head.maps(features, rois)
        assert torch.allclose(rois.shared, wanted, atol=1e-5)
    rows = torch.tensor([3, 0])
    assert torch.equal(select(tested, rows).shared, tested.shared[rows])


def test_the_occlusion_loss_runs_over_all_sampled_regions(
    make: Make, example: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mean over weights: occluded ones count eight times."""
    model = make(ASN, occluded_weight=8.0)
    asked: list[tuple[RoIs, torch.Tensor, torch.Tensor]] = []
    losses = TwoStreams.losses

    def noted(head: TwoStreams, logits: Any, deltas: Any, sampled: RoIs, is_object: torch.Tensor) -> Any:
        asked.append((sampled, is_object, head.occlusion.weight))
        return losses(head, logits, deltas, sampled, is_object)

    monkeypatch.setattr(TwoStreams, "losses", noted)
    one = example(4, objects=2)
    assert one.targets.occlude_rate[0] > HIDDEN >= one.targets.occlude_rate[1]
    found = step(model, one)["loss_occlusion"]
    ((sampled, is_object, weight),) = asked
    occluded = is_object & (sampled.gt_index == 0)
    assert 0 < occluded.sum() < is_object.sum() < len(sampled)
    assert found.count == len(sampled) + 7 * occluded.sum()
    with torch.no_grad():
        features = pyramid(model, one)
        logits = model.box_head.occlusion(model.box_head.trunk(model.box_head.maps(features, sampled)))
        by_hand = F.cross_entropy(logits, occluded.long(), torch.tensor([1.0, 8.0]))
    assert found.mean().item() == pytest.approx(by_hand.item(), rel=1e-4)
    assert weight.shape == (2, 32)


def test_a_start_from_a_checkpoint_of_the_shared_box_head(make: Make, tmp_path: Path) -> None:
    old, new = make("mask_rcnn", seed=1), make(ASN, seed=2)
    old.save_pretrained(tmp_path)
    line = start_from(new, tmp_path)
    assert f"it is a mask_rcnn, this run trains a {ASN}" in line
    assert "start afresh, not in it: box_head.first, box_head.second, box_head.occlusion" in line
    state = new.state_dict()
    copied = [name for name in old.state_dict() if name.startswith(("backbone.", "rpn.", "box_head."))]
    assert all(torch.equal(state[name], old.state_dict()[name]) for name in copied)
    new.save_pretrained(tmp_path / "back")
    line = start_from(old, tmp_path / "back")
    assert "left out, not in this run's model: box_head.first" in line


class WithBackground(TwoStreams):
    """Boxes for the background, too, as the original has them."""

    class_rows: ClassVar = {"cls_score": (1, 1), "bbox_pred": (4, 4)}

    def __init__(self, model: ModelConfig, num_classes: int) -> None:
        super().__init__(model, num_classes)
        self.bbox_pred = torch.nn.Linear(model.box_head.channels, 4 * (num_classes + 1))


def test_rows_of_classes_are_where_the_box_side_says(
    tiny_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = System("B", "-", "-", ASNLike, ASNLike.settings, WithBackground)
    monkeypatch.setitem(SYSTEMS, "background", entry)
    names = (["cat", "dog"], ["cup", "dog", "cat"])
    old, same, new = (
        build("background", len(given), config=tiny_config(), class_names=given, seed=seed)
        for seed, given in enumerate((names[0], *names))
    )
    old.save_pretrained(tmp_path)
    assert start_from(same, tmp_path) == f"init: {len(old.state_dict())} tensors from {tmp_path}"
    assert torch.equal(same.box_head.bbox_pred.weight, old.box_head.bbox_pred.weight)
    assert "classes carried over: dog, cat; classes that start afresh: cup" in start_from(new, tmp_path)
    ours, theirs = new.box_head.bbox_pred.weight, old.box_head.bbox_pred.weight
    assert torch.equal(ours[[*range(4), *range(8, 16)]], theirs[[*range(4), *range(8, 12), *range(4, 8)]])


def test_torchvisions_detector_starts_all_but_such_a_box_side() -> None:
    torch.manual_seed(0)
    sizes = tuple((side,) for side in (32, 64, 128, 256, 512))
    anchors = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 5)
    theirs = MaskRCNN(resnet_fpn_backbone(backbone_name="resnet18", weights=None), 4, rpn_anchor_generator=anchors)
    config = ModelConfig(backbone=BackboneConfig(name="resnet18"), box_head=BoxHeadConfig(), mask_head=MaskHeadConfig())
    model = build(ASN, 3, config=config)
    before = {name: value.clone() for name, value in model.box_head.state_dict().items()}
    fresh = load_torchvision_detector(model, theirs.state_dict())
    assert {name for name in fresh if name.startswith("box_head.")} == {f"box_head.{name}" for name in before}
    assert all(torch.equal(value, before[name]) for name, value in model.box_head.state_dict().items())
    assert torch.equal(model.state_dict()["rpn.head.conv.0.0.weight"], theirs.state_dict()["rpn.head.conv.0.0.weight"])
    assert torch.equal(
        model.branch.visible.deconv.weight, theirs.state_dict()["roi_heads.mask_predictor.conv5_mask.weight"]
    )


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (System("N", "-", "-", torch.nn.Identity), "system no: Identity is no Branch"),
        (System("N", "-", "-", 3), "system no: an object of type int is no Branch"),
        (
            System("N", "-", "-", lambda *given: torch.nn.Identity()),
            "system no: an object of type Identity is no Branch",
        ),
        (System("N", "-", "-", ASNLike, ASNLike.settings, ASNLike), "system no: ASNLike is no BoxSide"),
    ],
)
def test_what_is_no_part_is_refused(
    tiny_config: Make, monkeypatch: pytest.MonkeyPatch, entry: System, message: str
) -> None:
    monkeypatch.setitem(SYSTEMS, "no", entry)
    with pytest.raises(ConfigError, match=f"^{message}$"):
        build("no", 2, config=replace(tiny_config(), method=None))
