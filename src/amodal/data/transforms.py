"""``torchvision.transforms.v2`` pipelines that move image, both masks and both boxes of every instance together.

Masks travel through a pipeline as a :class:`MaskCarrier`, a tv_tensor without pixels whose kernels change the view of
:class:`amodal.data.masks.InstanceMasks`. Flips, ``resize``, ``crop``, ``pad`` and what is made of them (``RandomCrop``,
``RandomResizedCrop``, ``CenterCrop``, ``ScaleJitter``, ``RandomShortestSize``, ``RandomIoUCrop``, ``RandomZoomOut``)
are followed exactly; other geometric transforms (rotation, shear, perspective, elastic) raise instead of leaving masks
behind.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from amodal.data.masks import InstanceMasks, View
from amodal.errors import AmodalError
from amodal.structures import Targets

Pipeline = Callable[[dict[str, Any]], dict[str, Any]]


class MaskCarrier(tv_tensors.TVTensor):  # type: ignore[misc]
    """G masks on their way through a pipeline: a tv_tensor of shape [G, 0] that holds ``masks``."""

    masks: InstanceMasks

    @classmethod
    def of(cls, masks: InstanceMasks) -> MaskCarrier:
        """The carrier of these masks."""
        carrier: MaskCarrier = torch.empty(len(masks), 0).as_subclass(cls)
        carrier.masks = masks
        return carrier

    def moved(self, view: View) -> MaskCarrier:
        """The carrier of the same masks in another view."""
        return MaskCarrier.of(self.masks.with_view(view))


class Augment:
    """A pipeline whose randomness depends on nothing but (seed, position, image id).

    Workers, processes and what was drawn before do not count, so a resumed run sees the same pictures. The pipeline
    must draw from torch's generator, as every transform of ``torchvision.transforms.v2`` does.
    """

    def __init__(self, pipeline: Pipeline, seed: int = 0) -> None:
        """
        Args:
            pipeline: takes and returns a dict with ``image`` (tv_tensors.Image uint8 [3, H, W]), ``boxes`` and
                ``visible_boxes`` (BoundingBoxes; given as XYXY, taken back in any format with sides along the axes) and
                ``amodal`` and ``visible`` (MaskCarrier).
            seed: of all draws.
        """
        self.pipeline = pipeline
        self.seed = seed

    def __call__(self, image: Tensor, targets: Targets, position: int = 0) -> tuple[Tensor, Targets]:
        """Transforms uint8 [3, H, W] and its targets; ``position`` is the place in the run's data order.

        Instances of which a crop leaves nothing are removed; boxes and occlusion rates of the others are measured anew.
        """
        sample = _to_sample(image, targets)
        with seeded(self.seed, position, targets.image_id):
            sample = self.pipeline(sample)
        return _from_sample(sample, targets)


def train_transforms(flip: float = 0.5, seed: int = 0) -> Augment:
    """The training augmentation of the earlier work: a horizontal flip with probability ``flip``, nothing else."""
    return Augment(v2.RandomHorizontalFlip(flip), seed)


@contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Torch's CPU generator seeded by a hash of integers inside the block, and as before after it."""
    digest = hashlib.blake2b(",".join(map(str, key)).encode(), digest_size=8).digest()
    before = torch.get_rng_state()
    torch.default_generator.manual_seed(int.from_bytes(digest, "little") >> 1)
    try:
        yield
    finally:
        torch.set_rng_state(before)


def _to_sample(image: Tensor, targets: Targets) -> dict[str, Any]:
    size = (int(image.shape[-2]), int(image.shape[-1]))
    if not isinstance(targets.amodal, InstanceMasks) or not isinstance(targets.visible, InstanceMasks):
        raise TypeError("transforms move InstanceMasks only")
    return {
        "image": tv_tensors.Image(image),
        "boxes": tv_tensors.BoundingBoxes(targets.boxes, format="XYXY", canvas_size=size),
        "visible_boxes": tv_tensors.BoundingBoxes(targets.visible_boxes, format="XYXY", canvas_size=size),
        "amodal": MaskCarrier.of(targets.amodal),
        "visible": MaskCarrier.of(targets.visible),
    }


def _from_sample(sample: dict[str, Any], targets: Targets) -> tuple[Tensor, Targets]:
    _check_sample(sample)
    image = sample["image"].as_subclass(torch.Tensor)
    boxes, visible_boxes = (_corners(sample[key]) for key in ("boxes", "visible_boxes"))
    amodal, visible = sample["amodal"].masks, sample["visible"].masks
    canvas = (float(image.shape[-1]), float(image.shape[-2]))
    if len(boxes) != len(amodal) or not np.allclose(amodal.view.canvas, canvas):
        raise AmodalError(
            "augmentation moved image, boxes and masks apart; leave out transforms that remove boxes"
            " (the data set itself drops instances that left the picture)"
        )
    if amodal.is_cut:
        return image, _remeasure(targets, amodal, visible)
    # A fully hidden instance has the box (0, 0, 0, 0), which is a mark and no place.
    seen = (targets.visible_boxes != 0).any(dim=1, keepdim=True)
    moved = replace(targets, boxes=boxes, visible_boxes=visible_boxes * seen, amodal=amodal, visible=visible)
    return image, moved


_KINDS: dict[str, type] = {
    "image": Tensor,
    "boxes": tv_tensors.BoundingBoxes,
    "visible_boxes": tv_tensors.BoundingBoxes,
    "amodal": MaskCarrier,
    "visible": MaskCarrier,
}


