"""The contract of a method. A system is a :class:`Branch` behind the detector that all systems share.

The detector (``models.rcnn``) does what is common: backbone, proposals, RoI sampling, class and box prediction, NMS,
thresholds, pasting. A branch gets pyramid features and regions and answers with amodal masks, and whatever else its
paper predicts. It never asks whether it is training: regions are of one type in both.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

from torch import Tensor, nn

from amodal.structures import BranchOutput, LossTerm, RoIs


class Branch(nn.Module, ABC):
    """Everything of a system that comes after the box head.

    Features are a dict of pyramid levels "0" (stride 4) to "3" (stride 32), float [B, C, H, W], in the frame of the
    padded network image. A branch pools them itself, with whatever poolers it owns (ASN has a 7 x 7 stream beside its
    14 x 14 one). In training the matched objects are at hand as ``rois.targets`` and ``rois.gt_index``, so a branch may
    crop any mask of the image, occluders included; ``models.losses`` has the usual targets and terms.

    Class attributes:
        has_visible: whether the system predicts visible masks.
        detects: which boxes RPN and box head look for; ``rois.boxes`` are such boxes.
    """

    has_visible: bool = False
    detects: Literal["amodal", "visible"] = "amodal"

    def set_step(self, seed: int, step: int) -> None:
        """Told before each training step: seed of the run, optimiser step from 0. For schedules and random streams."""
        return None

    @abstractmethod
    def forward(self, features: dict[str, Tensor], rois: RoIs) -> BranchOutput:
        """Masks of each region's class ``rois.labels`` (and better boxes, clipped); R regions, R may be 0."""

    @abstractmethod
    def loss(self, output: BranchOutput, rois: RoIs, features: dict[str, Tensor]) -> dict[str, LossTerm]:
        """Loss terms by name for regions with ground truth; every term touches its parameters even when R is 0."""

    def rescore(self, features: dict[str, Tensor], candidates: RoIs) -> Tensor | None:
        """New scores float [R] for detection candidates *before* NMS (VRSP re-weights there); None keeps them.

        Candidates are all (proposal, class) pairs above the score threshold, boxes decoded and clipped. Those whose new
        score is not above it are dropped.
        """
        return None

    def extra_loss(self, features: dict[str, Tensor], sampled: RoIs, is_object: Tensor) -> dict[str, LossTerm]:
        """Loss terms over *all* S sampled proposals, as ASN's occlusion stream needs them.

        ``is_object`` is bool [S]; ``sampled.labels`` and ``sampled.gt_index`` are -1 where it is False.
        """
        return {}
