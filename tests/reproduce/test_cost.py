"""Costs of a system are those of its settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from amodal.checkpoint import save_model
from amodal.config import ModelConfig
from amodal.data.scenes.dataset import write_dataset
from amodal.model import SHIPPED, AmodalModel, build, load
from amodal.pictures import predict_images
from amodal.reproduce import cost
from amodal.reproduce.sources import Split


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    folder = tmp_path_factory.mktemp("scenes")
    write_dataset(folder, images=1, size=96, seed=1)
    return Split("val", "1", folder / "annotations.json", folder / "images")


@pytest.fixture
def flops_of(tmp_path: Path, split: Split) -> Callable[[AmodalModel], dict[str, Any]]:
    def measured(model: AmodalModel) -> dict[str, Any]:
        save_model(model, tmp_path / "model")
        return cost.measure(tmp_path / "model", split)

    return measured


def test_weights_that_find_much_and_weights_that_find_nothing_cost_the_same(
    tiny_config: Callable[..., ModelConfig], flops_of: Callable[[AmodalModel], dict[str, Any]], split: Split
) -> None:
    picture = next(split.paths()[1].iterdir())
    config = tiny_config("pgexp", score_threshold=0.05)
    models = [build("pgexp", 2, config=config, seed=seed) for seed in (0, 1)]
    with torch.no_grad():
        models[1].box_head.cls_score.bias[0] = 50.0  # type: ignore[index]  # All is background.
    found = [len(predict_images(model.eval(), [picture], 0.05)[0]) for model in models]
    assert found[0] > found[1] == 0
    costs = [flops_of(model) for model in models]
    assert costs[0] == costs[1]
    assert costs[0]["parameters"] == sum(value.numel() for value in models[0].parameters())


def test_the_numbers_of_regions_and_detections_are_fixed(
    flops_of: Callable[[AmodalModel], dict[str, Any]], split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a model with a prior, too: twenty detections, each of which costs the same."""
    shipped = load(SHIPPED / "nano-scenes-v1", "cpu")
    counts = []
    monkeypatch.setattr(cost, "predict_images", lambda model, *rest, **more: counts.append(
        [len(found) for found in predict_images(model, *rest, **more)]
    ))  # fmt: skip
    costs = []
    for objects in (20, 30, 40):
        monkeypatch.setattr(cost, "OBJECTS", objects)
        costs.append(flops_of(shipped)["flops"])
    assert counts == [[20], [30], [40]]
    assert costs[2] - costs[1] == costs[1] - costs[0] > 0


def test_costs_follow_the_settings(
    tiny_config: Callable[..., ModelConfig], flops_of: Callable[[AmodalModel], dict[str, Any]]
) -> None:
    config = tiny_config()
    wider = replace(config, mask_head=replace(config.mask_head, channels=2 * config.mask_head.channels))
    less, more = (flops_of(build("mask_rcnn", 2, config=each))["flops"] for each in (config, wider))
    assert less < more
