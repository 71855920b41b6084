from __future__ import annotations

import copy
import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from amodal.config import OptimConfig, TrainConfig
from amodal.datasets import collate
from amodal.errors import AmodalError
from amodal.model import build
from amodal.priors.fit import fit_prior
from amodal.settings import PGExpConfig, PriorConfig
from amodal.structures import LossTerm, Targets
from amodal.train.data import load_data
from amodal.train.engine import Batch, make_optimizer, train_step


@pytest.fixture(scope="module")
def accelerator() -> Accelerator:
    return Accelerator(cpu=True)


def batch_of(config: TrainConfig, numbers: range) -> Batch:
    images, _ = load_data(config)
    return collate([images[number, number] for number in numbers])


def split(batch: Batch, sizes: list[int]) -> list[Batch]:
    images, targets = batch
    ends = [sum(sizes[:number]) for number in range(len(sizes) + 1)]
    return [(images[a:b], targets[a:b]) for a, b in itertools.pairwise(ends)]


def gradient(accelerator: Accelerator, model: nn.Module, batches: list[Batch]) -> tuple[Tensor, dict[str, float]]:
    model = copy.deepcopy(model)
    model.set_step(0, 0)  # type: ignore[operator]
    result = train_step(accelerator, model, torch.optim.SGD(model.parameters(), lr=0.0), batches, None)
    return torch.cat([value.grad.flatten() for value in model.parameters() if value.grad is not None]), result.losses


@pytest.mark.parametrize(
    "method",
    [PGExpConfig(box_expansion="none", mask_expansion="plain"), PGExpConfig(k=2, box_channels=16)],
    ids=["set 1", "set 6"],
)
def test_micro_batches_give_the_gradient_of_the_whole_batch(
    config: TrainConfig, accelerator: Accelerator, method: PGExpConfig
) -> None:
    config = replace(config, model=replace(config.model, system="pgexp", method=method))
    prior = None
    if method.prior_kind is not None:
        annotations = load_data(config)[0].data.annotations
        prior = fit_prior(annotations, PriorConfig(slots=5, encoder_steps=20, flow_steps=2))[0]
    model = build("pgexp", 4, config=config.model, prior=prior)
    batch = batch_of(config, range(4))
    whole, losses = gradient(accelerator, model, [batch])
    for sizes in ([2, 2], [1, 3], [1, 1, 1, 1]):
        parts, part_losses = gradient(accelerator, model, split(batch, sizes))
        assert float((parts - whole).norm() / whole.norm()) < 1e-5, sizes
        assert part_losses == pytest.approx(losses, rel=1e-5)
    # The mean of the micro-batches' own means is something else, so the test above can fail.
    alone = [gradient(accelerator, model, [micro])[0] for micro in split(batch, [1, 3])]
    assert float((sum(alone) / 2 - whole).norm() / whole.norm()) > 1e-2


class Toy(nn.Module):
    """One parameter; the loss of image i is ``weight * i``, and NaN for the images in ``bad``."""

    def __init__(self, *bad: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0))
        self.bad = bad

    def forward(self, images: list[Tensor], targets: list[Targets], *, terms: bool) -> dict[str, LossTerm]:
        values = [float("nan") if target.image_id in self.bad else float(target.image_id) for target in targets]
        total = self.weight * torch.tensor(values).sum()
        return {"loss_toy": LossTerm(total, torch.tensor(float(len(values))))}


def toy_batch(config: TrainConfig, ids: list[int]) -> Batch:
    images, targets = batch_of(config, range(len(ids)))
    for target, number in zip(targets, ids, strict=True):
        target.image_id = number
    return images, targets


def test_hand_worked_step(config: TrainConfig, accelerator: Accelerator) -> None:
    """Images 1, 2, 6: the loss is w * 9 / 3, its gradient 3; a step of 0.1 with the norm cut to 2 moves w by 0.2."""
    model = Toy()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    batches = split(toy_batch(config, [1, 2, 6]), [1, 2])
    result = train_step(accelerator, model, optimizer, batches, 2.0)
    assert result.losses == {"loss_toy": pytest.approx(6.0)}
    assert result.grad_norm == pytest.approx(3.0)
    assert model.weight.item() == pytest.approx(2.0 - 0.1 * 2.0, abs=1e-5)


@pytest.mark.parametrize("sizes", [[4], [2, 2]])
def test_a_loss_that_is_not_finite_names_its_images(
    config: TrainConfig, accelerator: Accelerator, sizes: list[int]
) -> None:
    model = Toy(30, 12)
    batches = split(toy_batch(config, [12, 4, 30, 5]), sizes)
    with pytest.raises(AmodalError, match=r"loss loss_toy is not finite; images 12, 30; last checkpoint is untouched"):
        train_step(accelerator, model, torch.optim.SGD(model.parameters(), lr=0.1), batches, None)
    assert model.weight.item() == 2.0


def test_normalisation_layers_have_no_weight_decay() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.GroupNorm(2, 8), nn.Conv2d(8, 1, 1))
    model[2].weight.requires_grad_(False)
    decayed, plain = make_optimizer(model, OptimConfig(weight_decay=0.1)).param_groups
    assert [value is own for value, own in zip(plain["params"], model[1].parameters(), strict=True)] == [True, True]
    assert (decayed["weight_decay"], plain["weight_decay"], len(decayed["params"])) == (0.1, 0.0, 3)


def test_images_without_objects_are_left_out(config: TrainConfig, scenes: Path) -> None:
    images, val = load_data(config)
    assert (len(images), val) == (10, None)
    data = images.data.annotations
    data.crowd[data.image_index == 3] = True
    from amodal.train.data import TrainImages

    assert 3 not in TrainImages(images.data).indices
