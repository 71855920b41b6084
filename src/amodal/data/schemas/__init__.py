"""The annotation formats in circulation, one small module each, and how a file's format is recognised."""

from __future__ import annotations

import re

from amodal.data.schemas import aisf, aistron, canonical, coco, cocoa, d2sa, kins, kins2020, uoais
from amodal.data.schemas.schema import Schema
from amodal.errors import DataError, nearest

# The first whose marks all occur is taken, so the special ones stand before the general ones.
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


def recognise(data: bytes, name: str) -> Schema:
    """The schema called ``name``, or for "auto" the one whose keys occur in the file's text ``data``.

    All of the text is looked at, because optional keys may be absent from the first annotations. A file without any
    annotation reads as canonical. Raises DataError for an unknown name.
    """
    if name != "auto":
        if name not in SCHEMAS:
            raise DataError(f"unknown schema {name!r}{nearest(name, ['auto', *SCHEMAS])}")
        return SCHEMAS[name]
    for schema in _ORDER:
        if all(_occurs(key, data) for key in schema.marks):
            return schema
    return canonical.SCHEMA


def _occurs(key: str, data: bytes) -> bool:
    return re.search(b'"' + key.encode() + rb'"\s*:', data) is not None
