"""VRSP's shape prior (Xiao et al., AAAI 2021): an auto-encoder of amodal masks and, for each class, codes of shapes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from amodal.config_io import structure
from amodal.data.store import AnnotationSet
from amodal.errors import ConfigError, WeightsError, counted
from amodal.files import open_weights, read_weights, write_text
from amodal.plain_yaml import dump_yaml
from amodal.priors.encoder import MaskEncoder, fit_encoder
from amodal.priors.facts import read_facts, write_module
from amodal.priors.instances import collect
from amodal.priors.prior import refuse_other_classes
from amodal.settings import CodebookConfig, FitConfig

VERSION = 1
SETTINGS, TENSORS = "codebook.yaml", "codebook.safetensors"
_KEYS = {"fit": dict, "class_names": list, "category_ids": list, "data": str}
_PASSES = 25
_CHUNK = 1024  # rows whose distances to all codes are held at once


class Codebook(nn.Module):
    """The codes of a class nearest to a mask, decoded to shapes. Frozen; everything runs without gradient in float32.

    Attributes:
        config: how it was fitted.
        class_names, category_ids: of the annotations, by 0-based label.
        data: digest of the annotations; "" where unknown.
        codes: float32 [C, M, D], the first ``counts`` of each class are codes, the rest zeros.
        counts: int64 [C], 0 for a class that the annotations lack.
    """

    codes: Tensor
    counts: Tensor

    def __init__(
        self,
        config: CodebookConfig,
        class_names: Sequence[str],
        category_ids: Sequence[int],
        encoder: MaskEncoder,
        codes: Tensor,
        counts: Tensor,
        data: str = "",
    ) -> None:
        super().__init__()
        self.config, self.data = config, data
        self.class_names, self.category_ids = list(class_names), [int(value) for value in category_ids]
        self.encoder = encoder.float().eval()
        self.register_buffer("codes", codes)
        self.register_buffer("counts", counts)
        self.requires_grad_(False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Codebook:
        """Follows the detector to its device and stays float32: distances of halves would tie."""
        device = fn(torch.empty(0, device=self.codes.device)).device
        super()._apply(lambda value: value.to(device), recurse)  # type: ignore[no-untyped-call]
        return self

    def check_classes(self, class_names: Sequence[str], category_ids: Sequence[int]) -> None:
        """Refuses a model whose classes are not the codebook's, in the same order, with a :class:`ConfigError`."""
        refuse_other_classes(self, class_names, category_ids, "codebook")

    @torch.no_grad()
    def shapes(self, masks: Tensor, labels: Tensor, k: int) -> Tensor:
        """The decoded codes nearest to masks (L2), nearest first.

        Args:
            masks: float [R, 28, 28], what the encoder is asked with.
            labels: int64 [R], 0-based class.
            k: how many; a class with fewer codes repeats its farthest one, one without any gives the mask's own code.

        Returns:
            float32 [R, k, 28, 28], 0 to 1.
        """
        with torch.autocast(masks.device.type, enabled=False):
            parts = zip(torch.split(masks.detach().float(), _CHUNK), torch.split(labels, _CHUNK), strict=True)
            found = [self._nearest(self.encoder(mask), label, k) for mask, label in parts]
            shapes = self.encoder.decode(torch.cat(found).flatten(0, 1))
            return shapes.view(len(labels), k, *shapes.shape[1:])

    def _nearest(self, queries: Tensor, labels: Tensor, k: int) -> Tensor:
        """float32 [R, k, D], codes nearest to queries [R, D]."""
        found = queries[:, None].repeat(1, k, 1)
        for label in sorted(set(labels.tolist())):
            count = int(self.counts[label])
            if count:
                rows = torch.nonzero(labels == label).flatten()
                codes = self.codes[label, :count]
                order = torch.cdist(queries[rows], codes).topk(min(k, count), dim=1, largest=False, sorted=True).indices
                order = torch.cat([order, order[:, -1:].expand(-1, k - order.shape[1])], dim=1)
                found[rows] = codes[order]
        return found


