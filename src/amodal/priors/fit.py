"""Fitting an expansion prior to the masks of an annotation file, before any training (Sec. 3.1, Construction)."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor

from amodal.data.store import AnnotationSet
from amodal.errors import DataError
from amodal.priors.bank import Bank
from amodal.priors.encoder import MaskEncoder, fit_encoder
from amodal.priors.flow import FlowNet
from amodal.priors.flow_fit import fit_flow
from amodal.priors.instances import collect
from amodal.priors.prior import Prior, encode
from amodal.priors.rerank_weight import fit_weight
from amodal.priors.types import PriorInstances
from amodal.settings import PriorConfig

HELD_OUT = 0.1
"""Share of the images that E and S^f are not fitted on, so that their quality can be told."""
NEIGHBOURS = 8
_REFERENCES = 2000  # objects of a class among which neighbours are looked for: 95,000 objects take seconds, not minutes
_CHUNK = 2048


@dataclass
class FitReport:
    """What was fitted, and on what.

    Attributes:
        instances: all N objects, bank and held-out ones together.
        banked: bool [N], objects that are hidden enough for the bank (``min_occlusion``).
        held_out: bool [N], objects of held-out images, which neither E nor S^f has seen; the bank may hold them.
        left_out: why objects of the file are none of the N -> how many.
        class_counts: objects of each class that the bank is made from; a class without any is absent from it.
        seconds: stage -> seconds.
    """

    instances: PriorInstances
    banked: Tensor
    held_out: Tensor
    left_out: dict[str, int]
    class_counts: list[int]
    seconds: dict[str, float] = field(default_factory=dict)


def fit_prior(
    annotations: AnnotationSet,
    config: PriorConfig,
    *,
    held_out: float = HELD_OUT,
    data: str = "",
    progress: bool = False,
) -> tuple[Prior, FitReport]:
    """Fits E, builds the bank, fits S^f; all on the CPU, a pure function of annotations and settings.

    Args:
        annotations: the training objects.
        config: settings.
        held_out: share of the images kept from E and S^f; the bank takes objects of every image.
        data: digest of the annotations, stored with the prior.
        progress: show progress bars.

    Raises:
        DataError: no object is left to learn from, or none is hidden enough for the bank.
    """
    report = _gather(annotations, config, held_out, progress)
    instances, seen = report.instances, report.instances.take(~report.held_out)
    clock = _Clock(report.seconds)
    masks = _encoder_masks(seen, config)
    encoder = fit_encoder(masks, config.encoder, steps=config.encoder_steps, seed=config.seed, progress=progress)
    clock.lap("encoder")
    bank = Bank.build(
        instances.take(report.banked),
        len(annotations.class_names),
        partial(encode, encoder, config.key_aspect),
        config.slots,
        key_frame=config.key_frame,
        rotate=config.rotate,
        seed=config.seed,
        progress=progress,
    )
    clock.lap("bank")
    flow = None if config.flow == "nearest" else _fit_flow(seen, encoder, config, progress)
    clock.lap("flow")
    names, ids = annotations.class_names, [int(i) for i in annotations.category_ids]
    prior = Prior(config, names, ids, encoder, flow, bank, data=data)
    prior.rerank_weight = fit_weight(
        annotations, instances, prior.search, k=config.k, candidates=config.candidates, seed=config.seed,
        progress=progress,
    )  # fmt: skip
    clock.lap("re-ranking weight")
    return prior, report


def key_masks(instances: PriorInstances, config: PriorConfig) -> Tensor:
    """bool [N, 28, 28], the visible masks in the key frame."""
    return instances.own if config.key_frame == "visible" else instances.visible


def key_codes(instances: PriorInstances, encoder: MaskEncoder, config: PriorConfig) -> Tensor:
    """float32 [N, D], E's codes of the objects as the bank would hold them."""
    sizes = instances.visible_boxes[:, 2:] - instances.visible_boxes[:, :2]
    return encode(encoder, config.key_aspect, key_masks(instances, config), sizes)


def nearest_neighbours(codes: Tensor, labels: Tensor, count: int, seed: int) -> Tensor:
    """Objects of the same class with near codes, found among at most 2,000 of a class.

    Args:
        codes: float32 [N, D].
        labels: int64 [N].
        count: neighbours of an object.
        seed: of the choice among more objects than that.

    Returns:
        int64 [N, count], rows, nearest first and never the object itself; where a class has too few, they repeat (the
        only object of a class is its own neighbour).
    """
    generator = np.random.default_rng(seed)
    neighbours = torch.arange(len(codes))[:, None].repeat(1, count)
    for label in torch.unique(labels).tolist():
        rows = torch.nonzero(labels == label).flatten()
        if len(rows) == 1:
            continue
        chosen = np.sort(generator.permutation(len(rows))[:_REFERENCES])
        references = rows[torch.from_numpy(chosen)]
        for part in torch.split(rows, _CHUNK):
            distance = torch.cdist(codes[part], codes[references])
            distance[part[:, None] == references] = torch.inf
            near = distance.topk(min(count, len(references) - 1), largest=False).indices
            repeat = torch.arange(count) % near.shape[1]
            neighbours[part] = references[near][:, repeat]
    return neighbours


def _gather(annotations: AnnotationSet, config: PriorConfig, share: float, progress: bool) -> FitReport:
    clock = _Clock({})
    instances, left_out = collect(annotations, progress=progress)
    clock.lap("masks")
    if not len(instances):
        reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items()) or "it is empty"
        raise DataError(f"no object to fit a prior to ({reasons})", file=annotations.path or None)
    banked = instances.occlude_rate >= config.min_occlusion
    if not banked.any():
        rule = f"min_occlusion is {config.min_occlusion}, the most hidden object's share is"
        raise DataError(
            f"no object for the bank ({rule} {float(instances.occlude_rate.max()):.3g})", file=annotations.path or None
        )
    images = torch.unique(instances.image_ids)
    generator = np.random.default_rng(config.seed)
    chosen = generator.permutation(len(images))[: int(share * len(images))]
    held_out = torch.isin(instances.image_ids, images[torch.from_numpy(chosen)])
    counts = torch.bincount(instances.labels[banked], minlength=len(annotations.class_names)).tolist()
    return FitReport(instances, banked, held_out, left_out, counts, clock.seconds)


def _encoder_masks(instances: PriorInstances, config: PriorConfig) -> Tensor:
    """What E learns to reconstruct: the whole shapes, and the visible parts in the frame in which it will see them."""
    if config.fit_on == "amodal":
        return instances.amodal
    return torch.cat([instances.amodal, key_masks(instances, config)])


def _fit_flow(instances: PriorInstances, encoder: MaskEncoder, config: PriorConfig, progress: bool) -> FlowNet:
    neighbours = None
    if config.neighbour_share > 0:
        codes = key_codes(instances, encoder, config)
        neighbours = nearest_neighbours(codes, instances.labels, NEIGHBOURS, config.seed)
    flow = fit_flow(
        instances,
        steps=config.flow_steps,
        seed=config.seed,
        neighbours=neighbours,
        neighbour_share=config.neighbour_share,
        progress=progress,
    )
    flow.eval().requires_grad_(False)
    return flow


class _Clock:
    """Writes the seconds of each stage into a dict."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self.seconds = seconds
        self.start = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage], self.start = now - self.start, now
