"""From settings to a model."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch

from amodal.config import ModelConfig
from amodal.config_methods import MethodConfig, PGExpConfig, PriorConfig
from amodal.errors import ConfigError
from amodal.methods import METHODS
from amodal.models.backbone import build_backbone
from amodal.models.box_head import BoxHead
from amodal.models.rcnn import AmodalRCNN
from amodal.models.rpn import RegionProposalNetwork
from amodal.models.transform import Transform
from amodal.models.weights import initialise

if TYPE_CHECKING:
    from amodal.priors.prior import Prior

T = TypeVar("T")


def build(
    system: str,
    num_classes: int,
    *,
    config: ModelConfig | None = None,
    class_names: Sequence[str] | None = None,
    category_ids: Sequence[int] | None = None,
    prior: str | Path | Prior | None = None,
    weights: str | Path | None = None,
    pretrained: bool = True,
    seed: int = 0,
) -> AmodalRCNN:
    """A detector for a system, in training mode.

    Args:
        system: name in :data:`amodal.methods.METHODS`.
        num_classes: classes, background not counted.
        config: settings; None: the defaults (ResNet-50-FPN). Its ``system`` is replaced by the argument.
        class_names: name of each class; None: "class 1", "class 2", ...
        category_ids: id of each class in annotation files; None: 1, 2, ...
        prior: an expansion prior or its folder (``amodal prior fit``), where the system as configured uses one. Classes
            that are not named in the arguments are then the prior's.
        weights: initial weights instead of ``config.backbone.weights``: torchvision name or .safetensors file.
        pretrained: load these weights; False where a checkpoint's follow at once. Layers stay frozen as configured.
        seed: of the random initialisation; the global random state is left as it was.

    Raises:
        ConfigError: unknown system, or settings that do not fit together.
        WeightsError: the weights cannot be read or do not fit.
    """
    config = complete(replace(config or ModelConfig(), system=system))
    if num_classes < 1:
        raise ConfigError(f"num_classes is {num_classes}, must be >= 1")
    if weights is not None:
        config = replace(config, backbone=replace(config.backbone, weights=str(weights)))
    expansion = _prior(config, prior)
    if expansion is not None and len(expansion.class_names) == num_classes:
        class_names = expansion.class_names if class_names is None else class_names
        category_ids = expansion.category_ids if category_ids is None else category_ids
    names = _checked("class_names", class_names, [f"class {i}" for i in range(1, num_classes + 1)])
    ids = _checked("category_ids", category_ids, list(range(1, num_classes + 1)))
    if len(set(ids)) != len(ids):
        raise ConfigError(f"category_ids repeat an id: {ids}")
    if expansion is not None:
        expansion.check_classes(names, ids)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = AmodalRCNN(
            transform=Transform(config.transform),
            backbone=build_backbone(config.backbone),
            rpn=RegionProposalNetwork(config.backbone.channels, config.rpn),
            box_head=BoxHead(config.backbone.channels, num_classes, config.box_head),
            branch=METHODS[system].build(config, num_classes, expansion),
            config=config,
            class_names=[str(name) for name in names],
            category_ids=[int(value) for value in ids],
        )
    if pretrained and config.backbone.weights is not None:
        initialise(model, config.backbone.weights)
    return model


def complete(config: ModelConfig) -> ModelConfig:
    """Settings in which ``method`` is an object of the system's own class, its defaults where it was None.

    Raises:
        ConfigError: unknown system, or settings of another system's class.
    """
    system = config.system
    if system not in METHODS:
        close = difflib.get_close_matches(system, METHODS, n=1, cutoff=0.0)[0]
        raise ConfigError(f"unknown system {system!r}, the nearest one is {close!r}; there are {', '.join(METHODS)}")
    wanted = METHODS[system].config
    method = wanted() if config.method is None else config.method
    if not isinstance(method, wanted):
        raise ConfigError(f"model.method is {type(method).__name__}, {system} needs {wanted.__name__}")
    return replace(config, method=method)


def check_prior(method: MethodConfig | None, fitted: PriorConfig) -> None:
    """Refuses settings that a prior fitted with ``fitted`` can never serve, with a :class:`ConfigError`."""
    if not isinstance(method, PGExpConfig):
        return
    key, wanted = ("candidates", method.candidates) if method.rerank != "none" else ("k", method.k)
    if wanted > fitted.slots:
        raise ConfigError(f"model.method.{key} is {wanted}, the prior has {fitted.slots} slots a class")
    if method.detects == "visible" and fitted.key_frame != "visible":
        raise ConfigError("model.method.detects is 'visible', which needs a prior fitted with key_frame 'visible'")


def _prior(config: ModelConfig, given: str | Path | Prior | None) -> Prior | None:
    """The prior of a system that uses one, with what the settings ask of it checked."""
    method = config.method
    if method is None or not method.uses_prior:
        if given is not None:
            shown = str(given) if isinstance(given, str | Path) else "as an object"
            raise ConfigError(f"prior {shown!r} is given, but {_describe(config.system)} uses none")
        return None
    if given is None:
        raise ConfigError(f"{_describe(config.system)} needs an expansion prior: give prior=FOLDER (amodal prior fit)")
    if isinstance(given, str | Path):
        from amodal.priors.prior import Prior

        prior = Prior.load(given)
    else:
        prior = given
    check_prior(method, prior.config)
    return prior


def _describe(system: str) -> str:
    return f"{METHODS[system].title} ({system}) as configured"


def _checked(key: str, given: Sequence[T] | None, default: list[T]) -> list[T]:
    """``given`` or the default; of the default's length."""
    values = default if given is None else list(given)
    if len(values) != len(default):
        raise ConfigError(f"{key} has {len(values)} entries, must be {len(default)}")
    return values
