"""The fingerprint of a run's data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from amodal.data.store import AnnotationSet
from amodal.train.data import annotation_digest

COLUMNS = ["annotation_ids", "labels", "crowd", "amodal_known", "amodal_area", "visible_area", "amodal_boxes"]


@pytest.mark.parametrize("name", [*COLUMNS, "visible_boxes", "image_ids"])
def test_every_column_counts(tiny_annotations: AnnotationSet, name: str) -> None:
    column = getattr(tiny_annotations, name)
    changed = column.copy()
    changed[0] = ~changed[0] if changed.dtype == np.bool_ else changed[0] + 1
    assert annotation_digest(replace(tiny_annotations, **{name: changed})) != annotation_digest(tiny_annotations)
    assert annotation_digest(replace(tiny_annotations, **{name: column.copy()})) == annotation_digest(tiny_annotations)
