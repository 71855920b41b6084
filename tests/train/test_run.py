from __future__ import annotations

import json
import multiprocessing
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from amodal.config import TrainConfig
from amodal.config_io import load_config
from amodal.errors import AmodalError, ConfigError, DataError, WeightsError
from amodal.model import complete, load_model
from amodal.train.data import load_data
from amodal.train.run import train_run
from amodal.train.state import read_state


@pytest.fixture(scope="module")
def finished(settings: Path, scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps with evaluation."""
    out = tmp_path_factory.mktemp("runs") / "run"
    val = {"data.val": str(scenes / "annotations.json"), "data.val_images": str(scenes / "images")}
    train_run(load_config(settings, {**val, "out": str(out), "steps": 2, "log_every": 1, "save_every": 1}))
    return out


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def settled(settings: Path, run: Path) -> Callable[..., TrainConfig]:
    def make(**changes: Any) -> TrainConfig:
        changed = {key.replace("__", "."): value for key, value in changes.items()}
        return load_config(settings, {"out": str(run), "steps": 2, **changed})

    return make


def test_run_folder(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert names == {"config.yaml", "log.csv", "eval.csv", "tensorboard", "last", "best", "samples"}
    assert load_config(finished / "config.yaml").steps == 2
    header, *rows = (finished / "log.csv").read_text().splitlines()
    assert header.startswith("step,lr,loss,loss_objectness,")
    assert header.endswith(",grad_norm,seconds")
    assert [row.split(",")[0] for row in rows] == ["1", "2"]
    values = dict(zip(header.split(","), map(float, rows[0].split(",")), strict=True))
    parts = [value for name, value in values.items() if name.startswith("loss_")]
    assert values["loss"] == pytest.approx(sum(parts), rel=1e-4)
    assert (finished / "eval.csv").read_text().startswith("step,mask.AP,mask.AP50")
    assert len(list((finished / "samples" / "000002").glob("*.png"))) == 4
    (events,) = (finished / "tensorboard").rglob("events.*")
    sample = next((finished / "samples").rglob("*.png"))
    assert f"samples/{sample.stem}".encode() in events.read_bytes(), "the sample pictures are in TensorBoard, too"
    assert {path.name for path in (finished / "last").iterdir()} > {path.name for path in (finished / "best").iterdir()}
    best, last = (load_file(finished / name / "model.safetensors") for name in ("best", "last"))
    assert all(torch.equal(best[name], value) for name, value in last.items())
    assert "| mask |" in (finished / "best" / "README.md").read_text()
    assert load_model(finished / "last").class_names == load_model(finished / "best").class_names


def test_no_pickle_in_a_run(finished: Path) -> None:
    kinds = {path.suffix for path in (finished / "last").iterdir()} | {
        path.suffix for path in (finished / "best").iterdir()
    }
    assert kinds == {".yaml", ".safetensors", ".md", ".json"}


def test_a_run_is_not_overwritten(settled: Callable[..., TrainConfig]) -> None:
    with pytest.raises(ConfigError, match="holds a run; give --resume auto to go on with it, or another --out"):
        train_run(settled())


def test_a_finished_run_resumed_stays_as_it_is(settled: Callable[..., TrainConfig], run: Path) -> None:
    before = {path.name: path.read_bytes() for path in (run / "last").iterdir()}
    log = (run / "log.csv").read_text()
    train_run(settled(), resume=True)
    assert {path.name: path.read_bytes() for path in (run / "last").iterdir()} == before
    assert (run / "log.csv").read_text() == log


def test_other_settings_are_refused_by_name(settled: Callable[..., TrainConfig]) -> None:
    changed = settled(optim__lr=0.5, model__box_head__nms=0.6, data__workers=1, log_every=7)
    with pytest.raises(ConfigError) as caught:
        train_run(changed, resume=True)
    message = str(caught.value)
    assert "cannot resume, settings differ: model.box_head.nms (0.5, now 0.6), optim.lr (0.01, now 0.5)" in message
    assert "workers (" not in message
    data = "data.schema, data.val, data.val_images, data.workers"
    may = f"accumulate, {data}, eval_every, log_every, out, prior, save_every, steps"
    assert message.endswith(f"a resumed run may change {may}")


def test_other_data_are_refused(settled: Callable[..., TrainConfig], scenes: Path) -> None:
    path = scenes / "annotations.json"
    whole = path.read_text()
    content = json.loads(whole)
    content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] != 1]
    path.write_text(json.dumps(content))
    try:
        with pytest.raises(ConfigError, match=r"data.train is not the same data \(images, digest differ"):
            train_run(settled(), resume=True)
    finally:
        path.write_text(whole)


@pytest.mark.parametrize("name", ["state.json", "optimizer.safetensors", "model.safetensors"])
def test_damaged_states_are_refused(settled: Callable[..., TrainConfig], run: Path, name: str) -> None:
    path = run / "last" / name
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"[]"):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=name):
            train_run(settled(), resume=True)
    path.unlink()
    with pytest.raises(WeightsError, match=name):
        train_run(settled(), resume=True)


def test_resume_without_a_run_starts_one(settings: Path, tmp_path: Path) -> None:
    train_run(load_config(settings, {"out": str(tmp_path / "new"), "steps": 1}), resume=True)
    assert load_model(tmp_path / "new" / "last")


@pytest.mark.slow
def test_bfloat16_follows_float32(settings: Path, tmp_path: Path) -> None:
    """Half the mantissa is lost, not the loss: within 2 % of float32 after two steps."""
    losses = []
    for precision in ("no", "bf16"):
        out = tmp_path / precision
        train_run(load_config(settings, {"out": str(out), "steps": 2, "precision": precision}))
        losses.append(float((out / "log.csv").read_text().splitlines()[-1].split(",")[2]))
        assert all(value.dtype == torch.float32 for value in load_file(out / "last" / "model.safetensors").values())
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert losses[1] != losses[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data__train": ""}, "data.train is not set; give --data.train"),
        ({"data__val": "x.json"}, "data.val is set without data.val_images"),
        ({"batch_size": 4, "accumulate": 4, "precision": "fp16"}, "precision is 'fp16'"),
    ],
)
def test_settings_that_do_not_fit(
    settled: Callable[..., TrainConfig], tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    if "fp16" in message and torch.cuda.is_available():
        pytest.skip("this device has float16")
    with pytest.raises(ConfigError, match=message):
        train_run(settled(out=str(tmp_path / "other"), **changes))
    assert not (tmp_path / "other").exists()


def test_exploding_run_stops_and_leaves_the_checkpoint(settings: Path, tmp_path: Path) -> None:
    config = load_config(settings, {"out": str(tmp_path / "run"), "steps": 9, "save_every": 1, "optim.lr": 1000})
    config = replace(config, optim=replace(config.optim, warmup_factor=1.0, clip_norm=None))
    with pytest.raises(AmodalError, match=r"is not finite; images \d+(, \d+)*; last checkpoint is untouched"):
        train_run(config)
    state = json.loads((tmp_path / "run" / "last" / "state.json").read_text())
    assert 1 <= state["step"] < 9


def test_init_from_other_classes(finished: Path, settings: Path, scenes: Path, tmp_path: Path, capsys: Any) -> None:
    """A checkpoint of four classes starts a run on three; tensors that count classes lose the fourth one's rows."""
    content = json.loads((scenes / "annotations.json").read_text())
    removed = content["categories"].pop()["id"]
    content["annotations"] = [entry for entry in content["annotations"] if entry["category_id"] != removed]
    (tmp_path / "three.json").write_text(json.dumps(content))
    changes = {"data.train": str(tmp_path / "three.json"), "out": str(tmp_path / "new"), "steps": 1, "optim.lr": 1e-30}
    train_run(load_config(settings, changes), init=str(finished / "best"))
    names = ", ".join(category["name"] for category in content["categories"])
    assert f"classes carried over: {names}; classes that start afresh: none" in capsys.readouterr().out
    old, new = (load_file(folder / "model.safetensors") for folder in (finished / "best", tmp_path / "new" / "last"))
    shorter = [name for name in old if old[name].shape != new[name].shape]
    assert 0 < len(shorter) <= 8
    assert all(old[name].shape[0] in (4, 5, 16, 20) and new[name].shape[0] in (3, 4, 12, 16) for name in shorter)
    assert all(torch.equal(old[name][: len(value)], value) for name, value in new.items())


def test_init_from_another_system_takes_what_fits(
    finished: Path, settings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = {"model.method.box_expansion": "none", "model.method.mask_expansion": "plain", "steps": 1}
    changes = {"out": str(tmp_path / "new"), "model.system": "pgexp", "optim.lr": 1e-30, **plain}
    train_run(load_config(settings, changes), init=str(finished / "best"))
    told = capsys.readouterr().out
    assert "it is a mask_rcnn, this run trains a pgexp" in told
    assert "start afresh, not in it: branch.visible_head" in told
    old, new = (load_file(folder / "model.safetensors") for folder in (finished / "best", tmp_path / "new" / "last"))
    assert all(torch.equal(value, new[name]) for name, value in old.items())


def test_validation_may_lack_classes_of_the_training_data(settings: Path, scenes: Path, tmp_path: Path) -> None:
    content = json.loads((scenes / "annotations.json").read_text())
    gone = content["categories"].pop()["id"]
    content["annotations"] = [a for a in content["annotations"] if a["category_id"] != gone]
    (tmp_path / "val.json").write_text(json.dumps(content))
    val = {"data.val": str(tmp_path / "val.json"), "data.val_images": str(scenes / "images")}
    low = {"model.box_head.score_threshold": 0.0}  # so that every class is predicted somewhere
    train_run(load_config(settings, {**val, **low, "out": str(tmp_path / "run"), "steps": 1}))
    assert (tmp_path / "run" / "eval.csv").is_file()


def test_a_checkpoint_replaces_the_pretrained_weights_without_loading_them(
    finished: Path, settings: Path, tmp_path: Path
) -> None:
    missing = {"model.backbone.weights": str(tmp_path / "none.safetensors")}
    train_run(load_config(settings, {**missing, "out": str(tmp_path / "b"), "steps": 1}), init=str(finished / "last"))
    with pytest.raises(WeightsError, match="none"):
        train_run(load_config(settings, {**missing, "out": str(tmp_path / "c"), "steps": 1}))


def test_other_validation_data_have_another_best(settled: Callable[..., TrainConfig], run: Path) -> None:
    state = json.loads((run / "last" / "state.json").read_text())
    assert state["best"] is not None
    config = settled(data__val=None)
    config = replace(config, model=complete(config.model))  # as a run is saved
    assert read_state(run / "last", config, state["data"]).best is None


def test_data_without_a_known_whole_shape_are_refused_with_the_way_out(
    settings: Path, scenes: Path, tmp_path: Path
) -> None:
    content = json.loads((scenes / "annotations.json").read_text())
    keys = ("id", "image_id", "category_id", "iscrowd", "segmentation", "area", "bbox")
    content["annotations"] = [{key: entry[key] for key in keys} for entry in content["annotations"]]
    (tmp_path / "modal.json").write_text(json.dumps(content))
    changes = {"data.train": str(tmp_path / "modal.json"), "out": str(tmp_path / "run"), "steps": 1}
    with pytest.raises(DataError, match=r"no object's whole shape is known \(read as schema 'coco'\).*--data\.schema"):
        train_run(load_config(settings, changes))


SCALER = {"scale": 1.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 9, "_growth_tracker": 0}
DATA = {"images": 10, "category_ids": [1, 2, 3, 4], "digest": "0a"}


def nested(depth: int) -> dict[str, Any]:
    whole: dict[str, Any] = {"steps": 2}
    for _ in range(depth):
        whole = {"steps": 2, "model": whole}
    return whole


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("data", [], r"state\.json: damaged.*\(data is \[\]\)"),
        ("data", {**DATA, "images": -1}, r"\(data\.images is -1\)"),
        ("data", {**DATA, "category_ids": [1, "2"]}, r"\(data\.category_ids is \[1, '2'\]\)"),
        ("data", {**DATA, "digest": 5}, r"\(data\.digest is 5\)"),
        ("data", {"images": 10, "digest": "0a"}, r"\(data\.category_ids is None\)"),
        ("data", {**DATA, "more": 1}, r"\(data\.more is 1\)"),
        ("step", True, r"damaged.*\(step is True\)"),
        ("step", 10**30, "step is 1000000.*, not between 1 and 2"),
        ("best", "high", r"\(best is 'high'\)"),
        ("best", 1e300, "must be 0 to 100, or null"),
        ("best", float("nan"), "best is nan, must be 0 to 100"),
        ("scaler", {"scale": "x"}, r"scaler\.scale is 'x'"),
        ("scaler", {**SCALER, "growth_interval": 0}, r"scaler\.growth_interval is 0"),
        ("scaler", {**SCALER, "growth_interval": 1.5}, r"scaler\.growth_interval is 1\.5"),
        ("scaler", {**SCALER, "scale": float("inf")}, r"scaler\.scale is inf"),
        ("scaler", {"scale": 1.0}, "scaler lacks numbers"),
        ("config", {"steps": "2"}, "config.steps is '2', must be 1 to"),
        ("config", {"steps": 2, "stesp": 2}, r"\(config: unknown key 'stesp'; nearest is 'steps'\)"),
        ("config", {"steps": 2, "optim": {"lr": -1}}, r"\(config: optim\.lr is -1"),
        ("config", nested(600), r"damaged, .*\(config: unknown key 'model\.steps'"),
        ("config", 7, r"\(config is 7\)"),
        ("version", 1.5, r"\(version is 1\.5\)"),
        ("bset", 1, r"\('bset' is unknown; nearest is 'best'\)"),
    ],
)
def test_fields_of_a_state_have_types_and_bounds(
    settled: Callable[..., TrainConfig], run: Path, key: str, value: Any, message: str
) -> None:
    path = run / "last" / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(WeightsError, match=message):
        train_run(settled(), resume=True)


