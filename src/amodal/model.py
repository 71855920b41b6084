"""Where a model comes from: settings, a checkpoint folder, the weights that ship, or the Hugging Face Hub.

The network itself (:mod:`amodal.models.rcnn`) knows tensors only; here it gets pictures, a prior and a home.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from huggingface_hub import ModelHubMixin, snapshot_download
from huggingface_hub.errors import (
    DisabledRepoError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils._validators import validate_repo_id

from amodal import checkpoint
from amodal.config import BoxHeadConfig, ModelConfig, TransformConfig
from amodal.config_io import to_dict
from amodal.errors import AmodalError, ConfigError, WeightsError, counted, nearest, one_line, refuse_address
from amodal.files import open_weights, read_weights
from amodal.models.backbone import build_backbone, pixel_statistics
from amodal.models.branch import BoxSide, Branch, Prior
from amodal.models.initial_weights import initialise, notice
from amodal.models.rcnn import AmodalRCNN
from amodal.models.rpn import RegionProposalNetwork
from amodal.models.sampling import Sampler, sample_rois
from amodal.models.transform import Transform
from amodal.pictures import pick_device, predict_images
from amodal.systems import BOX_SIDE, BRANCH, check_part, find, resolve
from amodal.tiles import Tiling

T = TypeVar("T")

SHIPPED = Path(__file__).parent / "weights"
"""Folder of the weights that ship with the package."""


class AmodalModel(AmodalRCNN, ModelHubMixin):  # type: ignore[misc, unused-ignore]
    """A detector that takes pictures, and that is saved, loaded and shared as a checkpoint folder."""

    @property
    def prior(self) -> Prior | None:
        """What the system knows before training; None where it uses nothing."""
        return self.branch.prior

    def predict(self, source: Any, threshold: float = 0.5, *, tile: int = 0, tile_overlap: float = 0.25) -> Any:
        """Predictions for a path, PIL image or uint8 array [H, W, 3], or a list for a list of them.

        Args:
            source: the image or images.
            threshold: least score, 0 to 1.
            tile: pixels of a tile's side, 32 or more; a larger image is cut into such tiles, which are predicted beside
                the whole image, with one NMS over all that is found. 0: the image as a whole.
            tile_overlap: least share of its side that a tile has in common with the next one, 0 to 0.9.

        Raises:
            DataError: an image cannot be read.
            ConfigError: a number is out of bounds.
        """
        tiling = Tiling.of(tile, tile_overlap, 1)
        if isinstance(source, list | tuple):
            return predict_images(self, list(source), threshold, tiling=tiling)
        return predict_images(self, [source], threshold, tiling=tiling)[0]

    def _save_pretrained(self, save_directory: Path) -> None:
        # The mixin would add a config.json of its own beside config.yaml.
        self._hub_mixin_config = None
        checkpoint.save_model(self, save_directory)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        device: str = "cpu",
    ) -> AmodalModel:
        """The detector of a checkpoint folder or a Hugging Face id, in eval mode.

        Args:
            pretrained_model_name_or_path: folder, or id such as "me/street".
            force_download: download again what the cache holds.
            token: Hugging Face token; None: the stored one.
            cache_dir: where downloads go; None: Hugging Face's own cache.
            local_files_only: never use the network.
            revision: branch, tag or commit of the Hugging Face repository.
            device: where the model goes.
        """
        name = str(pretrained_model_name_or_path)
        if Path(name).is_dir():
            return load_model(name, device)
        folder = _download(
            name,
            revision=revision,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
            token=token,
        )
        return load_model(folder, device)


def load(source: str | Path, device: str | torch.device | None = None) -> AmodalModel:
    """A trained detector in eval mode.

    Args:
        source: checkpoint folder, run folder (its ``best/``, else its ``last/``), name of weights that ship with the
            package ("nano-scenes-v1"), or the id of a Hugging Face repository such as "me/street". A folder that exists
            comes first.
        device: "cpu", "cuda", "cuda:1", ...; None or "auto": the first GPU, or else the CPU.

    Raises:
        WeightsError: no such folder or repository, or its weights are damaged or do not fit its configuration.
        ConfigError: the device is unknown or not there, or the configuration is damaged.
    """
    chosen = pick_device(device)
    return load_model(locate(source), chosen)


def locate(source: str | Path) -> Path:
    """The folder that a name stands for: one that exists, weights that ship, or a download from the hub.

    Raises:
        WeightsError: there is no such name, the hub has no such repository, or cannot be reached.
        DataError: it is an address.
    """
    path = Path(source)
    if not path.exists():
        refuse_address(source, "a model on the Hugging Face Hub is named OWNER/NAME, any other is a folder")
        if str(source) in shipped_names():
            return SHIPPED / str(source)
        if _is_hub_id(str(source)):
            return _download(str(source))
        if path.name == str(source) and not path.suffix:
            near = nearest(str(source), shipped_names())
            raise WeightsError(f"{source}: no such checkpoint folder, nor weights that ship with the package{near}")
    return path


def shipped_names() -> list[str]:
    """Names of the weights that ship with the package."""
    return sorted(folder.name for folder in SHIPPED.iterdir() if folder.is_dir()) if SHIPPED.is_dir() else []


def load_model(folder: str | Path, device: torch.device | str = "cpu") -> AmodalModel:
    """The detector of a checkpoint folder, in eval mode.

    Raises:
        ConfigError: ``config.yaml`` or the prior's is missing, damaged or of a newer release.
        WeightsError: weights or prior are missing, damaged, pickled, not finite, or do not fit the configuration.
    """
    folder = checkpoint.check_folder(folder)
    config, class_names, category_ids = checkpoint.read_checkpoint_config(folder)
    with open_weights(folder / checkpoint.WEIGHTS):
        pass  # A damaged file is found before the model is built.
    prior = folder / checkpoint.PRIOR if checkpoint.prior_kind(config.method) else None
    try:
        model = build(
            config.system,
            len(class_names),
            config=config,
            class_names=class_names,
            category_ids=category_ids,
            prior=prior,
        )
    except ConfigError as error:
        told = str(error)  # What is wrong with the prior's own file names that.
        raise ConfigError(told if str(folder) in told else f"{folder / checkpoint.CONFIG}: {told}") from None
    expected = model.state_dict()
    tensors = read_weights(
        folder / checkpoint.WEIGHTS, expected, f"config.yaml with {counted(len(class_names), 'class')}"
    )
    model.load_state_dict(tensors)
    model.notices = checkpoint.read_notices(folder)
    return model.to(device).eval()


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
) -> AmodalModel:
    """A detector for a system, in training mode.

    Args:
        system: name in :data:`amodal.systems.SYSTEMS`, or "my_module:MySystem" (:func:`amodal.systems.find`).
        num_classes: classes, background not counted.
        config: settings; None: the defaults (ResNet-50-FPN). Its ``system`` is replaced by the argument.
        class_names: name of each class; None: "class 1", "class 2", ...
        category_ids: id of each class in annotation files; None: 1, 2, ...
        prior: a prior or its folder (``amodal prior fit``), where the system as configured uses one. Classes that are
            not named in the arguments are then the prior's.
        weights: initial weights instead of ``config.backbone.weights``: torchvision name or .safetensors file.
        pretrained: load these weights; False where a checkpoint's follow at once. Layers stay frozen as configured.
        seed: of the random initialisation; the global random state is left as it was.

    Raises:
        ConfigError: unknown system, or settings that do not fit together.
        WeightsError: the weights cannot be read or do not fit.
    """
    config = deepcopy(complete(replace(config or ModelConfig(), system=system)))  # Lists in it are nobody else's.
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
        entry = find(system)
        # The order is part of what a seed means.
        transform, backbone = Transform(**asdict(config.transform)), build_backbone(config.backbone)
        rpn = RegionProposalNetwork(config.backbone.channels, **asdict(config.rpn))
        box_head: BoxSide = _make(system, entry.box_head, BoxSide, config, num_classes)
        branch: Branch = _make(system, entry.branch, Branch, config, num_classes, expansion)
        if branch.prior is not expansion:
            raise ConfigError(f"system {system}: its branch does not hand its prior on to Branch.__init__")
        model = AmodalModel(
            transform,
            backbone,
            rpn,
            box_head,
            branch,
            sample=_sampler(config.box_head),
            settings=to_dict(config),
            score_threshold=config.box_head.score_threshold,
            class_names=[str(name) for name in names],
            category_ids=[int(value) for value in ids],
        )
    if pretrained and config.backbone.weights is not None:
        initialise(model, config.backbone.weights)
        model.notices = [notice(config.backbone)]
    return model


def _sampler(settings: BoxHeadConfig) -> Sampler:
    return partial(
        sample_rois,
        fg_iou=settings.fg_iou,
        batch_per_image=settings.batch_per_image,
        positive_fraction=settings.positive_fraction,
    )


def complete(config: ModelConfig) -> ModelConfig:
    """Settings in which ``method`` is an object of the system's own class, its defaults where it was None.

    Raises:
        ConfigError: unknown system, one that is made of other things than branch and box side, or settings of another
            system's class.
    """
    entry = find(config.system)
    try:
        check_part(resolve(entry.branch), BRANCH)
        check_part(resolve(entry.box_head), BOX_SIDE)
    except ConfigError as error:
        raise ConfigError(f"system {config.system}: {error}") from None
    wanted = entry.settings
    method = wanted() if config.method is None else config.method
    if not isinstance(method, wanted):
        raise ConfigError(f"model.method is {type(method).__name__}, {config.system} needs {wanted.__name__}")
    return replace(config, method=method, transform=normalised(config))


def normalised(config: ModelConfig) -> TransformConfig:
    """The transform with mean and standard deviation of the backbone's pretrained weights where none are given."""
    transform = config.transform
    if transform.mean is not None and transform.std is not None:
        return transform
    mean, std = pixel_statistics(config.backbone.name)
    return replace(transform, mean=transform.mean or mean, std=transform.std or std)


