"""Dropout whose choices are functions of seed, step, image and place: no batch, process or kill changes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from amodal.config_io import load_config
from amodal.draws import Draws
from amodal.models.seeded import dropout
from amodal.structures import RoIs
from amodal.train.run import train_run

Make = Callable[..., Any]
AISFORMER = "tests.systems.aisformer_like:AISFormerLike"


def regions(*targets: Any, each: int = 40, step: int = 0) -> RoIs:
    """``each`` regions in every image."""
    count = each * len(targets)
    return RoIs(
        boxes=torch.zeros(count, 4),
        batch=torch.arange(len(targets)).repeat_interleave(each),
        labels=torch.zeros(count, dtype=torch.long),
        scores=torch.ones(count),
        image_sizes=[(96, 96)] * len(targets),
        decoded=torch.zeros(count, 4),
        gt_index=torch.zeros(count, dtype=torch.long),
        targets=list(targets),
        draws=Draws(3, step),
    )


def test_the_mean_is_kept_and_the_share_is_dropped(example: Make) -> None:
    rois = regions(example(0).targets, example(1).targets, each=100)
    found = dropout(torch.ones(200, 10, 20), 0.1, rois, 1)
    assert set(found.unique().tolist()) == {0.0, torch.tensor(1 / 0.9).item()}
    assert (found == 0).float().mean().item() == pytest.approx(0.1, abs=0.005)
    assert found.mean().item() == pytest.approx(1, abs=0.005)


def test_in_test_and_with_share_0_nothing_happens(example: Make) -> None:
    rois = regions(example(0).targets)
    x = torch.randn(40, 5)
    assert dropout(x, 0.0, rois, 1) is x
    assert dropout(x, 0.5, replace(rois, targets=None, gt_index=None), 1) is x


def kept(rois: RoIs, layer: int = 1) -> Tensor:
    return dropout(torch.ones(len(rois), 50), 0.5, rois, layer) > 0


def test_places_steps_and_images_draw_for_themselves(example: Make) -> None:
    one, two = example(0).targets, example(1).targets
    base = kept(regions(one, two))
    assert torch.equal(base, kept(regions(one, two)))
    for other in (kept(regions(one, two), 2), kept(regions(one, two, step=1)), kept(regions(two, one))):
        assert (base == other).float().mean().item() == pytest.approx(0.5, abs=0.03)
    assert (base[:40] == base[40:]).float().mean().item() == pytest.approx(0.5, abs=0.05)


def test_company_and_order_of_images_change_nothing(example: Make) -> None:
    one, two = example(0).targets, example(1).targets
    together = kept(regions(one, two))
    assert torch.equal(together[:40], kept(regions(one)))
    assert torch.equal(together[40:], kept(regions(two)))
    rows = torch.arange(80).reshape(2, 40).T.flatten()  # the images' regions by turns
    both = regions(one, two)
    mixed = replace(both, batch=both.batch[rows])
    assert torch.equal(kept(mixed), together[rows])


def test_micro_batches_have_the_gradient_of_one_big_batch(make: Make, example: Make) -> None:
    """And it is the dropout's: without it the gradient is another."""
    examples = [example(0), example(1), example(2)]

    def gradient(share: float, parts: list[list[Any]]) -> Tensor:
        model = make(AISFORMER, dropout=share).train()
        counts: dict[str, Tensor] = {}
        for measured in (True, False):
            for part in parts:
                model.set_step(3, 5)
                found = model([one.image for one in part], [one.targets for one in part], terms=True)
                for name, term in found.items():
                    counts[name] = counts.get(name, torch.tensor(0.0)) + (term.count if measured else 0)
                if not measured:
                    sum(term.total / counts[name] for name, term in found.items()).backward()
        return torch.cat([value.grad.flatten() for value in model.branch.parameters()])

    whole = gradient(0.3, [examples])
    assert torch.allclose(whole, gradient(0.3, [[one] for one in examples]), atol=1e-6, rtol=1e-3)
    assert (whole - gradient(0.0, [examples])).norm() > 0.05 * whole.norm()


def test_a_resumed_run_draws_what_an_unkilled_one_draws(
    settings: Path, tmp_path: Path, train_and_die: Callable[..., None]
) -> None:
    run = {"model.system": AISFORMER, "model.method.dropout": 0.3, "steps": 3, "save_every": 1, "batch_size": 2}

    def trained(name: str, *, dies: bool = False, **changes: Any) -> dict[str, Tensor]:
        config = load_config(settings, {**run, **changes, "out": str(tmp_path / name)})
        if dies:
            train_and_die(config)
        train_run(config, resume=dies)
        return load_file(tmp_path / name / "last" / "model.safetensors")

    whole = trained("whole")
    resumed, without = trained("resumed", dies=True), trained("without", **{"model.method.dropout": 0.0})
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    assert not torch.equal(whole["branch.narrow.weight"], without["branch.narrow.weight"])
