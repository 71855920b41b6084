"""What a checkpoint folder holds: ``config.yaml``, ``model.safetensors``, ``README.md``, and ``prior/`` if any."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from amodal.bounds import ENTRIES
from amodal.config import ModelConfig
from amodal.config_io import VERSION, check_classes, check_version, structure, to_dict
from amodal.errors import ConfigError, WeightsError, counted, nearest, shown
from amodal.evaluation.table import COLUMNS, PARTS
from amodal.files import PICKLES, write_tensors, write_text
from amodal.models.branch import Prior, PriorMaker
from amodal.models.rcnn import AmodalRCNN
from amodal.plain_yaml import dump_yaml, read_yaml
from amodal.settings import FitConfig, MethodConfig, PriorKind
from amodal.systems import MAKERS, resolve
from amodal.version import __version__

CONFIG, WEIGHTS, CARD, PRIOR = "config.yaml", "model.safetensors", "README.md", "prior"
_NOTICES = "notices"
FILES = (CONFIG, WEIGHTS, CARD, f"{PRIOR}/*")
"""Patterns of all that a checkpoint holds."""


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
    if model.notices:
        data["notices"] = list(model.notices)
    write_text(folder / CONFIG, dump_yaml(data))
    write_tensors(folder / WEIGHTS, _state(model, half))
    kind = prior_kind(model.config.method)
    if kind is not None:
        maker_of(kind).save(model.branch.prior, folder / PRIOR)
    write_text(folder / CARD, model_card(model, card or {}))


def prior_kind(method: MethodConfig | None) -> PriorKind | None:
    """The kind of prior that a system with these settings needs; None: none."""
    return None if method is None else method.prior_kind


def maker_of(kind: PriorKind) -> PriorMaker:
    """What fits, saves and loads priors of a kind; a :class:`ConfigError` where it cannot."""
    maker: PriorMaker = resolve(MAKERS.get(kind.maker, kind.maker) if isinstance(kind.maker, str) else kind.maker)
    for name in ("fit", "save", "load", "read_settings"):
        if not callable(getattr(maker, name, None)):
            raise ConfigError(f"the maker of the {kind.title}, {kind.maker!r:.60}, has no function {name!r}")
    return maker


def check_prior(method: MethodConfig, fitted: FitConfig) -> None:
    """Refuses a prior fitted with ``fitted`` that is of another kind than a system with these settings needs, or that
    cannot serve them, with a :class:`ConfigError`."""
    kind = method.prior_kind
    if kind is not None and not isinstance(fitted, kind.settings):
        raise ConfigError(
            f"the prior is fitted with {type(fitted).__name__}, the {kind.title} needs {kind.settings.__name__}"
        )
    method.check_prior(fitted)


def load_prior(folder: str | Path, method: MethodConfig | None, device: torch.device | str = "cpu") -> Prior:
    """The prior in a folder, of the kind that a system with these settings needs."""
    kind = prior_kind(method)
    if kind is None:
        raise ConfigError(f"{folder}: the system as configured uses no prior")
    return maker_of(kind).load(folder, device)


def check_folder(folder: str | Path) -> Path:
    """The checkpoint folder that ``folder`` names: itself, or of a run folder its ``best/``, else its ``last/``.

    Raises:
        WeightsError: it can be no checkpoint.
    """
    folder = Path(folder)
    if folder.suffix.lower() in PICKLES and not folder.is_dir():
        raise WeightsError(f"{folder}: pickled weights are never loaded; give a folder with {CONFIG} and {WEIGHTS}")
    if not folder.exists():
        raise WeightsError(f"{folder}: no such checkpoint folder")
    if not folder.is_dir():
        raise WeightsError(f"{folder}: not a folder; a checkpoint is a folder with {CONFIG} and {WEIGHTS}")
    of_run = [folder / name for name in ("best", "last") if (folder / name / WEIGHTS).is_file()]
    if not of_run and not (folder / CONFIG).exists() and not (folder / WEIGHTS).exists():
        raise WeightsError(f"{folder}: no checkpoint, which is a folder with {CONFIG} and {WEIGHTS}")
    return folder if (folder / WEIGHTS).is_file() or not of_run else of_run[0]


def read_checkpoint_config(folder: Path) -> tuple[ModelConfig, list[str], list[int]]:
    """Model settings, class names and category ids of a checkpoint folder."""
    path = folder / CONFIG
    data = read_yaml(path)
    check_version(data.pop("version", 1), path)
    known = ["system", "class_names", "category_ids", "model"]
    for key in data:
        if key not in [*known, _NOTICES]:
            raise ConfigError(f"{path}: unknown key {shown(key)}{nearest(str(key), known)}")
    _notices(data.get(_NOTICES, []), path)
    for key in known:
        if key not in data:
            raise ConfigError(f"{path}: {key} is missing")
    names, ids, settings = data["class_names"], data["category_ids"], data["model"]
    if not isinstance(settings, dict):
        raise ConfigError(f"{path}: model is {shown(settings)}, must be a mapping of settings")
    check_classes(names, ids, path)
    return structure(ModelConfig, {**settings, "system": data["system"]}, str(path)), names, ids


def read_notices(folder: Path) -> list[str]:
    """Where pretrained weights in a checkpoint came from, and under which licence; empty where none are noted."""
    path = folder / CONFIG
    return _notices(read_yaml(path).get(_NOTICES, []), path)


def _notices(value: Any, path: Path) -> list[str]:
    if not isinstance(value, list) or len(value) > ENTRIES or not all(isinstance(line, str) for line in value):
        raise ConfigError(f"{path}: {_NOTICES} is {shown(value)}, must be a list of lines")
    return value


def model_card(model: AmodalRCNN, facts: Mapping[str, Any]) -> str:
    """Markdown with the front matter that Hugging Face reads.

    Args:
        model: the detector.
        facts: "metrics" (as in metrics.json), "data" (training data, text), "steps", "notes"; each may be absent.
    """
    config = model.config
    classes = ", ".join(model.class_names)
    parts = [
        "---\nlibrary_name: amodal\npipeline_tag: image-segmentation\ntags: [amodal, instance-segmentation]\n---",
        f"# {config.system} for {counted(len(model.class_names), 'class')}",
        "Amodal instance segmentation: for every object its whole shape, hidden parts included.",
        '```python\nimport amodal\n\nmodel = amodal.load("this folder or its Hugging Face id")\n'
        'prediction = model.predict("picture.png", threshold=0.5)\n```',
        "## Model",
        f"- system: {config.system}; backbone: {config.backbone.name}\n"
        f"- test images: shorter side {config.transform.test_min_size} pixels, longer side at most"
        f" {config.transform.test_max_size}\n"
        f"- classes: {classes}\n- written by amodal {__version__}",
    ]
    if model.notices:
        parts += ["## Pretrained weights", "\n".join(f"- {line}" for line in model.notices)]
    training = [f"- {key}: {facts[key]}" for key in ("data", "steps", "notes") if facts.get(key)]
    if training:
        parts += ["## Training", "\n".join(training)]
    if facts.get("metrics"):
        parts += ["## Metrics", _table(facts["metrics"])]
    return "\n\n".join(parts) + "\n"


def _table(metrics: Mapping[str, Any]) -> str:
    rows = ["| part | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for part, _ in PARTS:
        values = metrics.get(part) or {}
        rows.append(f"| {part} | " + " | ".join(_percent(values.get(name)) for name in COLUMNS) + " |")
    on = ", ".join(counted(int(metrics.get(f"{noun}s", 0)), noun) for noun in ("image", "instance"))
    return f"Percent, on {on}.\n\n" + "\n".join(rows)


def _percent(value: object) -> str:
    return f"{value:.1f}" if isinstance(value, (int, float)) else "-"


def _state(model: AmodalRCNN, half: bool) -> dict[str, Tensor]:
    state = {}
    for name, value in model.state_dict().items():
        value = value.detach().cpu().contiguous()
        small = value.half() if half and value.is_floating_point() else value
        state[name] = small if bool(torch.isfinite(small).all()) else value  # Too large for float16: kept as it is.
    return state