def _make(system: str, part: Any, contract: Any, *given: Any) -> Any:
    """What a system's class or function makes of ``given``, which must be a ``contract``."""
    maker = resolve(part)
    try:
        made = maker(*given)
    except AmodalError:
        raise
    except Exception as error:  # A user's class may do anything when it is made.
        name = getattr(maker, "__name__", repr(maker))
        raise ConfigError(f"system {system}: {name} cannot be made ({one_line(error)})") from error
    if not isinstance(made, contract):
        raise ConfigError(f"system {system}: an object of type {type(made).__name__} is no {contract.__name__}")
    if "_modules" not in vars(made):
        raise ConfigError(f"system {system}: {type(made).__name__} does not call {contract.__name__}.__init__")
    return made


def _prior(config: ModelConfig, given: str | Path | Prior | None) -> Prior | None:
    """The prior of a system that uses one, with what the settings ask of it checked."""
    method = config.method
    kind = checkpoint.prior_kind(method)
    name = f"{find(config.system).title} ({config.system}) as configured"
    if method is None or kind is None:
        if given is not None:
            shown = str(given) if isinstance(given, str | Path) else "as an object"
            raise ConfigError(f"prior {shown!r} is given, but {name} uses none")
        return None
    if given is None:
        article = "an" if kind.title[0] in "aeiou" else "a"
        raise ConfigError(
            f"{name} needs {article} {kind.title}: give prior=FOLDER (amodal train fits one into RUN/prior)"
        )
    prior = checkpoint.load_prior(given, method) if isinstance(given, str | Path) else given
    checkpoint.check_prior(method, prior.config)
    return prior


