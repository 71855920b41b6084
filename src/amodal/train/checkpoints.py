"""Checkpoint folders: ``config.yaml``, ``model.safetensors``, ``README.md``, and ``prior/`` where the system uses one.

Nothing is ever unpickled.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from amodal.config import ModelConfig
from amodal.config_io import VERSION, check_version, dump_yaml, nearest, read_yaml, structure, to_dict
from amodal.errors import ConfigError, WeightsError
from amodal.train.card import model_card

if TYPE_CHECKING:
    from amodal.models.rcnn import AmodalRCNN

CONFIG, WEIGHTS, CARD, PRIOR = "config.yaml", "model.safetensors", "README.md", "prior"
_PICKLES = (".pth", ".pt", ".pkl", ".bin", ".ckpt")


def save_model(
    model: AmodalRCNN, folder: str | Path, card: Mapping[str, Any] | None = None, *, half: bool = False
) -> None:
    """Writes a checkpoint into ``folder`` (made where missing, files of the same names replaced).

    Args:
        model: the detector.
        folder: where to.
        card: what the model card tells beside the model: "metrics" (as in metrics.json), "data", "steps", "notes".
        half: store floating-point tensors as float16, half the size; loading gives float32 again.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    settings = to_dict(model.config)
    system = settings.pop("system")
    settings["backbone"]["weights"] = None  # They are in the file; loading must not download others first.
    data = {
        "version": VERSION,
        "system": system,
        "class_names": list(model.class_names),
        "category_ids": [int(value) for value in model.category_ids],
        "model": settings,
    }
    (folder / CONFIG).write_text(dump_yaml(data), encoding="utf-8")
    save_file(_state(model, half), folder / WEIGHTS, metadata={"format": "pt"})
    if model.prior is not None:
        model.prior.save(folder / PRIOR)
    (folder / CARD).write_text(model_card(model, card or {}), encoding="utf-8")


def load_model(folder: str | Path, device: torch.device | str = "cpu") -> AmodalRCNN:
    """The detector of a checkpoint folder, in eval mode.

    Raises:
        ConfigError: ``config.yaml`` or the prior's is missing, damaged or of a newer release.
        WeightsError: weights or prior are missing, damaged, pickled, not finite, or do not fit the configuration.
    """
    from amodal.models.build import build

    folder = check_folder(folder)
    config, class_names, category_ids = read_checkpoint_config(folder)
    with open_weights(folder / WEIGHTS):
        pass  # A damaged file is found before the model is built.
    prior = folder / PRIOR if config.method is not None and config.method.uses_prior else None
    model = build(
        config.system,
        len(class_names),
        config=config,
        class_names=class_names,
        category_ids=category_ids,
        prior=prior,
    )
    expected = model.state_dict()
    tensors = read_weights(folder / WEIGHTS, expected, f"config.yaml with {len(class_names)} classes")
    model.load_state_dict(tensors)
    return model.to(device).eval()


def check_folder(folder: str | Path) -> Path:
    """``folder`` as a path, refused with a :class:`WeightsError` where it can be no checkpoint."""
    folder = Path(folder)
    if folder.suffix.lower() in _PICKLES and not folder.is_dir():
        raise WeightsError(f"{folder}: pickled weights are never loaded; give a folder with {CONFIG} and {WEIGHTS}")
    if not folder.exists():
        raise WeightsError(f"{folder}: no such checkpoint folder")
    if not folder.is_dir():
        raise WeightsError(f"{folder}: not a folder; a checkpoint is a folder with {CONFIG} and {WEIGHTS}")
    return folder


def read_checkpoint_config(folder: Path) -> tuple[ModelConfig, list[str], list[int]]:
    """Model settings, class names and category ids of a checkpoint folder."""
    path = folder / CONFIG
    data = read_yaml(path)
    check_version(data.pop("version", 1), path)
    known = ["system", "class_names", "category_ids", "model"]
    for key in data:
        if key not in known:
            raise ConfigError(f"{path}: unknown key {key!r}{nearest(str(key), known)}")
    for key in known:
        if key not in data:
            raise ConfigError(f"{path}: {key} is missing")
    names, ids, settings = data["class_names"], data["category_ids"], data["model"]
    if not isinstance(settings, dict):
        raise ConfigError(f"{path}: model is {settings!r}, must be a mapping of settings")
    if not _is_list(names, str) or not names:
        raise ConfigError(f"{path}: class_names must be a list of names")
    if not _is_list(ids, int) or len(set(ids)) != len(ids) or len(ids) != len(names):
        raise ConfigError(f"{path}: category_ids must be {len(names)} different integers, one for each class name")
    return structure(ModelConfig, {**settings, "system": data["system"]}, str(path)), names, ids


def read_weights(path: Path, expected: Mapping[str, Tensor], owner: str) -> dict[str, Tensor]:
    """Tensors of a safetensors file, by name, with the shapes and dtypes of ``expected``.

    Args:
        path: the file.
        expected: what must be there, no more and no less.
        owner: what asks for these tensors, for messages.

    Raises:
        WeightsError: naming file and tensor.
    """
    tensors: dict[str, Tensor] = {}
    with open_weights(path) as file:
        names = set(file.keys())
        missing = [name for name in expected if name not in names]
        surplus = sorted(names - set(expected))
        if missing or surplus:
            what = f"tensor {missing[0]!r} is missing" if missing else f"tensor {surplus[0]!r} is unknown"
            raise WeightsError(f"{path}: {what} ({len(missing)} missing, {len(surplus)} unknown); asked by {owner}")
        for name, like in expected.items():
            shape = list(file.get_slice(name).get_shape())
            if shape != list(like.shape):
                raise WeightsError(f"{path}: tensor {name!r} has shape {shape}, {owner} asks for {list(like.shape)}")
        for name, like in expected.items():
            tensors[name] = _checked(file.get_tensor(name), like, name, path)
    return tensors


@contextlib.contextmanager
def open_weights(path: Path) -> Iterator[Any]:
    """A safetensors file open for reading; each of its faults is a :class:`WeightsError` that names it."""
    if not path.is_file():
        others = sorted(p.name for p in path.parent.glob("*") if p.suffix.lower() in _PICKLES)
        hint = f" ({others[0]} is pickled and never loaded)" if others else ""
        raise WeightsError(f"{path}: no such file{hint}")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: no whole safetensors file ({error})") from None


def _state(model: AmodalRCNN, half: bool) -> dict[str, Tensor]:
    state = {}
    for name, value in model.state_dict().items():
        value = value.detach().cpu().contiguous()
        small = value.half() if half and value.is_floating_point() else value
        state[name] = small if bool(torch.isfinite(small).all()) else value  # Too large for float16: kept as it is.
    return state


def _checked(value: Tensor, like: Tensor, name: str, path: Path) -> Tensor:
    if value.is_floating_point() != like.is_floating_point():
        raise WeightsError(f"{path}: tensor {name!r} is {value.dtype}, must be {like.dtype}")
    if value.is_floating_point() and not bool(torch.isfinite(value).all()):
        raise WeightsError(f"{path}: tensor {name!r} holds NaN or infinity")
    return value.to(like.dtype)


def _is_list(value: object, kind: type) -> bool:
    return isinstance(value, list) and all(isinstance(item, kind) and not isinstance(item, bool) for item in value)
