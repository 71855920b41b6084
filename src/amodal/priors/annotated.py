"""What annotated objects are asked for by whoever judges priors with the truth: which, how large their images, how well
priors agree with the annotated visible masks around them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from amodal.data.classes import Classes, ClassMatch, match
from amodal.data.store import OCCLUDED, AnnotationSet
from amodal.priors.consistency import context_boxes, inconsistency
from amodal.priors.evidence import annotated_evidence
from amodal.priors.prior import Prior
from amodal.priors.types import PriorInstances


class Agreement(NamedTuple):
    """How R objects' M priors agree with what is seen.

    Attributes:
        score: float32 [R, M], inconsistency; 0 is best.
        others: float32 [R, 56, 56], 0 or 1, other objects' annotated visible masks in the frames ``context``.
        context: float32 [R, 4], xyxy pixels of the annotated image.
    """

    score: Tensor
    others: Tensor
    context: Tensor


def match_prior(prior: Prior, annotations: AnnotationSet) -> ClassMatch:
    """The class of the annotations for each of the prior; DataError where they cannot be told apart."""
    ours = Classes(prior.class_names, prior.category_ids, "the prior")
    theirs = Classes(annotations.class_names, annotations.category_ids, "the annotations")
    return match(ours, theirs, file=annotations.path or None)


def occluded_rows(instances: PriorInstances, limit: int, seed: int) -> Tensor:
    """int64, ascending: at most ``limit`` objects of which more than :data:`OCCLUDED` is hidden, a seeded draw."""
    rows = torch.nonzero(instances.occlude_rate > OCCLUDED).flatten()
    drawn = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:limit]
    return rows[drawn.sort().values]


def image_sizes(annotations: AnnotationSet, image_ids: Tensor) -> Tensor:
    """float32 [R, 2], (height, width) in pixels of images by id, int64 [R]."""
    order = np.argsort(annotations.image_ids, kind="stable")
    images = order[np.searchsorted(annotations.image_ids, image_ids.numpy(), sorter=order)]
    return torch.from_numpy(np.stack([annotations.heights[images], annotations.widths[images]], 1).astype(np.float32))


def agreement(
    annotations: AnnotationSet,
    annotation_ids: Tensor,
    visible: Tensor,
    frames: Tensor,
    amodal: Tensor,
    placed: Tensor,
    visible_boxes: Tensor,
) -> Agreement:
    """Inconsistency of priors by the annotated visible masks of the other objects.

    Args:
        annotations: the objects' file.
        annotation_ids: int64 [R], ids of the objects.
        visible: float [R, 28, 28], 0 or 1, their visible masks in ``frames``.
        frames: float32 [R, 4], xyxy pixels.
        amodal: float32 [R, M, 28, 28], the priors' amodal masks in the frames ``placed``.
        placed: float32 [R, M, 4], T^r_m(B^v).
        visible_boxes: float32 [R, 4], B^v.
    """
    context = context_boxes(placed, visible_boxes)
    others = annotated_evidence(annotations, annotation_ids.cpu(), context.cpu()).to(visible.device)
    return Agreement(inconsistency(visible, frames, amodal, placed, others, context), others, context)
