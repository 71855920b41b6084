"""D2SA and COCOA cls as Follmann et al. converted them: canonical keys and some of their own.

``iscrowd`` is a bool in D2SA. ``visible_mask`` is absent from unoccluded instances in some conversions of COCOA.
"""

from dataclasses import replace

from amodal.data.schemas import canonical

D2SA = replace(canonical.SCHEMA, name="d2sa", marks=("segmentation", "occl_depth"), one_of=())
COCOA_CLS = replace(canonical.SCHEMA, name="cocoa_cls", marks=("segmentation", "visible_mask", "invisible_mask"))
