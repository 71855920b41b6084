"""Weights and checkpoint configurations that are damaged or of another kind: one line that names file and tensor."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import amodal
from amodal.checkpoint import check_folder, save_model
from amodal.config import BackboneConfig, BoxHeadConfig, MaskHeadConfig, ModelConfig, RPNConfig
from amodal.errors import AmodalError, ConfigError, WeightsError
from amodal.model import build, load_model
from amodal.train.init import start_from

NAMES = ["cup", "fish"]


def tiny(classes: int = 2) -> ModelConfig:
    return ModelConfig(
        system="mask_rcnn",
        backbone=BackboneConfig(name="nano", norm="group", channels=8, trainable_layers=5, extra_level=False),
        rpn=RPNConfig(anchor_sizes=[16, 32, 64, 128]),
        box_head=BoxHeadConfig(channels=8),
        mask_head=MaskHeadConfig(channels=8, convs=1),
    )


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good") / "checkpoint"
    save_model(build("mask_rcnn", 2, config=tiny(), class_names=NAMES, category_ids=[3, 9]), folder)
    return folder


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "checkpoint"))


def refused(folder: Path, kind: type[AmodalError] = WeightsError) -> str:
    with pytest.raises(kind) as caught:
        load_model(folder)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_round_trip(good: Path, tmp_path: Path) -> None:
    model = load_model(good)
    assert not model.training
    assert (model.class_names, model.category_ids, model.config.system) == (NAMES, [3, 9], "mask_rcnn")
    save_model(model, tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == (good / "model.safetensors").read_bytes()
    assert (tmp_path / "config.yaml").read_bytes() == (good / "config.yaml").read_bytes()


def test_half_precision(good: Path, tmp_path: Path) -> None:
    model = load_model(good)
    with torch.no_grad():
        model.box_head.state_dict(keep_vars=True)[next(iter(model.box_head.state_dict()))].view(-1)[0] = 1e6
    save_model(model, tmp_path, half=True)
    sizes = [(path / "model.safetensors").stat().st_size for path in (tmp_path, good)]
    assert sizes[0] < 0.6 * sizes[1]
    again = load_model(tmp_path).state_dict()
    for name, value in model.state_dict().items():
        assert again[name].dtype == value.dtype
        assert torch.allclose(again[name], value, rtol=1e-3, atol=1e-4), name


def test_model_card(good: Path, tmp_path: Path) -> None:
    metrics = {"mask": {"AP": 41.26, "AP-occ": None}, "box": {}, "images": 7, "instances": 9}
    save_model(load_model(good), tmp_path, {"metrics": metrics, "data": "x.json, 12 images", "steps": "5 of 5"})
    card = (tmp_path / "README.md").read_text()
    for part in (
        "cup, fish",
        "| mask | 41.3 | - |",
        "7 images, 9 instances",
        "x.json, 12 images",
        "library_name: amodal",
    ):
        assert part in card, part


def test_hub_methods_use_the_same_folder(good: Path, tmp_path: Path) -> None:
    model = load_model(good)
    model.save_pretrained(tmp_path / "saved")
    assert sorted(path.name for path in (tmp_path / "saved").iterdir()) == [
        "README.md",
        "config.yaml",
        "model.safetensors",
    ]
    again = type(model).from_pretrained(tmp_path / "saved")
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["config.yaml", "model.safetensors"])
def test_missing_file(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert str(folder / name) in refused(folder, AmodalError)


def test_missing_folder_and_file_instead_of_folder(folder: Path) -> None:
    assert "no such checkpoint folder" in refused(folder / "none")
    assert "not a folder" in refused(folder / "model.safetensors")


def test_cut_at_every_kind_of_place(folder: Path) -> None:
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    header = 8 + struct.unpack("<Q", whole[:8])[0]
    places = [*range(0, 12), header // 2, header - 1, header, header + 1, (header + len(whole)) // 2, len(whole) - 1]
    for place in places:
        path.write_bytes(whole[:place])
        assert str(path) in refused(folder), place
    path.write_bytes(whole + b"x")
    assert str(path) in refused(folder)


@pytest.mark.parametrize(
    "content",
    [
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 2**40) + b"{}" * 100,
        struct.pack("<Q", 4) + b"null",
        struct.pack("<Q", 8) + b'{"a":1} ',
        b"PK\x03\x04" + bytes(100),
        b"\x80\x04\x95" + bytes(100),
    ],
)
def test_header_that_lies(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    assert "model.safetensors" in refused(folder)


def test_offsets_beyond_the_file(folder: Path) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [2**31, 2**31], "data_offsets": [0, 2**63]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))
    assert "model.safetensors" in refused(folder)


def test_a_hundred_thousand_tensors(folder: Path) -> None:
    header = json.dumps(
        {f"t{i}": {"dtype": "U8", "shape": [1], "data_offsets": [i, i + 1]} for i in range(100_000)}
    ).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(100_000))
    assert "100000 unknown" in refused(folder)


def changed(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> str:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    return refused(folder)


def test_tensor_faults_name_the_tensor(good: Path, folder: Path) -> None:
    name = sorted(load_file(good / "model.safetensors"))[3]
    for value in (float("nan"), float("inf")):
        shutil.copy(good / "model.safetensors", folder)
        assert f"tensor {name!r} holds NaN or infinity" in changed(
            folder, lambda t, v=value: t[name].view(-1)[0].fill_(v)
        )
    shutil.copy(good / "model.safetensors", folder)
    assert f"tensor {name!r} is missing (1 missing, 0 unknown)" in changed(folder, lambda t: t.pop(name))
    shutil.copy(good / "model.safetensors", folder)
    assert "tensor 'extra' is unknown" in changed(folder, lambda t: t.update(extra=torch.zeros(1)))
    shutil.copy(good / "model.safetensors", folder)
    assert f"tensor {name!r} has shape" in changed(folder, lambda t: t.update({name: torch.zeros(1, 2, 3)}))
    shutil.copy(good / "model.safetensors", folder)
    for dtype in (torch.int32, torch.bool, torch.complex64, torch.float8_e4m3fn):
        shutil.copy(good / "model.safetensors", folder)
        assert f"tensor {name!r} is {dtype}" in changed(folder, lambda t, d=dtype: t.update({name: t[name].to(d)}))
    shutil.copy(good / "model.safetensors", folder)
    large = changed(folder, lambda t: t.update({name: torch.full_like(t[name], 1e300, dtype=torch.float64)}))
    assert f"tensor {name!r} holds NaN or infinity" in large, "what float32 cannot hold"


def test_another_class_count(folder: Path) -> None:
    text = (folder / "config.yaml").read_text()
    names = "class_names: [cup, fish]"
    ids = "category_ids: [3, 9]"
    assert names in text
    assert ids in text
    text = text.replace(names, "class_names: [cup, fish, car]").replace(ids, "category_ids: [3, 9, 11]")
    (folder / "config.yaml").write_text(text)
    message = refused(folder)
    assert "config.yaml with 3 classes asks for [4, 8]" in message
    assert "has shape [3, 8]" in message


@pytest.mark.parametrize("name", ["model.pth", "weights.pt", "x.pkl", "pytorch_model.bin"])
def test_pickles_are_never_read(folder: Path, name: str) -> None:
    """The pickle would make a file if it were loaded."""
    marker = folder / "executed"
    (folder / name).write_bytes(b"cbuiltins\nopen\n(V" + str(marker).encode() + b"\nVw\ntR.")
    (folder / "model.safetensors").unlink()
    assert f"{name} is pickled and never loaded" in refused(folder)
    assert "pickled weights are never loaded" in refused(folder / name)
    shutil.copy(folder / name, folder / "model.safetensors")
    assert "model.safetensors" in refused(folder)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("version: 1", "version: 2"), "version 2 is newer than this release reads"),
        (("version: 1", "version: x"), "version is 'x', must be an integer"),
        (("system: mask_rcnn", "system: mask_rccn"), "no known system; nearest is 'mask_rcnn'"),
        (("system: mask_rcnn", "sistem: mask_rcnn"), "unknown key 'sistem'; nearest is 'system'"),
        (("class_names: [cup, fish]", "class_names: []"), "class_names must be a list of names"),
        (("class_names: [cup, fish]", "class_names: [cup, 2]"), "class_names must be a list of names"),
        (("category_ids: [3, 9]", "category_ids: [3, 3]"), "category_ids must be 2 different integers"),
        (("category_ids: [3, 9]", "category_ids: [3]"), "category_ids must be 2 different integers"),
        (("category_ids: [3, 9]", "category_ids: [3, true]"), "category_ids must be 2 different integers"),
        (("category_ids: [3, 9]", "category_ids: [3, -9]"), "different integers from 0 to 9223372036854775807"),
        (("category_ids: [3, 9]", f"category_ids: [3, {2**63}]"), "different integers from 0 to"),
        (("category_ids: [3, 9]", f"category_ids: [3, {'9' * 5000}]"), "is an integer of too many digits"),
        (("class_names: [cup, fish]", 'class_names: [cup, "\\ud800"]'), "holds a character that no text can have"),
        (("channels: 8", "channels: 16384"), "backbone.channels is 16384, must be less: its layers would have"),
        (("category_ids: [3, 9]\n", ""), "category_ids is missing"),
        (("norm: group", "norm: batch"), "backbone.norm is 'batch', must be one of"),
        (("norm: group", "nrom: group"), "unknown key 'backbone.nrom'; nearest is 'norm'"),
        (("detections: 100", "detections: 0"), "box_head.detections is 0, must be 1 to 1000000"),
        (
            ("class_names: [cup, fish]", "class_names: !!python/name:os.system [a, b]"),
            "tags ('tag:yaml.org,2002:python/name:os.system') are not allowed",
        ),
        (("class_names: [cup, fish]", "class_names: &a [cup, fish]\nother: *a"), "aliases"),
        (("version: 1", "version: 1\nversion: 1"), "key 'version' is given twice"),
        (("version: 1", "version: [1"), "line "),
    ],
)
def test_configuration_faults(folder: Path, change: tuple[str, str], message: str) -> None:
    text = (folder / "config.yaml").read_text()
    assert change[0] in text
    (folder / "config.yaml").write_text(text.replace(*change))
    found = refused(folder, ConfigError)
    assert message in found
    assert str(folder / "config.yaml") in found


def test_configuration_that_is_no_text(folder: Path) -> None:
    for content in (b"\xff\xfe\x00", b"- a\n- b\n", b"[" * 5000, b"x: " + b"a" * (1 << 20), b"a: \x00"):
        (folder / "config.yaml").write_bytes(content)
        assert str(folder / "config.yaml") in refused(folder, ConfigError)


def test_a_run_folder_is_its_best_else_its_last(tmp_path: Path) -> None:
    for seed, name in ((1, "last"), (2, "best")):
        save_model(build("mask_rcnn", 2, config=tiny(), seed=seed), tmp_path / "run" / name)
        loaded = amodal.load(tmp_path / "run", "cpu").state_dict()
        wanted = build("mask_rcnn", 2, config=tiny(), seed=seed).state_dict()
        assert all(torch.equal(value, wanted[key]) for key, value in loaded.items()), name
    assert check_folder(tmp_path / "run" / "last") == tmp_path / "run" / "last"
    line = start_from(build("mask_rcnn", 2, config=tiny(), seed=3), tmp_path / "run")
    assert f"tensors from {tmp_path / 'run' / 'best'}" in line


def test_weights_that_ship_may_start_a_run() -> None:
    model = amodal.load("nano-scenes-v1", "cpu")
    fresh = build("pgexp", 8, config=model.config, class_names=model.class_names, prior=model.prior, seed=9)
    assert start_from(fresh, "nano-scenes-v1").startswith(f"init: {len(model.state_dict())} tensors from ")
    assert all(torch.equal(value, fresh.state_dict()[key]) for key, value in model.state_dict().items())
