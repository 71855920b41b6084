"""What passes between the parts of a prior."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

GRID = 28
"""Cells a side of every mask that a prior sees."""


@dataclass
class PriorInstances:
    """N training objects as a prior sees them: masks in box frames, on the CPU.

    Attributes:
        amodal: bool [N, 28, 28], amodal mask in the frame of its amodal box.
        visible: bool [N, 28, 28], visible mask in the frame of the amodal box.
        own: bool [N, 28, 28], visible mask in the frame of its own visible box.
        boxes: float32 [N, 4], amodal xyxy pixels of the annotated image.
        visible_boxes: float32 [N, 4], xyxy pixels of the annotated image.
        labels: int64 [N], 0-based class.
        occlude_rate: float32 [N], hidden share of the amodal area, counted in pixels.
        annotation_ids: int64 [N], ids in the file.
        image_ids: int64 [N], ids in the file.
    """

    amodal: Tensor
    visible: Tensor
    own: Tensor
    boxes: Tensor
    visible_boxes: Tensor
    labels: Tensor
    occlude_rate: Tensor
    annotation_ids: Tensor
    image_ids: Tensor

    def __len__(self) -> int:
        return int(self.labels.shape[0])

    def take(self, rows: Tensor) -> PriorInstances:
        """The objects ``rows`` (int64 or bool)."""
        return replace(self, **{name: value[rows] for name, value in vars(self).items()})


@dataclass
class Retrieved:
    """K priors for each of R objects, ascending in distance, ties by slot.

    Attributes:
        slots: int64 [R, K], slot in the sub-bank of the object's class.
        distance: float32 [R, K], L2 distance of the keys; infinite for a slot that had to be left out and where the
            class is absent.
        deltas: float32 [R, K, 4], T^r_k: Faster R-CNN deltas from visible to amodal box (Eq. 2); 0 where absent.
        amodal: float32 [R, K, 28, 28], 0 or 1, amodal mask of the slot in its amodal frame; 0 where absent.
        present: bool [R], whether the bank knows the class; if not, T^r = 0 and the flow is 0.
        inconsistency: float32 [R, K], how little each agrees with what else is seen; None: nobody has looked. Whoever
            replaces slots or masks sets it to None.
    """

    slots: Tensor
    distance: Tensor
    deltas: Tensor
    amodal: Tensor
    present: Tensor
    inconsistency: Tensor | None = None

    def choose(self, order: Tensor) -> Retrieved:
        """The priors ``order`` (int64 [R, J], positions among the K) of each object, in that order."""
        return Retrieved(
            slots=self.slots.gather(1, order),
            distance=self.distance.gather(1, order),
            deltas=self.deltas.gather(1, order[..., None].expand(-1, -1, 4)),
            amodal=self.amodal.gather(1, order[..., None, None].expand(-1, -1, *self.amodal.shape[2:])),
            present=self.present,
            inconsistency=None if self.inconsistency is None else self.inconsistency.gather(1, order),
        )