def _check_sample(sample: Any) -> None:
    """Refuses what a pipeline returns where its kinds no longer say what it is."""
    if not isinstance(sample, dict):
        raise AmodalError(f"augmentation returns a {type(sample).__name__}, must return the dict that it was given")
    for key, kind in _KINDS.items():
        value = sample.get(key)
        if not isinstance(value, kind):
            what = "nothing" if value is None else f"a {type(value).__name__}"
            raise AmodalError(
                f"augmentation returns {what} as {key!r}, must return a {kind.__name__}; leave out ToPureTensor and"
                " whatever else takes boxes and masks out of their tv_tensors"
            )
    image = sample["image"]
    if image.ndim != 3 or image.shape[0] != 3:
        raise AmodalError(f"augmentation returns an image of shape {list(image.shape)}, must be [3, height, width]")


def _corners(boxes: tv_tensors.BoundingBoxes) -> Tensor:
    """float32 [G, 4], xyxy pixels, of boxes in any format that has its sides along the axes."""
    if tv_tensors.is_rotated_bounding_format(boxes.format):
        raise AmodalError(f"augmentation returns boxes as {boxes.format.value}, must be XYXY, XYWH or CXCYWH")
    found: Tensor = F.convert_bounding_box_format(boxes, new_format="XYXY").as_subclass(torch.Tensor).float()
    return found


def _remeasure(targets: Targets, amodal: InstanceMasks, visible: InstanceMasks) -> Targets:
    """Targets after a crop: what is left of each mask decides box, rate, and whether the instance stays."""
    areas, boxes = amodal.measure()
    visible_boxes = visible.measure()[1]
    keep = np.flatnonzero(areas)
    rates = 1.0 - amodal.overlap(visible)[keep] / areas[keep]
    rows = torch.from_numpy(keep)
    return Targets(
        image_id=targets.image_id,
        boxes=torch.from_numpy(boxes[keep]).float(),
        visible_boxes=torch.from_numpy(visible_boxes[keep]).float(),
        labels=targets.labels[rows],
        occlude_rate=torch.from_numpy(rates).float(),
        amodal_known=targets.amodal_known[rows],
        ignore=targets.ignore[rows],
        annotation_ids=targets.annotation_ids[rows],
        amodal=amodal.select(keep.tolist()),
        visible=visible.select(keep.tolist()),
    )


def _horizontal_flip(inpt: MaskCarrier) -> MaskCarrier:
    return inpt.moved(inpt.masks.view.flip(0))


def _vertical_flip(inpt: MaskCarrier) -> MaskCarrier:
    return inpt.moved(inpt.masks.view.flip(1))


def _resize(inpt: MaskCarrier, size: int | Sequence[int] | None, max_size: int | None = None, **_: Any) -> MaskCarrier:
    view = inpt.masks.view
    width, height = view.canvas
    # A box without area asks torchvision itself which size it makes of this one.
    ruler = tv_tensors.BoundingBoxes(torch.zeros(1, 4), format="XYXY", canvas_size=(round(height), round(width)))
    new_height, new_width = F.resize(ruler, size=size, max_size=max_size).canvas_size
    return inpt.moved(view.resize(new_width / width, new_height / height))


def _crop(inpt: MaskCarrier, top: int, left: int, height: int, width: int) -> MaskCarrier:
    return inpt.moved(inpt.masks.view.crop(top, left, height, width))


def _resized_crop(
    inpt: MaskCarrier, top: int, left: int, height: int, width: int, size: list[int], **_: Any
) -> MaskCarrier:
    return _resize(_crop(inpt, top, left, height, width), size)


def _pad(
    inpt: MaskCarrier, padding: int | Sequence[int], fill: Any = None, padding_mode: str = "constant"
) -> MaskCarrier:
    if padding_mode != "constant":
        raise ValueError(f"padding_mode is {padding_mode!r}; masks follow 'constant' only")
    numbers = [padding] if isinstance(padding, int) else list(padding)
    left, top, right, bottom = {1: numbers * 4, 2: numbers * 2, 4: numbers}[len(numbers)]
    view = inpt.masks.view
    width, height = view.canvas
    return inpt.moved(view.crop(-top, -left, height + top + bottom, width + left + right))


def _center_crop(inpt: MaskCarrier, output_size: int | Sequence[int]) -> MaskCarrier:
    sizes = [output_size] if isinstance(output_size, int) else list(output_size)
    height, width = sizes[0], sizes[-1]
    old_width, old_height = inpt.masks.view.canvas
    # torchvision pads a smaller picture, the odd pixel going right and below, and rounds half to even otherwise.
    top = -((height - old_height) // 2) if height > old_height else round((old_height - height) / 2)
    left = -((width - old_width) // 2) if width > old_width else round((old_width - width) / 2)
    return _crop(inpt, int(top), int(left), height, width)


def _refuse(name: str) -> Callable[..., MaskCarrier]:
    def kernel(inpt: MaskCarrier, *args: Any, **kwargs: Any) -> MaskCarrier:
        raise AmodalError(f"masks cannot follow the transform {name!r}; use flips, resize, crop and pad")

    return kernel


_KERNELS: dict[str, Callable[..., MaskCarrier]] = {
    "horizontal_flip": _horizontal_flip,
    "vertical_flip": _vertical_flip,
    "resize": _resize,
    "crop": _crop,
    "resized_crop": _resized_crop,
    "pad": _pad,
    "center_crop": _center_crop,
    **{name: _refuse(name) for name in ("affine", "rotate", "perspective", "elastic", "five_crop", "ten_crop")},
}
for _name, _kernel in _KERNELS.items():
    F.register_kernel(_name, MaskCarrier)(_kernel)
