"""Large pictures in tiles: what borders cut is taken from where it is whole, and small objects are found."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor
from torchvision.ops import box_iou

from amodal import cli, load
from amodal.data.scenes.dataset import write_dataset
from amodal.errors import ConfigError
from amodal.pictures import as_pixels
from amodal.prediction import Prediction
from amodal.tiles import Pixels, Tiling, predict_tiled


def blobs(images: Sequence[Pixels], smallest: int = 0) -> list[Prediction]:
    """A detector that finds bright blobs, of which ``smallest`` times the picture's side is the shortest that it sees.

    The score is the brightness; the class is 1 where there is green.
    """
    found = []
    for image in images:
        places = ndimage.find_objects(ndimage.label(image[..., 0] > 0)[0])
        boxes = torch.tensor([[x.start, y.start, x.stop, y.stop] for y, x in places]).reshape(-1, 4).float()
        peaks = [image[place].reshape(-1, 3).max(0) for place in places]
        seen = ((boxes[:, 2:] - boxes[:, :2]).amax(1) >= smallest * len(image) / 100).nonzero().flatten()
        scores = torch.tensor([float(peak[0]) / 255 for peak in peaks])
        rows = seen[scores[seen].argsort(descending=True, stable=True)]
        found.append(
            Prediction(
                boxes=boxes[rows],
                labels=torch.tensor([int(peak[1] > 0) for peak in peaks], dtype=torch.int64)[rows],
                scores=scores[rows],
                amodal_probs=torch.ones(len(rows), 4, 4),
                image_size=image.shape[:2],
                class_names=["red", "yellow"],
                category_ids=[3, 4],
            )
        )
    return found


def black(*boxes: tuple[int, int, int, int, int, int], size: tuple[int, int] = (100, 150)) -> Pixels:
    image = np.zeros((*size, 3), np.uint8)
    for x0, y0, x1, y1, red, green in boxes:
        image[y0:y1, x0:x1, :2] = red, green
    return image


def found(image: Pixels, tiling: Tiling, smallest: int = 0) -> list[list[float]]:
    prediction = predict_tiled(image, tiling, lambda images: blobs(images, smallest), nms=0.5)
    return [[*box, label] for box, label in zip(prediction.boxes.tolist(), prediction.labels.tolist(), strict=True)]


@pytest.mark.parametrize(
    ("height", "width", "size", "overlap"), [(100, 150, 64, 0.25), (64, 65, 64, 0), (33, 990, 32, 0.9)]
)
def test_tiles_cover_the_picture_and_overlap(height: int, width: int, size: int, overlap: float) -> None:
    windows = Tiling(size, overlap).windows(height, width)
    covered = np.zeros((height, width), int)
    for left, top, right, bottom in windows:
        assert (right - left, bottom - top) == (min(size, width), min(size, height))
        covered[top:bottom, left:right] += 1
    assert covered.min() == 1
    lefts = sorted({window[0] for window in windows})
    assert lefts[0] == 0
    assert lefts[-1] + size == width
    assert all(second - first <= size * (1 - overlap) + 1 for first, second in pairwise(lefts))


def test_an_object_on_a_border_is_taken_from_the_tile_that_holds_it() -> None:
    # Tiles of 64 at 0, 43 and 86: the object is cut by the first one, whole in the second; seen in tiles alone.
    image = black((50, 10, 80, 30, 200, 0))
    assert found(image, Tiling(64, 0.25), smallest=31) == [[50, 10, 80, 30, 0]]


def test_an_object_larger_than_a_tile_is_that_of_the_whole_picture() -> None:
    image = black((5, 5, 145, 95, 200, 0))
    assert found(image, Tiling(64)) == [[5, 5, 145, 95, 0]]


def test_what_is_cut_and_nowhere_whole_stays() -> None:
    # No tile holds it, and the picture as a whole is too coarse for it.
    image = black((30, 10, 110, 14, 200, 0))
    assert found(image, Tiling(64, 0), smallest=85) == [[43, 10, 107, 14, 0]]


def test_classes_are_suppressed_apart_and_the_best_comes_first() -> None:
    image = black((2, 2, 30, 30, 100, 0), (100, 50, 130, 80, 250, 9), (60, 40, 70, 50, 180, 0))
    for batch in (1, 4):
        expected = [[100, 50, 130, 80, 1], [60, 40, 70, 50, 0], [2, 2, 30, 30, 0]]
        assert found(image, Tiling(64, 0.25, batch)) == expected


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"tile": 31}, "tile is 31, must be a whole number of pixels, 32 or more"),
        ({"tile": -1}, "tile is -1"),
        ({"tile": 64.5}, "tile is 64.5"),
        ({"tile": 64, "tile_overlap": 0.95}, "tile_overlap is 0.95, must be 0 to 0.9; the nearest is 0.9"),
        ({"tile_overlap": float("nan")}, "tile_overlap is nan"),
    ],
)
def test_bad_values_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Tiling.of(**{"size": values.get("tile", 0), "overlap": values.get("tile_overlap", 0.25), "batch": 1})


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> list[Pixels]:
    """Four drawn scenes of 256 pixels."""
    out = tmp_path_factory.mktemp("scenes")
    write_dataset(out, images=4, size=256, seed=77)
    return [as_pixels(path) for path in sorted((out / "images").iterdir())]


def test_a_picture_within_a_tile_is_predicted_as_without(scenes: list[Pixels]) -> None:
    model = load("nano-scenes-v1", "cpu")
    plain, tiled = model.predict(scenes[0], 0.1), model.predict(scenes[0], 0.1, tile=256)
    assert len(plain)
    assert tiled.to_coco(1) == plain.to_coco(1)
    assert torch.equal(tiled.amodal_probs, plain.amodal_probs)


def test_tiles_find_what_is_too_small_in_the_whole_picture(scenes: list[Pixels], tmp_path: Path) -> None:
    model = load("nano-scenes-v1", "cpu")
    big = np.concatenate([np.concatenate(scenes[:2], 1), np.concatenate(scenes[2:], 1)])
    alone = [model.predict(scene) for scene in scenes]
    shifts = [torch.tensor([256.0 * (place % 2), 256.0 * (place // 2)] * 2) for place in range(4)]
    boxes = torch.cat([part.boxes + shift for part, shift in zip(alone, shifts, strict=True)])
    labels = torch.cat([part.labels for part in alone])

    def recalled(found: Tensor, classes: Tensor) -> int:
        return int(((box_iou(boxes, found) > 0.7) & (labels[:, None] == classes)).any(1).sum())

    whole = model.predict(big)
    assert recalled(whole.boxes, whole.labels) < len(boxes) / 3
    Image.fromarray(big).save(tmp_path / "big.png")
    words = ["predict", "nano-scenes-v1", tmp_path / "big.png", "--out", tmp_path / "out", "--device", "cpu"]
    more = ["--tile", 256, "--tile-overlap", 0, "--batch", 2, "--no-overlays"]
    assert cli.main([str(word) for word in (*words, *more)]) == 0
    results = json.loads((tmp_path / "out" / "predictions.json").read_text())
    corners = torch.tensor([result["bbox"] for result in results])
    corners[:, 2:] += corners[:, :2]
    classes = [model.category_ids.index(result["category_id"]) for result in results]
    assert recalled(corners, torch.tensor(classes)) > 0.8 * len(boxes)
    assert {result["image_id"] for result in results} == {1}
    assert all(result["segmentation"]["size"] == [512, 512] for result in results)
    scores = [result["score"] for result in results]
    assert scores == sorted(scores, reverse=True)


def test_a_bad_tile_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["predict", "nano-scenes-v1", str(tmp_path), "--out", str(tmp_path / "out"), "--tile", "9"]
    assert cli.main(words) == 2
    assert capsys.readouterr().err.startswith("amodal predict: tile is 9, must be a whole number of pixels, 32 or more")
