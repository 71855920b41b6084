"""UOAIS: canonical but for ``occluded_rate`` (with a d)."""

from amodal.data.schemas.schema import Schema

SCHEMA = Schema(
    name="uoais",
    marks=("segmentation",),
    one_of=("occluded_rate", "occluded_mask"),
    amodal="segmentation",
    visible="visible_mask",
    hidden="occluded_mask",
    visible_box="visible_bbox",
    rate="occluded_rate",
    absent_visible="unoccluded",
)
