"""Visible rates of objects and detections, and the occlusion levels of the metrics (method.md, "Metrics")."""

from __future__ import annotations

from typing import Any

import numpy as np

from amodal.data.store import OCCLUDED, AnnotationSet
from amodal.evaluation.coco import Floats, Range

LARGEST_RATE = 1 - OCCLUDED
"""Largest visible rate of an object that counts as occluded."""

BY_TRUTH = {"AP-occ-gt": Range(LARGEST_RATE), "AP-occ-gt75": Range(0.75), "AP-occ-gt60": Range(0.60)}
"""Only the truth decides which objects count; unmatched detections are false positives."""

BY_BOTH = {"AP-occ": Range(LARGEST_RATE, LARGEST_RATE), "AP-occ75": Range(0.75, 0.75), "AP-occ60": Range(0.60, 0.60)}
"""As earlier work has it: an unmatched detection that calls itself visible enough is ignored."""

BINS = ((0.0, 0.05), (0.05, 0.15), (0.15, 0.30), (0.30, 0.50), (0.50, 0.85))
"""Hidden shares of the report's levels: from the first (inclusive) up to the second (the last one inclusive)."""


def object_rates(annotations: AnnotationSet, clamp: bool = True) -> Floats:
    """Visible rate of every annotation, float64 [A]: 1 - the stored occlusion rate, else visible / amodal area.

    With ``clamp`` within 0 to 1. A ratio of areas exceeds 1 where two masks of one object were rasterised differently;
    earlier work ignores such an object even in plain AP (reference.md sec. 2.2), which ``clamp=False`` reproduces.
    """
    ratio = annotations.visible_area / np.maximum(annotations.amodal_area, 1)
    rates = np.where(np.isnan(annotations.stored_rate), ratio, 1.0 - annotations.stored_rate)
    return np.clip(rates, 0.0, 1.0) if clamp else rates


def bin_of(rates: Floats) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Index into ``BINS`` of each visible rate, int64; -1 where more than the last bin's share is hidden."""
    hidden = np.round(1.0 - rates, 9)  # 1 - 0.7 is 0.30000000000000004
    starts = np.array([start for start, _ in BINS])
    found = np.searchsorted(starts, hidden, side="right") - 1
    return np.where(hidden > BINS[-1][1], -1, found).astype(np.int64)
