"""Masks between the image and box frames: cropping, resampling, pasting, tight boxes.

A mask "in frame B" at resolution S is an S x S grid whose values stand at the cell centres ``(i + 0.5) / S`` of box B.
Boxes are ``(x0, y0, x1, y1)`` in pixels with pixel edges at integers; nothing is rounded to whole pixels anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

_SAMPLES = 2  # samples a cell and a side, as in the poolers
_FAR = 1e6  # pixels; farther box edges are equivalent for every image and safe to convert to int


def crop_masks(masks: Tensor, index: Tensor, boxes: Tensor, size: int = 28, soft: bool = False) -> Tensor:
    """Image-size masks in the frames of boxes.

    Args:
        masks: bool or float [M, H, W], masks in the image.
        index: int64 [R], which mask each box crops.
        boxes: float32 [R, 4], xyxy pixels.
        size: cells a side.
        soft: area fractions instead of 0 / 1.

    Returns:
        float32 [R, size, size]. Hard: the mean of 2 x 2 bilinear samples a cell, cut at 0.5, the same samples that
        ``roi_align(aligned=True, sampling_ratio=2)`` takes from features. Soft: the exact share of each cell's area
        that the mask covers, 0 for a box without area. Outside the image the mask is 0.
    """
    if soft:
        return _area_fractions(masks, index, boxes, size)
    height, width = masks.shape[-2:]
    points = size * _SAMPLES
    y0, y1, wy = _neighbours(_centres(boxes[:, 1], boxes[:, 3], points) - 0.5, height)
    x0, x1, wx = _neighbours(_centres(boxes[:, 0], boxes[:, 2], points) - 0.5, width)
    owner = index[:, None, None]
    value = boxes.new_zeros(len(boxes), points, points)
    for row, row_weight in ((y0, wy[0]), (y1, wy[1])):
        for column, column_weight in ((x0, wx[0]), (x1, wx[1])):
            corner = masks[owner, row[:, :, None], column[:, None, :]]
            value += corner * row_weight[:, :, None] * column_weight[:, None, :]
    cells = value.view(-1, size, _SAMPLES, size, _SAMPLES).mean(dim=(2, 4))
    return (cells >= 0.5).float()


def resample(masks: Tensor, source: Tensor, target: Tensor, size: int) -> Tensor:
    """Masks moved from one box frame to another.

    Args:
        masks: float [N, h, w], in the frames ``source``.
        source: float32 [N, 4], xyxy pixels.
        target: float32 [N, 4], xyxy pixels.
        size: cells a side of the result.

    Returns:
        float [N, size, size] in the frames ``target``: bilinear at the cell centres, 0 outside ``source`` and where it
        has no area. Differentiable in ``masks``.
    """
    rows = _tent(_centres(target[:, 1], target[:, 3], size), source[:, 1], source[:, 3], masks.shape[1])
    columns = _tent(_centres(target[:, 0], target[:, 2], size), source[:, 0], source[:, 2], masks.shape[2])
    # Half precision, which autocast takes for products of matrices, would move cells across a threshold.
    with torch.autocast(masks.device.type, enabled=False):
        return torch.bmm(torch.bmm(rows.to(masks), masks), columns.to(masks).transpose(1, 2))


def paste(masks: Tensor, boxes: Tensor, height: int, width: int, threshold: float = 0.5) -> Tensor:
    """Masks from box frames into an image.

    Args:
        masks: float [N, h, w], probabilities in the frames ``boxes``.
        boxes: float32 [N, 4], xyxy pixels, anywhere.
        height, width: pixels of the image.
        threshold: least probability of a mask pixel, above 0.

    Returns:
        bool [N, height, width]: pixel centres read the grid bilinearly, 0 outside it. Empty for a box without area.
    """
    pasted = torch.zeros(len(masks), height, width, dtype=torch.bool, device=masks.device)
    for n, (top, left, window) in enumerate(paste_windows(masks, boxes, height, width, threshold)):
        pasted[n, top : top + window.shape[0], left : left + window.shape[1]] = window
    return pasted


def paste_windows(
    masks: Tensor, boxes: Tensor, height: int, width: int, threshold: float = 0.5
) -> Iterator[tuple[int, int, Tensor]]:
    """What :func:`paste` writes, object by object, without images of zeros around it.

    Args:
        masks, boxes, height, width, threshold: as there.

    Yields:
        (top, left, bool [h, w]) of each object: the pixels of the image that its frame reaches; h = w = 0 where none.
    """
    nothing = torch.zeros(0, 0, dtype=torch.bool, device=masks.device)
    masks, boxes = masks.float(), boxes.to(masks.device).float()
    grid_h, grid_w = masks.shape[-2:]
    for n, (x0, y0, x1, y1) in enumerate(boxes.clamp(-_FAR, _FAR).tolist()):
        if not (x1 > x0 and y1 > y0):
            yield 0, 0, nothing
            continue
        top, bottom = _pixel_range(y0, y1, grid_h, height)
        left, right = _pixel_range(x0, x1, grid_w, width)
        if bottom <= top or right <= left:
            yield 0, 0, nothing
            continue
        rows = _read_weights(top, bottom, boxes[n, 1], boxes[n, 3], grid_h)
        columns = _read_weights(left, right, boxes[n, 0], boxes[n, 2], grid_w)
        yield top, left, torch.ge(rows @ masks[n] @ columns.T, threshold)


def tight_boxes(masks: Tensor, boxes: Tensor, threshold: float = 0.5) -> Tensor:
    """The tight box of each mask, in the image: B^v of the paper from a visible mask in frame B^o.

    Args:
        masks: float [N, h, w], in the frames ``boxes``.
        boxes: float32 [N, 4], xyxy pixels.
        threshold: a cell belongs to the mask at this value or above.

    Returns:
        float32 [N, 4], outer edges of the mask's cells; ``boxes`` where no cell belongs to the mask.
    """
    inside = masks >= threshold
    x0, x1 = _extent(inside.any(dim=1), boxes[:, 0], boxes[:, 2])
    y0, y1 = _extent(inside.any(dim=2), boxes[:, 1], boxes[:, 3])
    tight = torch.stack([x0, y0, x1, y1], dim=1)
    return torch.where(inside.flatten(1).any(dim=1)[:, None], tight, boxes)


def _centres(low: Tensor, high: Tensor, cells: int) -> Tensor:
    """float [R, cells], pixel coordinates of the cell centres between two edges [R]."""
    unit = (torch.arange(cells, device=low.device, dtype=low.dtype) + 0.5) / cells
    return low[:, None] + unit * (high - low)[:, None]


def _neighbours(position: Tensor, length: int) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """The two pixels beside positions (in units where pixel ``i`` is centred at ``i``) and their bilinear weights.

    The half pixel at the image's edge reads the edge pixel, as ``roi_align`` does; beyond it the weights are 0.
    """
    inside = (position >= -1) & (position <= length)
    clamped = position.clamp(0, length - 1)
    low = clamped.floor().long().clamp(max=length - 1)
    fraction = clamped - low
    return low, (low + 1).clamp(max=length - 1), ((1 - fraction) * inside, fraction * inside)


def _area_fractions(masks: Tensor, index: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Exact coverage: an integral image is bilinear between pixel edges, so nothing is lost by reading at corners."""
    used, position = torch.unique(index, return_inverse=True)
    height, width = masks.shape[-2:]
    integral = torch.zeros(len(used), height + 1, width + 1, dtype=torch.float64, device=masks.device)
    integral[:, 1:, 1:] = masks[used].double().cumsum(1).cumsum(2)
    unit = torch.linspace(0, 1, size + 1, dtype=torch.float64, device=boxes.device)
    low, extent = boxes[:, None, :2].double(), (boxes[:, 2:] - boxes[:, :2]).double()[:, None]
    edges = low + unit[:, None] * extent
    x = edges[..., 0].clamp(0, width)
    y = edges[..., 1].clamp(0, height)
    x0, y0 = x.floor().long().clamp(max=width - 1), y.floor().long().clamp(max=height - 1)
    owner = position[:, None, None]
    at_corners = torch.zeros(len(boxes), size + 1, size + 1, dtype=torch.float64, device=boxes.device)
    for row, row_weight in ((y0, 1 - (y - y0)), (y0 + 1, y - y0)):
        for column, column_weight in ((x0, 1 - (x - x0)), (x0 + 1, x - x0)):
            corner = integral[owner, row[:, :, None], column[:, None, :]]
            at_corners += corner * row_weight[:, :, None] * column_weight[:, None, :]
    covered = at_corners.diff(dim=1).diff(dim=2)
    cell = (extent[..., 0] * extent[..., 1] / size**2)[..., None]
    return torch.where(cell > 0, covered / cell, 0.0).clamp(0, 1).float()


