"""From pictures to predictions: reading whatever a picture came as, batching, asking the network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps
from torch import Tensor

from amodal.config import TransformConfig
from amodal.data.images import grey_range, read_image, to_rgb
from amodal.errors import ConfigError, DataError
from amodal.models.rcnn import AmodalRCNN
from amodal.prediction import Prediction
from amodal.tiles import Tiling, predict_tiled
from amodal.viz.explanation import Explanation

Pixels = npt.NDArray[np.uint8]
Item = TypeVar("Item")
Source = str | Path | Image.Image | Pixels


def pick_device(name: str | torch.device | None) -> torch.device:
    """The device of that name; "auto" or None is the first GPU, or else the CPU.

    Raises:
        ConfigError: the name is unknown, or this machine has no such device.
    """
    if isinstance(name, torch.device):
        return name
    if name in (None, "auto"):
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    assert name is not None
    there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        there.append("mps")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    known = device is not None and (str(device) in there or (device.type == "cuda" and device.index is None))
    if device is None or not known or (device.type == "cuda" and not torch.cuda.is_available()):
        raise ConfigError(f"device {name!r} is not there; this machine has {', '.join(there)} (or 'auto')")
    return device


def predict_images(
    model: AmodalRCNN,
    sources: Sequence[Source],
    threshold: float = 0.5,
    *,
    batch: int = 1,
    tiling: Tiling | None = None,
) -> list[Prediction]:
    """Predictions in the frames of the pictures, in order.

    Args:
        model: the detector; its mode is restored afterwards.
        sources: paths, Pillow images or uint8 arrays [H, W, 3] RGB.
        threshold: lowest score that is kept, 0 to 1.
        batch: how many pictures of equal size go through the network together.
        tiling: how large pictures are cut; None: they are not.

    Raises:
        DataError: a picture cannot be read.
        ConfigError: the threshold is not within 0 to 1.
    """
    images = map(as_pixels, sources)
    return [
        found for group in groups(images, batch, np.shape) for found in predict_batch(model, group, threshold, tiling)
    ]


def predict_batch(
    model: AmodalRCNN, images: Sequence[Pixels], threshold: float, tiling: Tiling | None = None
) -> list[Prediction]:
    """Predictions for uint8 RGB arrays [H, W, 3], each of which keeps its picture.

    In one pass of the network, or with ``tiling`` picture by picture in as many as they have tiles.
    """
    check_threshold(threshold)
    if tiling is None:
        return _predict(model, images, threshold)
    nms = model.config.box_head.nms
    found = [predict_tiled(image, tiling, partial(_predict, model, threshold=threshold), nms) for image in images]
    return [replace(prediction, image=image) for prediction, image in zip(found, images, strict=True)]


def _predict(model: AmodalRCNN, images: Sequence[Pixels], threshold: float) -> list[Prediction]:
    if not images:
        return []
    device = next(model.parameters()).device
    tensors = [_tensor(image, device) for image in images]
    # The box head drops scores at its threshold, predictions keep them: the next smaller number does both. A model's
    # own threshold is for results that are evaluated; whoever asks for less gets it.
    least = min(model.score_threshold, float(np.nextafter(np.float32(threshold), np.float32(-1))))
    with _evaluating(model):
        found = model.detect(tensors, least)
    kept = [prediction[prediction.scores >= threshold] for prediction in found]
    for prediction, image in zip(kept, images, strict=True):
        prediction.image = image
    return kept


def check_threshold(threshold: float) -> None:
    """Refuses a score threshold outside 0 to 1 with a :class:`ConfigError`."""
    if not 0 <= threshold <= 1:
        raise ConfigError(f"threshold is {threshold!r}, must be 0 to 1; the nearest is {0 if threshold < 0 else 1}")


def as_pixels(source: Source) -> Pixels:
    """uint8 RGB array [H, W, 3] of a path, a Pillow image or such an array.

    Raises:
        DataError: it cannot be read, or is of another type or shape.
    """
    if isinstance(source, (str, Path)):
        return read_image(source)
    if isinstance(source, Image.Image):
        return to_rgb(ImageOps.exif_transpose(source), grey_range(source))
    if not isinstance(source, np.ndarray):
        raise DataError(f"a picture is a path, a Pillow image or a uint8 array [H, W, 3], not {type(source).__name__}")
    if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3 or 0 in source.shape:
        raise DataError(f"an array picture must be uint8 [H, W, 3] RGB, not {source.dtype} {list(source.shape)}")
    return source


def groups(items: Iterable[Item], batch: int, key: Callable[[Item], object]) -> Iterator[list[Item]]:
    """Neighbours with equal keys, at most ``batch`` together, in order."""
    group: list[Item] = []
    for item in items:
        if group and (len(group) >= batch or key(item) != key(group[0])):
            yield group
            group = []
        group.append(item)
    if group:
        yield group


def explain_image(model: AmodalRCNN, image: Pixels) -> list[Explanation]:
    """How the masks in a picture came about, as the branch tells it; best score first.

    Args:
        model: the detector; its mode is restored afterwards.
        image: uint8 [H, W, 3] RGB.

    Returns:
        One an object that the box head finds; boxes in pixels of ``image``. Empty for a system that tells nothing.
    """
    with _evaluating(model), torch.no_grad():
        (regions,) = model.regions([_tensor(image, model.device)])
        found = model.branch.explain(regions.features, regions.rois)
    (height, width), (true_height, true_width) = regions.batch.sizes[0], regions.batch.originals[0]
    scale = np.array([true_width / width, true_height / height] * 2, dtype=np.float32)
    names = [model.class_names[label] for label in regions.rois.labels.tolist()]
    made = zip(found, names, regions.rois.scores.tolist(), strict=bool(found))
    placed = [replace(one.scaled(scale), name=name, score=score) for one, name, score in made]
    return sorted(placed, key=lambda one: -(one.score or 0.0))


@contextmanager
def _evaluating(model: AmodalRCNN) -> Iterator[None]:
    """The model in eval mode. One that is in it already is not touched, so that threads may share it."""
    training = model.training
    if training:
        model.eval()
    try:
        yield
    finally:
        if training:
            model.train()


def _tensor(image: Pixels, device: torch.device) -> Tensor:
    return torch.from_numpy(np.require(image, requirements=["C", "W"])).permute(2, 0, 1).to(device)


def seen_size(config: TransformConfig, *, training: bool = False) -> str:
    """One line: at what size a model of these settings sees pictures."""

    def sides(shorter: list[int], longer: int) -> str:
        return f"{' or '.join(map(str, shorter))} px on the shorter side, {longer} at most on the longer"

    seen = sides([config.test_min_size], config.test_max_size)
    if training:
        trained = sides(config.min_size, config.max_size)
        seen = trained if trained == seen else f"{trained}, in training; {seen}, in test"
    return f"pictures are seen at {seen}"
