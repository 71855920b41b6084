"""AISFormer's ``instances_*_amodal.json`` of KINS: ``segmentation`` whole, ``i_segmentation`` visible, polygons."""

from amodal.data.schemas.schema import Schema

SCHEMA = Schema(
    name="aisf",
    marks=("segmentation",),
    one_of=("i_segmentation", "i_bbox"),
    amodal="segmentation",
    visible="i_segmentation",
    empty_classes=frozenset({"rider"}),
)
