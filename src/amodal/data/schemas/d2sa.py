"""D2SA and COCOA cls as Follmann et al. converted them: canonical keys and some of their own.

``iscrowd`` is a bool in D2SA. ``visible_mask`` is absent from unoccluded instances in some conversions of COCOA.
"""

from dataclasses import replace

from amodal.data.schemas import canonical

D2SA = replace(canonical.SCHEMA, name="d2sa", marks=("visible_mask", "occl_depth"))
COCOA_CLS = replace(canonical.SCHEMA, name="cocoa_cls", marks=("visible_mask", "invisible_mask"))
