"""Every metric of method.md for one truth and one set of results."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from amodal.data.coverage import coverage
from amodal.evaluation import coco
from amodal.evaluation.coco import Bools, Curves, Floats, Range
from amodal.evaluation.matches import Match, greedy, hidden_iou, mean_hidden_iou, mean_iou
from amodal.evaluation.occlusion import BY_BOTH, BY_TRUTH, LARGEST_RATE, object_rates

if TYPE_CHECKING:
    from amodal.data.results import ResultSet
    from amodal.data.store import AnnotationSet

Numbers = dict[str, float | None]

_PLAIN = ("AP", "AP50", "AP75", "AR100")
_OCCLUDED = ("AP-occ", "AP-occ-gt", "AP-occ75", "AP-occ60", "AP-occ-gt75", "AP-occ-gt60")
KEYS = {
    "mask": (*_PLAIN, *_OCCLUDED, "mIoU", "mIoU-occ"),
    "box": (*_PLAIN, *_OCCLUDED, "AP-of-mask"),
    "visible": _PLAIN,
}
"""Part of the metrics -> its metrics, in the order of ``metrics.json``."""

_VISIBLE_UP_TO_ONE = Range(1.0, 1.0)  # what earlier work calls "all"


class Evaluation:
    """Truth and detections side by side; IoUs and rates are computed once, when first asked for.

    Args:
        annotations: the truth.
        detections: the results for its images.
        trust_bbox: take the boxes of the truth from the file where it stores them, instead of from the masks.
        vrsp_compat: leave visible rates of the truth above 1 as they are, so that those objects are ignored everywhere,
            plain AP included, as VRSP's evaluation does.
    """

    def __init__(
        self, annotations: AnnotationSet, detections: ResultSet, *, trust_bbox: bool = False, vrsp_compat: bool = False
    ) -> None:
        self.annotations = annotations
        self.detections = detections
        self.trust_bbox = trust_bbox
        self.all = _VISIBLE_UP_TO_ONE if vrsp_compat else Range()
        self.rates = object_rates(annotations, clamp=not vrsp_compat)
        self.crowd: Bools = annotations.crowd
        self.ignored: Bools = annotations.crowd | ~annotations.amodal_known
        images, classes = len(annotations.image_ids), len(annotations.category_ids)
        # COCO goes through images by id, which decides among equal scores; the order in the file must not.
        place = np.argsort(np.argsort(annotations.image_ids))
        self.pairing = coco.pair(
            images,
            classes,
            place[annotations.image_index] * classes + annotations.labels,
            annotations.annotation_ids,
            place[detections.image_index] * classes + detections.labels,
            detections.scores,
        )

    @property
    def has_visible(self) -> bool:
        """Whether the system predicts visible masks; nothing at all counts as yes, and scores 0."""
        return self.detections.visible is not None or not len(self.detections)

    @cached_property
    def mask_ious(self) -> list[Floats]:
        """IoUs of the amodal masks, for each group of the pairing float64 [detections, objects]."""
        return coco.mask_ious(self.pairing, self.annotations.amodal_rle, self.detections.amodal_rle, self.crowd)

    @cached_property
    def box_ious(self) -> list[Floats]:
        """As :attr:`mask_ious` for the amodal boxes; a result without one has the tight box of its mask."""
        found = self.detections
        boxes = np.where(np.isnan(found.boxes), found.amodal_boxes, found.boxes)
        return coco.box_ious(self.pairing, self.boxes, _xywh(boxes), self.crowd)

    @cached_property
    def table(self) -> coco.Table:
        """The matcher's table for amodal masks and boxes."""
        # No level ignores an empty mask (it is a false positive), nor a detection that predicts no visible part.
        own = np.nan_to_num(self.detections.visible_rate, nan=0.0)
        return coco.Table(self.pairing, self.rates, self.ignored, self.crowd, self.detections.scores, own)

    @cached_property
    def boxes(self) -> Floats:
        """Amodal boxes of the truth, float64 [A, 4] xywh."""
        xyxy = self.annotations.amodal_boxes
        if self.trust_bbox:
            xyxy = np.where(np.isnan(self.annotations.stored_boxes), xyxy, self.annotations.stored_boxes)
        return _xywh(xyxy)

    @cached_property
    def matches(self) -> list[Match]:
        """What became of every object (crowds and unknown amodal masks left out), in the order of the rows."""
        taken, ious = greedy(self.pairing, self.mask_ious, self.detections.scores, self.ignored)
        return [self._match(row, int(taken[row]), float(ious[row])) for row in np.flatnonzero(~self.ignored).tolist()]

    def _match(self, row: int, taken: int, iou: float) -> Match:
        truth, found = self.annotations, self.detections
        hidden: float | None = None
        if self.has_visible and truth.occlude_rate[row] > 0:
            hidden = 0.0
            if taken >= 0:
                pair = (found.amodal_rle(taken), found.visible_rle(taken))
                hidden = hidden_iou((truth.amodal_rle(row), truth.visible_rle(row)), pair)
        return Match(
            image_id=int(truth.image_ids[truth.image_index[row]]),
            annotation_id=int(truth.annotation_ids[row]),
            row=row,
            label=int(truth.labels[row]),
            detection=taken if taken >= 0 else None,
            score=float(found.scores[taken]) if taken >= 0 else 0.0,
            iou=iou,
            hidden_iou=hidden,
            rate=float(self.rates[row]),
        )

    def metrics(self, per_class: bool = False) -> dict[str, Any]:
        """The dictionary that ``metrics.json`` holds, in percent, None where a number is undefined."""
        mask, box, of_mask, visible = self._curves()
        classes = len(self.annotations.category_ids)
        result: dict[str, Any] = self._numbers(mask, box, of_mask, visible, None)
        result["images"] = len(self.annotations.image_ids)
        result["instances"] = int(np.count_nonzero(~self.crowd))
        result["coverage"] = coverage(self.annotations)
        if per_class:
            result["per_class"] = {
                name: self._numbers(mask, box, of_mask, visible, label)
                for label, name in zip(range(classes), _unique_names(self.annotations), strict=True)
            }
        return result

    def _curves(self) -> tuple[Curves, Curves, Curves, Curves | None]:
        ranges = [self.all, *BY_TRUTH.values(), *BY_BOTH.values()]
        found = self.detections
        mask = self.table.match(self.mask_ious, ranges)
        box = self.table.match(self.box_ious, ranges)
        tight = coco.box_ious(self.pairing, self.boxes, _xywh(found.amodal_boxes), self.crowd)
        of_mask = self.table.match(tight, [self.all])
        return mask, box, of_mask, self._visible_curves()

    def _visible_curves(self) -> Curves | None:
        """Visible masks: a fully hidden object has nothing to find and is ignored; unknown amodal masks count."""
        if not self.has_visible:
            return None
        truth = self.annotations
        ious = coco.mask_ious(self.pairing, truth.visible_rle, self.detections.visible_rle, self.crowd)
        hidden = truth.visible_area == 0
        scores = self.detections.scores
        table = coco.Table(self.pairing, self.rates, hidden, self.crowd, scores, np.zeros(len(scores)))
        return table.match(ious, [self.all])

    def _numbers(
        self, mask: Curves, box: Curves, of_mask: Curves, visible: Curves | None, label: int | None
    ) -> dict[str, Numbers]:
        matches = [match for match in self.matches if label is None or match.label == label]
        return {
            "mask": {
                **_plain(mask, label),
                **self._occluded(mask, label),
                "mIoU": mean_iou(matches),
                "mIoU-occ": mean_hidden_iou(matches, LARGEST_RATE),
            },
            "box": {**_plain(box, label), **self._occluded(box, label), "AP-of-mask": of_mask.ap(label=label)},
            "visible": dict.fromkeys(_PLAIN) if visible is None else _plain(visible, label),
        }

    def _occluded(self, curves: Curves, label: int | None) -> Numbers:
        keys = [*BY_TRUTH, *BY_BOTH]
        values = {key: curves.ap(place, label=label) for place, key in enumerate(keys, start=1)}
        if not self.has_visible:
            # These ask what a detection says of its own visibility.
            values.update(dict.fromkeys(BY_BOTH))
        return {key: values[key] for key in _OCCLUDED}


def _plain(curves: Curves, label: int | None) -> Numbers:
    return {
        "AP": curves.ap(label=label),
        "AP50": curves.ap(iou=0, label=label),
        "AP75": curves.ap(iou=5, label=label),
        "AR100": curves.ar(label=label),
    }


def _xywh(xyxy: Floats) -> Floats:
    return np.concatenate([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]], axis=1)


def _unique_names(annotations: AnnotationSet) -> list[str]:
    """Class names; where two classes share one, the category id is added."""
    names = annotations.class_names
    pairs = zip(names, annotations.category_ids, strict=True)
    return [name if names.count(name) == 1 else f"{name} ({category})" for name, category in pairs]
