"""How a mask came about, as plain arrays: what a branch hands out, and what is drawn (:mod:`amodal.viz.priors`)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Bools = npt.NDArray[np.bool_]


@dataclass
class BoxPriors:
    """What the box search retrieved, nearest first.

    Attributes:
        boxes: [K, 4], prior-expanded boxes B^p_k = T^r_k(B^v) (Eq. 4), xyxy pixels of the image.
        distance: [K], L2 distance of the keys; infinite where a slot is missing.
    """

    boxes: Floats
    distance: Floats


@dataclass
class FlowPriors:
    """What the mask search retrieved, nearest first; all in the frame ``box``.

    Attributes:
        box: [4], B^a, xyxy pixels of the image.
        visible: [28, 28], M^{v,e}.
        amodal: [K, 28, 28], amodal masks of the slots.
        flows: [K, 2, G, G], flow transformations (Eq. 3), backward, (x, y), normalised; None: the system makes none.
        distance: [K].
    """

    box: Floats
    visible: Floats
    amodal: Floats
    flows: Floats | None
    distance: Floats


@dataclass
class Reranked:
    """The M candidates of the box search, nearest first, and which of them the re-ranking kept.

    Attributes:
        boxes: [M, 4], T^r_m(B^v), xyxy pixels of the image.
        amodal: [M, 28, 28], their amodal masks in these boxes.
        distance: [M], L2 distance of the keys.
        inconsistency: [M], 0 to 2, disagreement with what else is seen.
        kept: bool [M].
        others: [S, S], visible masks of other objects, in the frame ``context``.
        context: [4], xyxy pixels of the image.
    """

    boxes: Floats
    amodal: Floats
    distance: Floats
    inconsistency: Floats
    kept: Bools
    others: Floats
    context: Floats


@dataclass
class Explanation:
    """One object on its way to an amodal mask. Boxes are xyxy pixels of the image; K may be 0.

    Attributes:
        name: class name.
        frame: [4], B^o, the frame of ``visible``.
        visible: [28, 28], M^v, probability or 0 / 1.
        visible_box: [4], B^v.
        score: of the detection; None: the object is an annotated one.
        amodal_box: [4], B^a; None: there is no estimate.
        amodal: [S, S], M^a in the frame ``amodal_box``; None: there is no estimate.
        boxes: of the box search; None: there was none.
        flows: of the mask search; None: there was none.
        reranked: None: retrieval was plain.
    """

    name: str
    frame: Floats
    visible: Floats
    visible_box: Floats
    score: float | None = None
    amodal_box: Floats | None = None
    amodal: Floats | None = None
    boxes: BoxPriors | None = None
    flows: FlowPriors | None = None
    reranked: Reranked | None = None

    def scaled(self, scale: Floats) -> Explanation:
        """The same object in another size of the image; boxes times ``scale`` [4]."""
        boxes, flows, reranked = self.boxes, self.flows, self.reranked
        return replace(
            self,
            frame=self.frame * scale,
            visible_box=self.visible_box * scale,
            amodal_box=None if self.amodal_box is None else self.amodal_box * scale,
            boxes=None if boxes is None else replace(boxes, boxes=boxes.boxes * scale),
            flows=None if flows is None else replace(flows, box=flows.box * scale),
            reranked=None
            if reranked is None
            else replace(reranked, boxes=reranked.boxes * scale, context=reranked.context * scale),
        )


@dataclass
class Truth:
    """The annotated object: box [4] xyxy pixels of the image, masks bool [H, W] of the image."""

    box: Floats
    amodal: Bools
    visible: Bools
