"""What PGExp recalled on its way to a mask, as plain arrays for :mod:`amodal.viz.priors`."""

from __future__ import annotations

from amodal.methods.pgexp.recall import Recall, standing
from amodal.methods.pgexp.values import Mask
from amodal.priors.consistency import context_boxes, rerank_order
from amodal.priors.explain import Arrays, as_explanations, candidate_arrays
from amodal.priors.prior import Prior
from amodal.viz.explanation import Explanation


def explanations(mask: Mask, recall: Recall, prior: Prior | None) -> list[Explanation]:
    """One a region, in order; boxes in the frame of the network image, names left empty."""
    scores = mask.seen.rois.scores.tolist()
    return as_explanations(explain(mask, recall, prior), [""] * len(scores), scores)


def explain(mask: Mask, recall: Recall, prior: Prior | None) -> Arrays:
    """The tensors behind R regions' masks: what the branch answered, and what it recalled for that.

    Args:
        mask: the branch's steps, in eval mode and without gradient.
        recall: how it asked, and is asked once more for the candidates of re-ranking.
        prior: what it asked; None where it has none.

    Returns:
        Tensors of R rows, boxes in xyxy pixels of the network image: ``frame`` (B^o), ``visible`` (M^v there),
        ``visible_box`` (B^v), ``amodal_box`` (B^a), ``amodal`` (probabilities there); with a prior-guided box head
        ``prior_boxes`` [R, K, 4], ``box_distance``; with a mask head that uses the prior ``expanded`` (M^{v,e} in
        ``flow_box``), ``shapes`` [R, K, 28, 28], ``mask_distance``, and ``flows`` [R, K, 2, 14, 14] where it uses
        flows; with re-ranking what :func:`amodal.priors.explain.candidate_arrays` gives, of the first search.
    """
    seen, box, for_box, for_mask = mask.seen, mask.box, mask.for_box, mask.for_mask
    found = {
        "frame": seen.rois.boxes,
        "visible": seen.mask,
        "visible_box": seen.box,
        "amodal_box": box.boxes,
        "amodal": mask.logits.float().sigmoid(),
    }
    if for_mask is not None:
        found |= {"flow_box": for_mask.frames, "expanded": for_mask.query, "shapes": for_mask.amodal}
        found["mask_distance"] = for_mask.distance
        if for_mask.flows is not None:
            found["flows"] = for_mask.flows
    if for_box is not None:
        found |= {"prior_boxes": for_box.boxes, "box_distance": for_box.distance}
    if prior is not None and recall.weight(prior) > 0 and (for_box is not None or for_mask is not None):
        # Re-ranking happens in both searches; the first one is shown, where the candidates stand apart from each other.
        place = None if for_box is not None else box
        candidates = recall.candidates_of(prior, seen, place)
        placed = standing(candidates, place)
        context = context_boxes(placed, seen.box)
        score = recall.judge(candidates, seen, place)
        order = rerank_order(candidates.distance, score, recall.weight(prior), recall.k)
        shown = (candidates.amodal, candidates.distance)
        found |= candidate_arrays(*shown, placed, score, order, seen.others(context), context)
    return found