def test_an_optimiser_state_that_lacks_tensors_is_refused(settled: Callable[..., TrainConfig], run: Path) -> None:
    path = run / "last" / "optimizer.safetensors"
    tensors = load_file(path)
    del tensors[sorted(tensors)[3]]
    for metadata, told in (({"tensors": str(len(tensors) + 1)}, len(tensors) + 1), (None, "an unknown number")):
        save_file(tensors, path, metadata)
        with pytest.raises(WeightsError, match=rf"holds {len(tensors)} tensors, {told} were written"):
            train_run(settled(), resume=True)


def test_a_state_with_a_key_twice_is_refused(settled: Callable[..., TrainConfig], run: Path) -> None:
    path = run / "last" / "state.json"
    path.write_text(path.read_text().replace('"step":', '"step": 1, "step":', 1))
    with pytest.raises(WeightsError, match=r"state\.json: damaged.*the key 'step' occurs twice"):
        train_run(settled(), resume=True)


def test_tensors_of_the_optimiser_are_such_as_it_can_have(settings: Path, tmp_path: Path) -> None:
    """Equal in number, so that their count says nothing."""
    config = load_config(settings, {"out": str(tmp_path / "run"), "steps": 2, "optim.name": "adamw"})
    train_run(config)
    path = tmp_path / "run" / "last" / "optimizer.safetensors"
    whole = load_file(path)
    name = "backbone.body.conv1.weight"
    average, squares, step = (f"{name}/{entry}" for entry in ("exp_avg", "exp_avg_sq", "step"))
    for changed, message in (
        ({squares: -whole[squares] - 1}, "exp_avg_sq' holds a negative number"),
        ({step: torch.tensor(3.0)}, "step' is 3, not between 1 and 2"),
        ({step: torch.tensor(0.0)}, "step' is 0, not between 1 and 2"),
        ({average: torch.tensor(0.0)}, r"exp_avg' has shape \[\], must be \[64, 3, 7, 7\]"),
        ({average: whole[average].int()}, r"exp_avg' is torch\.int32, must be torch\.float32"),
        ({average: whole[average].double() + 1e300}, "exp_avg' holds NaN or infinity"),
        ({average: None, f"{name}/momentum_buffer": whole[average]}, "conv1.weight/"),
    ):
        tensors = {key: value for key, value in {**whole, **changed}.items() if value is not None}
        save_file(tensors, path, {"tensors": str(len(tensors))})
        with pytest.raises(WeightsError, match=message):
            train_run(config, resume=True)


