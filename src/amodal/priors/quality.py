"""How good a prior is, told before any training: the table of retrievals on objects that it was not fitted on.

Queries are annotated visible masks. Box columns compare prior-expanded boxes with the annotated amodal box, the shape
column compares the retrieved amodal masks with the annotated one in its own frame.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torchvision.ops import box_iou
from tqdm import tqdm

from amodal.data.store import AnnotationSet
from amodal.frames import resample
from amodal.launch import warn
from amodal.priors.annotated import agreement, image_sizes, match_prior, occluded_rows
from amodal.priors.boxes import expand_boxes, median_deltas
from amodal.priors.consistency import rerank
from amodal.priors.instances import collect
from amodal.priors.prior import Prior
from amodal.priors.types import GRID, PriorInstances, Retrieved

LIMIT = 2000
"""Objects that are judged at most, drawn at random."""
ASPECT = 10.0
_CHUNK = 256


@dataclass
class Judged:
    """Objects on which a prior is judged.

    Attributes:
        annotations: the file that they are from.
        objects: R objects of which more than ``data.store.OCCLUDED`` is hidden; labels are the prior's.
        sizes: float32 [R, 2], height and width of their images in pixels.
        images: images that they were chosen from.
        exclude: leave out slots made from an object's own image, since the bank holds the objects themselves.
    """

    annotations: AnnotationSet
    objects: PriorInstances
    sizes: Tensor
    images: int
    exclude: bool

    def __len__(self) -> int:
        return len(self.objects)


@dataclass
class Row:
    """A line of the table; None: the column has no meaning there.

    Attributes:
        name: what retrieves, with what query.
        box: mean IoU of each of the K prior-expanded boxes with the amodal box.
        median: the same of the box of the median delta.
        shape: IoU of the majority vote of the K amodal masks, in the annotated frame.
        objects: how many objects it is about.
    """

    name: str
    box: float | None
    median: float | None
    shape: float | None
    objects: int


def judged_objects(annotations: AnnotationSet, objects: PriorInstances, *, exclude: bool, seed: int = 0) -> Judged:
    """The objects of ``objects`` that a prior is judged on: occluded, at most :data:`LIMIT`, seeded draw."""
    chosen = objects.take(occluded_rows(objects, LIMIT, seed))
    count = len(torch.unique(objects.image_ids))
    return Judged(annotations, chosen, image_sizes(annotations, chosen.image_ids), count, exclude)


def judged_file(annotations: AnnotationSet, prior: Prior, *, seed: int = 0) -> Judged:
    """The same for another annotation file; classes that one side lacks are left out and told on stderr.

    Raises:
        DataError: classes of the same name cannot be told apart.
    """
    matched = match_prior(prior, annotations)
    for line in matched.told():
        warn(line)
    objects, _ = collect(annotations)
    ours = torch.tensor([matched.label_of.get(label, -1) for label in range(len(annotations.class_names))])
    objects = replace(objects, labels=ours[objects.labels])
    return judged_objects(annotations, objects.take(objects.labels >= 0), exclude=False, seed=seed)


def retrieval_table(prior: Prior, judged: Judged, *, progress: bool = False) -> list[Row]:
    """The table of retrievals.

    Args:
        prior: what is judged. Rows of key frames other than its own use its encoder and slots with other keys.
        judged: R objects; with none every number is None.
        progress: show a progress bar.
    """
    retrievals = _retrievals(prior).items()
    bar = tqdm(retrievals, desc="retrievals", unit="row", leave=False, disable=None if progress else True)
    return [seen_row(judged), *(_row(name, retrieve, judged) for name, retrieve in bar)]


def seen_row(judged: Judged) -> Row:
    """What is known without any prior: visible box and visible mask."""
    objects = judged.objects
    box = box_iou(objects.visible_boxes, objects.boxes).diagonal() if len(judged) else torch.zeros(0)
    shape = _ious(objects.visible, objects.amodal)
    return Row("visible box and mask as they are", None, _mean(box), _mean(shape), len(judged))


def detector_rows(prior: Prior, judged: Judged, boxes: Tensor, found: Tensor) -> list[Row]:
    """The yardstick: a trained detector's own B^o, and the prior on the same objects.

    Args:
        prior: what is judged.
        judged: R objects.
        boxes: float32 [R, 4], the detector's box of each object, xyxy pixels of the annotated image.
        found: bool [R], whether it has one (IoU of at least 0.5).
    """
    if not bool(found.any()):
        return [Row("detector's own B^o, objects it finds", None, None, None, 0)]
    count = int(found.sum())
    own = box_iou(boxes[found], judged.objects.boxes[found]).diagonal()
    same = replace(judged, objects=judged.objects.take(found), sizes=judged.sizes[found])
    seen = replace(seen_row(same), name="  visible box and mask, the same objects")
    return [
        Row("detector's own B^o, objects it finds", None, float(own.mean()), None, count),
        seen,
        _row(f"  {prior.config.key_frame} frame, the same objects", _true_box(prior), same),
    ]


def variant(prior: Prior, key_frame: Literal["amodal", "visible"], key_aspect: float) -> Prior:
    """The same encoder and slots with keys of another kind."""
    config = replace(prior.config, key_frame=key_frame, key_aspect=key_aspect)
    names = (prior.class_names, prior.category_ids)
    return Prior(config, *names, prior.encoder, prior.flow, prior.bank, prior.rerank_weight)


def _retrievals(prior: Prior) -> dict[str, Callable[[Judged], Retrieved]]:
    """Rows of the table by name; each takes objects and gives their K priors."""
    amodal, visible = variant(prior, "amodal", 0.0), variant(prior, "visible", 0.0)
    aspect = variant(prior, "visible", ASPECT)
    weight = f"weight {prior.rerank_weight:g}"
    return {
        "amodal frame, true B^o (the paper's)": _true_box(amodal),
        "amodal frame, B^o half-way to B^v": lambda judged: _moved_box(amodal, judged, 0.5),
        "amodal frame, B^o equal to B^v": lambda judged: _moved_box(amodal, judged, 1.0),
        "visible frame": _true_box(visible),
        f"visible frame, aspect ratio in the key ({ASPECT:g})": _true_box(aspect),
        f"amodal frame, occluder consistency ({weight})": lambda judged: _consistent(amodal, judged),
        f"visible frame, aspect ratio, consistency ({weight})": lambda judged: _consistent(aspect, judged),
    }


def _true_box(prior: Prior) -> Callable[[Judged], Retrieved]:
    return lambda judged: _search(prior, judged, judged.objects.visible, judged.objects.boxes, prior.config.k)


def _moved_box(prior: Prior, judged: Judged, share: float) -> Retrieved:
    """The query in a box between the amodal one (share 0) and the visible one (1)."""
    objects = judged.objects
    boxes = torch.lerp(objects.boxes, objects.visible_boxes, share)
    masks = resample(objects.own.float(), objects.visible_boxes, boxes, GRID)
    return _search(prior, judged, masks, boxes, prior.config.k)


def _consistent(prior: Prior, judged: Judged) -> Retrieved:
    """K of more candidates, re-ranked with the annotated visible masks of the other objects."""
    objects = judged.objects
    found = _search(prior, judged, objects.visible, objects.boxes, prior.config.candidates)
    visible_boxes, visible, ids = objects.visible_boxes, objects.visible.float(), objects.annotation_ids
    placed = expand_boxes(found.deltas, visible_boxes[:, None], judged.sizes[:, None])
    score, *_ = agreement(judged.annotations, ids, visible, objects.boxes, found.amodal, placed, visible_boxes)
    return rerank(found, score, prior.rerank_weight, prior.config.k)


def _search(prior: Prior, judged: Judged, masks: Tensor, boxes: Tensor, k: int) -> Retrieved:
    if prior.key_frame == "visible":
        # Cut from the picture, as the keys were, and not from a coarser frame.
        masks, boxes = judged.objects.own, judged.objects.visible_boxes
    images = judged.objects.image_ids if judged.exclude else None
    return prior.search(masks.float(), boxes, judged.objects.labels, k, exclude_images=images)


def _row(name: str, retrieve: Callable[[Judged], Retrieved], judged: Judged) -> Row:
    """One line of the table."""
    columns: list[tuple[Tensor, Tensor, Tensor]] = []
    for rows in torch.split(torch.arange(len(judged)), _CHUNK) if len(judged) else ():
        part = replace(judged, objects=judged.objects.take(rows), sizes=judged.sizes[rows])
        columns.append(_measure(retrieve(part), part))
    if not columns:
        return Row(name, None, None, None, 0)
    box, median, shape = (float(torch.cat(column).mean()) for column in zip(*columns, strict=True))
    return Row(name, box, median, shape, len(judged))


def _measure(found: Retrieved, judged: Judged) -> tuple[Tensor, Tensor, Tensor]:
    """Box, median and shape columns of :class:`Row` for each object, float [R] each."""
    objects, sizes = judged.objects, judged.sizes
    boxes = expand_boxes(found.deltas, objects.visible_boxes[:, None], sizes[:, None])
    each = torch.stack([box_iou(column, objects.boxes).diagonal() for column in boxes.unbind(1)])
    median = expand_boxes(median_deltas(found.deltas), objects.visible_boxes, sizes)
    vote = found.amodal.mean(dim=1) >= 0.5
    return each.mean(dim=0), box_iou(median, objects.boxes).diagonal(), _ious(vote, objects.amodal)


def _ious(a: Tensor, b: Tensor) -> Tensor:
    """float [N], IoU of masks bool [N, 28, 28] in one frame."""
    shared, either = (a & b).flatten(1).sum(dim=1), (a | b).flatten(1).sum(dim=1)
    return shared / either.clamp(min=1)


def _mean(values: Tensor) -> float | None:
    return float(values.mean()) if len(values) else None
