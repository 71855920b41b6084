"""The weight of inconsistency follows from whether it helps on the training objects."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from amodal.data.store import AnnotationSet
from amodal.priors.rerank_weight import _smallest_good, fit_weight
from amodal.priors.types import PriorInstances, Retrieved

SIZE = (48, 96)
GROWS = math.log(2.0)
# T^r from a visible box 20 px wide: to the left, to the right, none; each to twice the width or as it is.
LEFT, RIGHT, NONE = (-0.5, 0.0, GROWS, 0.0), (0.5, 0.0, GROWS, 0.0), (0.0, 0.0, 0.0, 0.0)


def _rectangle(x0: int, x1: int) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    mask = np.zeros(SIZE, bool)
    mask[10:30, x0:x1] = True
    return mask


def _scene(occluder_annotated: bool) -> tuple[AnnotationSet, PriorInstances]:
    """Six images; in each a bar of 40 px whose right half something hides, annotated or not."""
    items = []
    for image in range(6):
        items.append({"image": image, "label": 0, "amodal": _rectangle(30, 70), "visible": _rectangle(30, 50)})
        if occluder_annotated:
            items.append({"image": image, "label": 0, "amodal": _rectangle(50, 90)})
    annotations = AnnotationSet.from_masks([SIZE] * 6, items, ["a"])
    bars = np.flatnonzero(annotations.occlude_rate > 0)
    visible = torch.zeros(6, 28, 28, dtype=torch.bool)
    visible[:, :, :14] = True
    whole = torch.ones(6, 28, 28, dtype=torch.bool)
    instances = PriorInstances(
        amodal=whole,
        visible=visible,
        own=whole,
        boxes=torch.from_numpy(annotations.amodal_boxes[bars]).float(),
        visible_boxes=torch.from_numpy(annotations.visible_boxes[bars]).float(),
        labels=torch.zeros(6, dtype=torch.int64),
        occlude_rate=torch.full((6,), 0.5),
        annotation_ids=torch.from_numpy(annotations.annotation_ids[bars]),
        image_ids=torch.arange(1, 7),
    )
    return annotations, instances


class _Search:
    """Finds the same four rectangles for every object, at distances 1.0, 1.1, 1.2 and 1.3."""

    def __init__(self, *deltas: tuple[float, ...]) -> None:
        self.deltas = torch.tensor(deltas)
        self.asked: list[int] = []

    def __call__(
        self, masks: Tensor, boxes: Tensor, labels: Tensor, k: int, *, exclude_images: Tensor | None = None
    ) -> Retrieved:
        assert k == 4
        assert exclude_images is not None
        self.asked += exclude_images.tolist()
        count = len(masks)
        return Retrieved(
            slots=torch.arange(4).expand(count, 4),
            distance=torch.tensor([1.0, 1.1, 1.2, 1.3]).expand(count, 4),
            deltas=self.deltas.expand(count, 4, 4),
            amodal=torch.ones(count, 4, 28, 28),
            present=torch.ones(count, dtype=torch.bool),
        )


def _fit(annotated: bool, search: _Search, **rest: int) -> float:
    return fit_weight(*_scene(annotated), search, k=2, candidates=4, **rest)


def test_annotated_occluders_give_weight() -> None:
    """Half of what grows to the left is unexplained. Distances relative to their mean 1.15 are 0.87, 0.96, 1.04, 1.13:
    the two wrong ones cost more than both right ones from weight 0.52 on, so the grid's 1 is the smallest that helps
    fully."""
    search = _Search(LEFT, LEFT, RIGHT, RIGHT)
    assert _fit(True, search) == 1.0
    assert search.asked == [1, 2, 3, 4, 5, 6]


def test_without_annotated_occluders_nothing_is_gained() -> None:
    assert _fit(False, _Search(LEFT, LEFT, RIGHT, RIGHT)) == 0.0


def test_weight_that_would_hurt_is_zero() -> None:
    assert _fit(False, _Search(RIGHT, RIGHT, NONE, NONE)) == 0.0


def test_nothing_hidden_nothing_fitted() -> None:
    annotations, instances = _scene(True)
    instances.occlude_rate[:] = 0.15
    assert fit_weight(annotations, instances, _Search(LEFT, LEFT, RIGHT, RIGHT), k=2, candidates=4) == 0.0


def test_a_limit_draws_objects() -> None:
    first, again, other = (_Search(LEFT, LEFT, RIGHT, RIGHT) for _ in range(3))
    assert _fit(True, first, limit=3) == 1.0
    _fit(True, again, limit=3)
    _fit(True, other, limit=3, seed=1)
    assert len(first.asked) == 3
    assert first.asked == again.asked != other.asked


@pytest.mark.parametrize(("gain", "weight"), [(0.01, 0.0), (0.5, 2.0)])
def test_a_gain_within_its_standard_error_is_no_gain(gain: float, weight: float) -> None:
    """Weight 2 (position 4) is better by ``gain`` on average, with a spread of 0.1 over four objects: error 0.05."""
    ious = torch.zeros(8, 4, dtype=torch.float64)
    ious[4] = gain + torch.tensor([-0.1, -0.1, 0.1, 0.1], dtype=torch.float64)
    assert _smallest_good(ious) == weight
