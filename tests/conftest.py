"""Small models and pictures that several areas use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings
from torch import Tensor

from amodal.config import (
    BackboneConfig,
    BoxHeadConfig,
    MaskHeadConfig,
    ModelConfig,
    RPNConfig,
    TrainConfig,
    TransformConfig,
)
from amodal.data.scenes.dataset import write_dataset
from amodal.data.store import AnnotationSet
from amodal.frames import crop_masks
from amodal.plain_yaml import dump_yaml
from amodal.priors.fit import fit_prior
from amodal.priors.prior import Prior
from amodal.settings import PGExpConfig, PriorConfig
from amodal.structures import Targets

# The same examples in every run: a test that fails only sometimes tells nobody what changed.
settings.register_profile("steady", derandomize=True)
settings.load_profile("steady")


SETTINGS = {
    "batch_size": 4,
    "eval_every": 0,
    "model": {
        "transform": {"min_size": [96], "max_size": 96, "test_min_size": 96, "test_max_size": 96},
        "backbone": {"name": "nano", "norm": "group", "channels": 32, "trainable_layers": 5, "extra_level": False},
        "rpn": {
            "anchor_sizes": [16, 32, 64, 96],
            "pre_nms_train": 200,
            "pre_nms_test": 200,
            "post_nms_train": 60,
            "post_nms_test": 60,
            "batch_per_image": 64,
        },
        "box_head": {"channels": 64, "batch_per_image": 32, "detections": 10},
        "mask_head": {"channels": 16, "convs": 2},
    },
    "data": {"workers": 0},
    "optim": {"lr": 0.01, "clip_norm": 5.0, "warmup_steps": 2},
}
"""Of runs that take seconds."""


@dataclass
class DenseMasks:
    """A mask source over plain bool masks [G, H, W]: no RLE, so that model tests depend on no codec."""

    masks: Tensor
    scale: tuple[float, float] = (1.0, 1.0)

    def __len__(self) -> int:
        return len(self.masks)

    def crop(self, index: Tensor, boxes: Tensor, size: int = 28, soft: bool = False) -> Tensor:
        source = boxes / boxes.new_tensor(self.scale).repeat(2)
        return crop_masks(self.masks.to(boxes.device), index, source, size, soft)

    def rescale(self, scale_x: float, scale_y: float) -> DenseMasks:
        return replace(self, scale=(self.scale[0] * scale_x, self.scale[1] * scale_y))


@dataclass
class Example:
    """A picture of coloured squares (class 0) and discs (class 1), later ones in front, with its ground truth."""

    image: Tensor
    targets: Targets
    amodal: Tensor
    visible: Tensor


def _tight(mask: Tensor) -> list[float]:
    rows, columns = torch.nonzero(mask.any(1)).flatten(), torch.nonzero(mask.any(0)).flatten()
    if len(rows) == 0:
        return [0.0, 0.0, 0.0, 0.0]
    return [float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)]


def make_example(
    seed: int, height: int = 96, width: int = 96, objects: int = 3, image_id: int | None = None
) -> Example:
    """Draw one example."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 60, (3, height, width), generator=generator, dtype=torch.uint8)
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    amodal = torch.zeros(objects, height, width, dtype=torch.bool)
    colours = torch.tensor([[210, 60, 60], [60, 210, 60], [60, 60, 220], [210, 210, 40]], dtype=torch.uint8)
    for k in range(objects):
        u, v, r = torch.rand(3, generator=generator).tolist()
        cx, cy, radius = 0.2 * width + 0.6 * width * u, 0.2 * height + 0.6 * height * v, 10 + 8 * r
        square = ((x - cx).abs() < radius) & ((y - cy).abs() < 0.7 * radius)
        amodal[k] = ((x - cx) ** 2 + (y - cy) ** 2 < radius**2) if k % 2 else square
        image[:, amodal[k]] = colours[k % 4][:, None]
    visible = amodal.clone()
    for k in range(objects):
        visible[k] &= ~amodal[k + 1 :].any(dim=0)
    targets = Targets(
        image_id=seed if image_id is None else image_id,
        boxes=torch.tensor([_tight(m) for m in amodal]).reshape(-1, 4),
        visible_boxes=torch.tensor([_tight(m) for m in visible]).reshape(-1, 4),
        labels=torch.arange(objects) % 2,
        occlude_rate=1 - visible.flatten(1).sum(1) / amodal.flatten(1).sum(1),
        amodal_known=torch.ones(objects, dtype=torch.bool),
        ignore=torch.zeros(objects, dtype=torch.bool),
        annotation_ids=torch.arange(objects) + 100,
        amodal=DenseMasks(amodal),
        visible=DenseMasks(visible),
    )
    return Example(image, targets, amodal, visible)


