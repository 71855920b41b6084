"""The expansion prior memory bank (Sec. 3.1): K_s training objects a class, found by their visible masks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding

from amodal.priors.bank_build import Encode, choose_slots
from amodal.priors.boxes import box_deltas
from amodal.priors.nearest import nearest
from amodal.priors.types import GRID, PriorInstances, Retrieved

BYTES = GRID * GRID // 8
"""Bytes of a bit-packed mask."""


@dataclass
class Bank:
    """C sub-banks of Ks slots; a slot is one training object, or an augmented one. Masks are bit-packed, row by row.

    What belongs to a class that is not ``present`` is 0 and never read.

    Attributes:
        present: bool [C], whether the training data have any object of the class.
        visible: uint8 [C, Ks, 98], visible mask in the frame of the amodal box; the paper's key.
        amodal: uint8 [C, Ks, 98], amodal mask in the frame of the amodal box.
        own: uint8 [C, Ks, 98], visible mask in the frame of its own box.
        deltas: float32 [C, Ks, 4], T^r = S^r(visible box, amodal box) (Eq. 2).
        sizes: float32 [C, Ks, 2], width and height of the amodal box, pixels of the annotated image.
        visible_boxes: float32 [C, Ks, 4], xyxy of the visible box, the amodal box being (0, 0, 1, 1).
        annotation_ids: int64 [C, Ks], id of the object that the slot was made from.
        image_ids: int64 [C, Ks], id of its image.
    """

    present: Tensor
    visible: Tensor
    amodal: Tensor
    own: Tensor
    deltas: Tensor
    sizes: Tensor
    visible_boxes: Tensor
    annotation_ids: Tensor
    image_ids: Tensor
    _norms: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def num_classes(self) -> int:
        """C."""
        return int(self.deltas.shape[0])

    @property
    def slots(self) -> int:
        """K_s."""
        return int(self.deltas.shape[1])

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.deltas.device

    @staticmethod
    def build(
        instances: PriorInstances,
        num_classes: int,
        encode: Encode,
        slots: int,
        *,
        rotate: bool,
        seed: int,
        key_frame: Literal["amodal", "visible"] = "amodal",
        progress: bool = False,
    ) -> Bank:
        """A bank of training objects (Sec. 3.1, Construction).

        Args:
            instances: N training objects.
            num_classes: C.
            encode: E: key masks bool [M, 28, 28] in the key frame and (width, height) float32 [M, 2] of their visible
                boxes in pixels -> keys float32 [M, D].
            slots: K_s. Classes with more objects keep the medoids of K_s clusters, the others are filled up with
                augmented objects.
            rotate: augment by any rotation, for objects seen from above.
            seed: of clustering and augmentation.
            key_frame: frame of the visible masks that are compared: that of the amodal box, or their own.
            progress: show a progress bar.
        """
        bank = Bank.empty(num_classes, slots)
        for label, objects in choose_slots(
            instances, num_classes, encode, slots, rotate=rotate, seed=seed, key_frame=key_frame, progress=progress
        ):
            bank._put(label, objects)
        return bank

    @staticmethod
    def empty(num_classes: int, slots: int) -> Bank:
        """A bank that knows no class yet."""
        return Bank(**{name: torch.zeros(shape, dtype=t) for name, (shape, t) in layout(num_classes, slots).items()})

    def to(self, device: torch.device | str) -> Bank:
        """Moves the tensors; a memory-mapped bank is read whole where the device is another one. Returns itself."""
        for name in TENSORS:
            setattr(self, name, getattr(self, name).to(device))
        self._norms = {}
        return self

    def key_inputs(self, label: int, key_frame: Literal["amodal", "visible"]) -> tuple[Tensor, Tensor]:
        """What the keys of a class are computed from.

        Returns:
            Visible masks bool [Ks, 28, 28] in the key frame, and (width, height) float32 [Ks, 2] of the visible boxes
            in pixels: the arguments of ``encode`` in :meth:`build`.
        """
        packed = self.visible if key_frame == "amodal" else self.own
        relative = self.visible_boxes[label]
        return unpack(packed[label]).bool(), (relative[:, 2:] - relative[:, :2]) * self.sizes[label]

    def search(
        self,
        codes: Tensor,
        labels: Tensor,
        k: int,
        *,
        keys: Callable[[int], Tensor],
        exclude_annotations: Tensor | None = None,
        exclude_images: Tensor | None = None,
    ) -> Retrieved:
        """The ``k`` nearest slots of each object's class (Sec. 3.1, Search): exact, all objects at once.

        Args:
            codes: float32 [R, D], E of the query masks.
            labels: int64 [R], 0-based class.
            k: K.
            keys: class -> float32 [Ks, D], E of the slots' key masks; asked for the classes among ``labels`` that are
                present. It should give the same tensor each time: lengths of keys are kept with it.
            exclude_annotations: int64 [R]; slots made from this object are left out.
            exclude_images: int64 [R]; slots made from any object of this image are left out.

        Returns:
            K priors an object, ascending in distance, ties by slot. Where fewer than ``k`` slots may be used, or the
            class is absent, the rest is slot 0 at infinite distance with deltas 0 and an empty amodal mask.
        """
        # By class, so that the search is one product a class.
        order = labels.argsort(stable=True)
        classes, counts = torch.unique_consecutive(labels[order], return_counts=True)
        present = self.present[classes].tolist()
        groups = {c: n for c, n, there in zip(classes.tolist(), counts.tolist(), present, strict=True) if there}
        slots = labels.new_zeros(len(labels), k)
        distance = codes.new_full((len(labels), k), torch.inf)
        rows = order[self.present[labels[order]]]
        if groups:
            used = min(k, self.slots)
            pairs = [self._with_norms(label, keys(label)) for label in groups]
            blocked = self._blocked(rows, labels, exclude_annotations, exclude_images)
            slots[rows, :used], distance[rows, :used] = nearest(
                codes[rows], list(groups.values()), [p[0] for p in pairs], [p[1] for p in pairs], used, blocked
            )
        void = distance.isinf()[..., None]
        return Retrieved(
            slots=slots,
            distance=distance,
            deltas=self.deltas[labels[:, None], slots].masked_fill(void, 0),
            amodal=unpack(self.amodal[labels[:, None], slots].masked_fill(void, 0)),
            present=self.present[labels],
        )

    def read(self, labels: Tensor, slots: Tensor) -> tuple[Tensor, Tensor]:
        """Values of slots.

        Args:
            labels: int64 [R], 0-based class.
            slots: int64 [R, K].

        Returns:
            Deltas float32 [R, K, 4] and amodal masks float32 [R, K, 28, 28], 0 or 1, in their amodal frames.
        """
        return self.deltas[labels[:, None], slots], unpack(self.amodal[labels[:, None], slots])

    def _put(self, label: int, objects: PriorInstances) -> None:
        self.present[label] = True
        for name in ("visible", "amodal", "own"):
            getattr(self, name)[label] = pack(getattr(objects, name))
        # In double precision: a small object far from the origin would lose the digits of its relative box.
        boxes, seen = objects.boxes.double(), objects.visible_boxes.double()
        side = boxes[:, 2:] - boxes[:, :2]
        self.deltas[label] = box_deltas(objects.visible_boxes, objects.boxes)
        self.sizes[label] = side.float()
        self.visible_boxes[label] = ((seen - boxes[:, :2].repeat(1, 2)) / side.repeat(1, 2)).float()
        self.annotation_ids[label] = objects.annotation_ids
        self.image_ids[label] = objects.image_ids

    def _with_norms(self, label: int, keys: Tensor) -> tuple[Tensor, Tensor]:
        """A class's keys and their squared lengths, which take as long to compute as the search, so they are kept."""
        kept = self._norms.get(label)
        if kept is None or kept[0] is not keys:
            kept = self._norms[label] = (keys, keys.square().sum(dim=1))
        return kept

    def _blocked(
        self, rows: Tensor, labels: Tensor, annotations: Tensor | None, images: Tensor | None
    ) -> Tensor | None:
        """bool [R', Ks], slots made from the excluded sources; None where nothing is excluded."""
        blocked: Tensor | None = None
        for sources, excluded in ((self.annotation_ids, annotations), (self.image_ids, images)):
            if excluded is not None:
                same = sources[labels[rows]] == excluded[rows, None]
                blocked = same if blocked is None else blocked | same
        return blocked


