"""The values that pass from one step of PGExp to the next.

R regions, K priors of each, C channels. Every box is xyxy pixels of the network image, float32; a mask "in frame B"
stands at the cell centres of box B.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from amodal.structures import RoIs

Evidence = Callable[[Tensor], Tensor]
"""What is seen of other objects in the frames float32 [R, 4]: float32 [R, 56, 56], 0 or 1."""


@dataclass
class Seen:
    """What is seen of R objects (Eq. 1).

    Attributes:
        rois: the regions, ``boxes`` [R, 4] being B^o.
        logits: float [R, 28, 28], the visible mask head's answer in the frames that it was trained in (the proposals in
            training, B^o in test), with gradient.
        mask: float32 [R, 28, 28], M^v, probabilities in the frames B^o, without gradient.
        box: float32 [R, 4], B^v.
        others: what is seen of other objects; annotated masks in training, predicted ones in test.
    """

    rois: RoIs
    logits: Tensor
    mask: Tensor
    box: Tensor
    others: Evidence

    @property
    def sizes(self) -> Tensor:
        """float32 [R, 2], height and width of each region's image in pixels, without padding."""
        return self.rois.boxes.new_tensor(self.rois.image_sizes)[self.rois.batch]


@dataclass
class Recalled:
    """What the bank recalls for R objects: K priors each, nearest first (Sec. 3.1, Search).

    Attributes:
        query: float32 [R, 28, 28], the visible mask that asked, probabilities: M^v, or M^{v,e} for the mask.
        frames: float32 [R, 4], where the query stands: B^o, or B^a for the mask.
        slots: int64 [R, K], slot in the sub-bank of the object's class.
        distance: float32 [R, K], L2 distance of the keys; infinite where a prior is missing.
        deltas: float32 [R, K, 4], T^r_k (Eq. 2), Faster R-CNN deltas; 0 where missing.
        amodal: float32 [R, K, 28, 28], 0 or 1, amodal masks of the slots in their amodal frames.
        boxes: float32 [R, K, 4], B^p = T^r_k(B^v) (Eq. 4), clipped to the image; B^v where missing.
        inconsistency: float32 [R, K], how little each agrees with what is seen, 0 is best; None: nobody looked.
        flows: float32 [R, K, 2, 14, 14], T^f_k (Eq. 3), backward, (x, y), [-1, 1] across ``frames``, 0 where missing;
            None: they were not asked for.
    """

    query: Tensor
    frames: Tensor
    slots: Tensor
    distance: Tensor
    deltas: Tensor
    amodal: Tensor
    boxes: Tensor
    inconsistency: Tensor | None = None
    flows: Tensor | None = None

    def choose(self, order: Tensor) -> Recalled:
        """The priors ``order`` (int64 [R, J], positions among the K) of each object, in that order; without flows."""
        return replace(
            self,
            slots=self.slots.gather(1, order),
            distance=self.distance.gather(1, order),
            deltas=self.deltas.gather(1, order[..., None].expand(-1, -1, 4)),
            amodal=self.amodal.gather(1, order[..., None, None].expand(-1, -1, *self.amodal.shape[2:])),
            boxes=self.boxes.gather(1, order[..., None].expand(-1, -1, 4)),
            inconsistency=None if self.inconsistency is None else self.inconsistency.gather(1, order),
            flows=None,
        )


@dataclass
class Box:
    """The better box (Sec. 3.2).

    Attributes:
        boxes: float32 [R, 4], B^a, clipped to the image, without gradient; B^o where the set has no box expansion.
        deltas: float32 [R, 4], what was regressed, with gradient; None without a box expansion.
        reference: float32 [R, 4], boxes that the deltas refer to.
        weights: float32 [4], what the deltas (x, y, w, h) are multiplied by.
    """

    boxes: Tensor
    deltas: Tensor | None = None
    reference: Tensor | None = None
    weights: Tensor | None = None


@dataclass
class Mask:
    """The amodal mask (Sec. 3.3), and the steps that led to it.

    Attributes:
        logits: float [R, 28, 28], M^a of each region's class in the frames ``box.boxes``.
        seen: M^v and B^v.
        for_box: priors of the box expansion; None where it asked for none.
        box: B^a.
        for_mask: priors of the mask expansion; None where it asked for none.
    """

    logits: Tensor
    seen: Seen
    for_box: Recalled | None
    box: Box
    for_mask: Recalled | None
