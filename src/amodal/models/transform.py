"""From images as they come to the padded, normalised batch that the network sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from amodal.draws import Draws, Purpose
from amodal.errors import DataError
from amodal.structures import Targets

_STRIDE = 32  # of the coarsest pooled level; sides of a batch are multiples of it


@dataclass
class Batch:
    """Images of one pass through the network.

    Attributes:
        images: float32 [B, 3, H, W], normalised, zero in the padding at the right and the bottom.
        sizes: (height, width) of each image as resized, without padding.
        originals: (height, width) of each image as given.
    """

    images: Tensor
    sizes: list[tuple[int, int]]
    originals: list[tuple[int, int]]


class Transform(nn.Module):
    """Resizes bilinearly, normalises and pads.

    Args:
        min_size: pixels; the shorter side in training, drawn from these for each image.
        max_size: pixels; the longer side in training is at most this.
        test_min_size, test_max_size: the same in test.
        mean, std: of R, G and B, in 0..1.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        min_size: Sequence[int],
        max_size: int,
        test_min_size: int,
        test_max_size: int,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__()
        self.min_size, self.max_size = tuple(min_size), max_size
        self.test_min_size, self.test_max_size = test_min_size, test_max_size
        self.register_buffer("mean", torch.tensor(list(mean))[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(list(std))[:, None, None], persistent=False)

    def forward(self, images: list[Tensor], targets: list[Targets], draws: Draws) -> tuple[Batch, list[Targets]]:
        """One training batch, padded to its largest image; targets follow their images.

        Args:
            images: uint8 [3, H, W], or float in 0..1.
            targets: of the same images, in their frames.
            draws: chooses the size of each image.

        Raises:
            DataError: an image is unusable; names its index.
        """
        resized, moved = [], []
        for index, (image, target) in enumerate(zip(images, targets, strict=True)):
            check_image(image, index)
            stream = draws.stream(target.image_id, Purpose.SIZE)
            side = self.min_size[int(stream.integers(len(self.min_size)))]
            size = _new_size(image, side, self.max_size)
            resized.append(self._resize(image, size))
            scale_x, scale_y = size[1] / image.shape[2], size[0] / image.shape[1]
            moved.append(target.to(self.mean.device).rescale(scale_x, scale_y))
        return _pad(resized, images), moved

    def batches(self, images: list[Tensor]) -> list[tuple[list[int], Batch]]:
        """Test batches: only images of equal padded size share one, so nothing depends on an image's company.

        Returns:
            (positions in ``images``, batch) of each group.

        Raises:
            DataError: an image is unusable; names its index.
        """
        groups: dict[tuple[int, int], list[int]] = {}
        resized = []
        for index, image in enumerate(images):
            check_image(image, index)
            size = _new_size(image, self.test_min_size, self.test_max_size)
            resized.append(self._resize(image, size))
            groups.setdefault((_padded(size[0]), _padded(size[1])), []).append(index)
        return [(group, _pad([resized[i] for i in group], [images[i] for i in group])) for group in groups.values()]

    def _resize(self, image: Tensor, size: tuple[int, int]) -> Tensor:
        # A copy, since what follows works in place and the picture is the caller's.
        values = image.to(self.mean.device, non_blocking=True).to(torch.float32, copy=True)
        unit = 255.0 if image.dtype == torch.uint8 else 1.0
        values.sub_(self.mean * unit).div_(self.std * unit)
        if size == tuple(image.shape[1:]):
            return values
        return F.interpolate(values[None], size=size, mode="bilinear", align_corners=False)[0]


def check_image(image: Tensor, index: int) -> None:
    """Refuse an image that cannot be used, naming its position in the batch.

    Raises:
        DataError: not uint8 or float, not [3, H, W], no pixels, or float values that are NaN or outside 0..1.
    """
    shape = "x".join(str(side) for side in image.shape)
    if image.dim() != 3 or image.shape[0] != 3:
        raise DataError(f"image {index} of the batch has shape {shape}, must be 3 x height x width")
    if 0 in image.shape:
        raise DataError(f"image {index} of the batch has shape {shape}, it holds no pixels")
    if image.dtype == torch.uint8:
        return
    if not image.is_floating_point():
        raise DataError(f"image {index} of the batch is {image.dtype}, must be uint8 or float")
    low, high = (float(value) for value in torch.aminmax(image))
    # A little beyond is what resizing may leave. Asked for what is right, since NaN compares as false.
    if not (low >= -1e-3 and high <= 1 + 1e-3):
        raise DataError(f"image {index} of the batch has float values from {low:g} to {high:g}, must be 0 to 1")


def _new_size(image: Tensor, shortest: int, longest: int) -> tuple[int, int]:
    height, width = image.shape[1:]
    scale = min(shortest / min(height, width), longest / max(height, width))
    # The short side of a strip may round to nothing.
    return max(round(height * scale), 1), max(round(width * scale), 1)


def _padded(side: int) -> int:
    return -(-side // _STRIDE) * _STRIDE


def _pad(resized: list[Tensor], images: list[Tensor]) -> Batch:
    height = _padded(max(image.shape[1] for image in resized))
    width = _padded(max(image.shape[2] for image in resized))
    batch = torch.stack([F.pad(i, (0, width - i.shape[2], 0, height - i.shape[1])) for i in resized])
    sizes = [(int(i.shape[1]), int(i.shape[2])) for i in resized]
    return Batch(batch, sizes, [(int(i.shape[1]), int(i.shape[2])) for i in images])
