"""Systems: what each predicts and is trained on, and how one is added from outside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from amodal.config import ModelConfig
from amodal.model import build
from amodal.models.branch import BoxSide, Branch
from amodal.models.losses import amodal_mask_term
from amodal.models.pooler import Pooler
from amodal.settings import MethodConfig, PGExpConfig
from amodal.structures import BranchOutput, LossTerm, RoIs
from amodal.systems import SYSTEMS, System, resolve

Make = Callable[..., Any]


def plain(config: ModelConfig) -> ModelConfig:
    """``config`` without expansions, where the system has such: set #1 of PGExp, which needs no prior."""
    unexpanded = PGExpConfig(box_expansion="none", mask_expansion="plain")
    return replace(config, method=unexpanded) if config.system == "pgexp" else config


def make(config: ModelConfig) -> Any:
    """The branch of the system, for two classes."""
    return resolve(SYSTEMS[config.system].branch)(config, 2, None)


def pyramid(images: int) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {name: torch.randn(images, 32, 24 >> i, 24 >> i) for i, name in enumerate("0123")}


def test_every_system_is_listed_with_its_settings() -> None:
    for entry in SYSTEMS.values():
        assert issubclass(entry.settings, MethodConfig)
        assert issubclass(resolve(entry.branch), Branch)
        assert issubclass(resolve(entry.box_head), BoxSide)
        assert all((entry.title, entry.paper, entry.venue))


@pytest.mark.parametrize("system", ["mask_rcnn", "pgexp"])
def test_branches_keep_the_contract(system: str, tiny_config: Make, example: Make, place: Make) -> None:
    branch = make(plain(tiny_config(system)))
    rois = place(example(0).targets, example(1).targets)
    output = branch(pyramid(2), rois)
    assert output.amodal_logits.shape == (6, 28, 28)
    assert (output.visible_logits is not None) == (system == "pgexp")
    assert torch.equal(output.boxes, rois.boxes)
    terms = branch.loss(output, rois, pyramid(2))
    assert all(term.count == 6 * 28 * 28 for term in terms.values())
    none = place(example(0, objects=0).targets)
    empty = branch(pyramid(1), none)
    assert empty.amodal_logits.shape == (0, 28, 28)
    terms = branch.loss(empty, none, pyramid(1))
    assert all(term.mean() == 0 for term in terms.values())
    torch.stack([term.mean() for term in terms.values()]).sum().backward()  # They may share a graph.
    assert all(value.grad is not None for value in branch.parameters())
    assert branch.rescore(pyramid(2), rois) is None
    assert branch.extra_loss(pyramid(2), rois, torch.ones(6, dtype=torch.bool)) == {}


def test_each_head_is_trained_on_its_own_mask(tiny_config: Make, example: Make, place: Make) -> None:
    branch = make(plain(tiny_config("pgexp")))
    one = example(4, objects=2)
    assert one.targets.occlude_rate[0] > 0.2  # the two masks of the first object differ
    rois = place(one.targets)
    output = branch(pyramid(1), rois)
    index, rows = rois.gt_index, rois.boxes
    assert index is not None
    for part in ("amodal", "visible"):
        truth = getattr(one.targets, part).crop(index, rows, 28)
        setattr(output, f"{part}_logits", (truth * 2 - 1) * 20)
    terms = branch.loss(output, rois, pyramid(1))
    assert {name: round(term.mean().item(), 4) for name, term in terms.items()} == {
        "loss_mask_amodal": 0.0,
        "loss_mask_visible": 0.0,
    }
    output.amodal_logits, output.visible_logits = output.visible_logits, output.amodal_logits
    assert all(term.mean() > 0.5 for term in branch.loss(output, rois, pyramid(1)).values())


def test_heads_of_pgexp_share_nothing(tiny_config: Make, example: Make, place: Make) -> None:
    branch = make(plain(tiny_config("pgexp")))
    rois = place(example(0).targets)
    output = branch(pyramid(1), rois)
    branch.loss(output, rois, pyramid(1))["loss_mask_visible"].mean().backward()
    grads = {
        name.split(".")[0] for name, p in branch.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0
    }
    assert grads == {"visible_head"}


def test_soft_targets_change_the_loss(tiny_config: Make, example: Make, place: Make) -> None:
    config = tiny_config()
    branch = make(config)
    soft = make(replace(config, mask_head=replace(config.mask_head, soft_targets=True)))
    soft.load_state_dict(branch.state_dict())
    for layer in (branch, soft):
        nn.init.constant_(layer.amodal_head.predictor.bias, 1.0)
    rois = place(example(0).targets)
    values = [b.loss(b(pyramid(1), rois), rois, pyramid(1))["loss_mask_amodal"].mean().item() for b in (branch, soft)]
    assert values[0] != values[1]
    assert values[0] == pytest.approx(values[1], rel=0.1)


@dataclass(frozen=True)
class BoxShapeConfig(MethodConfig):
    """Settings of a system from outside the package."""

    scale: float = 1.0


class BoxShape(Branch):
    """Says that every object fills its box, as far as one learned number says."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        assert isinstance(config.method, BoxShapeConfig)
        self.pooler = Pooler(28)
        self.level = nn.Parameter(torch.tensor(config.method.scale))

    def forward(self, features: dict[str, Tensor], rois: RoIs) -> BranchOutput:
        pooled = self.pooler(features, rois.boxes, rois.batch)
        return BranchOutput(boxes=rois.boxes, amodal_logits=pooled[:, 0] * 0 + self.level)

    def loss(self, output: BranchOutput, rois: RoIs, features: dict[str, Tensor]) -> dict[str, LossTerm]:
        return {"loss_mask_amodal": amodal_mask_term(output.amodal_logits, rois, output.boxes, False)}


def test_a_system_from_outside_is_one_dict_entry(
    tiny_config: Make, example: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = System("Box", "nobody", "nowhere", lambda config, classes, prior: BoxShape(config), BoxShapeConfig)
    monkeypatch.setitem(SYSTEMS, "box_shape", entry)
    model = build("box_shape", 2, config=tiny_config("mask_rcnn", score_threshold=0.0))
    assert model.config.method == BoxShapeConfig()
    one = example(0)
    model([one.image], [one.targets])["loss_mask_amodal"].backward()
    assert model.branch.level.grad is not None
    found = model.eval()([one.image])[0]
    assert len(found) > 0
    assert torch.allclose(found.amodal_probs, torch.sigmoid(torch.tensor(1.0)).expand_as(found.amodal_probs))
