"""The containers that pass between the parts: targets, regions of interest, loss terms.

Frames and units, everywhere in this package: a box is ``(x0, y0, x1, y1)`` in absolute pixels, float32, pixel *edges*
at integers (the pixel in column ``i`` covers ``[i, i + 1]``). A mask "in frame B" at resolution R is an R x R grid
sampled at the cell centres ``(i + 0.5) / R`` of box B. Class labels are 0-based class indices; only the columns of a
classifier's logits are shifted by one, because column 0 is background there.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from amodal.draws import Draws
from amodal.transport import pack, unpack


class LossTerm(NamedTuple):
    """One loss before normalisation.

    A big batch equals the sum of its parts only if sums and counts are added up separately; ``total / count`` of the
    whole batch (all micro-batches, all processes) is the loss.

    Attributes:
        total: scalar, the weighted sum over elements (differentiable; never detached, zero where nothing matched).
        count: scalar, how many elements the sum ran over (float, no gradient; may be 0).
    """

    total: Tensor
    count: Tensor  # type: ignore[assignment]  # hides tuple.count, which nobody calls

    def mean(self) -> Tensor:
        """Scalar ``total / count``, 0 where the count is 0."""
        return self.total / self.count.clamp(min=1.0)

    def times(self, weight: float) -> LossTerm:
        """The loss with a weight; what it is averaged over stays."""
        return LossTerm(weight * self.total, self.count)


class MaskSource(Protocol):
    """G instance masks of one image, kept as RLE or polygons until a crop is asked for."""

    def __len__(self) -> int: ...

    def crop(self, index: Tensor, boxes: Tensor, size: int = 28, soft: bool = False) -> Tensor:
        """Masks ``index`` (int64 [R]) in the frames ``boxes`` (float32 [R, 4], xyxy pixels of the network's image).

        Returns float32 [R, size, size] on the device of ``boxes``: 0 or 1 (the mask, read with 2 x 2 bilinear samples
        a cell as ROIAlign does, cut at 0.5), or with ``soft`` the fraction of each cell's area that the mask covers.
        Outside the image the mask is 0.
        """
        ...

    def rescale(self, scale_x: float, scale_y: float) -> MaskSource:
        """The same masks for an image resized by these factors (new = old * scale)."""
        ...


@dataclass
class Targets:
    """Ground truth of one image, in the frame of the image it travels with. G instances, crowds left out.

    Attributes:
        image_id: id in the annotation file; seeds the sampling of anchors and proposals.
        boxes: float32 [G, 4], amodal xyxy pixels (tight around the amodal mask, clipped to the image).
        visible_boxes: float32 [G, 4], xyxy pixels; all zeros for an instance that is fully hidden.
        labels: int64 [G], 0-based class index.
        occlude_rate: float32 [G], hidden share of the amodal area, 0 to 1.
        amodal_known: bool [G]; False: only the visible part is annotated, so no amodal loss.
        ignore: bool [G]; True (crowds): matches neither object nor background.
        annotation_ids: int64 [G], ids in the annotation file.
        amodal, visible: the G masks.
    """

    image_id: int
    boxes: Tensor
    visible_boxes: Tensor
    labels: Tensor
    occlude_rate: Tensor
    amodal_known: Tensor
    ignore: Tensor
    annotation_ids: Tensor
    amodal: MaskSource
    visible: MaskSource

    def __len__(self) -> int:
        return int(self.boxes.shape[0])

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = pack(vars(self))
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(unpack(state))

    def to(self, device: torch.device | str) -> Targets:
        """A copy whose tensors live on ``device``; masks stay where they are and follow at the crop."""
        moved: dict[str, Any] = {
            name: value.to(device, non_blocking=True) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **moved)

    def rescale(self, scale_x: float, scale_y: float) -> Targets:
        """Targets of the same image resized by these factors (new = old * scale)."""
        factor = self.boxes.new_tensor([scale_x, scale_y, scale_x, scale_y])
        return replace(
            self,
            boxes=self.boxes * factor,
            visible_boxes=self.visible_boxes * factor,
            amodal=self.amodal.rescale(scale_x, scale_y),
            visible=self.visible.rescale(scale_x, scale_y),
        )


@dataclass
class RoIs:
    """Regions of interest of a batch: sampled positives in training, detections in test, one type for both.

    Attributes:
        boxes: float32 [R, 4], xyxy pixels of the padded network image; the original amodal box B^o (in training the
            proposal by default), no gradient.
        batch: int64 [R], index of the image in the batch.
        labels: int64 [R], 0-based class: the matched object's in training, the predicted one in test.
        scores: float32 [R]; 1 in training.
        image_sizes: (height, width) of each network image before padding.
        decoded: float32 [R, 4]: the box head's box for the class, detached, clipped; equals ``boxes`` in test.
        gt_index: int64 [R], the matched object's row in ``targets[batch]``; None without ground truth.
        targets: ground truth of the batch; None without.
        draws: where this training step's random choices come from; not read in test.
        shared: float [R, ...], features that the box side hands on; None where it hands on none.
    """

    boxes: Tensor
    batch: Tensor
    labels: Tensor
    scores: Tensor
    image_sizes: list[tuple[int, int]]
    decoded: Tensor
    gt_index: Tensor | None = None
    targets: list[Targets] | None = None
    draws: Draws = field(default_factory=Draws)
    shared: Tensor | None = None

    def __len__(self) -> int:
        return int(self.boxes.shape[0])

    def per_image(self) -> list[Tensor]:
        """Row numbers (int64) of each image's regions, one tensor an image."""
        return [torch.nonzero(self.batch == i).flatten() for i in range(len(self.image_sizes))]


@dataclass
class BranchOutput:
    """What a method's branch makes of the regions.

    Attributes:
        boxes: float32 [R, 4], the amodal box B^a, clipped to the image (``rois.boxes`` where the method refines none).
        amodal_logits: float [R, S, S], amodal mask of class ``rois.labels`` in frame ``boxes``. No other class's mask
            is ever read, so class-specific heads compute only this one.
        visible_logits: float [R, S, S], visible mask of that class in frame ``rois.boxes``; None: the system has none.
        score_factor: float [R], multiplied into the scores after NMS; None: scores stay.
        aux: whatever else the branch's own loss reads.
    """

    boxes: Tensor
    amodal_logits: Tensor
    visible_logits: Tensor | None = None
    score_factor: Tensor | None = None
    aux: Any = None
