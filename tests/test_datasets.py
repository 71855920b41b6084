"""AmodalDataset: what a sample holds, and that workers change nothing."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from amodal import datasets
from amodal.data import canonical
from amodal.data.store import AnnotationSet
from amodal.data.transforms import train_transforms
from amodal.datasets import AmodalDataset, collate
from amodal.errors import DataError


def mask(x0: int, y0: int, x1: int, y1: int, height: int = 20, width: int = 30) -> np.ndarray:
    out = np.zeros((height, width), bool)
    out[y0:y1, x0:x1] = True
    return out


def make_set() -> AnnotationSet:
    """Image 11: a half hidden box, a fully hidden one, a crowd. Image 5: nothing. Image 8: one modal instance."""
    annotations = [
        {"image": 0, "label": 1, "amodal": mask(2, 3, 12, 13), "visible": mask(2, 3, 7, 13), "id": 40},
        {"image": 0, "label": 0, "amodal": mask(20, 10, 30, 20), "visible": mask(0, 0, 0, 0), "id": 41},
        {"image": 0, "label": 0, "amodal": mask(0, 15, 30, 20), "id": 42, "crowd": True},
        {"image": 2, "label": 1, "amodal": mask(0, 0, 30, 20), "id": 43, "amodal_known": False},
    ]
    return AnnotationSet.from_masks([(20, 30)] * 3, annotations, ["cup", "car"], image_ids=[11, 5, 8])


def write_images(folder: Path, data: AnnotationSet) -> None:
    folder.mkdir(exist_ok=True)
    for number, name in enumerate(data.file_names):
        pixels = np.full((20, 30, 3), 40 * number, np.uint8)
        pixels[0, 0] = 255
        Image.fromarray(pixels).save(folder / name)


@pytest.fixture
def dataset(tmp_path: Path) -> AmodalDataset:
    data = make_set()
    write_images(tmp_path / "images", data)
    return AmodalDataset(data, tmp_path / "images")


def test_a_sample(dataset: AmodalDataset) -> None:
    assert len(dataset) == 3
    image, targets = dataset[0]
    assert image.dtype == torch.uint8
    assert image.shape == (3, 20, 30)
    assert image.is_contiguous()
    assert image[:, 0, 0].tolist() == [255] * 3
    assert targets.image_id == 11
    assert targets.boxes.tolist() == [[2, 3, 12, 13], [20, 10, 30, 20], [0, 15, 30, 20]]
    assert targets.visible_boxes.tolist() == [[2, 3, 7, 13], [0, 0, 0, 0], [0, 15, 30, 20]]
    assert targets.labels.tolist() == [1, 0, 0]
    assert targets.occlude_rate.tolist() == [0.5, 1.0, 0.0]
    assert targets.ignore.tolist() == [False, False, True]
    assert targets.amodal_known.tolist() == [True] * 3
    assert targets.annotation_ids.tolist() == [40, 41, 42]
    for name in ("boxes", "visible_boxes", "occlude_rate"):
        assert getattr(targets, name).dtype == torch.float32
    assert targets.labels.dtype == targets.annotation_ids.dtype == torch.int64
    whole = targets.amodal.crop(torch.tensor([0]), torch.tensor([[2.0, 3, 12, 13]]), 10)
    assert whole.sum() == 100
    assert targets.visible.crop(torch.tensor([0]), torch.tensor([[2.0, 3, 12, 13]]), 10)[0, :, :5].sum() == 50


def test_image_without_objects(dataset: AmodalDataset) -> None:
    image, targets = dataset[1]
    assert image.shape == (3, 20, 30)
    assert len(targets) == 0
    assert targets.boxes.shape == targets.visible_boxes.shape == (0, 4)
    assert len(targets.amodal) == len(targets.visible) == 0
    assert targets.amodal.crop(targets.labels, targets.boxes).shape == (0, 28, 28)
    moved = targets.rescale(2.0, 3.0)
    assert moved.boxes.shape == (0, 4)


def test_modal_instance_and_indexing(dataset: AmodalDataset) -> None:
    assert dataset[2][1].amodal_known.tolist() == [False]
    assert dataset[-1][1].image_id == 8
    with pytest.raises(IndexError):
        dataset[3]
    assert [targets.image_id for _, targets in (dataset[i] for i in range(3))] == [11, 5, 8]


def test_load_reads_a_file_and_names_a_missing_folder(tmp_path: Path, dataset: AmodalDataset) -> None:
    path = tmp_path / "ann.json"
    canonical.write(dataset.annotations, path)
    again = datasets.load(path, images=tmp_path / "images")
    for (_, want), (_, got) in zip((dataset[i] for i in range(3)), (again[i] for i in range(3)), strict=True):
        assert torch.equal(want.boxes, got.boxes)
        assert torch.equal(want.labels, got.labels)
    with pytest.raises(DataError, match="nowhere: no such image folder"):
        datasets.load(path, images=tmp_path / "nowhere")


def test_faulty_pictures_name_file_and_image(tmp_path: Path, dataset: AmodalDataset) -> None:
    (dataset.images / "000008.png").unlink()
    with pytest.raises(DataError, match=r"000008\.png: image 8: no such file"):
        dataset[2]
    Image.new("RGB", (20, 30)).save(dataset.images / "000008.png")
    with pytest.raises(DataError, match="image 8: picture is 20 x 30, annotations say 30 x 20"):
        dataset[2]
    outside = AnnotationSet.from_masks([(20, 30)], [], ["cup"], file_names=["../ann.json"])
    (tmp_path / "ann.json").write_text(json.dumps({}))
    with pytest.raises(DataError, match="inside the image folder"):
        AmodalDataset(outside, dataset.images)[0]


def test_a_bare_v2_pipeline_is_wrapped(dataset: AmodalDataset) -> None:
    dataset.transforms = None
    flipped = AmodalDataset(dataset.annotations, dataset.images, v2.RandomHorizontalFlip(1.0))
    image, targets = flipped[0]
    assert torch.equal(image, dataset[0][0].flip(2))
    assert targets.boxes[0].tolist() == [18, 3, 28, 13]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_workers_and_their_number_change_nothing(dataset: AmodalDataset, workers: int) -> None:
    dataset.transforms = train_transforms(0.5, seed=3)
    order = [(position % 3, position) for position in range(18)]
    want = [dataset[index, position] for index, position in order]
    batches = [order[i : i + 2] for i in range(0, 18, 2)]
    loader = DataLoader(dataset, batch_sampler=batches, collate_fn=collate, num_workers=workers)
    got = [pair for images, targets in loader for pair in zip(images, targets, strict=True)]
    flips = 0
    for (image, targets), (other_image, other) in zip(want, got, strict=True):
        assert torch.equal(image, other_image)
        assert torch.equal(targets.boxes, other.boxes)
        box = torch.tensor([[0.0, 0, 30, 20]]).repeat(len(targets), 1)
        index = torch.arange(len(targets))
        assert torch.equal(targets.amodal.crop(index, box), other.amodal.crop(index, box))
        flips += int(image[0, 0, -1] == 255)
    assert 3 < flips < 15


def test_the_set_is_cheap_to_send(dataset: AmodalDataset) -> None:
    before = len(pickle.dumps(dataset))
    for i in range(3):
        targets = dataset[i][1]
        targets.amodal.crop(torch.arange(len(targets)), targets.boxes)
    assert len(pickle.dumps(dataset)) == before < 10_000
