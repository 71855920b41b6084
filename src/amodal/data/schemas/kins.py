"""KINS, first generation (``instances_train.json``): polygons whole, one compressed RLE visible.

The class rider has no instance in any released file; it falls away, or every later label would shift by one against the
seven classes that all published numbers use.
"""

from amodal.data.schemas.schema import Schema

SCHEMA = Schema(
    name="kins",
    marks=("segmentation",),
    one_of=("inmodal_seg", "inmodal_bbox"),
    amodal="segmentation",
    visible="inmodal_seg",
    empty_classes=frozenset({"rider"}),
)