TENSORS = tuple(entry.name for entry in fields(Bank) if entry.init)
"""Names of a bank's tensors, in the object as in the file."""


def layout(num_classes: int, slots: int) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Shape and dtype of each tensor of a bank."""
    shape = (num_classes, slots)
    masks = ((*shape, BYTES), torch.uint8)
    return {
        "present": ((num_classes,), torch.bool),
        "visible": masks,
        "amodal": masks,
        "own": masks,
        "deltas": ((*shape, 4), torch.float32),
        "sizes": ((*shape, 2), torch.float32),
        "visible_boxes": ((*shape, 4), torch.float32),
        "annotation_ids": (shape, torch.int64),
        "image_ids": (shape, torch.int64),
    }


def pack(masks: Tensor) -> Tensor:
    """bool [..., 28, 28] -> uint8 [..., 98] on the CPU; the first cell is the highest bit of the first byte."""
    return torch.from_numpy(np.packbits(masks.flatten(-2).cpu().numpy(), axis=-1))


def unpack(packed: Tensor) -> Tensor:
    """uint8 [..., 98] -> float32 [..., 28, 28], 0 or 1, on the same device."""
    # A table of all bytes: one look-up instead of eight shifts.
    byte = torch.arange(256, device=packed.device)
    table = (byte[:, None] >> torch.arange(7, -1, -1, device=packed.device)).bitwise_and(1).float()
    return embedding(packed.int(), table).reshape(*packed.shape[:-1], GRID, GRID)
