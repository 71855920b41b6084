"""AISTRON's universal ``*_aistron.json``: ``amodal_segm`` and ``visible_segm``.

Its ``visible_bbox`` is the amodal box for D2SA and COCOA, and its ``area`` is the box's; both are recomputed from
the masks.
"""

from amodal.data.schemas.schema import Schema

SCHEMA = Schema(
    name="aistron",
    marks=(),
    one_of=("amodal_segm", "visible_segm"),
    amodal="amodal_segm",
    visible="visible_segm",
    box="amodal_bbox",
    empty_classes=frozenset({"rider"}),
)
