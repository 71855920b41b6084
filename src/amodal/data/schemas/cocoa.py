"""COCOA and BSDS-A as the amodal API writes them: one entry an image and annotator, its ``regions`` the instances.

Names are free text (over two thousand of them), so all regions are of one class "object". Regions marked ``isStuff``
are no objects and are dropped, unless the schema is given as "cocoa_stuff". Where several people annotated an image
(BSDS) the first one counts. A region without ``visible_mask`` is unoccluded; a fully hidden one has an empty visible
mask. Regions have no ids; they are numbered 1, 2, ... in the order of the file.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial

from amodal.data.problems import Findings
from amodal.data.schemas.schema import Annotation, Schema


def flatten(entries: Iterable[Annotation], findings: Findings, *, stuff: bool = False) -> Iterator[Annotation]:
    """One flat annotation for each region that counts."""
    annotated: set[object] = set()
    number = 0
    for entry in entries:
        image = entry.get("image_id")
        regions = entry.get("regions")
        if not isinstance(regions, list) or not all(isinstance(region, dict) for region in regions):
            findings.error("bad annotation", "regions must be a list of objects", image, entry.get("id"))
            continue
        if isinstance(image, (int, str)) and image in annotated:
            findings.drop("annotator after the first of an image", image)
            continue
        if isinstance(image, (int, str)):
            annotated.add(image)
        for region in regions:
            number += 1
            if region.get("isStuff") and not stuff:
                findings.drop("region marked as stuff", number)
                continue
            yield {**region, "id": number, "image_id": image, "category_id": 1}


SCHEMA = Schema(
    name="cocoa",
    marks=("regions",),
    amodal="segmentation",
    visible="visible_mask",
    hidden="invisible_mask",
    box=None,
    rate="occlude_rate",
    absent_visible="unoccluded",
    flatten=flatten,
    categories=((1, "object"),),
)
WITH_STUFF = replace(SCHEMA, name="cocoa_stuff", flatten=partial(flatten, stuff=True))