def _checked(key: str, given: Sequence[T] | None, default: list[T]) -> list[T]:
    """``given`` or the default; of the default's length."""
    values = default if given is None else list(given)
    if len(values) != len(default):
        raise ConfigError(f"{key} has {counted(len(values), 'entry')}, must be {len(default)}")
    return values


def _is_hub_id(source: str) -> bool:
    try:
        validate_repo_id(source)
    except HFValidationError:
        return False
    return source.count("/") == 1 and not source.startswith(".")


def _download(repository: str, **how: Any) -> Path:
    """A repository of the hub as a local folder; ``how`` as :func:`huggingface_hub.snapshot_download` takes it."""
    try:
        folder = Path(snapshot_download(repository, allow_patterns=list(checkpoint.FILES), **how))
    except Exception as error:  # Below the hub's own client is a network library, whose errors are of no common kind.
        raise WeightsError(f"{repository}: no such folder here, and {_hub_problem(error)}") from error
    missing = [name for name in (checkpoint.CONFIG, checkpoint.WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise WeightsError(f"{repository}: the repository on the hub is no model of amodal, {missing[0]} is missing")
    return folder


def _hub_problem(error: Exception) -> str:
    """Why a download failed and what helps; kinds before those they are kinds of."""
    kinds: dict[type[Exception], str] = {
        GatedRepoError: "its authors grant access on its page on the hub; ask there, then log in with 'hf auth login'",
        DisabledRepoError: "the hub has disabled this repository",
        RevisionNotFoundError: "the repository on the hub has no such revision",
        RepositoryNotFoundError: "the hub has no such public repository; for a private one log in with 'hf auth login'",
        OfflineModeIsEnabled: "HF_HUB_OFFLINE forbids to look on the hub",
        LocalEntryNotFoundError: "the hub cannot be reached, and none of it was downloaded before",
    }
    for kind, told in kinds.items():
        if isinstance(error, kind):
            return told
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, HfHubHTTPError) and status is not None:
        return f"the hub answered with error {status}"
    return f"the hub cannot be reached ({one_line(error)[:200]})"
