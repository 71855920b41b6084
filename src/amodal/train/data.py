"""The data sets of a run, and loaders that give every step its images."""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from amodal.config import TrainConfig
from amodal.data.classes import Classes, ClassMatch, match
from amodal.data.problems import Count
from amodal.data.store import AnnotationSet
from amodal.data.told import tell
from amodal.data.transforms import train_transforms
from amodal.datasets import AmodalDataset, collate
from amodal.datasets import load as load_dataset
from amodal.errors import AmodalError, ConfigError, DataError
from amodal.launch import warn
from amodal.structures import Targets
from amodal.train.order import DataOrder, MicroBatches

Sample = tuple[Tensor, Targets]

_EXAMPLES = 5  # ids that are named of what is left out


class TrainImages(Dataset[Sample]):
    """The images of a data set that hold something to learn from, numbered without gaps."""

    def __init__(self, data: AmodalDataset) -> None:
        self.data = data
        annotations = data.annotations
        self.indices = np.flatnonzero(_usable(annotations))
        if not len(self.indices):
            raise DataError("no image with an object to train on", file=annotations.path or None)
        if not bool((_objects(annotations) & annotations.amodal_known).any()):
            raise DataError(
                f"no object's whole shape is known (read as schema {annotations.schema!r}), so there is nothing"
                " amodal to learn; if the file has whole shapes under another schema's keys, name that with"
                " --data.schema, or else make data with hidden parts, as 'amodal scenes' does",
                file=annotations.path or None,
            )

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        number, position = key
        return self.data[int(self.indices[number]), position]


def load_data(config: TrainConfig) -> tuple[TrainImages, AmodalDataset | None]:
    """Training images (augmented) and the validation set, None without one.

    What is left out of the two files, and classes without a partner, is said on stderr.

    Raises:
        ConfigError: no training data are named.
        DataError: a file or picture is missing, a file is faulty, or the classes of the two sets cannot be told apart.
    """
    data = config.data
    for key in ("train", "train_images"):
        if not getattr(data, key):
            raise ConfigError(f"data.{key} is not set; give --data.{key}")
    if (data.val is None) != (data.val_images is None):
        given, other = ("val", "val_images") if data.val is not None else ("val_images", "val")
        raise ConfigError(f"data.{given} is set without data.{other}")
    flips = train_transforms(data.flip, config.seed)
    train = load_dataset(data.train, data.train_images, data.schema, transforms=flips)
    tell(train.annotations, _not_learnt(train.annotations))
    if data.val is None or data.val_images is None:
        return _found(TrainImages(train)), None
    val = load_dataset(data.val, data.val_images, data.schema)
    if val.annotations.path != train.annotations.path:
        tell(val.annotations)
    ours = Classes(train.annotations.class_names, train.annotations.category_ids, "data.train")
    matched = match_val(ours, val.annotations)
    for line in matched.told():
        warn(line)
    if not comparable(matched, val.annotations):
        warn("warning: data.val has no object with a known whole shape of a class of data.train; AP is undefined, and"
             " best/ follows the newest weights")  # fmt: skip
    val.check_files(range(len(val)))
    return _found(TrainImages(train)), val


def _found(images: TrainImages) -> TrainImages:
    """The images, once their files are; a picture that is missed would else end a run in the middle of it."""
    images.data.check_files(images.indices.tolist())
    return images


def _not_learnt(data: AnnotationSet) -> list[Count]:
    """What a training makes no use of; nothing for a file of crowds alone, of which :func:`tell` says why."""
    if len(data) and data.crowd.all():
        return []
    parts = {
        "crowd (iscrowd 1), which is not learnt": data.annotation_ids[data.crowd],
        "whole shape that is not annotated; of the object only the visible part is learnt": data.annotation_ids[
            ~data.crowd & ~data.amodal_known
        ],
        "image without an object to train on": data.image_ids[~_usable(data)],
    }
    return [Count(what, len(ids), tuple(ids[:_EXAMPLES].tolist())) for what, ids in parts.items() if len(ids)]


