"""KINS of 2020 (``update_train_2020.json``): ``a_*`` whole, ``i_*`` visible, both polygons.

Lists eight classes; rider, without instances, falls away (see :mod:`amodal.data.schemas.kins`).
"""

from amodal.data.schemas.schema import Schema

SCHEMA = Schema(
    name="kins2020",
    marks=(),
    one_of=("a_segm", "i_segm"),
    amodal="a_segm",
    visible="i_segm",
    box="a_bbox",
    empty_classes=frozenset({"rider"}),
)
