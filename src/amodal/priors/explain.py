"""What a prior says about objects, as plain arrays for :mod:`amodal.viz.priors`.

Either a branch hands in what it recalled, or, without a detector, the true visible masks of annotated objects ask.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from amodal.data.store import AnnotationSet
from amodal.frames import crop_masks
from amodal.priors.annotated import agreement, match_prior
from amodal.priors.boxes import expand_boxes
from amodal.priors.consistency import rerank_order
from amodal.priors.prior import Prior
from amodal.priors.types import GRID
from amodal.viz.explanation import BoxPriors, Explanation, FlowPriors, Reranked

Arrays = dict[str, Tensor]


def candidate_arrays(
    amodal: Tensor, distance: Tensor, boxes: Tensor, score: Tensor, order: Tensor, others: Tensor, context: Tensor
) -> Arrays:
    """M candidates of R objects: ``placed`` [R, M, 4], shapes, distance, inconsistency, and which are ``kept``.

    ``order`` int64 [R, K] are those that stay; ``others`` [R, S, S] is what is seen of other objects in ``context``.
    """
    kept = torch.zeros_like(distance, dtype=torch.bool)
    kept.scatter_(1, order, True)
    return {
        "placed": boxes,
        "candidates": amodal,
        "candidate_distance": distance,
        "inconsistency": score,
        "kept": kept,
        "others": others,
        "context": context,
    }


@torch.no_grad()
def explain_objects(
    prior: Prior, annotations: AnnotationSet, rows: Sequence[int], *, exclude_own_image: bool
) -> list[Explanation]:
    """What a prior says about annotated objects, asked with their true visible masks in their true amodal boxes.

    Where the prior re-ranks (weight above 0), the candidates of the box search are shown with what would be kept; the
    priors themselves are those of plain retrieval.

    Args:
        prior: the prior; it is asked for classes as :mod:`amodal.data.classes` matches them, for as many priors as it
            was fitted to give.
        annotations: the objects' file.
        rows: their rows; no crowds, and of classes that the prior has.
        exclude_own_image: leave out slots made from objects of the same image: the prior was fitted on this file.

    Returns:
        One an object, boxes in pixels of its image, without estimate.
    """
    if not rows:
        return []
    k = prior.config.k
    weight, asked = prior.rerank_weight, _true_masks(annotations, list(rows), prior.device)
    boxes, visible, seen = asked["frame"], asked["visible"], asked["visible_box"]
    image = annotations.image_index[list(rows)]
    names = [annotations.class_names[label] for label in annotations.labels[list(rows)].tolist()]
    ours = match_prior(prior, annotations).label_of
    labels = torch.tensor([ours[label] for label in annotations.labels[list(rows)].tolist()], device=prior.device)
    own = torch.from_numpy(annotations.image_ids[image]).to(prior.device) if exclude_own_image else None
    count = prior.config.candidates if weight > 0 else k
    every = prior.search(visible, boxes, labels, count, exclude_images=own)
    found = every.choose(torch.arange(k, device=prior.device).expand(len(labels), k))
    sizes = np.stack([annotations.heights[image], annotations.widths[image]], 1).astype(np.float32)
    placed = expand_boxes(every.deltas, seen[:, None], torch.from_numpy(sizes).to(prior.device)[:, None])
    flows = prior.solve(visible.repeat_interleave(k, dim=0), found.amodal.flatten(0, 1))
    asked |= {"prior_boxes": placed[:, :k], "box_distance": found.distance, "flow_box": boxes, "expanded": visible}
    asked |= {"shapes": found.amodal, "mask_distance": found.distance, "flows": flows.view(-1, k, *flows.shape[1:])}
    if weight > 0:
        numbers = torch.from_numpy(annotations.annotation_ids[list(rows)])
        score, others, context = agreement(annotations, numbers, visible, boxes, every.amodal, placed, seen)
        order = rerank_order(every.distance, score, weight, k)
        asked |= candidate_arrays(every.amodal, every.distance, placed, score, order, others, context)
    return as_explanations(asked, names, [None] * len(names))


def _true_masks(annotations: AnnotationSet, rows: list[int], device: torch.device) -> Arrays:
    """Amodal boxes, visible masks in them, and visible boxes of annotated objects."""
    boxes, seen = (
        torch.from_numpy(column[rows].astype(np.float32))
        for column in (annotations.amodal_boxes, annotations.visible_boxes)
    )
    first = torch.zeros(1, dtype=torch.int64)
    masks = [
        crop_masks(torch.from_numpy(annotations.visible_mask(row))[None], first, box[None], GRID)
        for row, box in zip(rows, boxes, strict=True)
    ]
    visible = torch.cat(masks)
    # A wholly hidden object has no visible box; it asks from where the whole is.
    seen = torch.where((seen[:, 2:] > seen[:, :2]).all(dim=1, keepdim=True), seen, boxes)
    return {"frame": boxes.to(device), "visible": visible.to(device), "visible_box": seen.to(device)}


def as_explanations(found: Arrays, names: Sequence[str], scores: Sequence[float] | Sequence[None]) -> list[Explanation]:
    """Rows of tensors as objects."""
    arrays = {name: value.detach().cpu().numpy() for name, value in found.items()}
    return [
        _as_explanation({key: value[row] for key, value in arrays.items()}, name, score)
        for row, (name, score) in enumerate(zip(names, scores, strict=True))
    ]


def _as_explanation(one: dict[str, npt.NDArray[np.floating]], name: str, score: float | None) -> Explanation:
    made = Explanation(
        name=name,
        frame=one["frame"],
        visible=one["visible"],
        visible_box=one["visible_box"],
        score=score,
        amodal_box=one.get("amodal_box"),
        amodal=one.get("amodal"),
    )
    if "prior_boxes" in one:
        made.boxes = BoxPriors(one["prior_boxes"], one["box_distance"])
    if "shapes" in one:
        flows = one.get("flows")
        made.flows = FlowPriors(one["flow_box"], one["expanded"], one["shapes"], flows, one["mask_distance"])
    if "placed" in one:
        made.reranked = Reranked(
            boxes=one["placed"],
            amodal=one["candidates"],
            distance=one["candidate_distance"],
            inconsistency=one["inconsistency"],
            kept=one["kept"].astype(bool),
            others=one["others"],
            context=one["context"],
        )
    return made
