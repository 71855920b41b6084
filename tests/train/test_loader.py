"""Loader processes: what they send, and how their faults are told."""

import copy
import os
import pickle
import shutil
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from amodal.config import DataConfig, TrainConfig
from amodal.datasets import AmodalDataset, collate
from amodal.datasets import load as load_dataset
from amodal.errors import DataError
from amodal.train.data import load_data, train_loader, val_batches
from amodal.transport import Pair


@pytest.fixture
def data(scenes: Path) -> AmodalDataset:
    return load_dataset(scenes / "annotations.json", scenes / "images")


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files as Linux shows them")
@pytest.mark.parametrize("by_hand", [False, True], ids=["collate", "a collate function of one's own"])
def test_batches_from_loader_processes_hold_no_open_files(data: AmodalDataset, by_hand: bool) -> None:
    loader = DataLoader(data, batch_size=5, num_workers=1, collate_fn=list if by_hand else collate)
    batches = iter(loader)
    kept = [next(batches)]
    before = _open_files()
    kept += list(batches)
    assert _open_files() <= before
    images = [sample[0] for batch in kept for sample in (batch if by_hand else zip(*batch, strict=True))]
    assert len(images) == len(data)
    assert all(torch.equal(image, data.image(index)) for index, image in enumerate(images))


@pytest.mark.skipif(os.name == "nt", reason="has no limit of open files")
def test_large_batches_arrive_where_few_files_may_be_open(scenes: Path) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    source = DataConfig(train=str(scenes / "annotations.json"), train_images=str(scenes / "images"), workers=1)
    config = TrainConfig(steps=3, batch_size=24, data=source)
    images, _ = load_data(config)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
    try:
        assert [len(batch[0]) for batch in train_loader(images, config, 0, 0, 1)] == [24, 24, 24]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_samples_are_equal_after_the_journey_and_writable(data: AmodalDataset) -> None:
    sample = data[0]
    image, targets = pickle.loads(ForkingPickler.dumps(sample))
    assert torch.equal(image, sample[0])
    image += 1
    for name, value in vars(sample[1]).items():
        if isinstance(value, torch.Tensor):
            arrived = getattr(targets, name)
            assert arrived.dtype == value.dtype
            assert torch.equal(arrived, value)
    twin = copy.deepcopy(sample[1])
    twin.boxes += 1
    assert not torch.equal(twin.boxes, sample[1].boxes)


def test_an_image_without_objects_and_half_floats_arrive(data: AmodalDataset) -> None:
    empty = torch.zeros(0, 4)
    batch = collate([(torch.ones(3, 2, 2, dtype=torch.bfloat16), data.targets(0)), (empty, data.targets(1))])
    images, _ = pickle.loads(pickle.dumps(batch))
    assert images[0].dtype == torch.bfloat16
    assert images[0].shape == (3, 2, 2)
    assert images[1].shape == (0, 4)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_picture_is_one_line_that_names_it(scenes: Path, tmp_path: Path, workers: int) -> None:
    shutil.copytree(scenes, tmp_path / "data")
    picture = sorted((tmp_path / "data/images").iterdir())[0]
    picture.write_bytes(picture.read_bytes()[:100])
    source = DataConfig(
        train=str(tmp_path / "data/annotations.json"), train_images=str(tmp_path / "data/images"), workers=workers
    )
    config = TrainConfig(steps=1, batch_size=10, data=source)
    images, _ = load_data(config)
    loaders = (train_loader(images, config, 0, 0, 1), val_batches(images.data, 0, 1, workers))
    for loader in loaders:
        with pytest.raises(DataError) as caught:
            list(loader)
        assert picture.name in str(caught.value)
        assert caught.value.image_id == 1
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 300


def test_a_transform_that_fails_names_the_picture(data: AmodalDataset) -> None:
    turned = AmodalDataset(data.annotations, data.images, v2.RandomRotation(30))
    with pytest.raises(DataError, match=r"\.png: image 1: masks cannot follow the transform 'rotate'"):
        turned[0]


class _Own(Dataset[Any]):
    """A data set of somebody else, as docs/training.md advises."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> Pair[torch.Tensor, dict[str, torch.Tensor]]:
        return Pair(torch.full((3, 4, 4), index), {"boxes": torch.zeros(2, 4)})


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files as Linux shows them")
def test_samples_of_another_data_set_hold_no_open_files() -> None:
    batches = iter(DataLoader(_Own(), batch_size=3, num_workers=1, collate_fn=list))
    kept = [next(batches)]
    before = _open_files()
    kept += list(batches)
    assert _open_files() <= before
    assert [int(image[0, 0, 0]) for batch in kept for image, _ in batch] == list(range(12))
