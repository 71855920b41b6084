"""The clipping baselines: what the evidence of re-ranking gives without any prior, as columns of a table.

Two trivial completions of a results file that has visible masks, with the evidence rule of ``rerank: occluder``: in
*clipped*, each amodal mask is cut to the object's own visible mask and those of the others; in *hull*, the amodal mask
is the convex hull of the visible one, cut likewise. Boxes become the tight boxes of the new masks, scores stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from scipy.spatial import ConvexHull

from amodal.data import rle
from amodal.data.results import ResultSet, load_results
from amodal.data.store import AnnotationSet
from amodal.errors import DataError
from amodal.priors.evidence import DUPLICATE, MIN_SCORE

Rle = dict[str, Any]

BASELINES = {"clipped": False, "hull": True}
"""Name of a baseline -> whether it completes by the convex hull."""


def clip(
    annotations: AnnotationSet,
    results: str | Path | Sequence[Any],
    *,
    hull: bool = False,
    keep: NDArray[np.bool_] | None = None,
) -> list[dict[str, Any]]:
    """Results whose amodal masks were replaced.

    Args:
        annotations: ground truth; only its image and category ids are read.
        results: path of a results file, or its list of N detections; with visible masks.
        hull: complete by the convex hull of the visible mask instead of keeping the predicted amodal mask.
        keep: bool [N], detections that may serve as evidence; None: all.

    Returns:
        As many detections, in the results format, ordered by image.

    Raises:
        DataError: the file is damaged, or its system has no visible masks.
    """
    found = load_results(results, annotations)
    if found.visible is None:
        raise DataError("has no visible masks to clip with", file=found.path)
    may = found.scores >= MIN_SCORE
    if keep is not None:
        may &= keep
    clipped: list[dict[str, Any]] = []
    for image in np.unique(found.image_index):
        rows = np.flatnonzero(found.image_index == image)
        masks = _clip_image(found, rows, may[rows], hull)
        clipped += [_entry(annotations, found, int(row), mask) for row, mask in zip(rows, masks, strict=True)]
    return clipped


def _clip_image(found: ResultSet, rows: NDArray[np.intp], may: NDArray[np.bool_], hull: bool) -> list[Rle]:
    """New amodal masks of the detections ``rows`` of one image; ``may`` bool says which are evidence."""
    seen = [found.visible_rle(int(row)) for row in rows]
    same = np.asarray(coco_mask.iou(seen, seen, [0] * len(seen))) >= DUPLICATE
    masks = []
    for n, row in enumerate(rows):
        others = [seen[m] for m in np.flatnonzero(may & ~same[n]) if m != n]
        whole = _hull(seen[n]) if hull else found.amodal_rle(int(row))
        masks.append(coco_mask.merge([whole, coco_mask.merge([seen[n], *others])], intersect=True))
    return masks


def _hull(mask: Rle) -> Rle:
    """The convex hull of a mask's pixels; the empty mask stays empty."""
    y, x = np.nonzero(rle.decode(mask))
    if not len(x):
        return mask
    # Corners of the pixels: a hull of their centres would lose half a pixel all around.
    corners = np.concatenate([np.stack([x + dx, y + dy], 1) for dx in (0, 1) for dy in (0, 1)])
    outline = corners[ConvexHull(corners).vertices].astype(float).ravel().tolist()
    drawn = coco_mask.frPyObjects([outline], *mask["size"])
    # Drawing rounds, and a hull holds its mask.
    return dict(coco_mask.merge([*drawn, mask]))


def _entry(annotations: AnnotationSet, found: ResultSet, row: int, mask: Rle) -> dict[str, Any]:
    """A detection in the results format, with ``mask`` as its amodal mask."""
    return {
        "image_id": int(annotations.image_ids[found.image_index[row]]),
        "category_id": int(annotations.category_ids[found.labels[row]]),
        "score": float(found.scores[row]),
        "bbox": coco_mask.toBbox(mask).tolist(),
        "segmentation": _text(mask),
        "visible_mask": _text(found.visible_rle(row)),
    }


def _text(mask: Rle) -> Rle:
    return {"size": [int(side) for side in mask["size"]], "counts": rle.counts_bytes(mask["counts"]).decode("ascii")}
