"""Canonical annotations, the keys of D2SA and COCOA cls: ``segmentation`` whole, ``visible_mask``, ``occlude_rate``.

Any key that tells the whole from the visible makes a file canonical: a split in which nothing is hidden may have no
visible mask at all.
"""

from amodal.data.schemas.schema import Schema

SCHEMA = Schema(
    name="canonical",
    marks=("segmentation",),
    one_of=("visible_mask", "invisible_mask", "occlude_rate", "visible_bbox", "amodal_known"),
    amodal="segmentation",
    visible="visible_mask",
    hidden="invisible_mask",
    visible_box="visible_bbox",
    rate="occlude_rate",
    absent_visible="unoccluded",
)
