"""The matcher's tables go by what is there, not by images times classes."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from amodal.evaluation import coco


@pytest.mark.parametrize("classes", [1, 7, 300])
def test_grids_hold_every_pair_once_and_little_else(classes: int) -> None:
    rng = np.random.default_rng(classes)
    images = rng.integers(0, 400, 3000)
    labels = np.minimum(rng.geometric(0.05, 3000) - 1, classes - 1)  # some classes in most images, some in one
    pairs = np.unique(images * classes + labels)
    slots, grids = coco._slots(pairs, classes)
    assert sum(len(members) * size for members, size in grids) <= 2 * len(pairs)
    assert sorted(label for members, _ in grids for label in members) == np.unique(pairs % classes).tolist()
    size_of = {label: size for members, size in grids for label in members}
    for label in np.unique(pairs % classes).tolist():
        own = pairs % classes == label
        assert slots[own].tolist() == list(range(own.sum()))  # in the order of the images
        assert own.sum() <= size_of[label]


def test_many_images_of_many_classes_take_memory_by_the_pair() -> None:
    """20,000 images x 2,000 classes are 40 million cells, of which three hold something."""
    images, classes = 20_000, 2_000
    keys = np.array([5 * classes + 7, 5 * classes + 1999, 19_999 * classes + 7])
    scores = np.array([0.9, 0.8, 0.7])
    pairing = coco.pair(images, classes, keys, np.arange(3), keys, scores)
    nothing, some = np.zeros(3, bool), np.zeros(3)
    tracemalloc.start()
    curves = coco.Table(pairing, some, nothing, nothing, scores, some).match([np.ones((1, 1))] * 3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert curves.ap() == pytest.approx(100)
    assert curves.ap(label=1999) == pytest.approx(100)
    assert curves.ap(label=3) is None
    assert peak < 100e6
