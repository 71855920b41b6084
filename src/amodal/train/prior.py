"""The expansion prior of a run: given, or fitted to the training data before the first step."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from accelerate import Accelerator

from amodal.config import TrainConfig
from amodal.errors import AmodalError, ConfigError
from amodal.train.atomic import recover, replace_folder
from amodal.train.checkpoints import PRIOR

if TYPE_CHECKING:
    from amodal.data.store import AnnotationSet
    from amodal.priors.prior import Prior


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
    if method is None or not method.uses_prior:
        if config.prior is not None:
            raise ConfigError(f"prior is {config.prior!r}, but {config.model.system} as configured uses none")
        return None
    from amodal.models.build import check_prior
    from amodal.priors.prior import Prior

    if last is not None:
        return Prior.load(last / PRIOR)
    if config.prior is not None:
        prior = Prior.load(config.prior)
        if prior.data and prior.data != digest:
            accelerator.print(f"warning: the prior in {config.prior} was fitted to other data than {config.data.train}")
        return prior
    check_prior(method, config.prior_fit)  # A fit takes minutes.
    folder = Path(config.out) / PRIOR
    if accelerator.is_main_process:
        recover(folder)
        if not _is_there(folder, config, digest):
            _fit(folder, config, annotations, digest)
    accelerator.wait_for_everyone()
    return Prior.load(folder)


def _is_there(folder: Path, config: TrainConfig, digest: str) -> bool:
    """Whether a whole prior of the same settings and data lies in ``folder``."""
    from amodal.priors.prior_io import read_settings

    if not folder.is_dir():
        return False
    try:
        fitted, rest = read_settings(folder)
    except AmodalError:
        return False
    return fitted == config.prior_fit and rest["data"] == digest


def _fit(folder: Path, config: TrainConfig, annotations: AnnotationSet, digest: str) -> None:
    from amodal.priors.fit import fit_prior

    prior, report = fit_prior(annotations, config.prior_fit, held_out=0.0, data=digest, progress=True)
    with replace_folder(folder) as fresh:
        prior.save(fresh)
    present = sum(count > 0 for count in report.class_counts)
    print(
        f"prior: {len(report.instances)} objects, {present} of {len(report.class_counts)} classes with"
        f" {config.prior_fit.slots} slots each, {sum(report.seconds.values()):.0f} s, in {folder}"
    )
