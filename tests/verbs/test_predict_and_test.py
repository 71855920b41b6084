"""predict, test, demo, info and methods from the command line, with a small untrained model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pycocotools import mask as coco_mask

from amodal import cli, score
from amodal.checkpoint import save_model
from amodal.compare.sources import read_source
from amodal.config import BackboneConfig, BoxHeadConfig, MaskHeadConfig, ModelConfig, RPNConfig, TransformConfig
from amodal.data.scenes.dataset import write_dataset
from amodal.errors import DataError
from amodal.locks import hold
from amodal.model import build
from amodal.settings import PGExpConfig

CLASSES = ["cup", "fish", "car", "key", "leaf", "mushroom", "bottle", "umbrella"]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three drawn scenes of 64 pixels."""
    out = tmp_path_factory.mktemp("data") / "scenes"
    write_dataset(out, images=3, size=64, seed=3)
    return out


@pytest.fixture(scope="module", params=["pgexp", "mask_rcnn"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained checkpoint, with and without visible masks."""
    config = ModelConfig(
        system=request.param,
        method=PGExpConfig(box_expansion="none", mask_expansion="plain") if request.param == "pgexp" else None,
        transform=TransformConfig(min_size=[64], max_size=64, test_min_size=64, test_max_size=64),
        backbone=BackboneConfig(name="nano", norm="group", channels=16, trainable_layers=5, extra_level=False),
        rpn=RPNConfig(anchor_sizes=[16, 32, 64, 128], pre_nms_test=50, post_nms_test=20),
        box_head=BoxHeadConfig(channels=16, detections=6),
        mask_head=MaskHeadConfig(channels=8, convs=1),
    )
    folder = tmp_path_factory.mktemp("checkpoint") / request.param
    save_model(build(request.param, 8, config=config, class_names=CLASSES), folder)
    return folder


def amodal(*words: object) -> int:
    return cli.main([str(word) for word in words])


def test_predict(scenes: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"nothing")
    out = tmp_path / "out"
    assert amodal("predict", checkpoint, scenes / "images", broken, "--out", out, "--threshold", 0.0) == 0
    results = json.loads((out / "predictions.json").read_text())
    images = json.loads((out / "images.json").read_text())
    assert [image["id"] for image in images] == [1, 2, 3, 4]
    assert "error" in images[3]
    assert len(results) == sum(image.get("objects", 0) for image in images) > 0
    has_visible = checkpoint.name == "pgexp"
    for result in results:
        assert result["file_name"] == images[result["image_id"] - 1]["file_name"]
        assert coco_mask.decode(result["segmentation"]).shape == (64, 64)
        assert ("visible_mask" in result) == ("visible_bbox" in result) == has_visible
    assert sorted(path.name for path in (out / "overlays").iterdir()) == [f"{k:06d}.png" for k in (1, 2, 3)]
    assert not (out / "parts").exists()
    printed = capsys.readouterr()
    assert "in 3 images" in printed.out
    assert printed.out.count("px on the shorter side, ") == 1
    assert f"drawn at 8 times 64 x 64 px: {out / 'overlays'}" in printed.out
    assert "1 picture could not be read" in printed.err
    assert "broken.png" in printed.err


def test_predict_twice_is_byte_equal(scenes: Path, checkpoint: Path, tmp_path: Path) -> None:
    texts = []
    for name in ("a", "b"):
        words = ("--out", tmp_path / name, "--threshold", 0, "--no-overlays")
        assert amodal("predict", checkpoint, scenes / "images", *words) == 0
        texts.append((tmp_path / name / "predictions.json").read_bytes())
        assert not (tmp_path / name / "overlays").exists()
    assert texts[0] == texts[1]


def test_predict_fails_only_if_nothing_can_be_read(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"")
    assert amodal("predict", checkpoint, broken, "--out", tmp_path / "out") == 2
    assert "none of 1 image could be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--threshold", "1.5"], "threshold is 1.5, must be 0 to 1; the nearest is 1"),
        (["--batch", "0"], "--batch is 0"),
        (["--device", "cdua"], "device 'cdua' is not there"),
    ],
)
def test_wrong_flags_are_one_line(
    scenes: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert amodal("predict", checkpoint, scenes / "images", "--out", tmp_path / "out", *words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_missing_checkpoint_is_one_line(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert amodal("predict", tmp_path / "none", scenes / "images", "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "no such checkpoint folder" in error
    assert error.count("\n") == 1


def test_test_writes_predictions_metrics_and_report(
    scenes: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert amodal("test", checkpoint, scenes / "annotations.json", scenes / "images", "--out", out) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert set(metrics) == {"mask", "box", "visible", "images", "instances", "coverage"}
    assert metrics["images"] == 3
    assert (out / "report.html").stat().st_size > 10_000
    noted = json.loads((out / "test.json").read_text())
    assert noted["annotations"] == str(scenes / "annotations.json")
    assert noted["images"] == str(scenes / "images")
    assert noted["checkpoint"] == str(checkpoint)
    source = read_source(out)
    assert source.tested[0].data == noted["data"]
    assert source.settings is not None
    assert source.settings["model.system"] == checkpoint.name
    assert isinstance(json.loads((out / "predictions.json").read_text()), list)
    printed = capsys.readouterr().out
    assert "amodal mask" in printed
    assert f"report: {out / 'report.html'}" in printed


def test_test_names_the_missing_image(
    scenes: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = json.loads((scenes / "annotations.json").read_text())
    data["images"][1]["file_name"] = "gone.png"
    (tmp_path / "annotations.json").write_text(json.dumps(data))
    assert amodal("test", checkpoint, tmp_path / "annotations.json", scenes / "images", "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "image 2" in error
    assert "gone.png" in error


def test_test_tells_what_it_left_out(
    scenes: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = json.loads((scenes / "annotations.json").read_text())
    first = data["annotations"][0]
    first["segmentation"] = first["visible_mask"] = {"size": [64, 64], "counts": [4096]}
    data["categories"] = [
        one if one["name"] == "cup" else {**one, "name": "no " + one["name"]} for one in data["categories"]
    ]
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(data))
    words = ("--out", tmp_path / "out", "--schema", "canonical")
    assert amodal("test", checkpoint, path, scenes / "images", *words) == 0
    told = capsys.readouterr().err
    assert f"{path}: left out 1: empty amodal mask (e.g. {first['id']})" in told
    assert ": detection of a class that is not annotated (e.g. " in told


class Names:
    """Class names and ids of a model."""

    def __init__(self, names: list[str], ids: list[int]) -> None:
        self.class_names, self.category_ids = names, ids
        self.path = "truth.json"


def test_classes_are_matched_by_name() -> None:
    truth = Names(["fish", "cup"], [10, 20])
    assert score.match_classes(Names(["cup", "fish"], [1, 2]), truth) == {1: 20, 2: 10}
    partly = score.match_classes(Names(["cup", "dog"], [1, 2]), truth)
    assert partly == {1: 20, 2: None}
    results = [{"category_id": 1, "score": 0.5}, {"category_id": 2, "score": 0.6}]
    assert score.translate(results, partly) == [{"category_id": 20, "score": 0.5}]
    with pytest.raises(DataError, match=r"truth\.json: no class of the checkpoint \(dog\) is annotated \(fish, cup\)"):
        score.match_classes(Names(["dog"], [1]), truth)


def test_demo(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score, "SHIPPED", checkpoint)
    out = tmp_path / "demo"
    for _ in range(2):  # the second one replaces the first
        assert amodal("demo", "--out", out, "--device", "cpu", "--images", 2) == 0
    assert {"report.html", "metrics.json", "predictions.json"} <= {path.name for path in out.iterdir()}
    assert json.loads((out / "metrics.json").read_text())["images"] == 2


def test_demo_without_weights_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(score, "SHIPPED", tmp_path / "none")
    assert amodal("demo", "--out", tmp_path / "demo") == 2
    error = capsys.readouterr().err
    assert "weights that ship with the package are not there" in error
    assert error.count("\n") == 1


def test_info_and_methods(capsys: pytest.CaptureFixture[str]) -> None:
    assert amodal("info") == 0
    assert amodal("methods") == 0
    printed = capsys.readouterr().out
    for word in ("torch ", "cpu", "mask_rcnn", "pgexp", "AAAI 2023", "ICCV 2017"):
        assert word in printed


@pytest.mark.slow
def test_two_processes_write_what_one_writes(scenes: Path, checkpoint: Path, tmp_path: Path) -> None:
    words = ["predict", str(checkpoint), str(scenes / "images"), "--threshold", "0", "--device", "cpu"]
    assert amodal(*words, "--out", tmp_path / "one") == 0
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--cpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
    ]
    command = [*launch, "--mixed_precision", "no", "-m", "amodal", *words, "--out", str(tmp_path / "two")]
    subprocess.run(command, check=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"})
    for name in ("predictions.json", "images.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_folder_in_use_is_refused_in_one_line(
    scenes: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    with hold(out):
        assert amodal("predict", checkpoint, scenes / "images", "--out", out) == 2
        assert amodal("test", checkpoint, scenes / "annotations.json", scenes / "images", "--out", out) == 2
    refused = f"{out}: process {os.getpid()} on "
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2
    for verb, line in zip(("predict", "test"), errors, strict=True):
        assert line.startswith(f"amodal {verb}: {refused}")
    assert not out.exists()
    assert amodal("predict", checkpoint, scenes / "images", "--out", out) == 0
    assert sorted(path.name for path in out.iterdir()) == ["images.json", "overlays", "predictions.json"]
