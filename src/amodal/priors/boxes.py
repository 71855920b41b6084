"""S^r and T^r: the transformation from visible to amodal box in closed form (Eq. 2 and 4)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

MAX_LOG_SCALE = math.log(1000 / 16)
"""Largest log of a growth in width or height that T^r applies, as in Faster R-CNN."""

_SMALLEST = 1e-2  # pixels; S^r takes a shorter side for this long, so that no delta is infinite


def box_deltas(visible: Tensor, amodal: Tensor) -> Tensor:
    """S^r (Eq. 2): Faster R-CNN deltas from visible to amodal box, without weights.

    Args:
        visible: float32 [..., 4], xyxy pixels.
        amodal: float32 [..., 4], xyxy pixels of the same image; shapes broadcast.

    Returns:
        float32 [..., 4]: shift of the centre in units of the visible box's sides (x, y), log growth (width, height).
        Finite for boxes without area too.
    """
    visible, amodal = visible.float(), amodal.float()
    seen = (visible[..., 2:] - visible[..., :2]).clamp(min=_SMALLEST)
    whole = (amodal[..., 2:] - amodal[..., :2]).clamp(min=_SMALLEST)
    # Differences of like corners instead of differences of centres: they lose no digits far from the origin.
    moved = amodal - visible
    shift = (moved[..., :2] + moved[..., 2:]) / (2 * seen)
    return torch.cat([shift, torch.log(whole / seen)], dim=-1)


def median_deltas(deltas: Tensor, there: Tensor | None = None) -> Tensor:
    """The median of K transformations T^r_k, number by number; of an even count the middle between two.

    Args:
        deltas: float32 [R, K, 4].
        there: bool [R, K], which of them count; None: all.

    Returns:
        float32 [R, 4]; 0, which moves nothing, where none counts.
    """
    if not len(deltas):
        return deltas.new_zeros(0, 4)
    if there is not None:
        deltas = deltas.masked_fill(~there[..., None], torch.nan)
    return deltas.float().nanquantile(0.5, dim=1).nan_to_num(0.0)


def expand_boxes(deltas: Tensor, boxes: Tensor, sizes: Tensor | None = None) -> Tensor:
    """T^r (Eq. 4): prior-expanded boxes B^p from visible boxes B^v. ``expand_boxes(box_deltas(v, a), v)`` is ``a``.

    Args:
        deltas: float32 [..., 4], as :func:`box_deltas` makes them; growth beyond :data:`MAX_LOG_SCALE` is cut there.
        boxes: float32 [..., 4], xyxy pixels; shapes broadcast: K deltas [R, K, 4] expand boxes [R, 1, 4].
        sizes: float [..., 2], (height, width) of each box's image in pixels, to clip to; None: no clipping.

    Returns:
        float32 [..., 4], xyxy pixels. A box without area stays without area where it is, up to the clipping.
    """
    deltas, boxes = deltas.float(), boxes.float()
    side = boxes[..., 2:] - boxes[..., :2]
    centre = deltas[..., :2] * side
    grown = torch.expm1(deltas[..., 2:].clamp(max=MAX_LOG_SCALE)) * (side / 2)
    # Each corner is one small step away from the old one, again for the digits.
    expanded = boxes + torch.cat([centre - grown, centre + grown], dim=-1)
    if sizes is None:
        return expanded
    # Sizes are (height, width), corners (x, y).
    limit = sizes.flip(-1).to(expanded)
    return expanded.clamp(min=0).minimum(torch.cat([limit, limit], dim=-1))
