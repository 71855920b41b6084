"""The training objects of an annotation file as a prior sees them: masks in box frames (Sec. 3.1, construction)."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from amodal.data.masks import InstanceMasks
from amodal.data.store import AnnotationSet
from amodal.priors.types import GRID, PriorInstances


def collect(annotations: AnnotationSet, *, progress: bool = False) -> tuple[PriorInstances, dict[str, int]]:
    """Every object that can teach a prior, cropped exactly as training targets are.

    Args:
        annotations: N' objects of a file.
        progress: show a progress bar.

    Returns:
        The N objects, in the order of the file's rows (none: N = 0), and how many were left out for each reason that
        occurred: "crowd", "amodal unknown", "nothing visible" (no visible pixel, or too few for a single cell of the
        28 x 28 grid: such a mask is no key). An object counts once, for the first of them.
    """
    reasons = _reasons(annotations)
    rows = np.flatnonzero(reasons == "")
    boxes = torch.from_numpy(annotations.amodal_boxes[rows]).float()
    visible_boxes = torch.from_numpy(annotations.visible_boxes[rows]).float()
    amodal, visible, own = _crop(annotations, rows, boxes, visible_boxes, progress)
    images = annotations.image_index[rows]
    instances = PriorInstances(
        amodal=amodal,
        visible=visible,
        own=own,
        boxes=boxes,
        visible_boxes=visible_boxes,
        labels=torch.from_numpy(annotations.labels[rows]).long(),
        occlude_rate=torch.from_numpy(annotations.occlude_rate[rows]).float(),
        annotation_ids=torch.from_numpy(annotations.annotation_ids[rows]).long(),
        image_ids=torch.from_numpy(annotations.image_ids[images]).long(),
    )
    # A thin part may fall between the cells of the grid.
    seen = torch.stack([mask.flatten(1).any(dim=1) for mask in (amodal, visible, own)]).all(dim=0)
    reasons[rows[~seen.numpy()]] = "nothing visible"
    names, counts = np.unique(reasons[reasons != ""], return_counts=True)
    return instances.take(seen), {str(name): int(count) for name, count in zip(names, counts, strict=True)}


def _reasons(annotations: AnnotationSet) -> NDArray[np.object_]:
    """str [A], why each object is left out, "" where it is not."""
    reasons = np.full(len(annotations), "", dtype=object)
    # The first reason counts, so they are written last to first.
    reasons[annotations.visible_area == 0] = "nothing visible"
    reasons[~annotations.amodal_known] = "amodal unknown"
    reasons[annotations.crowd] = "crowd"
    return reasons


def _crop(
    annotations: AnnotationSet, rows: NDArray[np.intp], boxes: Tensor, visible_boxes: Tensor, progress: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """bool [N, 28, 28] each: amodal and visible masks in the amodal frame, visible masks in their own frame."""
    masks = torch.zeros(3, len(rows), GRID, GRID, dtype=torch.bool)
    first = np.searchsorted(rows, annotations.first)  # rows are sorted by image
    spans = [slice(int(low), int(high)) for low, high in pairwise(first) if low < high]
    for part in tqdm(spans, desc="masks", unit="image", leave=False, disable=None if progress else True):
        count = len(rows[part])
        whole = InstanceMasks.from_annotations(annotations, rows[part], "amodal")
        seen = InstanceMasks.from_annotations(annotations, rows[part], "visible")
        # One call for the three crops of all objects of an image: the time goes into calls, not into cells.
        both = InstanceMasks(whole.rles + seen.rles, whole.height, whole.width)
        index = torch.arange(count).repeat(3) + torch.tensor([0, count, count]).repeat_interleave(count)
        frames = torch.cat([boxes[part], boxes[part], visible_boxes[part]])
        masks[:, part] = both.crop(index, frames, GRID).view(3, count, GRID, GRID) > 0
    return masks[0], masks[1], masks[2]
