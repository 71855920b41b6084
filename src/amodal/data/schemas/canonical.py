"""Canonical annotations, the keys of D2SA and COCOA cls: ``segmentation`` whole, ``visible_mask``, ``occlude_rate``."""

from amodal.data.schemas.schema import Schema

SCHEMA = Schema(
    name="canonical",
    marks=("visible_mask",),
    amodal="segmentation",
    visible="visible_mask",
    rate="occlude_rate",
    absent_visible="unoccluded",
)
