"""A system like VRSP: a prior of a kind of its own (an auto-encoder and codes of shapes), and scores before NMS."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from amodal.config import ModelConfig
from amodal.config_io import structure
from amodal.data.store import AnnotationSet
from amodal.errors import ConfigError, WeightsError, require
from amodal.files import read_weights
from amodal.models.branch import Branch, Prior
from amodal.models.losses import amodal_mask_term, mask_targets, visible_mask_term
from amodal.models.mask_head import MaskHead
from amodal.models.pooler import Pooler
from amodal.priors.instances import collect
from amodal.settings import FitConfig, MethodConfig, PriorKind
from amodal.structures import BranchOutput, LossTerm, RoIs

GRID = 28


@dataclass(frozen=True)
class CodebookConfig(FitConfig):
    """Fit of the codebook.

    Attributes:
        centres: codes of a class.
        width: numbers of a code.
        steps: optimiser steps of the auto-encoder.
    """

    centres: int = 4
    width: int = 8
    steps: int = 5

    def __post_init__(self) -> None:
        require(self.centres >= 1, "prior_fit.centres", self.centres, ">= 1")


class Codebook(nn.Module):
    """Auto-encoder of amodal masks, and codes of each class.

    Attributes:
        config, class_names, category_ids, data: as :class:`amodal.models.branch.Prior` says.
        centres: float32 [K, M, W], codes.
    """

    def __init__(self, config: CodebookConfig, class_names: Sequence[str], category_ids: Sequence[int], data: str):
        super().__init__()
        self.config, self.data = config, data
        self.class_names, self.category_ids = list(class_names), [int(value) for value in category_ids]
        self.encoder = nn.Linear(GRID**2, config.width)
        self.decoder = nn.Linear(config.width, GRID**2)
        self.register_buffer("centres", torch.zeros(len(class_names), config.centres, config.width))

    def check_classes(self, class_names: Sequence[str], category_ids: Sequence[int]) -> None:
        if (self.class_names, self.category_ids) != (list(class_names), [int(value) for value in category_ids]):
            raise ConfigError(f"the codebook knows {self.class_names}, the model {list(class_names)}")

    def decode(self, codes: Tensor) -> Tensor:
        """Masks float32 [..., 28, 28], 0 to 1, of codes [..., W]."""
        return torch.sigmoid(self.decoder(codes)).unflatten(-1, (GRID, GRID))

    @torch.no_grad()
    def shapes(self, logits: Tensor, labels: Tensor, count: int) -> Tensor:
        """float32 [R, count, 28, 28], the nearest shapes of each region's class for mask logits [R, 28, 28]."""
        codes = self.encoder(logits.float().flatten(1))
        order = (self.centres[labels] - codes[:, None]).square().sum(dim=2).argsort(dim=1)[:, :count]
        return self.decode(self.centres[labels[:, None], order])


