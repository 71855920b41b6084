"""How much of what is hidden lies under annotated objects.

Re-ranking by occluders, and every judgement of it, stands or falls with this number: it is 1 where all occluders are
annotated, and 0 where none is (poles and trees on streets, translucent cells).
"""

from __future__ import annotations

import numpy as np
from pycocotools import mask as coco_mask

from amodal.data.store import AnnotationSet


def coverage(annotations: AnnotationSet) -> float | None:
    """Share of hidden pixels that lie under visible masks of other instances of the same image, over the whole set.

    Hidden pixels are A minus V of every instance whose amodal mask is known; crowds neither count nor cover.

    Returns:
        0 to 1; None if nothing is hidden.
    """
    data = annotations
    instances = ~data.crowd
    # |A and V| is exact: the rate was computed from it, so rounding gives the integer back.
    hidden = np.where(instances & data.amodal_known, np.rint(data.occlude_rate * data.amodal_area), 0.0)
    covered = sum(_covered(data, int(image), hidden, instances) for image in np.unique(data.image_index[hidden > 0]))
    total = float(hidden.sum())
    return covered / total if total else None


def _covered(
    data: AnnotationSet,
    image: int,
    hidden: np.ndarray[tuple[int], np.dtype[np.float64]],
    instances: np.ndarray[tuple[int], np.dtype[np.bool_]],
) -> float:
    """Hidden pixels of one image under the union of all its visible masks.

    An instance's own visible mask cannot cover what it hides, so one union serves all instances:
    |(A minus V) and U| = |A and U| - |A and V|.
    """
    rows = [row for row in data.rows(image) if instances[row]]
    union = coco_mask.merge([data.visible_rle(row) for row in rows])
    pixels = 0.0
    for row in rows:
        if hidden[row]:
            seen = float(data.amodal_area[row]) - hidden[row]
            both = coco_mask.merge([data.amodal_rle(row), union], intersect=True)
            pixels += float(coco_mask.area(both)) - seen
    return pixels
