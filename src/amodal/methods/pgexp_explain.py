"""What PGExp retrieved on its way to a mask, as plain arrays for :mod:`amodal.viz.priors`.

Either the steps of a trained :class:`~amodal.methods.pgexp.PGExp` are asked once more, or, without a detector, the true
visible masks of annotated objects ask the prior.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from amodal.config_methods import PGExpConfig
from amodal.data.store import AnnotationSet
from amodal.frames import crop_masks, resample
from amodal.methods.pgexp import PGExp
from amodal.methods.pgexp_mask import FlowExpansion
from amodal.models.rcnn import AmodalRCNN
from amodal.priors.annotated import agreement
from amodal.priors.boxes import expand_boxes
from amodal.priors.consistency import context_boxes, rerank_order
from amodal.priors.prior import Prior
from amodal.priors.types import GRID, Retrieved
from amodal.structures import RoIs
from amodal.viz.priors import BoxPriors, Explanation, FlowPriors, Reranked

Arrays = dict[str, Tensor]


def explain_image(model: AmodalRCNN, image: npt.NDArray[np.uint8]) -> list[Explanation]:
    """The detections in an image, explained; best score first.

    Args:
        model: a detector whose branch is :class:`PGExp`; its mode is restored afterwards.
        image: uint8 [H, W, 3] RGB.

    Returns:
        One an object that the box head finds; boxes in pixels of ``image``. Empty for any other system.
    """
    branch = model.branch
    if not isinstance(branch, PGExp):
        return []
    training = model.training
    try:
        with torch.no_grad():
            return _explain_image(model.eval(), branch, image)
    finally:
        model.train(training)


def _explain_image(model: AmodalRCNN, branch: PGExp, image: npt.NDArray[np.uint8]) -> list[Explanation]:
    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).to(model.device)
    ((_, batch),) = model.transform.batches([pixels])
    features = model.backbone(batch.images)
    proposals, _ = model.rpn(features, batch.sizes)
    rois = model.box_head.detect(features, proposals, batch.sizes, partial(branch.rescore, features))
    found = explain(branch, features, rois)
    (height, width), (true_height, true_width) = batch.sizes[0], batch.originals[0]
    scale = torch.tensor([true_width / width, true_height / height]).repeat(2)
    names = [model.class_names[label] for label in rois.labels.tolist()]
    made = _as_explanations(found, names, rois.scores.tolist(), scale)
    return sorted(made, key=lambda one: -(one.score or 0.0))


def explain(branch: PGExp, features: dict[str, Tensor], rois: RoIs) -> Arrays:
    """The tensors behind R regions' masks: what the branch answers, and what its steps retrieved for that.

    Args:
        branch: in eval mode.
        features: pyramid levels.
        rois: R regions.

    Returns:
        Tensors of R rows, boxes in xyxy pixels of the network image: ``frame`` (B^o), ``visible`` (M^v there),
        ``visible_box`` (B^v), ``amodal_box`` (B^a), ``amodal`` (probabilities there); with a prior-guided box head
        ``prior_boxes`` [R, K, 4], ``box_distance``; with a mask head that uses the prior ``expanded`` (M^{v,e} in
        ``flow_box``), ``shapes`` [R, K, 28, 28], ``mask_distance``, and ``flows`` [R, K, 2, 14, 14] where it uses
        flows; with re-ranking what :func:`_candidates` gives, of the first search.
    """
    output = branch(features, rois)
    rois, visible = branch.stand(features, rois, branch.see(features, rois))
    seen, boxes = branch.seen_boxes(visible, rois), output.boxes
    found = {
        "frame": rois.boxes,
        "visible": visible,
        "visible_box": seen,
        "amodal_box": boxes,
        "amodal": output.amodal_logits.float().sigmoid(),
    }
    query, frames, place = None, rois.boxes, None
    if branch.mask_head is not None:
        query, frames, place = resample(visible, rois.boxes, boxes, GRID), boxes, boxes
        priors = branch.retrieve_masks(query, boxes, visible, seen, rois)
        found |= {"flow_box": boxes, "expanded": query, "shapes": priors.amodal, "mask_distance": priors.distance}
        if isinstance(branch.mask_head, FlowExpansion):
            found["flows"] = branch.flows(query, priors)
    if branch.method.box_expansion == "prior":
        query, frames, place = visible, rois.boxes, None
        priors = branch.retrieve_boxes(visible, seen, rois)
        found |= {"prior_boxes": branch.prior_boxes(priors, seen, rois), "box_distance": priors.distance}
    if query is not None and branch.rerank_weight > 0:
        candidates = branch.search(query, frames, rois)
        placed = branch.prior_boxes(candidates, seen, rois)
        if place is not None:
            placed = place[:, None].expand_as(placed)
        context = context_boxes(placed, seen)
        score = branch.inconsistency(candidates, visible, seen, rois, place)
        others = branch.others(visible, rois, context)
        found |= _candidates(candidates, placed, score, others, context, branch.rerank_weight, branch.k)
    return found


def _candidates(
    found: Retrieved, boxes: Tensor, score: Tensor, others: Tensor, context: Tensor, weight: float, k: int
) -> Arrays:
    """M candidates of R objects: ``placed`` [R, M, 4], shapes, distance, inconsistency, which are ``kept``."""
    kept = torch.zeros_like(found.distance, dtype=torch.bool)
    kept.scatter_(1, rerank_order(found.distance, score, weight, k), True)
    return {
        "placed": boxes,
        "candidates": found.amodal,
        "candidate_distance": found.distance,
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
        prior: the prior; it is asked for classes by their names.
        annotations: the objects' file.
        rows: their rows; no crowds, and of classes that the prior has.
        exclude_own_image: leave out slots made from objects of the same image: the prior was fitted on this file.

    Returns:
        One an object, boxes in pixels of its image, without estimate.
    """
    if not rows:
        return []
    k = PGExpConfig.k
    weight, asked = prior.rerank_weight, _true_masks(annotations, list(rows), prior.device)
    boxes, visible, seen = asked["frame"], asked["visible"], asked["visible_box"]
    image = annotations.image_index[list(rows)]
    names = [annotations.class_names[label] for label in annotations.labels[list(rows)].tolist()]
    labels = torch.tensor([prior.class_names.index(name) for name in names], device=prior.device)
    own = torch.from_numpy(annotations.image_ids[image]).to(prior.device) if exclude_own_image else None
    count = PGExpConfig.candidates if weight > 0 else k
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
        asked |= _candidates(every, placed, score, others, context, weight, k)
    return _as_explanations(asked, names, [None] * len(names), torch.ones(4))


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
    seen = torch.where((seen[:, 2:] > seen[:, :2]).all(dim=1, keepdim=True), seen, boxes)
    return {"frame": boxes.to(device), "visible": visible.to(device), "visible_box": seen.to(device)}


_BOXES = ("frame", "visible_box", "amodal_box", "prior_boxes", "placed", "context", "flow_box")


def _as_explanations(
    found: Arrays, names: Sequence[str], scores: Sequence[float | None], scale: Tensor
) -> list[Explanation]:
    """Rows of tensors as objects; boxes times ``scale`` [4]."""
    columns = {name: value.detach().cpu() for name, value in found.items()}
    arrays = {name: (value * scale if name in _BOXES else value).numpy() for name, value in columns.items()}
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
