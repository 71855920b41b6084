"""Sample pictures of a training: truth beside prediction, and what of them could not be drawn."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from amodal.data.store import AnnotationSet
from amodal.errors import DataError
from amodal.prediction import Prediction
from amodal.train.samples import BEST, SIDE, choose, draw_sample, draw_samples
from amodal.viz.instances import color_of
from amodal.viz.sheet import beside, wrap

HEIGHT, WIDTH = 120, 160


def truth() -> AnnotationSet:
    """Three pictures with a square of 60 pixels each, whose right half is hidden."""
    whole = np.zeros((HEIGHT, WIDTH), bool)
    whole[30:90, 20:80] = True
    seen = whole.copy()
    seen[:, 50:] = False
    items = [{"image": k, "label": 0, "amodal": whole, "visible": seen} for k in range(3)]
    return AnnotationSet.from_masks([(HEIGHT, WIDTH)] * 3, items, ["cup"], image_ids=[5, 6, 7])


class Data:
    """Grey pictures; the second cannot be read."""

    annotations = truth()

    def __len__(self) -> int:
        return 3

    def image(self, index: int) -> torch.Tensor:
        if index == 1:
            raise DataError("is empty (0 bytes)", file="b.png", image_id=6)
        return torch.full((3, HEIGHT, WIDTH), 90, dtype=torch.uint8)


def found(*scores: float) -> Prediction:
    """Detections of the square, the first elsewhere where there are several."""
    count = len(scores)
    boxes = torch.tensor([[20.0, 30.0, 80.0, 90.0]] * count).reshape(-1, 4)
    if count > 1:
        boxes[0] = torch.tensor([100.0, 10.0, 150.0, 50.0])
    return Prediction(
        boxes=boxes,
        labels=torch.zeros(count, dtype=torch.int64),
        scores=torch.tensor(scores),
        amodal_probs=torch.ones(count, 28, 28),
        image_size=(HEIGHT, WIDTH),
        class_names=["cup"],
        category_ids=[1],
        image=np.full((HEIGHT, WIDTH, 3), 90, np.uint8),
    )


class Answers(torch.nn.Module):
    """A model that always finds the same."""

    def __init__(self, *scores: float) -> None:
        super().__init__()
        self.found = found(*scores)

    def forward(self, images: list[torch.Tensor]) -> list[Prediction]:
        return [self.found for _ in images]


ACCELERATOR: Any = SimpleNamespace(device="cpu", autocast=nullcontext)


def test_a_picture_that_cannot_be_read_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model: Any = Answers()
    data: Any = Data()
    drawn = draw_samples(ACCELERATOR, model, data, tmp_path / "samples")
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == ["5.png", "7.png"]
    assert "image 6: b.png: image 6: is empty (0 bytes)" in capsys.readouterr().out
    assert model.training
    assert list(drawn) == ["5", "7"]
    with Image.open(tmp_path / "samples" / "5.png") as picture:
        assert np.array_equal(np.asarray(picture), drawn["5"])


def striped(panel: np.ndarray) -> bool:
    """Whether a square of a grey picture is hatched."""
    return int(np.ptp(panel[..., 0].astype(int))) > 80


def test_the_truth_is_beside_the_prediction_in_the_same_colour() -> None:
    data: Any = Data()
    sheet = draw_sample(data, 0, found(0.9, 0.8))
    half = sheet.shape[1] // 2
    color = np.array(color_of(0))
    for part in (sheet[:, :half], sheet[:, half:]):
        assert (np.abs(part.astype(int) - color).max(-1) < 30).any(), "the square has the first colour on both sides"
    second = np.array(color_of(1))
    near = np.abs(sheet.astype(int) - second).max(-1) < 30
    assert near[:, half:].any(), "a detection without object has a new colour"
    assert not near[:, :half].any()
    scale = SIDE // WIDTH
    top = int(np.flatnonzero((sheet == 90).all(-1).any(1))[0])
    hidden = sheet[top + 40 * scale : top + 80 * scale, 12 + 56 * scale : 12 + 76 * scale]
    assert striped(hidden), "what is hidden is hatched in the truth"


def test_below_the_threshold_the_best_few_are_shown_and_it_is_said() -> None:
    shown, told = choose(found(0.1, 0.3, 0.2, 0.05))
    assert len(shown) == BEST == 3
    assert shown.scores.tolist() == pytest.approx([0.3, 0.2, 0.1])
    assert told == "nothing scores 0.5 or more; the best 3 are shown, from 0.30 down"
    assert choose(found(0.2))[1] == "nothing scores 0.5 or more; the best one is shown, from 0.20 down"
    assert choose(found(0.9, 0.1))[1] == "1 object with a score of 0.5 or more"
    assert len(choose(found(0.9, 0.5, 0.1))[0]) == 2
    assert choose(found())[1] == "nothing found, whatever the score"


def test_captions_are_broken_into_lines_and_stand_above_their_panels() -> None:
    words = "nothing scores 0.5 or more; the best 3 are shown, from 0.30 down"
    assert " ".join(wrap(words, 16, 200)) == words
    assert len(wrap(words, 16, 200)) > 1
    black = np.zeros((50, 40, 3), np.uint8)
    sheet = beside([black, black], ["truth", words])
    assert (sheet == 0).all(-1).sum() == 2 * 50 * 40
    assert sheet.shape[1] > 640
