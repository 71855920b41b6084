"""Several threads ask one model, each with a threshold of its own."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from amodal.model import AmodalModel, build, load_model
from amodal.prediction import Prediction

Make = Callable[..., Any]
THRESHOLDS = (0.0, 0.05, 0.2, 0.34, 0.5)


@pytest.fixture
def model(tiny_config: Make) -> AmodalModel:
    """Untrained, with scores that differ."""
    model = build("pgexp", 2, config=tiny_config("pgexp"), seed=2).eval()
    with torch.no_grad():
        for layer in (model.box_head.cls_score, model.box_head.bbox_pred):
            layer.weight.normal_(std=0.3, generator=torch.Generator().manual_seed(5))
    return model


def equal(one: Prediction, two: Prediction) -> bool:
    names = ("boxes", "labels", "scores", "amodal_probs", "visible_probs")
    return all(torch.equal(getattr(one, name), getattr(two, name)) for name in names)


def test_threads_that_share_a_model_do_not_hear_of_each_other(
    model: AmodalModel, example: Make, tmp_path: Path
) -> None:
    pictures = [np.ascontiguousarray(example(seed).image.permute(1, 2, 0).numpy()) for seed in range(5)]
    asked = [(pictures[number % 5], THRESHOLDS[number // 5 % 5]) for number in range(75)]
    settings, state = repr(model.config), {name: value.clone() for name, value in model.state_dict().items()}
    alone = [model.predict(picture, threshold) for picture, threshold in asked[:25]] * 3
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda one: model.predict(*one), asked))
    assert all(equal(one, two) for one, two in zip(alone, found, strict=True))
    assert len({len(one) for one in found}) > 3
    for (_, threshold), one in zip(asked, found, strict=True):
        assert bool((one.scores >= threshold).all())
    assert repr(model.config) == settings
    assert model.box_head.score_threshold == model.config.box_head.score_threshold == 0.05
    assert not model.training
    model.save_pretrained(tmp_path)
    again = load_model(tmp_path)
    assert again.config.box_head.score_threshold == 0.05
    assert all(torch.equal(value, state[name]) for name, value in again.state_dict().items())
    assert equal(again.predict(pictures[0], 0.2), alone[10])
