"""What an annotation file holds, in numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from amodal.data.coverage import coverage
from amodal.data.store import OCCLUDED, AnnotationSet
from amodal.errors import counted

# Upper ends of the histogram's bins. 0.15, 0.25 and 0.40 are where the AP-occ levels begin.
RATE_EDGES = (0.0, 0.05, 0.15, 0.25, 0.40, 0.60, 0.80, 1.0)


@dataclass(frozen=True)
class ClassStatistics:
    """One class: name, category id, instances, and of those with a known amodal mask how many are occluded by more than
    15 %, and the mean occlusion rate."""

    name: str
    category_id: int
    instances: int
    occluded: int
    mean_rate: float | None


@dataclass(frozen=True)
class Statistics:
    """Numbers of an annotation file. Instances are the annotations that are no crowds.

    Attributes:
        schema: as which the file was read.
        images, empty_images: all, and those without an instance.
        widths, heights: (smallest, median, largest), pixels.
        instances, crowds: annotations.
        modal_only: instances of which only the visible part is annotated.
        fully_hidden: instances without a visible pixel.
        cut_by_frame: instances whose amodal mask touches the border of the image.
        most_in_one_image: instances of the fullest image.
        sides: square roots of the amodal areas, pixels: 5th, 50th and 95th percentile; None without instances.
        histogram: instances with a known amodal mask by occlusion rate: exactly 0, then up to each further edge of
            ``RATE_EDGES`` (inclusive).
        coverage: share of hidden pixels under other instances' visible masks; None if nothing is hidden.
        classes: in label order.
    """

    schema: str
    images: int
    empty_images: int
    widths: tuple[int, int, int]
    heights: tuple[int, int, int]
    instances: int
    crowds: int
    modal_only: int
    fully_hidden: int
    cut_by_frame: int
    most_in_one_image: int
    sides: tuple[float, float, float] | None
    histogram: tuple[int, ...]
    coverage: float | None
    classes: tuple[ClassStatistics, ...]

    def lines(self) -> list[str]:
        """The numbers as text."""
        coverage_text = "undefined, as nothing is hidden"
        if self.coverage is not None:
            coverage_text = f"{100 * self.coverage:.1f} % of the hidden pixels lie under other instances"
        lines = [
            f"schema            {self.schema}",
            f"images            {self.images}, {self.empty_images} of them without an instance",
            f"image size        width {_spread(self.widths)}, height {_spread(self.heights)} px (least, median, most)",
            f"instances         {self.instances}, at most {self.most_in_one_image} in an image;"
            f" {counted(self.crowds, 'crowd')}",
            f"amodal unknown    {self.modal_only} (only the visible part is annotated)",
            f"fully hidden      {self.fully_hidden}",
            f"cut by the frame  {self.cut_by_frame}",
            f"coverage          {coverage_text}",
        ]
        if self.sides is not None:
            sides = ", ".join(f"{side:.0f}" for side in self.sides)
            lines.append(f"instance size     {sides} px (square root of the amodal area: 5th, 50th, 95th percentile)")
        return [*lines, "", *self._rate_lines(), "", *self._class_lines()]

    def _rate_lines(self) -> list[str]:
        lines = ["occlusion rate    instances"]
        largest = max(*self.histogram, 1)
        low = 0.0
        for high, count in zip(RATE_EDGES, self.histogram, strict=True):
            name = "0" if high == 0 else f"{low:.2f} to {high:.2f}"
            lines.append(f"{name:<16} {count:>10}  {'#' * round(40 * count / largest)}".rstrip())
            low = high
        return lines

    def _class_lines(self) -> list[str]:
        width = max([len(row.name) for row in self.classes] + [5])
        lines = [f"{'class':<{width}} {'id':>6} {'instances':>10} {'> 15 % hidden':>14} {'mean rate':>10}"]
        for row in self.classes:
            mean = "-" if row.mean_rate is None else f"{row.mean_rate:.3f}"
            lines.append(f"{row.name:<{width}} {row.category_id:>6} {row.instances:>10} {row.occluded:>14} {mean:>10}")
        return lines


def statistics(annotations: AnnotationSet) -> Statistics:
    """Counts an annotation set."""
    data = annotations
    instance = ~data.crowd
    known = instance & data.amodal_known
    rates = data.occlude_rate[known]
    per_image = np.bincount(data.image_index[instance], minlength=len(data.image_ids))
    sides = np.percentile(np.sqrt(data.amodal_area[instance]), [5, 50, 95]) if instance.any() else None
    return Statistics(
        schema=data.schema,
        images=len(data.image_ids),
        empty_images=int((per_image == 0).sum()),
        widths=_three(data.widths),
        heights=_three(data.heights),
        instances=int(instance.sum()),
        crowds=int(data.crowd.sum()),
        modal_only=int((instance & ~data.amodal_known).sum()),
        fully_hidden=int((rates == 1.0).sum()),
        cut_by_frame=int(_at_border(data)[instance].sum()),
        most_in_one_image=int(per_image.max(initial=0)),
        sides=None if sides is None else (float(sides[0]), float(sides[1]), float(sides[2])),
        histogram=tuple(np.bincount(np.searchsorted(RATE_EDGES, rates), minlength=len(RATE_EDGES)).tolist()),
        coverage=coverage(data),
        classes=tuple(_class(data, label) for label in range(len(data.class_names))),
    )


def _class(data: AnnotationSet, label: int) -> ClassStatistics:
    own = ~data.crowd & (data.labels == label)
    rates = data.occlude_rate[own & data.amodal_known]
    mean = float(rates.mean()) if len(rates) else None
    occluded = int((rates > OCCLUDED).sum())
    return ClassStatistics(data.class_names[label], data.category_ids[label], int(own.sum()), occluded, mean)


def _at_border(data: AnnotationSet) -> NDArray[np.bool_]:
    boxes = data.amodal_boxes
    width, height = data.widths[data.image_index], data.heights[data.image_index]
    inside = (boxes[:, :2] > 0).all(axis=1) & (boxes[:, 2] < width) & (boxes[:, 3] < height)
    touches: NDArray[np.bool_] = ~inside
    return touches


def _three(values: NDArray[np.int32]) -> tuple[int, int, int]:
    if not len(values):
        return 0, 0, 0
    return int(values.min()), int(np.median(values)), int(values.max())


def _spread(numbers: tuple[int, int, int]) -> str:
    return str(numbers[0]) if numbers[0] == numbers[2] else ", ".join(map(str, numbers))
