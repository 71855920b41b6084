"""Random choices about regions: functions of (seed, step, image id), whatever else is in the batch.

So accumulated micro-batches, several processes and a resumed run draw what one big batch would (:mod:`amodal.draws`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from amodal.draws import Purpose
from amodal.structures import RoIs


def per_image(rois: RoIs, purpose: Purpose, draw: Callable[[np.random.Generator, int], NDArray[Any]]) -> Tensor:
    """float32 [R, F], ``draw`` (stream, number of regions) of each training image, in the order of the regions."""
    rows = rois.per_image()
    parts = [
        torch.from_numpy(draw(rois.draws.stream(targets.image_id, purpose), len(part)))
        for part, targets in zip(rows, rois.targets or [], strict=True)
    ]
    drawn = torch.cat(parts).to(rois.boxes)
    # Drawn image by image, in the order of the regions of each; here each number goes to its region.
    return torch.empty_like(drawn).index_copy(0, torch.cat(rows), drawn)


def dropout(x: Tensor, share: float, rois: RoIs, layer: int) -> Tensor:
    """Dropout whose choices are seeded: in training each number is 0 with probability ``share``, the rest is scaled up.

    Args:
        x: float [R, ...], a row a region.
        share: 0 to below 1; 0 gives ``x``.
        rois: the R regions; in test (no targets) ``x`` is returned.
        layer: number of the place in the network, from 1: places draw independently of each other.

    The numbers are drawn on the device of ``x``; another kind of device draws others.
    """
    if rois.targets is None or share == 0:
        return x
    kept = torch.empty(x.shape, dtype=torch.bool, device=x.device)
    for rows, targets in zip(rois.per_image(), rois.targets, strict=True):
        # A generator of the device's own: numbers drawn on the CPU would have to travel in every layer.
        seed = int(rois.draws.stream(targets.image_id, Purpose.DROPOUT, layer).integers(2**63 - 1))
        generator = torch.Generator(x.device).manual_seed(seed)
        kept[rows] = torch.rand((len(rows), *x.shape[1:]), generator=generator, device=x.device) >= share
    return x * kept.to(x) / (1 - share)
