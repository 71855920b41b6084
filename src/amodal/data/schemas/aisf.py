"""AISFormer's ``instances_*_amodal.json`` of KINS: polygons whole in ``segmentation``, visible in ``i_segmentation``."""

from amodal.data.schemas.schema import Schema

SCHEMA = Schema(
    name="aisf",
    marks=("i_segmentation",),
    amodal="segmentation",
    visible="i_segmentation",
    empty_classes=frozenset({"rider"}),
)
