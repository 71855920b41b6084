"""From pictures to predictions: loading a checkpoint, reading whatever a picture came as, batching."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps

from amodal.data.images import read_image, to_rgb
from amodal.errors import ConfigError, DataError, WeightsError
from amodal.prediction import Prediction

if TYPE_CHECKING:
    from amodal.models.rcnn import AmodalRCNN

Pixels = npt.NDArray[np.uint8]
Item = TypeVar("Item")
Source = str | Path | Image.Image | Pixels

SHIPPED = Path(__file__).parent / "weights"
"""Folder of the weights that ship with the package."""


def load(source: str | Path, device: str | torch.device | None = None) -> AmodalRCNN:
    """A trained detector in eval mode.

    Args:
        source: checkpoint folder, name of weights that ship with the package ("nano-scenes-v1"), or the id of a
            Hugging Face repository such as "me/pgexp-kins". A folder that exists comes first.
        device: "cpu", "cuda", "cuda:1", ...; None or "auto": the first GPU, or else the CPU.

    Raises:
        WeightsError: no such folder or repository, or its weights are damaged or do not fit its configuration.
        ConfigError: the device is unknown or not there, or the configuration is damaged.
    """
    from amodal.train.checkpoints import load_model

    chosen = pick_device(device)
    path = Path(source)
    if not path.exists():
        if str(source) in shipped_names():
            path = SHIPPED / str(source)
        elif _is_hub_id(str(source)):
            path = _download(str(source))
    return load_model(path, chosen)


def shipped_names() -> list[str]:
    """Names of the weights that ship with the package."""
    return sorted(folder.name for folder in SHIPPED.iterdir() if folder.is_dir()) if SHIPPED.is_dir() else []


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
    model: AmodalRCNN, sources: Sequence[Source], threshold: float = 0.5, *, batch: int = 1
) -> list[Prediction]:
    """Predictions in the frames of the pictures, in order.

    Args:
        model: the detector; its mode is restored afterwards.
        sources: paths, Pillow images or uint8 arrays [H, W, 3] RGB.
        threshold: lowest score that is kept, 0 to 1.
        batch: how many pictures of equal size go through the network together.

    Raises:
        DataError: a picture cannot be read.
        ConfigError: the threshold is not within 0 to 1.
    """
    images = map(as_pixels, sources)
    return [found for group in groups(images, batch, np.shape) for found in predict_batch(model, group, threshold)]


def predict_batch(model: AmodalRCNN, images: Sequence[Pixels], threshold: float) -> list[Prediction]:
    """Predictions for uint8 RGB arrays [H, W, 3] in one pass of the network; each keeps its picture."""
    check_threshold(threshold)
    if not images:
        return []
    device = next(model.parameters()).device
    tensors = [
        torch.from_numpy(np.require(image, requirements=["C", "W"])).permute(2, 0, 1).to(device) for image in images
    ]
    training = model.training
    try:
        with _kept_from(model, threshold):
            found: list[Prediction] = model.eval().detect(tensors)
    finally:
        model.train(training)
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
        return to_rgb(ImageOps.exif_transpose(source))
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


@contextmanager
def _kept_from(model: AmodalRCNN, threshold: float) -> Iterator[None]:
    """Lets the box head keep scores down to ``threshold`` if its own threshold is higher."""
    settings = model.config.box_head
    before = settings.score_threshold
    # The head drops scores at its threshold, predictions keep them: the next smaller number does both.
    settings.score_threshold = min(before, float(np.nextafter(np.float32(threshold), np.float32(-1))))
    try:
        yield
    finally:
        settings.score_threshold = before


def _is_hub_id(source: str) -> bool:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        validate_repo_id(source)
    except HFValidationError:
        return False
    return source.count("/") == 1 and not source.startswith(".")


def _download(repository: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        return Path(snapshot_download(repository, allow_patterns=["config.yaml", "*.safetensors", "prior/*", "*.md"]))
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(f"{repository}: no such folder, and not to be had from the hub ({reason})") from error
