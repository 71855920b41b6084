"""How much inconsistency counts beside distance in re-ranking: one number, fitted on training objects."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torchvision.ops import box_iou
from tqdm import tqdm

from amodal.data.store import AnnotationSet
from amodal.priors.annotated import agreement, image_sizes, occluded_rows
from amodal.priors.boxes import expand_boxes, median_deltas
from amodal.priors.consistency import rerank
from amodal.priors.types import PriorInstances, Retrieved

WEIGHTS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
_CHUNK = 128


class Search(Protocol):
    """:meth:`amodal.priors.prior.Prior.search`."""

    def __call__(
        self, masks: Tensor, boxes: Tensor, labels: Tensor, k: int, *, exclude_images: Tensor | None = None
    ) -> Retrieved: ...


def fit_weight(
    annotations: AnnotationSet,
    instances: PriorInstances,
    search: Search,
    *,
    k: int = 8,
    candidates: int = 32,
    limit: int = 1000,
    seed: int = 0,
    progress: bool = False,
) -> float:
    """The weight of :func:`amodal.priors.consistency.rerank` that suits the data.

    Training objects of which more than 15 % is hidden (``data.store.OCCLUDED``) ask with their true visible masks
    and boxes for ``candidates`` priors from other images; judged is the IoU of the box of the median delta of the k
    that stay with the true amodal box. Where most occluders are not annotated, inconsistency misleads and the weight
    becomes 0.

    Args:
        annotations: the training annotations, whose visible masks are the evidence.
        instances: their objects.
        search: the bank.
        k: priors that stay.
        candidates: priors retrieved.
        limit: objects that are asked for at most, drawn at random.
        seed: of the draw.
        progress: show a progress bar.

    Returns:
        One of :data:`WEIGHTS`: the smallest whose mean IoU is at most one standard error (of the paired difference)
        below the best; 0 where nothing is hidden.
    """
    rows = occluded_rows(instances, limit, seed)
    if len(rows) == 0:
        return 0.0
    parts = tqdm(torch.split(rows, _CHUNK), desc="weight", leave=False, disable=None if progress else True)
    found = [_box_ious(annotations, instances.take(part), search, k, candidates) for part in parts]
    return _smallest_good(torch.cat(found, dim=1))


def _box_ious(annotations: AnnotationSet, asked: PriorInstances, search: Search, k: int, candidates: int) -> Tensor:
    """float64 [weights, R], IoU of the median-expanded box with the true one for every weight."""
    visible = asked.visible.float()
    found = search(visible, asked.boxes, asked.labels, candidates, exclude_images=asked.image_ids)
    visible_boxes, sizes = asked.visible_boxes, image_sizes(annotations, asked.image_ids)
    placed = expand_boxes(found.deltas, visible_boxes[:, None], sizes[:, None])
    score, *_ = agreement(annotations, asked.annotation_ids, visible, asked.boxes, found.amodal, placed, visible_boxes)
    ious = []
    for weight in WEIGHTS:
        deltas = median_deltas(rerank(found, score, weight, k).deltas)
        ious.append(box_iou(expand_boxes(deltas, visible_boxes, sizes), asked.boxes).diagonal())
    return torch.stack(ious).double()


def _smallest_good(ious: Tensor) -> float:
    """The smallest weight within one standard error of the best; ``ious`` is float64 [weights, objects]."""
    behind = ious[ious.mean(dim=1).argmax()] - ious
    # Paired: both weights are judged on the same objects, whose own difficulty falls out of the difference.
    error = behind.std(dim=1, correction=0) / ious.shape[1] ** 0.5
    return WEIGHTS[int((behind.mean(dim=1) <= error).nonzero()[0])]