def match_val(ours: Classes, val: AnnotationSet) -> ClassMatch:
    """The class of the validation data for each of ours."""
    return match(ours, Classes(val.class_names, val.category_ids, "data.val"), file=val.path or None)


def comparable(matched: ClassMatch, val: AnnotationSet) -> bool:
    """Whether anything in the validation data can give a score: an object of a class of ours, known as a whole."""
    counted = ~val.crowd & val.amodal_known
    return bool(np.isin(val.labels[counted], list(matched.label_of)).any())


def fingerprint(images: TrainImages) -> dict[str, Any]:
    """What must be equal for a run to go on with these data."""
    data = images.data.annotations
    ids = [int(number) for number in data.category_ids]
    return {"images": len(images), "category_ids": ids, "digest": annotation_digest(data)}


def annotation_digest(data: AnnotationSet) -> str:
    """Hexadecimal digits that tell one set of annotations from another."""
    digest = hashlib.blake2b(digest_size=8)
    columns: tuple[NDArray[Any], ...] = (
        *(data.image_ids, data.first, data.annotation_ids, data.labels, data.crowd, data.amodal_known),
        *(data.amodal_area, data.visible_area, data.amodal_boxes, data.visible_boxes),
    )
    for column in columns:
        digest.update(np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()


def train_loader(
    images: TrainImages, config: TrainConfig, start: int, rank: int, world: int
) -> Generator[Any, None, None]:
    """Micro-batches (images, targets) of this process from step ``start`` on."""
    order = DataOrder(len(images), config.seed, config.batch_size)
    batches = MicroBatches(order, start, config.steps, config.accumulate, rank, world)
    return _batches(images, config.data.workers, batch_sampler=batches)


def val_batches(
    data: AmodalDataset, rank: int, world: int, workers: int
) -> Generator[tuple[list[Tensor], list[int]], None, None]:
    """This process's share of the validation images with their ids."""
    share = Subset(data, range(rank, len(data), world))
    for images, targets in _batches(share, workers, batch_size=4):
        yield images, [target.image_id for target in targets]


class _Told(Dataset[Any]):
    """A data set that returns its errors: PyTorch would raise those of a loader process with a traceback inside."""

    def __init__(self, data: Dataset[Sample]) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)  # type: ignore[arg-type]

    def __getitem__(self, key: Any) -> Sample | AmodalError:
        try:
            return self.data[key]
        except AmodalError as error:
            return error


def _first_error(samples: list[Any]) -> Any:
    errors = (sample for sample in samples if isinstance(sample, AmodalError))
    return next(errors, None) or collate(samples)


def _batches(data: Dataset[Sample], workers: int, **how: Any) -> Generator[Any, None, None]:
    """Batches of a data set; an error is raised here, as it was raised in the loader process.

    Who leaves it before its end closes it, which ends the loader processes.

    Raises:
        AmodalError: a picture is faulty, or a loader process died.
    """
    loader: DataLoader[Any] = DataLoader(
        _Told(data), collate_fn=_first_error, num_workers=workers, worker_init_fn=_settle, **how
    )
    with loader_deaths():
        for batch in loader:
            if isinstance(batch, AmodalError):
                raise batch
            yield batch


@contextmanager
def loader_deaths() -> Iterator[None]:
    """Tells the death of a loader process on one line; PyTorch raises it wherever the program is at that moment.

    Raises:
        AmodalError: a loader process died.
    """
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise AmodalError("a loader process died, as for want of memory; try a lower data.workers") from None


def _objects(data: AnnotationSet) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return ~data.crowd & (data.amodal_area > 0)


def _usable(data: AnnotationSet) -> np.ndarray[Any, np.dtype[np.bool_]]:
    counts = np.bincount(data.image_index[_objects(data)], minlength=len(data.image_ids))
    return counts > 0


def _settle(_: int) -> None:
    # Workers share the cores with the training process.
    torch.set_num_threads(1)
    # Ctrl-C reaches the whole group, and so does the SIGTERM of a scheduler; the training process ends its step, saves,
    # and then ends the workers, for which the second SIGTERM is.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.signal(signal.SIGTERM, signal.SIG_DFL))
