"""The expansion prior as :mod:`amodal.settings` names it: fitted, saved and loaded like any other prior."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from amodal.data.store import AnnotationSet
from amodal.errors import counted
from amodal.priors.fit import fit_prior
from amodal.priors.prior import Prior
from amodal.priors.prior_io import load_prior, read_settings, save_prior
from amodal.settings import FitConfig, PriorConfig


class ExpansionPriorMaker:
    """A :class:`amodal.models.branch.PriorMaker`."""

    def fit(
        self, annotations: AnnotationSet, settings: FitConfig, *, data: str, progress: bool = False
    ) -> tuple[Prior, str]:
        """Encoder, solver and bank on all objects, see :func:`amodal.priors.fit.fit_prior`."""
        if not isinstance(settings, PriorConfig):
            raise TypeError(f"an expansion prior is fitted with PriorConfig, not {type(settings).__name__}")
        prior, report = fit_prior(annotations, settings, held_out=0.0, data=data, progress=progress)
        present = sum(count > 0 for count in report.class_counts)
        told = (
            f"{counted(len(report.instances), 'object')}, {present} of {counted(len(report.class_counts), 'class')}"
            f" with {counted(settings.slots, 'slot')} each, {sum(report.seconds.values()):.0f} s"
        )
        return prior, told

    def save(self, prior: Any, folder: str | Path) -> None:
        """See :mod:`amodal.priors.prior_io`."""
        save_prior(prior, folder)

    def load(self, folder: str | Path, device: torch.device | str = "cpu") -> Prior:
        """See :func:`amodal.priors.prior_io.load_prior`."""
        return load_prior(folder, device)

    def read_settings(self, folder: Path) -> tuple[PriorConfig, str]:
        """How the prior in a folder was fitted, and the digest of the annotations."""
        settings, rest = read_settings(folder)
        return settings, rest["data"]


MAKER = ExpansionPriorMaker()
