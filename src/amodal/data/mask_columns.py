"""Masks of a file's entries: each read as far as its own object allows, then all of them checked at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from amodal.data import rle
from amodal.data.polygons import check_polygons, rasterize
from amodal.data.store import MaskBuffer


def read_counts(mask: Any, height: int, width: int) -> tuple[bytes, int]:
    """Compressed counts of one mask (RLE or polygons), and how many degenerate polygon pieces fell away.

    The size is checked here and so are polygons and lists of runs; compressed strings are left to :func:`check_masks`.
    Raises ValueError with the reason.
    """
    if not isinstance(mask, dict):
        polygons, degenerate = check_polygons(mask, height, width)
        return rasterize(polygons, height, width), degenerate
    counts = mask.get("counts")
    if not isinstance(counts, (str, bytes)) or "size" not in mask:
        return rle.check_rle(mask, height, width)["counts"], 0
    rle.check_size(mask["size"], height, width)
    return rle.counts_bytes(counts), 0


def check_masks(counts: Sequence[bytes], pixels: rle.Ints) -> tuple[MaskBuffer, rle.Runs, npt.NDArray[np.int8]]:
    """One buffer of the masks, their runs, and fault codes int8 [M].

    ``pixels`` (int64 [M]) is height x width of each image. A faulty mask is empty in the result.
    """
    masks = MaskBuffer.pack(counts)
    runs = rle.decompress_batch(masks.data, masks.offsets)
    faults = rle.check_batch(runs, pixels)
    rewrite = {int(row): rle.compress(pixels[row : row + 1]) for row in np.flatnonzero(faults)}
    zero = np.flatnonzero(runs.values == 0)
    owner = np.searchsorted(runs.offsets, zero, side="right") - 1
    for row in np.unique(owner[zero > runs.offsets[owner]]).tolist():
        if row not in rewrite:
            own = runs.values[runs.offsets[row] : runs.offsets[row + 1]]
            rewrite[row] = rle.compress(rle.canonical_runs(own))
    if rewrite:
        masks = MaskBuffer.pack([rewrite.get(row, one) for row, one in enumerate(counts)])
        runs = rle.decompress_batch(masks.data, masks.offsets)
    return masks, runs, faults
