"""Any set of masks survives writing and reading, in every order, and under every schema's keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from amodal.data.canonical import write
from amodal.data.reader import load
from amodal.data.store import AnnotationSet

KEYS = {
    "kins2020": {"segmentation": "a_segm", "visible_mask": "i_segm", "bbox": "a_bbox", "visible_bbox": "i_bbox"},
    "kins": {"visible_mask": "inmodal_seg", "visible_bbox": "inmodal_bbox"},
    "aistron": {"segmentation": "amodal_segm", "visible_mask": "visible_segm", "bbox": "amodal_bbox"},
    "uoais": {"occlude_rate": "occluded_rate"},
}


@st.composite
def sets(draw: st.DrawFn) -> AnnotationSet:
    """One to three images of small random sizes with one to four random masks each."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sizes = [tuple(int(v) for v in random.integers(1, 24, 2)) for _ in range(draw(st.integers(1, 3)))]
    objects = []
    for number, size in enumerate(sizes):
        for _ in range(int(random.integers(1, 5))):
            whole = random.random(size) < random.uniform(0.1, 0.9)
            whole[random.integers(size[0]), random.integers(size[1])] = True
            seen = whole & (random.random(size) < random.uniform(0, 1.2))
            objects.append({"image": number, "label": int(random.integers(2)), "amodal": whole, "visible": seen})
    objects[0]["label"], used = 0, {o["label"] for o in objects}
    if 1 not in used:
        objects.append({**objects[0], "label": 1})
        objects.sort(key=lambda o: o["image"])
    return AnnotationSet.from_masks(sizes, objects, ["one", "two"])


def same(one: AnnotationSet, two: AnnotationSet) -> bool:
    """Equal masks, boxes, areas and labels for every annotation id."""
    order = [np.argsort(s.annotation_ids) for s in (one, two)]
    columns = ("annotation_ids", "labels", "amodal_area", "visible_area", "amodal_boxes", "visible_boxes")
    if any(not np.array_equal(getattr(one, c)[order[0]], getattr(two, c)[order[1]]) for c in columns):
        return False
    return all(
        np.array_equal(one.amodal_mask(a), two.amodal_mask(b))
        and np.array_equal(one.visible_mask(a), two.visible_mask(b))
        for a, b in zip(*order, strict=True)
    )


def content(data: AnnotationSet, path: Path) -> dict[str, Any]:
    write(data, path)
    written: dict[str, Any] = json.loads(path.read_text())
    return written


@given(sets(), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_order_in_the_file_does_not_matter(tmp_path: Path, data: AnnotationSet, random: Any) -> None:
    written = content(data, tmp_path / "a.json")
    for key in ("annotations", "images", "categories"):
        random.shuffle(written[key])
    (tmp_path / "b.json").write_text(json.dumps(written))
    assert same(load(tmp_path / "a.json", cache=False), data)
    assert same(load(tmp_path / "b.json", cache=False), data)


@pytest.mark.parametrize("schema", KEYS)
@given(data=sets())
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_schema_reads_the_same_masks(tmp_path: Path, schema: str, data: AnnotationSet) -> None:
    written = content(data, tmp_path / "a.json")
    for annotation in written["annotations"]:
        for old, new in KEYS[schema].items():
            annotation[new] = annotation.pop(old)
        if schema != "uoais":
            annotation.pop("occlude_rate", None)
    (tmp_path / "b.json").write_text(json.dumps(written))
    found = load(tmp_path / "b.json", cache=False)
    assert found.schema == schema
    assert same(found, data)
