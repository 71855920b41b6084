"""The contract of a method. A system is a :class:`Branch` behind the detector that all systems share.

The detector (``models.rcnn``) does what is common: backbone, proposals, RoI sampling, class and box prediction, NMS,
thresholds, pasting. A branch gets pyramid features and regions and answers with amodal masks, and whatever else its
paper predicts. Regions are of one type in training and in test; a branch may look whether truth is there
(``rois.targets``), where its paper treats the two differently.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn

from amodal.structures import BranchOutput, LossTerm, RoIs

if TYPE_CHECKING:
    from amodal.config import ModelConfig
    from amodal.data.store import AnnotationSet
    from amodal.settings import FitConfig, MethodConfig
    from amodal.viz.explanation import Explanation

Rescore = Callable[[RoIs], "Tensor | None"]


class Prior(Protocol):
    """What a system knows before training: fitted to masks, frozen, saved beside the weights (an expansion prior, a
    codebook). Where it is a module, the branch moves it along, but its tensors are no part of the model's.

    Attributes:
        class_names, category_ids: of the annotations that it was fitted to, by 0-based label.
        config: how it was fitted.
        data: digest of these annotations; "" where unknown.
    """

    class_names: list[str]
    category_ids: list[int]
    data: str

    @property
    def config(self) -> FitConfig: ...

    def check_classes(self, class_names: Sequence[str], category_ids: Sequence[int]) -> None:
        """Refuses classes that are not its own with a :class:`ConfigError`."""
        ...


class PriorMaker(Protocol):
    """Fits, saves and loads priors of one kind; what :class:`amodal.settings.PriorKind` names.

    ``fit`` returns the prior and one line about it; ``read_settings`` how a saved one was fitted, and to which data
    (digest), without reading its tensors. What is wrong with a folder is a :class:`WeightsError` or a
    :class:`ConfigError` that names the file.
    """

    def fit(
        self, annotations: AnnotationSet, settings: FitConfig, *, data: str, progress: bool = False
    ) -> tuple[Prior, str]: ...

    def save(self, prior: Any, folder: str | Path) -> None: ...

    def load(self, folder: str | Path, device: torch.device | str = "cpu") -> Prior: ...

    def read_settings(self, folder: Path) -> tuple[FitConfig, str]: ...


class BoxSide(nn.Module, ABC):
    """What finds class and box of the proposals. All systems share ``models.box_head.BoxHead`` but those whose table
    entry names another (ASN replaces it and hands its first features on as ``RoIs.shared``).

    Made with (model settings, number of classes). ``models.box_head.BoxHead`` may be the parent of another one, whose
    ``detect`` adds the ``shared`` features of the final boxes.

    Any module of a system may have a class attribute ``class_rows``: which rows of its layers belong to classes, as
    {layer: (rows before those of the classes, rows of each class)}, "" for the module itself. A run that starts from a
    checkpoint of other classes (``--init``) carries these rows over by the classes' names.
    """

    @abstractmethod
    def train_step(
        self, features: Mapping[str, Tensor], sampled: RoIs, is_object: Tensor
    ) -> tuple[RoIs, dict[str, LossTerm]]:
        """Losses of S sampled regions, of which bool [S] ``is_object`` are positive; and the positives as the branch
        gets them, with ``decoded`` (the box of the object's class, detached, clipped) and where there are any
        ``shared`` features."""

    @abstractmethod
    def detect(
        self,
        features: Mapping[str, Tensor],
        proposals: list[Tensor],
        sizes: list[tuple[int, int]],
        rescore: Rescore,
        threshold: float | None = None,
    ) -> RoIs:
        """Detections of each image with scores above ``threshold`` (None: the settings'), best first. ``rescore`` gets
        the candidates before NMS and returns new scores, or None to keep them."""


class Branch(nn.Module, ABC):
    """Everything of a system that comes after the box head. Made with (model settings, number of classes, prior).

    Features are a dict of pyramid levels "0" (stride 4) to "3" (stride 32), float [B, C, H, W], in the frame of the
    padded network image. A branch pools them itself, with whatever poolers it owns. In training the matched objects
    are at hand as ``rois.targets`` and ``rois.gt_index``, so a branch may crop any mask of the image, occluders
    included; ``models.losses`` has the usual targets and terms. What belongs to one call (random choices in
    ``rois.draws``, features of the box side in ``rois.shared``) comes with the regions and is never kept in the module,
    so threads may share one.

    Class attributes:
        detects: which boxes RPN and box head look for; ``rois.boxes`` are such boxes.
        title, settings, box_head: of a system that stands in no table, see :func:`amodal.systems.find`.

    Attributes:
        prior: what the system knows before training; None where it uses none.
    """

    detects: Literal["amodal", "visible"] = "amodal"
    if TYPE_CHECKING:
        title: ClassVar[str]
        settings: ClassVar[type[MethodConfig]]
    prior: Prior | None

    def __init__(self, config: ModelConfig | None = None, num_classes: int = 0, prior: Prior | None = None) -> None:
        super().__init__()
        self.prior = prior

    def __setattr__(self, name: str, value: Any) -> None:
        # A prior may be a module, but is none of ours: it is frozen and has a folder of its own.
        if name == "prior":
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Branch:
        # to(), half() and cuda() all come through here.
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if isinstance(self.prior, nn.Module):
            self.prior._apply(fn, recurse)
        return self

    @abstractmethod
    def forward(self, features: dict[str, Tensor], rois: RoIs) -> BranchOutput:
        """Masks of each region's class ``rois.labels`` (and better boxes, clipped); R regions, R may be 0."""

    @abstractmethod
    def loss(self, output: BranchOutput, rois: RoIs, features: dict[str, Tensor]) -> dict[str, LossTerm]:
        """Loss terms by name for regions with ground truth. They may share a graph: they are added up before one
        backward pass. The names are always the same, none of them a name of another part, and every trained parameter
        is touched by one of them, even when R is 0."""

    def rescore(self, features: dict[str, Tensor], candidates: RoIs) -> Tensor | None:
        """New scores float [R] for detection candidates *before* NMS (VRSP re-weights there); None keeps them.

        Candidates are (proposal, class) pairs above the score threshold, boxes decoded and clipped, handed in a chunk
        of at most ``models.box_head.CHUNK`` at a time, since there may be thousands. Those whose new score is not above
        the threshold are dropped.
        """
        return None

    def extra_loss(self, features: dict[str, Tensor], sampled: RoIs, is_object: Tensor) -> dict[str, LossTerm]:
        """Loss terms over *all* S sampled proposals, as ASN's occlusion stream needs them.

        ``is_object`` is bool [S]; ``sampled.labels`` and ``sampled.gt_index`` are -1 where it is False.
        """
        return {}

    def explain(self, features: dict[str, Tensor], rois: RoIs) -> list[Explanation]:
        """How each region's mask came about, for pictures; boxes in the frame of the network image, names left empty.

        Empty for a system that has nothing to tell.
        """
        return []

    @property
    def explains(self) -> bool:
        """Whether :meth:`explain` has anything to tell; asking one that has not would cost a pass for nothing."""
        return type(self).explain is not Branch.explain

    def meanings(self) -> dict[str, tuple[str, ...]]:
        """Prefix of parameter names of the branch -> settings without which their numbers mean something else.

        A run that starts from a checkpoint (``--init``) whose settings of these names differ lets such parameters start
        afresh.
        """
        return {}
