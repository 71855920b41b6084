"""Do the expansion steps lead to better boxes? IoU of B^v, B^p, B^o and B^a with the true amodal box, by occlusion.

Beside them, what no prior can beat and what limits it: the true visible box, and the true T^r applied to B^v. Where the
latter is no better than B^v, boxes are wrong for another reason than what is hidden.

Over the objects that a detection of their class found. "By box": IoU of B^o with the true box at least 0.5, which
favours B^o a little, since worse ones do not count. "By visible mask": IoU of visible masks at least 0.5, fair to all.

    python -m studies.boxes experiments/pgexp.yaml --data.root DATA --out runs/pgexp
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_iou

from amodal.frames import paste, tight_boxes
from amodal.methods.pgexp.values import Mask
from amodal.priors.boxes import box_deltas, expand_boxes, median_deltas
from amodal.structures import Targets
from studies import one_pass
from studies.one_pass import Sample
from studies.study import Study, run, study_parser

LEVELS = ((0.0, 0.05), (0.05, 0.15), (0.15, 0.40), (0.40, 1.01))


def recalled_boxes(steps: Mask) -> dict[str, Tensor]:
    """Boxes that the bank recalled: name -> float32 [R, 4], of several priors [R, K, 4]; empty without a bank."""
    recalled, seen = steps.for_box, steps.seen
    if recalled is None:
        return {}
    median = median_deltas(recalled.deltas, recalled.distance.isfinite())
    return {
        "B^p, mean of K": recalled.boxes,
        "B^p of the median": expand_boxes(median, seen.box, seen.sizes),
    }


def pairwise(boxes: Tensor, truth: Tensor) -> Tensor:
    """float32 [N], IoU of each box [N, 4] with its own truth [N, 4]; of several boxes [N, K, 4] the mean."""
    if boxes.dim() == 3:
        return torch.stack([pairwise(boxes[:, k], truth) for k in range(boxes.shape[1])]).mean(dim=0)
    iou: Tensor = box_iou(boxes, truth).diagonal()
    return iou


def match_visible(sample: Sample, logits: Tensor) -> Tensor:
    """int64 [R], like ``sample.match``, near being the IoU of the visible masks (in the frame of both together)."""
    rois, truth = sample.rois, sample.truth
    free = ~truth.ignore & truth.amodal_known & (truth.visible_boxes[:, 2:] > truth.visible_boxes[:, :2]).all(dim=1)
    overlap = _mask_iou(sample, logits)
    overlap[:, ~free] = 0
    return one_pass.assign(overlap, rois.scores)


def _mask_iou(sample: Sample, logits: Tensor) -> Tensor:
    """float32 [R, G], IoU of visible masks of one class whose boxes meet."""
    rois, truth = sample.rois, sample.truth
    height, width = sample.regions.batch.sizes[0]
    predicted = paste(logits.sigmoid(), rois.boxes, height, width).flatten(1).float()
    frame = rois.boxes.new_tensor([[0.0, 0.0, width, height]]).expand(len(truth), 4)
    side = max(height, width)
    square = one_pass.crop(truth, "visible", torch.arange(len(truth)), frame, side)
    true = (F.interpolate(square[:, None], (height, width))[:, 0] >= 0.5).flatten(1).float()
    shared = predicted @ true.T
    union = predicted.sum(1)[:, None] + true.sum(1) - shared
    return torch.where(rois.labels[:, None] == truth.labels, shared / union.clamp(min=1), 0.0)


def collect(model: Any, data: Any, limit: int | None) -> dict[str, Any]:
    """IoUs by matching and level, with how many objects there are and how many were found."""
    rows: dict[str, dict[str, list[Tensor]]] = {"by box": {}, "by visible mask": {}}
    rates: dict[str, list[Tensor]] = {name: [] for name in rows}
    everything: list[Tensor] = []
    for sample in one_pass.passes(model, data, limit):
        with torch.no_grad():
            output = model.branch(sample.features, sample.rois)
        truth = sample.truth
        everything.append(truth.occlude_rate[truth.amodal_known & ~truth.ignore])
        seen = tight_boxes(output.visible_logits.sigmoid(), sample.rois.boxes)
        boxes = {"B^v": seen, **recalled_boxes(output.aux), "B^o": sample.rois.boxes, "B^a": output.boxes}
        for name, match in (
            ("by box", sample.match),
            ("by visible mask", match_visible(sample, output.visible_logits)),
        ):
            found = torch.nonzero(match >= 0).flatten()
            objects = match[found]
            rates[name].append(truth.occlude_rate[objects])
            for kind, value in boxes.items():
                rows[name].setdefault(kind, []).append(pairwise(value[found], truth.boxes[objects]))
            for kind, iou in _limits(truth, objects, seen[found]).items():
                rows[name].setdefault(kind, []).append(iou)
    objects_rate = torch.cat(everything).numpy()
    answer: dict[str, Any] = {}
    for name, kinds in rows.items():
        rate = torch.cat(rates[name]).numpy()
        values = {kind: torch.cat(parts).numpy() for kind, parts in kinds.items()}
        answer[name] = [_level(low, high, objects_rate, rate, values) for low, high in LEVELS]
    return answer


def _limits(truth: Targets, objects: Tensor, seen: Tensor) -> dict[str, Tensor]:
    """What bounds the box expansion, IoUs float32 [N] each, for found ``objects`` whose B^v is ``seen`` [N, 4]."""
    visible, amodal = truth.visible_boxes[objects], truth.boxes[objects]
    expanded = expand_boxes(box_deltas(visible, amodal), seen)
    return {
        "true T^r of B^v": pairwise(expanded, amodal),
        "true visible box": pairwise(visible, amodal),
        "(B^v with the true visible box)": pairwise(seen, visible),
    }


def _level(low: float, high: float, objects: Any, rate: Any, values: dict[str, Any]) -> dict[str, Any]:
    inside = (rate >= low) & (rate < high)
    iou = {kind: round(float(v[inside].mean()), 4) if inside.any() else None for kind, v in values.items()}
    count = int(np.count_nonzero((objects >= low) & (objects < high)))
    return {"low": low, "high": min(high, 1.0), "objects": count, "found": int(inside.sum()), "iou": iou}


STUDY = Study(
    "boxes", {"levels": [list(level) for level in LEVELS]}, collect, ("s1", "s6", "plus"),
    ("eth80_amodal/val", "eth80_clutter/val"),
)  # fmt: skip


if __name__ == "__main__":
    sys.exit(run(lambda _: STUDY, study_parser(__doc__ or ""), sys.argv[1:]))