class CodebookMaker:
    """A :class:`amodal.models.branch.PriorMaker`."""

    def fit(
        self, annotations: AnnotationSet, settings: FitConfig, *, data: str, progress: bool = False
    ) -> tuple[Codebook, str]:
        assert isinstance(settings, CodebookConfig)
        instances, _ = collect(annotations)
        masks = instances.amodal.float().flatten(1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            prior = Codebook(settings, annotations.class_names, annotations.category_ids, data)
        optimizer = torch.optim.Adam(prior.parameters(), 1e-2)
        for _ in range(settings.steps):
            optimizer.zero_grad()
            F.mse_loss(prior.decode(prior.encoder(masks)).flatten(1), masks).backward()
            optimizer.step()
        with torch.no_grad():
            for label in range(len(prior.class_names)):
                rows = torch.nonzero(instances.labels == label).flatten()[: settings.centres]
                prior.centres[label, : len(rows)] = prior.encoder(masks[rows])
        return prior.requires_grad_(False), f"{len(masks)} masks"

    def save(self, prior: Any, folder: str | Path) -> None:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        facts = {"fit": asdict(prior.config), "data": prior.data}
        facts |= {"class_names": prior.class_names, "category_ids": prior.category_ids}
        (folder / "codebook.json").write_text(json.dumps(facts))
        save_file(prior.state_dict(), folder / "codebook.safetensors")

    def load(self, folder: str | Path, device: torch.device | str = "cpu") -> Codebook:
        facts = self._facts(Path(folder))
        settings, data = self.read_settings(Path(folder))
        prior = Codebook(settings, facts["class_names"], facts["category_ids"], data)
        prior.load_state_dict(read_weights(Path(folder) / "codebook.safetensors", prior.state_dict(), "the codebook"))
        return prior.requires_grad_(False).to(device)

    def read_settings(self, folder: Path) -> tuple[CodebookConfig, str]:
        facts = self._facts(folder)
        return structure(CodebookConfig, facts["fit"], str(folder), "fit."), facts["data"]

    def _facts(self, folder: Path) -> dict[str, Any]:
        path = folder / "codebook.json"
        if not path.is_file():
            raise WeightsError(f"{path}: no such file of a codebook")
        facts: dict[str, Any] = json.loads(path.read_text())
        return facts


KIND = PriorKind("shape codebook", CodebookConfig, CodebookMaker())


@dataclass(frozen=True)
class VRSPConfig(MethodConfig):
    """Settings of the toy.

    Attributes:
        nearest: shapes that are retrieved.
        alpha: how much a shape that no code looks like keeps of its score.
    """

    nearest: int = 2
    alpha: float = 2.0

    @property
    def prior_kind(self) -> PriorKind:
        return KIND

    def check_prior(self, fitted: FitConfig) -> None:
        assert isinstance(fitted, CodebookConfig)
        if self.nearest > fitted.centres:
            raise ConfigError(f"model.method.nearest is {self.nearest}, the codebook has {fitted.centres} centres")


class VRSPLike(Branch):
    """Coarse masks, then the amodal one again from what is visible and from shapes that look like it."""

    settings = VRSPConfig

    def __init__(self, config: ModelConfig, num_classes: int, prior: Prior | None) -> None:
        super().__init__(config, num_classes, prior)
        assert isinstance(config.method, VRSPConfig)
        width, self.nearest, self.alpha = config.backbone.channels, config.method.nearest, config.method.alpha
        self.pooler = Pooler(config.mask_head.pool_size)
        self.amodal = MaskHead(width, num_classes, config.mask_head)
        self.visible = MaskHead(width, num_classes, config.mask_head)
        self.fuse = nn.Conv2d(width + self.nearest, width, 3, padding=1)

    def forward(self, features: dict[str, Tensor], rois: RoIs) -> BranchOutput:
        assert isinstance(self.prior, Codebook)
        x = self.pooler(features, rois.boxes, rois.batch)
        amodal, visible = self.amodal(x, rois.labels), self.visible(x, rois.labels)
        seen = F.avg_pool2d(visible.sigmoid()[:, None], 2)
        shapes = F.avg_pool2d(self.prior.shapes(amodal.detach(), rois.labels, self.nearest), 2)
        refined = self.amodal(self.fuse(torch.cat([x * seen, shapes.to(x)], dim=1)), rois.labels)
        return BranchOutput(rois.boxes, refined, visible, aux=amodal)

    def loss(self, output: BranchOutput, rois: RoIs, features: dict[str, Tensor]) -> dict[str, LossTerm]:
        assert output.visible_logits is not None
        seen = mask_targets(rois, "visible", rois.boxes) > 0.5
        weight = iou(output.visible_logits > 0, seen)
        return {
            "loss_coarse": amodal_mask_term(output.aux, rois, rois.boxes, False),
            "loss_mask_visible": visible_mask_term(output.visible_logits, rois, rois.boxes, False),
            "loss_mask_amodal": amodal_mask_term(output.amodal_logits, rois, rois.boxes, False, weight),
        }

    def rescore(self, features: dict[str, Tensor], candidates: RoIs) -> Tensor:
        assert isinstance(self.prior, Codebook)
        found = self(features, candidates).amodal_logits
        shape = self.prior.shapes(found, candidates.labels, 1)[:, 0] > 0.5
        distance = ((found > 0) != shape).float().mean(dim=(1, 2))
        alpha = torch.tensor(self.alpha)
        return candidates.scores * torch.relu(torch.log(alpha - distance) / torch.log(alpha))


def iou(one: Tensor, two: Tensor) -> Tensor:
    """float32 [R] of masks bool [R, S, S]; 0 where both are empty."""
    either = (one | two).flatten(1).sum(dim=1)
    return (one & two).flatten(1).sum(dim=1) / either.clamp(min=1)