class CodebookMaker:
    """A :class:`amodal.models.branch.PriorMaker`."""

    def fit(
        self, annotations: AnnotationSet, settings: FitConfig, *, data: str, progress: bool = False
    ) -> tuple[Codebook, str]:
        """Auto-encoder on all amodal masks, then the codes of each class from its masks and their mirror images.

        Raises:
            ConfigError: no object's amodal mask is known.
        """
        if not isinstance(settings, CodebookConfig):
            raise TypeError(f"a codebook is fitted with CodebookConfig, not {type(settings).__name__}")
        instances, _ = collect(annotations, progress=progress)
        if len(instances) == 0:
            raise ConfigError("no object has a known amodal mask, so there are no shapes to learn from")
        encoder = fit_encoder(
            instances.amodal, settings.encoder, steps=settings.encoder_steps, seed=settings.seed, progress=progress
        )
        classes = len(annotations.class_names)
        codes, counts = torch.zeros(classes, settings.slots, settings.encoder), torch.zeros(classes, dtype=torch.long)
        for label in range(classes):
            masks = instances.amodal[instances.labels == label]
            if len(masks):
                own = _centres(encoder(eight_ways(masks)), settings.slots, settings.seed)
                codes[label, : len(own)], counts[label] = own, len(own)
        names = (annotations.class_names, annotations.category_ids)
        prior = Codebook(settings, *names, encoder, codes, counts, data)
        return (
            prior,
            f"{counted(len(instances), 'object')}, {int(counts.sum())} codes of {int((counts > 0).sum())} classes",
        )

    def save(self, prior: Any, folder: str | Path) -> None:
        """Writes a codebook into ``folder`` (made where missing, files of the same names replaced)."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        data = {
            "version": VERSION,
            "fit": asdict(prior.config),
            "class_names": prior.class_names,
            "category_ids": prior.category_ids,
            "data": prior.data,
        }
        write_text(folder / SETTINGS, dump_yaml(data))
        write_module(prior, folder / TENSORS)

    def load(self, folder: str | Path, device: torch.device | str = "cpu") -> Codebook:
        """The codebook in a folder.

        Raises:
            ConfigError: ``codebook.yaml`` is missing, damaged or of a newer release.
            WeightsError: the tensors are missing or damaged, or do not fit ``codebook.yaml``.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise WeightsError(f"{folder}: no such folder of a shape codebook (amodal train fits one)")
        settings, rest = _read_settings(folder)
        with open_weights(folder / TENSORS):
            pass  # A damaged file is found before memory is asked for.
        names, classes = (rest["class_names"], rest["category_ids"]), len(rest["class_names"])
        codes, counts = torch.zeros(classes, settings.slots, settings.encoder), torch.zeros(classes, dtype=torch.long)
        prior = Codebook(settings, *names, MaskEncoder(settings.encoder), codes, counts, rest["data"])
        prior.load_state_dict(read_weights(folder / TENSORS, prior.state_dict(), SETTINGS))
        if bool(((prior.counts < 0) | (prior.counts > settings.slots)).any()):
            raise WeightsError(f"{folder / TENSORS}: counts must be from 0 to {settings.slots}")
        return prior.to(device)

    def read_settings(self, folder: Path) -> tuple[CodebookConfig, str]:
        """How the codebook in a folder was fitted, and the digest of the annotations."""
        settings, rest = _read_settings(folder)
        return settings, rest["data"]


MAKER = CodebookMaker()


def eight_ways(masks: Tensor) -> Tensor:
    """bool [8 N, 28, 28], masks [N, 28, 28] turned by quarters, and their mirror images."""
    turned = [torch.rot90(masks, quarter, (1, 2)) for quarter in range(4)]
    return torch.cat([*turned, *(mask.flip(2) for mask in turned)])


def _centres(codes: Tensor, most: int, seed: int) -> Tensor:
    """float32 [at most ``most``, D]: codes [N, D] themselves, or the centres of their clusters where there are more."""
    codes = torch.unique(codes, dim=0)
    if len(codes) <= most:
        return codes
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning

    means = MiniBatchKMeans(most, init="random", n_init=1, max_iter=_PASSES, batch_size=8192, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        means.fit(codes.cpu().numpy().astype(np.float32))
    return torch.from_numpy(means.cluster_centers_).float()


def _read_settings(folder: Path) -> tuple[CodebookConfig, dict[str, Any]]:
    path = folder / SETTINGS
    data = read_facts(path, _KEYS)
    return structure(CodebookConfig, data.pop("fit"), str(path), "fit."), data
