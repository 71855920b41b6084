"""The prior of a run: given, or fitted to the training data before the first step."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from accelerate import Accelerator

from amodal.checkpoint import PRIOR, check_prior, maker_of, prior_kind
from amodal.config import TrainConfig
from amodal.errors import AmodalError, ConfigError
from amodal.files import check_own, check_room, recover, replace_folder
from amodal.settings import FitConfig

if TYPE_CHECKING:
    from amodal.data.store import AnnotationSet
    from amodal.models.branch import Prior, PriorMaker

_ENDINGS = (".yaml", ".json", ".safetensors")


def run_prior(
    config: TrainConfig, annotations: AnnotationSet, digest: str, accelerator: Accelerator, last: Path | None
) -> Prior | None:
    """The prior that the run's system needs; None where it needs none.

    A run that is resumed goes on with the prior of its checkpoint. Otherwise it is the one in ``config.prior``, or the
    one in ``OUT/prior``, which the main process fits (``config.prior_fit``) if none of these settings and data is
    there; the others wait.

    Args:
        config: the run's settings.
        annotations: the training data.
        digest: fingerprint of the training data.
        accelerator: the engine.
        last: checkpoint folder that the run is resumed from; None: it starts.

    Raises:
        ConfigError: a prior is given and none is used, or the one to be fitted could never serve these settings.
        WeightsError: the folder is missing or damaged.
    """
    method = config.model.method
    kind = prior_kind(method)
    if method is None or kind is None:
        if config.prior is not None:
            raise ConfigError(f"prior is {config.prior!r}, but {config.model.system} as configured uses none")
        return None
    maker = maker_of(kind)
    if last is not None:
        return maker.load(last / PRIOR)
    if config.prior is not None:
        prior = maker.load(config.prior)
        if prior.data and prior.data != digest:
            accelerator.print(f"warning: the prior in {config.prior} was fitted to other data than {config.data.train}")
        return prior
    settings = config.prior_fit or kind.settings()
    check_prior(method, settings)  # A fit takes minutes.
    folder = Path(config.out) / PRIOR
    if accelerator.is_main_process:
        recover(folder)
        _check_own(folder)
        if not _is_there(folder, maker, settings, digest):
            check_room(folder.parent)
            prior, told = maker.fit(annotations, settings, data=digest, progress=True)
            with replace_folder(folder) as fresh:
                maker.save(prior, fresh)
            print(f"prior: {told}, in {folder}")
    accelerator.wait_for_everyone()
    return maker.load(folder)


def _check_own(folder: Path) -> None:
    """Refuses to replace a folder that holds files which no kind of prior has."""
    there = list(folder.iterdir()) if folder.is_dir() else []
    check_own(folder, [path.name for path in there if path.suffix in _ENDINGS], "a prior")


def _is_there(folder: Path, maker: PriorMaker, settings: FitConfig, digest: str) -> bool:
    """Whether a whole prior of the same settings and data lies in ``folder``."""
    if not folder.is_dir():
        return False
    try:
        fitted, data = maker.read_settings(folder)
    # A damaged one is fitted anew.
    except AmodalError:
        return False
    return fitted == settings and data == digest
