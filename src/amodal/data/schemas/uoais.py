"""UOAIS: canonical but for ``occluded_rate`` (with a d)."""

from amodal.data.schemas.schema import Schema

SCHEMA = Schema(
    name="uoais",
    marks=("visible_mask", "occluded_rate"),
    amodal="segmentation",
    visible="visible_mask",
    rate="occluded_rate",
    absent_visible="unoccluded",
)
