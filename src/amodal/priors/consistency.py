"""Occluder consistency: retrieved priors judged by what else is seen, and re-ranked with it.

Not in the paper. Whatever a prior adds to the visible part of an object must be hidden by something. So the amodal mask
P of a candidate, placed where it would complete the object, should lie under the visible mask V and the visible masks
of the other objects, and should contain V. No training is involved.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from amodal.priors.types import Retrieved

_CELLS = 2**20  # of candidates' masks judged at a time


def context_boxes(boxes: Tensor, visible_boxes: Tensor) -> Tensor:
    """The region in which other objects matter: the tight box around all placed candidates and B^v.

    Args:
        boxes: float32 [R, M, 4], xyxy pixels, where the candidates are placed.
        visible_boxes: float32 [R, 4], xyxy pixels, B^v.

    Returns:
        float32 [R, 4], xyxy pixels.
    """
    every = torch.cat([boxes, visible_boxes[:, None]], dim=1)
    return torch.cat([every[..., :2].amin(dim=1), every[..., 2:].amax(dim=1)], dim=1)


def inconsistency(
    visible: Tensor, visible_frames: Tensor, amodal: Tensor, boxes: Tensor, others: Tensor, context: Tensor
) -> Tensor:
    """Inconsistency of M candidates for each of R objects: ``|P \\ (V u others)| / |P| + |V \\ P| / |V|``.

    Areas are in pixels of the image. Each term counts cell centres of the mask that it divides by: P's against V and
    others, V's against P.

    Args:
        visible: float [R, h, w], visible masks, cut at 0.5, in the frames ``visible_frames``.
        visible_frames: float32 [R, 4], xyxy pixels.
        amodal: float32 [R, M, 28, 28], 0 or 1, amodal masks P of the candidates in the frames ``boxes``.
        boxes: float32 [R, M, 4], xyxy pixels, where the candidates are placed: T^r_m(B^v), or B^a for all of them.
        others: float [R, S, S], 0 or 1, union of the other objects' visible masks in the frames ``context``.
        context: float32 [R, 4], xyxy pixels, see :func:`context_boxes`.

    Returns:
        float32 [R, M], 0 (consistent) to 2; infinite for an empty P (an absent class, a slot left out); 0 for every
        other candidate of an object whose V is empty, since nothing can be said.
    """
    # In parts of a few megabytes, so that any number of candidates can be judged.
    rows = max(1, _CELLS // max(1, amodal[0:1].numel()))
    parts = zip(*(torch.split(x, rows) for x in (visible, visible_frames, amodal, boxes, others, context)), strict=True)
    return torch.cat([_inconsistency(*part) for part in parts])


def rerank_order(distance: Tensor, score: Tensor, weight: float, k: int) -> Tensor:
    """Which candidates stay.

    A candidate costs its distance, divided by the mean of the object's candidates, plus ``weight`` times its
    inconsistency; the k cheapest stay, ties in the order of retrieval.

    Args:
        distance: float32 [R, M], L2 distances of the keys, ascending; infinite for slots left out.
        score: float32 [R, M], inconsistency.
        weight: of the inconsistency; 0 is plain retrieval.
        k: candidates that stay, at most M.

    Returns:
        int64 [R, k], positions among the M, ascending: in the order of distance.
    """
    # Plain retrieval exactly, and 0 times the infinity of an empty candidate would be NaN.
    if weight == 0:
        return torch.arange(k, device=distance.device).expand(len(distance), k)
    finite = distance.isfinite()
    # Relative, because the scale of E's space differs from fit to fit and the weight shall mean the same in each.
    mean = distance.where(finite, 0.0).sum(dim=1) / finite.sum(dim=1).clamp(min=1)
    # Where every candidate equals the query, all distances are 0.
    relative = distance / mean.clamp(min=torch.finfo(distance.dtype).tiny)[:, None]
    cost = torch.where(finite, relative + weight * score, torch.inf)
    # Back in order of distance: the heads concatenate K maps, so each rank has weights of its own.
    return cost.argsort(dim=1, stable=True)[:, :k].sort(dim=1).values


def rerank(found: Retrieved, score: Tensor, weight: float, k: int) -> Retrieved:
    """The k of M candidates that agree best with what else is seen, in the order of distance; see :func:`rerank_order`.

    Args:
        found: M candidates for each of R objects.
        score: float32 [R, M], their inconsistency.
        weight: of the inconsistency; with 0 the result is that of plain retrieval.
        k: candidates that stay, at most M.
    """
    return replace(found, inconsistency=score).choose(rerank_order(found.distance, score, weight, k))


def _inconsistency(
    visible: Tensor, visible_frames: Tensor, amodal: Tensor, boxes: Tensor, others: Tensor, context: Tensor
) -> Tensor:
    """:func:`inconsistency` of some of the objects."""
    seen = visible >= 0.5
    explained = _read(seen[:, None], visible_frames[:, None], boxes, amodal.shape[-1])
    explained |= _read(others[:, None] >= 0.5, context[:, None], boxes, amodal.shape[-1])
    kept = _read(amodal >= 0.5, boxes, visible_frames[:, None], seen.shape[-1])
    # Sums of float32 zeros and ones are exact, and much faster than those of bools.
    area, seen_area = amodal.sum(dim=(2, 3)), seen.float().sum(dim=(1, 2))[:, None]
    unexplained = torch.where(explained, 0.0, amodal).sum(dim=(2, 3)) / area.clamp(min=1)
    missed = torch.where(kept, 0.0, seen[:, None].float()).sum(dim=(2, 3)) / seen_area.clamp(min=1)
    # The empty P last: it stays refused where V is empty and all else ties.
    score = torch.where(seen_area > 0, unexplained + missed, 0.0)
    return torch.where(area > 0, score, torch.inf)


def _read(masks: Tensor, frames: Tensor, targets: Tensor, size: int) -> Tensor:
    """Masks at the cell centres of other frames; a cell of a mask counts as a whole, outside its frame it is empty.

    Args:
        masks: bool [R, J, h, w] in ``frames`` [R, J, 4].
        targets: float32 [R, T, 4]; J and T are equal, or one of them is 1.
        size: cells a side of the targets.

    Returns:
        bool [R, max(J, T), size, size].
    """
    height, width = masks.shape[-2:]
    x = _cells(frames[..., 0::2], targets[..., 0::2], width, size)
    y = _cells(frames[..., 1::2], targets[..., 1::2], height, size)
    # A border of False stands for all that lies outside, so that reading needs no mask of its own.
    bordered = torch.nn.functional.pad(masks, (1, 1, 1, 1))
    index = (y * (width + 2))[..., :, None] + x[..., None, :]
    if masks.shape[1] == 1:
        return bordered.flatten(1).gather(1, index.flatten(1)).view(index.shape)
    return bordered.flatten(2).gather(2, index.flatten(2)).view(index.shape)


def _cells(frames: Tensor, targets: Tensor, cells: int, size: int) -> Tensor:
    """int64 [R, J, size], in which of a frame's cells (1 to ``cells``) a target's cell centres lie; 0, cells + 1: none.

    ``frames`` and ``targets`` [R, J, 2] are edges along one axis; a frame without extent has no cells.
    """
    unit = (torch.arange(size, device=targets.device, dtype=targets.dtype) + 0.5) / size
    points = targets[..., :1] + unit * (targets[..., 1:] - targets[..., :1])
    extent = frames[..., 1:] - frames[..., :1]
    # floor before long: a cast cuts towards zero and would take the cell outside for the first one.
    position = ((points - frames[..., :1]) / extent.clamp(min=1e-6) * cells).floor()
    # Clamped before the cast, which is undefined for what int64 cannot hold.
    inside = position.clamp(-1, cells).long() + 1
    return inside * (extent > 0)
