"""Sample pictures of a training: one that cannot be read is named and ends nothing."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from amodal.errors import DataError
from amodal.prediction import Prediction
from amodal.train.validate import draw_samples


class Data:
    """Three grey pictures; the second cannot be read."""

    annotations = SimpleNamespace(image_ids=[5, 6, 7])

    def __len__(self) -> int:
        return 3

    def image(self, index: int) -> torch.Tensor:
        if index == 1:
            raise DataError("is empty (0 bytes)", file="b.png", image_id=6)
        return torch.full((3, 12, 16), 90, dtype=torch.uint8)


class Nothing(torch.nn.Module):
    """A model that finds nothing."""

    def forward(self, images: list[torch.Tensor]) -> list[Prediction]:
        empty = torch.zeros(0, 4)
        one = Prediction(
            boxes=empty,
            labels=torch.zeros(0, dtype=torch.int64),
            scores=torch.zeros(0),
            amodal_probs=torch.zeros(0, 4, 4),
            image_size=(12, 16),
            class_names=["cup"],
            category_ids=[1],
        )
        return [one for _ in images]


def test_a_picture_that_cannot_be_read_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    accelerator: Any = SimpleNamespace(device="cpu", autocast=nullcontext)
    model: Any = Nothing()
    data: Any = Data()
    draw_samples(accelerator, model, data, tmp_path / "samples")
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == ["5.png", "7.png"]
    assert "image 6: b.png: image 6: is empty (0 bytes)" in capsys.readouterr().out
    assert model.training
