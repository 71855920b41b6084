"""Images with amodal annotations as a data set of PyTorch.

``amodal.datasets.load("update_train_2020.json", images="KITTI/training/image_2")`` reads any schema the package knows.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from amodal.data.images import read_image, safe_join
from amodal.data.masks import InstanceMasks
from amodal.data.reader import load as load_annotations
from amodal.data.store import AnnotationSet
from amodal.data.transforms import Augment
from amodal.errors import AmodalError, DataError, counted, refuse_address
from amodal.structures import Targets
from amodal.transport import Pair

Transforms = Callable[[Tensor, Targets, int], tuple[Tensor, Targets]]


def load(
    annotations: str | Path,
    images: str | Path,
    schema: str = "auto",
    transforms: Transforms | nn.Module | None = None,
) -> AmodalDataset:
    """The data set of an annotation file.

    Args:
        annotations: JSON file of any schema that the reader knows.
        images: folder that its file names are relative to.
        schema: name of the schema; "auto" recognises it by the keys of its annotations.
        transforms: see :class:`AmodalDataset`.

    Raises:
        DataError: the file or folder is missing or faulty.
    """
    return AmodalDataset(load_annotations(annotations, schema=schema), images, transforms)


class AmodalDataset(Dataset[tuple[Tensor, Targets]]):
    """Pairs of image (uint8 [3, H, W], RGB) and :class:`amodal.structures.Targets`, in the order of the file.

    ``dataset[i]`` is image ``i``; ``dataset[i, position]`` is the same image at place ``position`` of a run's data
    order, which is what random transforms depend on (besides their seed and the image id). An image without objects has
    targets with no rows.
    """

    def __init__(
        self,
        annotations: AnnotationSet,
        images: str | Path,
        transforms: Transforms | nn.Module | None = None,
    ) -> None:
        """
        Args:
            annotations: a few buffers; cheap to share with worker processes.
            images: folder that file names are relative to.
            transforms: called with (image, targets, position), as :class:`amodal.data.transforms.Augment`; a bare
                pipeline of ``torchvision.transforms.v2`` is wrapped in one with seed 0.
        """
        self.annotations = annotations
        self.images = Path(images)
        if not self.images.is_dir():
            refuse_address(images)
            raise DataError("no such image folder", file=self.images)
        self.transforms = Augment(transforms) if isinstance(transforms, nn.Module) else transforms

    def __len__(self) -> int:
        return len(self.annotations.image_ids)

    def __getitem__(self, key: int | tuple[int, int]) -> tuple[Tensor, Targets]:
        index, position = key if isinstance(key, tuple) else (key, 0)
        if not -len(self) <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        index %= len(self)
        image, targets = self.image(index), self.targets(index)
        if self.transforms is not None:
            try:
                image, targets = self.transforms(image, targets, position)
            except AmodalError as error:
                raise DataError(str(error), file=self.image_path(index), image_id=targets.image_id) from None
        return Pair(image, targets)

    def image_path(self, index: int) -> Path:
        """Where image ``index`` lies; DataError for a file name that leaves the folder."""
        name = self.annotations.file_names[index]
        return safe_join(self.images, name, image_id=int(self.annotations.image_ids[index]))

    def check_files(self, indices: Iterable[int]) -> None:
        """Refuses a folder that lacks pictures of these images; nothing is read.

        Raises:
            DataError: names the first picture that is not there, and how many others.
        """
        missing = [index for index in indices if not os.path.isfile(self.image_path(index))]
        if not missing:
            return
        name, number = self.annotations.file_names[missing[0]], int(self.annotations.image_ids[missing[0]])
        others = f", nor {counted(len(missing) - 1, 'other')}" if len(missing) > 1 else ""
        raise DataError(f"{name} is not in {self.images}{others}", file=self.annotations.path or None, image_id=number)

    def image(self, index: int) -> Tensor:
        """uint8 [3, H, W], without transforms; DataError for a faulty picture or one of another size than annotated."""
        size = int(self.annotations.heights[index]), int(self.annotations.widths[index])
        pixels = read_image(self.image_path(index), size=size, image_id=int(self.annotations.image_ids[index]))
        return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()

    def targets(self, index: int) -> Targets:
        """Ground truth of image ``index``, without transforms; crowds have ``ignore`` set, empty masks are left out."""
        data = self.annotations
        rows = np.arange(data.first[index], data.first[index + 1])
        rows = rows[data.amodal_area[rows] > 0]
        return Targets(
            image_id=int(data.image_ids[index]),
            boxes=torch.from_numpy(data.amodal_boxes[rows].astype(np.float32)),
            visible_boxes=torch.from_numpy(data.visible_boxes[rows].astype(np.float32)),
            labels=torch.from_numpy(data.labels[rows].astype(np.int64)),
            occlude_rate=torch.from_numpy(data.occlude_rate[rows].astype(np.float32)),
            amodal_known=torch.from_numpy(data.amodal_known[rows]),
            ignore=torch.from_numpy(data.crowd[rows]),
            annotation_ids=torch.from_numpy(data.annotation_ids[rows]),
            amodal=InstanceMasks.from_annotations(data, rows, "amodal", image=index),
            visible=InstanceMasks.from_annotations(data, rows, "visible", image=index),
        )


def collate(samples: list[tuple[Tensor, Targets]]) -> tuple[list[Tensor], list[Targets]]:
    """A batch as the models take it: a list of images of any sizes and a list of their targets.

    From a loader process it travels as arrays, so that the limit of open files bounds no batch size.
    """
    return Pair([image for image, _ in samples], [targets for _, targets in samples])
