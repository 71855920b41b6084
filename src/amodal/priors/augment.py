"""Augmented training objects for classes short of K_s instances: visible and amodal mask moved together (Sec. 3.1)."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample, max_pool2d

from amodal.priors.types import GRID, PriorInstances

ANGLE = 10.0
"""Degrees; largest rotation to either side, unless any rotation is allowed."""
SHEAR = 0.1
"""Largest shift of x a unit of y, to either side."""
STRETCH = 0.1
"""Largest change of width and of height, as log factor, drawn apart for the two."""

_TRIES = 10
_CHUNK = 512  # small enough for the caches
_SAMPLES = 2  # samples a cell and a side, as in training targets


def augment(instances: PriorInstances, *, rotate: bool, seed: int) -> PriorInstances:
    """One spatial transformation of each object: flip, rotation, shear, stretch, about the centre of its amodal box.

    They are applied in pixels, not on the square grid of the frame: a rotation of a long object stays a rotation. The
    masks are then seen in the object's new amodal and visible box. A joint shift would change nothing that a frame
    keeps, so there is none. Transformations that lose a mask on the grid are drawn again; an object that loses one in
    each of ten draws is returned as it is.

    Args:
        instances: N objects, each with at least one cell in all three masks.
        rotate: by any angle, for objects seen from above.
        seed: of the draw.

    Returns:
        N objects in the same order; labels, ids and rates are their sources'.
    """
    generator = torch.Generator().manual_seed(seed)
    result = replace(instances, **{name: value.clone() for name, value in vars(instances).items()})
    open_rows = torch.arange(len(instances))
    for _ in range(_TRIES):
        if len(open_rows) == 0:
            break
        matrices = draw_matrices(len(open_rows), rotate=rotate, generator=generator)
        lost = []
        for rows, matrix in zip(torch.split(open_rows, _CHUNK), torch.split(matrices, _CHUNK), strict=True):
            moved = transform(instances.take(rows), matrix)
            whole = torch.stack([m.flatten(1).any(dim=1) for m in (moved.amodal, moved.visible, moved.own)]).all(dim=0)
            for name, value in vars(moved).items():
                getattr(result, name)[rows[whole]] = value[whole]
            lost.append(rows[~whole])
        open_rows = torch.cat(lost)
    return result


def draw_matrices(count: int, *, rotate: bool, generator: torch.Generator) -> Tensor:
    """float64 [count, 2, 2], random maps of pixel offsets (x, y): rotation after shear after stretch and flip."""
    draw = torch.rand(count, 5, generator=generator, dtype=torch.float64)
    angle = (2 * draw[:, 0] - 1) * math.radians(180.0 if rotate else ANGLE)
    shear = (2 * draw[:, 1] - 1) * SHEAR
    width, height = ((2 * draw[:, 2:4] - 1) * STRETCH).exp().unbind(1)
    width = torch.where(draw[:, 4] < 0.5, -width, width)
    sine, cosine = angle.sin(), angle.cos()
    rotation = torch.stack([cosine, -sine, sine, cosine], dim=1).view(-1, 2, 2)
    zero = torch.zeros_like(width)
    stretched = torch.stack([width, shear * height, zero, height], dim=1).view(-1, 2, 2)
    return rotation @ stretched


def transform(instances: PriorInstances, matrices: Tensor) -> PriorInstances:
    """The objects after linear maps about the centres of their amodal boxes.

    Args:
        instances: N objects.
        matrices: float64 [N, 2, 2], maps of pixel offsets (x, y), invertible.

    Returns:
        N objects in the frames of their new boxes, which are tight around the moved cells of the old masks; no mask
        reaches out of the amodal box. Masks may be empty where a small part falls between the cells.
    """
    boxes, seen = instances.boxes.double(), instances.visible_boxes.double()
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    new_seen = _moved_box(instances.own, seen, centre, matrices)
    whole = _moved_box(instances.amodal, boxes, centre, matrices)
    # The two masks stand on different grids: their cells agree only up to a part of a cell.
    new_boxes = torch.cat([whole[:, :2].minimum(new_seen[:, :2]), whole[:, 2:].maximum(new_seen[:, 2:])], dim=1)
    inverse = torch.linalg.inv(matrices)
    both = torch.stack([instances.amodal, instances.visible], dim=1)
    amodal, visible = _moved_masks(both, boxes, new_boxes, centre, inverse).unbind(1)
    own = _moved_masks(instances.own[:, None], seen, new_seen, centre, inverse)[:, 0]
    return replace(
        instances,
        amodal=amodal,
        visible=visible,
        own=own,
        boxes=new_boxes.float(),
        visible_boxes=new_seen.float(),
    )


def _moved_box(masks: Tensor, boxes: Tensor, centre: Tensor, matrices: Tensor) -> Tensor:
    """float64 [N, 4], tight box of the moved cells of bool masks [N, 28, 28] in the frames ``boxes``."""
    x = _edges(masks.any(dim=1), boxes[:, 0], boxes[:, 2]) - centre[:, :1]
    y = _edges(masks.any(dim=2), boxes[:, 1], boxes[:, 3]) - centre[:, 1:]
    moved = matrices[:, :, 0, None, None] * x[:, None, None, :] + matrices[:, :, 1, None, None] * y[:, None, :, None]
    # A corner counts if one of the four cells around it does.
    corner = max_pool2d(masks[:, None].float(), 2, stride=1, padding=1) > 0
    low = moved.masked_fill(~corner, torch.inf).flatten(2).amin(dim=2)
    high = moved.masked_fill(~corner, -torch.inf).flatten(2).amax(dim=2)
    return torch.cat([low + centre, high + centre], dim=1)


def _edges(occupied: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """float64 [N, 29], where the lines between cells are, in pixels.

    The box is known better than the grid shows it: where a tip is too thin for a cell, the outermost cells reach to
    the edge of the box.
    """
    cells = occupied.shape[1]
    first = occupied.byte().argmax(dim=1)[:, None]
    last = cells - occupied.flip(1).byte().argmax(dim=1)[:, None]
    line = torch.arange(cells + 1).expand(len(occupied), -1)
    line = torch.where(line <= first, 0, torch.where(line >= last, cells, line))
    return low[:, None] + line * ((high - low) / cells)[:, None]


def _moved_masks(masks: Tensor, source: Tensor, target: Tensor, centre: Tensor, inverse: Tensor) -> Tensor:
    """bool [N, M, 28, 28] in the frames ``target``, from masks of that shape in the frames ``source``, unmapped."""
    source_half, target_half = (source[:, 2:] - source[:, :2]) / 2, (target[:, 2:] - target[:, :2]) / 2
    # From [-1, 1] across the target frame, through pixels, to [-1, 1] across the source frame.
    linear = inverse * target_half[:, None] / source_half[:, :, None]
    origin = (inverse @ (target[:, :2] + target_half - centre)[..., None])[..., 0] + centre
    shift = (origin - source[:, :2] - source_half) / source_half
    points = GRID * _SAMPLES
    unit = (2 * torch.arange(points) + 1) / points - 1
    across, down = linear.float()[..., None, None].unbind(2)
    sources = across * unit + (down * unit[:, None] + shift.float()[..., None, None])
    grid = sources.permute(0, 2, 3, 1)
    read = grid_sample(masks.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return avg_pool2d(read, _SAMPLES) >= 0.5
