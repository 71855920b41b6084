"""Ordinary (modal) COCO annotations: the one mask is what is visible, the whole shape is unknown."""

from amodal.data.schemas.schema import Schema

SCHEMA = Schema(
    name="coco", marks=("segmentation",), amodal="segmentation", visible=None, box="bbox", absent_visible="modal"
)