def make_config(system: str = "mask_rcnn", size: int = 64, **box_head: float) -> ModelConfig:
    """A tiny detector: ResNet-10, 32 channels, pictures of ``size`` pixels; "pgexp" is set #1, without a prior."""
    plain = PGExpConfig(box_expansion="none", mask_expansion="plain")
    return ModelConfig(
        system=system,
        method=plain if system == "pgexp" else None,
        transform=TransformConfig(min_size=[size], max_size=2 * size, test_min_size=size, test_max_size=2 * size),
        backbone=BackboneConfig(name="nano", norm="group", channels=32, trainable_layers=5, extra_level=False),
        rpn=RPNConfig(
            anchor_sizes=[16, 32, 64, 128], pre_nms_train=60, pre_nms_test=60, post_nms_train=60, post_nms_test=60
        ),
        box_head=BoxHeadConfig(channels=32, batch_per_image=64, detections=20, **box_head),
        mask_head=MaskHeadConfig(channels=16, convs=2),
    )


@pytest.fixture(scope="session")
def tiny_annotations() -> AnnotationSet:
    """The objects of twelve examples, 36 of two classes."""
    examples = [make_example(seed) for seed in range(12)]
    items = [
        {"image": image, "label": k % 2, "amodal": one.amodal[k].numpy(), "visible": one.visible[k].numpy()}
        for image, one in enumerate(examples)
        for k in range(len(one.targets))
    ]
    return AnnotationSet.from_masks([(96, 96)] * 12, items, ["square", "disc"], image_ids=list(range(12)))


@pytest.fixture(scope="session")
def tiny_prior(tiny_annotations: AnnotationSet) -> Prior:
    """A prior of :func:`tiny_annotations`, hardly fitted: 10 slots a class. Shared, so not to be changed."""
    config = PriorConfig(slots=10, encoder_steps=40, flow_steps=20)
    return fit_prior(tiny_annotations, config)[0]


@pytest.fixture
def example() -> Callable[..., Example]:
    """:func:`make_example`."""
    return make_example


@pytest.fixture
def tiny_config() -> Callable[..., ModelConfig]:
    """:func:`make_config`."""
    return make_config


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``annotations.json`` and ``images/``: ten drawn scenes of 96 x 96 pixels."""
    folder = tmp_path_factory.mktemp("scenes") / "data"
    write_dataset(folder, 10, 96, 3, 4)
    return folder


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory, scenes: Path) -> Path:
    """A configuration file for runs on :func:`scenes`."""
    data = {"train": str(scenes / "annotations.json"), "train_images": str(scenes / "images"), "workers": 0}
    path = tmp_path_factory.mktemp("settings") / "tiny.yaml"
    path.write_text(dump_yaml({**SETTINGS, "data": data}), encoding="utf-8")
    return path


@pytest.fixture
def train_and_die(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Trains as ``train_run`` does and is interrupted in step ``at`` (from 0), so that ``resume=True`` may go on."""
    from amodal.train import run as run_module  # here, since most tests do not train

    def train(config: TrainConfig, at: int = 1) -> None:
        step = run_module._step

        def killed(run: Any, batches: Any, number: int, rate: float) -> Any:
            if number == at:
                raise KeyboardInterrupt
            return step(run, batches, number, rate)

        with monkeypatch.context() as patched:
            patched.setattr(run_module, "_step", killed)
            with pytest.raises(KeyboardInterrupt):
                run_module.train_run(config)

    return train