@pytest.mark.parametrize("part", ["train", "val"])
def test_missing_pictures_are_refused_before_anything_is_written(
    settled: Callable[..., TrainConfig], scenes: Path, tmp_path: Path, part: str
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    other = {f"data.{name}": str(scenes / "annotations.json") for name in ("train", "val")}
    other |= {f"data.{name}_images": str(scenes / "images") for name in ("train", "val")}
    changes = {**other, f"data.{part}_images": str(folder), "out": str(tmp_path / "new")}
    with pytest.raises(DataError, match=r"annotations\.json: image 1: 000001\.png is not in .*images, nor \d+ others$"):
        train_run(settled(**changes))
    assert not (tmp_path / "new").exists() or not any((tmp_path / "new").iterdir())


def test_a_fault_in_validation_leaves_no_loader_process(
    settled: Callable[..., TrainConfig], scenes: Path, tmp_path: Path
) -> None:
    shutil.copytree(scenes, tmp_path / "val")
    picture = sorted((tmp_path / "val/images").iterdir())[0]
    picture.write_bytes(picture.read_bytes()[:100])
    val = {"data.val": str(tmp_path / "val/annotations.json"), "data.val_images": str(tmp_path / "val/images")}
    config = settled(**val, **{"data.workers": 1, "out": str(tmp_path / "new"), "steps": 1})
    with pytest.raises(DataError, match=picture.name) as kept:
        train_run(config)
    assert multiprocessing.active_children() == [], "Python's exit would wait for them without end"
    del kept


def test_the_schema_may_be_named(settings: Path, scenes: Path, tmp_path: Path) -> None:
    """KINS keys in a file that has the canonical ones, too: what they mean is then for the user to say."""
    content = json.loads((scenes / "annotations.json").read_text())
    for entry in content["annotations"]:
        entry["inmodal_seg"], entry["inmodal_bbox"] = entry["visible_mask"], entry["visible_bbox"]
    (tmp_path / "both.json").write_text(json.dumps(content))
    paths = {"data.train": str(tmp_path / "both.json"), "data.val": str(tmp_path / "both.json")}
    paths["data.val_images"] = str(scenes / "images")
    for name in ("canonical", "kins"):
        images, val = load_data(load_config(settings, {**paths, "data.schema": name}))
        assert val is not None
        assert images.data.annotations.schema == val.annotations.schema == name
    with pytest.raises(DataError, match=r"unknown schema 'kinz'; nearest is 'kins'"):
        load_data(load_config(settings, {**paths, "data.schema": "kinz"}))
