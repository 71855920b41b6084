"""The systems by name. Adding one is a file here and a line in :data:`METHODS`; from outside, an entry at run time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from amodal.config import ModelConfig
from amodal.config_methods import MaskRCNNConfig, MethodConfig, PGExpConfig

if TYPE_CHECKING:
    from amodal.methods.base import Branch
    from amodal.priors.prior import Prior


@dataclass(frozen=True)
class MethodEntry:
    """One system.

    Attributes:
        title: its name in tables.
        paper: authors and title of the paper it follows.
        venue: where and when that appeared.
        config: class of the system's own settings.
        build: makes the branch from the model's settings, the number of classes and the expansion prior (None where
            ``config`` says that it uses none).
    """

    title: str
    paper: str
    venue: str
    config: type[MethodConfig]
    build: Callable[[ModelConfig, int, Prior | None], Branch]


def _mask_rcnn(config: ModelConfig, num_classes: int, prior: Prior | None) -> Branch:
    from amodal.methods.mask_rcnn import MaskRCNN

    return MaskRCNN(config, num_classes)


def _pgexp(config: ModelConfig, num_classes: int, prior: Prior | None) -> Branch:
    from amodal.methods.pgexp import PGExp

    return PGExp(config, num_classes, prior)


METHODS: dict[str, MethodEntry] = {
    "mask_rcnn": MethodEntry("Mask R-CNN", "He et al., Mask R-CNN", "ICCV 2017", MaskRCNNConfig, _mask_rcnn),
    "pgexp": MethodEntry(
        "PGExp",
        "Chen et al., Amodal Instance Segmentation via Prior-Guided Expansion",
        "AAAI 2023",
        PGExpConfig,
        _pgexp,
    ),
}
