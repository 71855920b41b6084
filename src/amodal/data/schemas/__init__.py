"""The annotation formats in circulation, one small module each, and how a file's format is recognised."""

from __future__ import annotations

from collections.abc import Collection

from amodal.data.schemas import aisf, aistron, canonical, coco, cocoa, d2sa, kins, kins2020, uoais
from amodal.data.schemas.schema import Schema
from amodal.errors import DataError, nearest

# The first whose marks occur is taken, so the special ones stand before the general ones.
_ORDER = (
    cocoa.SCHEMA,
    cocoa.WITH_STUFF,
    aistron.SCHEMA,
    kins2020.SCHEMA,
    kins.SCHEMA,
    aisf.SCHEMA,
    uoais.SCHEMA,
    d2sa.D2SA,
    d2sa.COCOA_CLS,
    canonical.SCHEMA,
    coco.SCHEMA,
)
SCHEMAS: dict[str, Schema] = {schema.name: schema for schema in _ORDER}

_WITHOUT_MASKS = {
    "caption": "image captions (COCO's captions_*.json)",
    "segments_info": "panoptic segments (COCO's panoptic_*.json), whose masks lie in PNG files",
    "keypoints": "keypoints without masks",
    "bbox": "boxes without masks",
    "category_id": "labels without masks",
}
"""Key of an annotation -> what its file holds, for files that hold no masks."""


def named(name: str) -> Schema:
    """The schema called ``name``; raises DataError for an unknown one."""
    if name not in SCHEMAS:
        raise DataError(f"unknown schema {name!r}{nearest(name, ['auto', *SCHEMAS])}")
    return SCHEMAS[name]


def recognise(keys: Collection[str], path: str) -> Schema:
    """The schema of a file whose annotations have ``keys``, each in at least one of them.

    Keys of all annotations count, because optional ones may be absent from the first. No annotation, and so no key,
    reads as canonical. Raises DataError for annotations that hold no masks.
    """
    if not keys:
        return canonical.SCHEMA
    for schema in _ORDER:
        alternatives = schema.one_of or schema.marks
        if all(key in keys for key in schema.marks) and any(key in keys for key in alternatives):
            return schema
    what = next((what for key, what in _WITHOUT_MASKS.items() if key in keys), "no masks")
    raise DataError(f"holds {what}: no annotation has a segmentation", file=path)
