"""Predicting many files: resuming, changed files, unreadable files, sharing. A stand-in model makes it fast."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from amodal.errors import ConfigError, DataError
from amodal.pictures import as_pixels, groups, pick_device, predict_batch, predict_images
from amodal.predict import jobs
from amodal.predict.inputs import gather
from amodal.prediction import Prediction
from amodal.tiles import Tiling


class Standin(nn.Module):
    """Finds one object a picture, as wide as its first pixel is bright; scores 0.9 and, hidden below 0.05, 0.01."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.config = SimpleNamespace(box_head=SimpleNamespace(score_threshold=0.05, nms=0.5))
        self.score_threshold = 0.05
        self.class_names, self.category_ids = ["cup"], [4]
        self.batches: list[int] = []

    def detect(self, images: list[Tensor], threshold: float) -> list[Prediction]:
        self.batches.append(len(images))
        found = []
        for image in images:
            height, width = image.shape[1:]
            box = torch.tensor([[0.0, 0.0, float(image[0, 0, 0]) / 10, 4.0]]).repeat(2, 1)
            scores = torch.tensor([0.9, 0.01])
            keep = scores > threshold
            found.append(
                Prediction(
                    boxes=box[keep],
                    labels=torch.zeros(2, dtype=torch.int64)[keep],
                    scores=scores[keep],
                    amodal_probs=torch.ones(2, 4, 4)[keep],
                    image_size=(height, width),
                    class_names=self.class_names,
                    category_ids=self.category_ids,
                )
            )
        return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five pictures, brightness 20, 30, ... 60; the third is broken."""
    images = tmp_path / "images"
    images.mkdir()
    for number in range(5):
        picture(images / f"{number}.png", 20 + 10 * number)
    (images / "2.png").write_bytes(b"no picture")
    return images


def picture(path: Path, value: int, size: tuple[int, int] = (16, 12)) -> None:
    Image.new("RGB", size, (value, value, value)).save(path)


def run(folder: Path, out: Path, **more: object) -> tuple[jobs.Outcome, Standin]:
    out.mkdir(exist_ok=True)
    model = Standin()
    outcome = jobs.run(model, gather([folder], out, overlays=True).items, out, **{"threshold": 0.5, **more})
    assert outcome is not None
    return outcome, model


def test_results_in_order_with_names_and_failures(folder: Path, tmp_path: Path) -> None:
    outcome, _ = run(folder, tmp_path / "out")
    assert [result["image_id"] for result in outcome.results] == [1, 2, 4, 5]
    assert [result["bbox"][2] for result in outcome.results] == [2, 3, 5, 6]
    assert outcome.results[0]["file_name"] == (folder / "0.png").as_posix()
    assert outcome.results[0]["category_id"] == 4
    assert outcome.images[0] == {
        "id": 1,
        "file_name": (folder / "0.png").as_posix(),
        "height": 12,
        "width": 16,
        "objects": 1,
    }
    assert [image["id"] for image in outcome.failed] == [3]
    assert sorted(path.name for path in (tmp_path / "out" / "overlays").iterdir()) == [
        "0.png",
        "1.png",
        "3.png",
        "4.png",
    ]


def test_a_killed_run_goes_on_and_ends_the_same(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = run(folder, tmp_path / "whole")
    out = tmp_path / "out"
    detect, calls = Standin.detect, []

    def dies(self: Standin, images: list[Tensor], threshold: float) -> list[Prediction]:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return detect(self, images, threshold)

    monkeypatch.setattr(Standin, "detect", dies)
    with pytest.raises(KeyboardInterrupt):
        run(folder, out, flush_seconds=0)
    monkeypatch.setattr(Standin, "detect", detect)
    resumed, model = run(folder, out)
    assert len(model.batches) == 2, "finished images were predicted again"
    assert resumed.results == whole.results
    assert resumed.images == whole.images


def test_mended_and_changed_files_are_predicted_anew(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(folder, out)
    picture(folder / "2.png", 40)
    picture(folder / "4.png", 100)
    outcome, model = run(folder, out)
    assert len(model.batches) == 2
    assert not outcome.failed
    assert [result["bbox"][2] for result in outcome.results] == [2, 3, 4, 5, 10]


@pytest.mark.parametrize("change", ["threshold", "weights", "inputs", "tiles"])
def test_parts_of_another_job_are_not_used(folder: Path, tmp_path: Path, change: str) -> None:
    out = tmp_path / "out"
    run(folder, out)
    model, threshold = Standin(), 0.5
    if change == "threshold":
        threshold = 0.4
    if change == "weights":
        model.weight.data += 1
    if change == "inputs":
        picture(folder / "00.png", 90)
    tiling = Tiling(32) if change == "tiles" else None
    jobs.run(model, gather([folder], out, overlays=True).items, out, threshold=threshold, tiling=tiling)
    assert sum(model.batches) == (5 if change == "inputs" else 4)


def test_half_written_parts_are_never_read(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    whole, _ = run(folder, out)
    (out / "parts" / ".999.json.part").write_text('[{"image": {"id": 1')
    again, model = run(folder, out)
    assert again.results == whole.results
    assert model.batches == []


def test_batches_hold_equal_sizes_and_change_nothing(folder: Path, tmp_path: Path) -> None:
    picture(folder / "3.png", 50, size=(20, 12))
    single, _ = run(folder, tmp_path / "a", batch=1)
    grouped, model = run(folder, tmp_path / "b", batch=4)
    assert model.batches == [2, 1, 1]
    assert grouped.results == single.results


class Rank:
    """One process of two whose waits are over at once."""

    size = 2

    def __init__(self, rank: int) -> None:
        self.rank, self.is_main = rank, rank == 0

    def wait(self) -> None: ...


def test_two_processes_share_the_images(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone, _ = run(folder, tmp_path / "alone")
    out = tmp_path / "out"
    out.mkdir()
    items = gather([folder], out, overlays=True).items
    models = [Standin(), Standin()]

    class Main(Rank):
        waits = 0

        def wait(self) -> None:
            self.waits += 1
            if self.waits == 2:  # everybody knows what is finished: the other process does its share
                assert jobs.run(models[1], items, out, threshold=0.5, team=Rank(1)) is None

    outcome = jobs.run(models[0], items, out, threshold=0.5, team=Main(0))
    assert outcome is not None
    assert outcome.results == alone.results
    assert outcome.images == alone.images
    assert [len(model.batches) for model in models] == [2, 2]


def test_written_lists_are_json(tmp_path: Path) -> None:
    for rows in ([], [{"a": 1}], [{"a": "\\é\n"}, {"b": None}]):
        jobs.write_rows(tmp_path / "list.json", rows)
        assert json.loads((tmp_path / "list.json").read_text(encoding="utf-8")) == rows
    assert [path.name for path in tmp_path.iterdir()] == ["list.json"]


def test_threshold_reaches_below_the_head_and_touches_no_settings() -> None:
    model = Standin()
    image = np.full((12, 16, 3), 20, np.uint8)
    model.train()
    assert len(predict_batch(model, [image], 0.0)[0]) == 2
    assert len(predict_batch(model, [image], 0.5)[0]) == 1
    assert len(predict_batch(model, [image], float(np.float32(0.9)))[0]) == 1
    assert len(predict_batch(model, [image], 0.95)[0]) == 0
    assert model.score_threshold == 0.05
    assert model.training
    for wrong in (-0.1, 1.5, float("nan")):
        with pytest.raises(ConfigError, match="must be 0 to 1"):
            predict_batch(model, [image], wrong)


def test_a_path_a_picture_and_an_array_give_the_same(folder: Path) -> None:
    path = folder / "1.png"
    with Image.open(path) as opened:
        forms = [str(path), path, opened.copy(), np.asarray(opened)]
    found = predict_images(Standin(), forms, 0.5)
    assert len({json.dumps(prediction.to_coco(1)) for prediction in found}) == 1
    assert all(prediction.image.shape == (12, 16, 3) for prediction in found)
    assert found[0].draw().size == (128, 96)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
        7,
        torch.zeros(3, 4, 4),
    ],
)
def test_other_sources_are_refused(wrong: object) -> None:
    with pytest.raises(DataError, match=r"uint8 (array )?\[H, W, 3\]"):
        as_pixels(wrong)


def test_groups() -> None:
    assert list(groups([1, 1, 1, 2, 2, 1], 2, lambda item: item)) == [[1, 1], [1], [2, 2], [1]]
    assert list(groups([], 3, lambda item: item)) == []


def test_devices() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device(None).type in ("cpu", "cuda")
    for wrong in ("cdua", "cuda:99", "xla"):
        with pytest.raises(ConfigError, match="this machine has cpu"):
            pick_device(wrong)


@pytest.mark.parametrize("what", ["draw", "to_coco"])
def test_a_fault_of_one_picture_ends_no_job(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    real = getattr(Prediction, what)

    def fails(self: Prediction, *given: object, **more: object) -> object:
        if self.image[0, 0, 0] == 30:
            raise ValueError("x1 must be\ngreater")
        return real(self, *given, **more)

    monkeypatch.setattr(Prediction, what, fails)
    outcome, _ = run(folder, tmp_path / "out")
    bad = outcome.images[1]
    if what == "draw":
        assert bad["overlay_error"] == "ValueError: x1 must be greater"
        assert [image["id"] for image in outcome.undrawn] == [2]
        assert [result["image_id"] for result in outcome.results] == [1, 2, 4, 5]
    else:
        assert bad["error"] == "cannot be encoded: ValueError: x1 must be greater"
        assert [image["id"] for image in outcome.failed] == [2, 3]
    monkeypatch.setattr(Prediction, what, real)
    mended, model = run(folder, tmp_path / "out")
    assert len(model.batches) == 1, "the faulty picture alone is tried again"
    assert not mended.undrawn
    assert [image["id"] for image in mended.failed] == [3]


def test_names_near_the_limit_of_the_file_system(tmp_path: Path) -> None:
    images, name = tmp_path / "images", "k" * 245 + ".png"
    (images / "x").mkdir(parents=True)
    for number, path in enumerate((images / name, images / "x" / name, images / "z.png")):
        picture(path, 20 + 10 * number)
    outcome, _ = run(images, tmp_path / "out")
    assert not outcome.undrawn
    drawn = [path.name for path in (tmp_path / "out" / "overlays").iterdir()]
    assert len(drawn) == 3
    assert "z.png" in drawn


def test_the_newest_entry_wins_whatever_the_clock_said(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts written while the clock stood an hour ahead, then one picture replaced and one mended."""
    out = tmp_path / "out"
    run(folder, out)
    for number, part in enumerate(sorted((out / "parts").glob("*.json"))):
        part.rename(part.with_name(f"{time.time_ns() + 3600 * 10**9 + number:020d}-1.json"))
    picture(folder / "4.png", 100)
    picture(folder / "2.png", 40)
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    outcome, model = run(folder, out)
    assert len(model.batches) == 2
    assert not outcome.failed
    assert [result["bbox"][2] for result in outcome.results] == [2, 3, 4, 5, 10]
    picture(folder / "4.png", 90)
    outcome, _ = run(folder, out)
    assert outcome.results[-1]["bbox"][2] == 9, "once more: the third entry of that picture"


def test_a_part_that_a_power_cut_left_is_made_anew(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    whole, _ = run(folder, out)
    for part in (out / "parts").glob("*.json"):
        part.write_bytes(b"\0" * 100)
    (out / "parts" / "notes-mine.json").write_text("no part")
    again, model = run(folder, out)
    assert sum(model.batches) == 4
    assert again.results == whole.results


def test_overlays_are_reduced_unless_asked(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    picture(images / "wide.png", 40, size=(3000, 30))
    picture(images / "small.png", 40, size=(100, 80))
    for size, expected in (
        (2000, ((2000, 20), (800, 640))),
        (0, ((3000, 30), (100, 80))),
        (300, ((300, 3), (300, 240))),
    ):
        run(images, tmp_path / "out", overlay_size=size)
        for name, wanted in zip(("wide", "small"), expected, strict=True):
            with Image.open(tmp_path / "out" / "overlays" / f"{name}.png") as drawn:
                assert drawn.size == wanted