def _tent(points: Tensor, low: Tensor, high: Tensor, cells: int) -> Tensor:
    """float [N, P, cells], bilinear weights with which points [N, P] read a grid between two edges [N]."""
    length = (high - low)[:, None]
    position = (points - low[:, None]) / length.clamp(min=1e-6) * cells - 0.5
    steps = torch.arange(cells, device=points.device, dtype=points.dtype)
    weights = (1 - (position[..., None] - steps).abs()).clamp(min=0)
    return weights * (length > 0)[..., None]


def _read_weights(first: int, last: int, low: Tensor, high: Tensor, cells: int) -> Tensor:
    """float [last - first, cells], bilinear weights with which pixel centres read a grid between two edges."""
    position = torch.arange(first, last, device=low.device, dtype=low.dtype).add_(0.5 - low)
    position.mul_(cells / (high - low)).sub_(0.5)
    steps = torch.arange(cells, device=low.device, dtype=low.dtype)
    return (position[:, None] - steps).abs_().neg_().add_(1).clamp_(min=0)


def _pixel_range(low: float, high: float, cells: int, length: int) -> tuple[int, int]:
    """First and one past the last pixel whose centre is within half a cell of the interval, inside the image."""
    margin = (high - low) / (2 * cells)
    return max(math.ceil(low - margin - 0.5), 0), min(math.floor(high + margin - 0.5) + 1, length)


def _extent(line: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Outer edges of the first and the last True cell of bool [N, cells] between two edges [N]."""
    cells = line.shape[1]
    first = line.byte().argmax(dim=1)
    last = cells - line.flip(1).byte().argmax(dim=1)
    step = (high - low) / cells
    return low + first * step, low + last * step
