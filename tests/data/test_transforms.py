"""Standard v2 pipelines move image, boxes and masks together.

The picture itself carries the truth: its red channel is the first instance's amodal mask, its green channel the visible
one. After any pipeline, masks cropped in the whole frame must be the picture's channels, and boxes their tight boxes.
"""

import numpy as np
import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from amodal.data.masks import InstanceMasks
from amodal.data.transforms import Augment, MaskCarrier, seeded, train_transforms
from amodal.errors import AmodalError
from amodal.structures import Targets

HEIGHT, WIDTH = 32, 48


def sample(image_id: int = 7) -> tuple[torch.Tensor, Targets]:
    """Two instances: an L at the left, seen except for its foot, and a square at the right, fully hidden."""
    amodal = np.zeros((2, HEIGHT, WIDTH), bool)
    amodal[0, 4:24, 4:12] = True
    amodal[0, 16:24, 4:28] = True
    amodal[1, 8:16, 36:44] = True
    visible = amodal.copy()
    visible[0, 16:24, 12:28] = False
    visible[1] = False
    image = torch.zeros(3, HEIGHT, WIDTH, dtype=torch.uint8)
    image[0] = torch.from_numpy(amodal[0]) * 255
    image[1] = torch.from_numpy(visible[0]) * 255
    targets = Targets(
        image_id=image_id,
        boxes=torch.tensor([[4.0, 4, 28, 24], [36, 8, 44, 16]]),
        visible_boxes=torch.tensor([[4.0, 4, 12, 24], [0, 0, 0, 0]]),
        labels=torch.tensor([3, 1]),
        occlude_rate=torch.tensor([128 / 288, 1.0]),
        amodal_known=torch.tensor([True, True]),
        ignore=torch.tensor([False, True]),
        annotation_ids=torch.tensor([21, 22]),
        amodal=InstanceMasks.from_dense(amodal),
        visible=InstanceMasks.from_dense(visible),
    )
    return image, targets


def tight(mask: torch.Tensor) -> list[float]:
    ys, xs = np.nonzero(mask.numpy())
    return [float(xs.min()), float(ys.min()), float(xs.max() + 1), float(ys.max() + 1)]


def check_agreement(image: torch.Tensor, targets: Targets, tolerance: float = 0.0) -> None:
    """Masks of the first instance against the picture's channels, on a grid of one cell a pixel (square frames)."""
    height, width = image.shape[-2:]
    side = max(height, width)
    frame = torch.tensor([[0.0, 0, side, side]])
    for masks, channel, boxes in ((targets.amodal, 0, targets.boxes), (targets.visible, 1, targets.visible_boxes)):
        picture = image[channel] > 127
        dense = masks.crop(torch.tensor([0]), frame, side)[0, :height, :width].bool()
        assert (dense != picture).float().mean() <= tolerance
        want = tight(picture) if picture.any() else [0.0, 0, 0, 0]
        assert torch.allclose(boxes[0], torch.tensor(want), atol=0.0 if tolerance == 0 else 1.0)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    "pipeline",
    [
        v2.RandomHorizontalFlip(1.0),
        v2.RandomVerticalFlip(1.0),
        v2.RandomCrop((20, 24)),
        v2.CenterCrop((20, 24)),
        v2.CenterCrop((41, 53)),
        v2.Pad([3, 5, 2, 1]),
        v2.Pad([3, 5]),
        v2.Pad(4),
        v2.RandomZoomOut(p=1.0, side_range=(1.0, 1.6)),
        v2.RandomCrop((40, 40), pad_if_needed=True),
        v2.RandomIoUCrop(),
        v2.Compose([v2.RandomHorizontalFlip(), v2.RandomCrop((24, 32)), v2.Pad(2), v2.RandomVerticalFlip()]),
        v2.Compose([v2.Identity(), v2.ToDtype(torch.uint8, scale=True)]),
    ],
    ids=lambda p: type(p).__name__,
)
def test_pixel_exact_pipelines(pipeline: torch.nn.Module, seed: int) -> None:
    image, targets = sample()
    moved_image, moved = Augment(pipeline, seed)(image, targets)
    if len(moved) and int(moved.annotation_ids[0]) == 21:
        check_agreement(moved_image, moved)
    else:  # the first instance left the picture
        assert not (moved_image[0] > 127).any()


@pytest.mark.parametrize(
    "pipeline",
    [
        v2.Resize((64, 96)),
        v2.Resize(48),
        v2.Resize(20, max_size=25),
        v2.ScaleJitter((40, 60), (0.5, 1.5)),
        v2.RandomShortestSize([24, 40], max_size=70),
        v2.RandomResizedCrop((40, 40)),
        v2.Compose([v2.Resize(64), v2.RandomCrop((50, 60)), v2.RandomHorizontalFlip(), v2.Resize((40, 44))]),
    ],
    ids=lambda p: type(p).__name__,
)
def test_pipelines_that_resample_agree_up_to_the_edges(pipeline: torch.nn.Module) -> None:
    for seed in range(4):
        image, targets = sample()
        moved_image, moved = Augment(pipeline, seed)(image, targets)
        if len(moved) and int(moved.annotation_ids[0]) == 21:
            check_agreement(moved_image, moved, tolerance=0.05)


def test_flip_moves_boxes_by_hand() -> None:
    image, targets = sample()
    moved_image, moved = train_transforms(flip=1.0)(image, targets)
    assert moved.boxes.tolist() == [[20, 4, 44, 24], [4, 8, 12, 16]]
    assert moved.visible_boxes.tolist() == [[36, 4, 44, 24], [0, 0, 0, 0]]  # hidden stays marked as hidden
    assert torch.equal(moved_image, image.flip(2))
    assert type(moved_image) is torch.Tensor
    assert type(moved.boxes) is torch.Tensor
    assert moved.occlude_rate.tolist() == targets.occlude_rate.tolist()
    same_image, same = train_transforms(flip=0.0)(image, targets)
    assert torch.equal(same_image, image)
    assert torch.equal(same.boxes, targets.boxes)


def test_crop_measures_boxes_and_rates_anew_and_drops_what_left() -> None:
    """The window x 0..16, y 10..30 keeps 8 x 14 + 4 x 8 = 144 pixels of the L, of which 8 x 14 = 112 are seen."""
    image, targets = sample()

    def pipeline(inputs: dict[str, object]) -> dict[str, object]:
        return {key: v2.functional.crop(value, 10, 0, 20, 16) for key, value in inputs.items()}

    moved_image, moved = Augment(pipeline)(image, targets)
    assert len(moved) == 1
    assert moved.annotation_ids.tolist() == [21]
    assert moved.labels.tolist() == [3]
    assert moved.ignore.tolist() == [False]
    assert moved.boxes.tolist() == [[4, 0, 16, 14]]
    assert moved.visible_boxes.tolist() == [[4, 0, 12, 14]]
    assert moved.occlude_rate.tolist() == pytest.approx([1 - 112 / 144])
    assert len(moved.amodal) == len(moved.visible) == 1
    assert moved_image.shape == (3, 20, 16)


def test_a_tight_box_after_a_crop_is_not_the_clipped_box() -> None:
    """Cutting the foot off the L leaves its stem, whose box is narrower than the clipped box of the whole."""
    image, targets = sample()

    def pipeline(inputs: dict[str, object]) -> dict[str, object]:
        return {key: v2.functional.crop(value, 0, 0, 16, WIDTH) for key, value in inputs.items()}

    _, moved = Augment(pipeline)(image, targets)
    assert moved.boxes[0].tolist() == [4, 4, 12, 16]


@pytest.mark.parametrize(
    "transform", [v2.RandomRotation(10), v2.RandomAffine(5), v2.RandomPerspective(p=1), v2.ElasticTransform()]
)
def test_transforms_that_masks_cannot_follow_are_refused(transform: torch.nn.Module) -> None:
    with pytest.raises(AmodalError, match="cannot follow"):
        Augment(transform)(*sample())


def test_transforms_that_remove_boxes_are_refused() -> None:
    def pipeline(inputs: dict[str, object]) -> dict[str, object]:
        boxes = inputs["boxes"]
        return {**inputs, "boxes": tv_tensors.wrap(boxes[:1], like=boxes)}  # type: ignore[index]

    with pytest.raises(AmodalError, match="apart"):
        Augment(pipeline)(*sample())


def test_mirrored_padding_is_refused() -> None:
    carrier = MaskCarrier.of(InstanceMasks.from_dense(np.ones((1, 4, 4), bool)))
    with pytest.raises(ValueError, match="constant"):
        v2.functional.pad(carrier, 2, padding_mode="reflect")


def test_colour_transforms_leave_targets_alone() -> None:
    image, targets = sample()
    moved_image, moved = Augment(v2.ColorJitter(brightness=0.9), 5)(image, targets)
    assert not torch.equal(moved_image, image)
    assert torch.equal(moved.boxes, targets.boxes)
    assert moved.amodal.view == targets.amodal.view


def test_no_instances() -> None:
    image = sample()[0]
    none = torch.zeros(0, dtype=torch.int64)
    empty = Targets(
        image_id=1,
        boxes=torch.zeros(0, 4),
        visible_boxes=torch.zeros(0, 4),
        labels=none,
        occlude_rate=torch.zeros(0),
        amodal_known=none.bool(),
        ignore=none.bool(),
        annotation_ids=none,
        amodal=InstanceMasks([], HEIGHT, WIDTH),
        visible=InstanceMasks([], HEIGHT, WIDTH),
    )
    pipeline = v2.Compose([v2.RandomHorizontalFlip(1.0), v2.Resize(40), v2.RandomCrop((20, 20)), v2.Pad(1)])
    moved_image, moved = Augment(pipeline)(image, empty)
    assert moved_image.shape == (3, 22, 22)
    assert len(moved) == 0
    assert moved.boxes.shape == (0, 4)


def test_randomness_depends_on_seed_position_and_image_only() -> None:
    def flipped(seed: int, position: int, image_id: int) -> bool:
        torch.rand(3)  # what others draw does not matter
        image, targets = sample(image_id)
        return float(train_transforms(0.5, seed)(image, targets, position)[1].boxes[0, 0]) == 20.0

    keys = [(s, p, i) for s in (0, 1) for p in range(20) for i in (1, -5)]
    first = [flipped(*key) for key in keys]
    torch.manual_seed(99)
    assert first == [flipped(*key) for key in keys]
    for k, values in enumerate(zip(*keys, strict=True)):
        groups = {v: [f for f, w in zip(first, values, strict=True) if w == v] for v in set(values)}
        if k != 1:
            assert len({tuple(g) for g in groups.values()}) == 2
    assert 0.3 < np.mean(first) < 0.7


def test_seeded_leaves_the_generator_as_it_was() -> None:
    torch.manual_seed(3)
    want = torch.rand(2)
    torch.manual_seed(3)
    with seeded(1, 2, 3):
        torch.rand(5)
    assert torch.equal(torch.rand(2), want)


def rotated() -> tv_tensors.BoundingBoxes:
    return tv_tensors.BoundingBoxes(torch.zeros(2, 5), format="CXCYWHR", canvas_size=(HEIGHT, WIDTH))


@pytest.mark.parametrize("form", ["XYXY", "XYWH", "CXCYWH"])
def test_boxes_come_back_as_corners_whatever_format_a_pipeline_ends_with(form: str) -> None:
    image, targets = sample()
    _, moved = Augment(v2.ConvertBoundingBoxFormat(form))(image, targets)
    assert torch.equal(moved.boxes, targets.boxes)
    assert torch.equal(moved.visible_boxes, targets.visible_boxes)


@pytest.mark.parametrize(
    ("pipeline", "message"),
    [
        (v2.ToPureTensor(), "returns a Tensor as 'boxes', must return a BoundingBoxes; leave out ToPureTensor"),
        (lambda given: {**given, "boxes": rotated()}, "returns boxes as CXCYWHR, must be XYXY, XYWH or CXCYWH"),
        (lambda given: {"image": given["image"]}, "returns nothing as 'boxes'"),
        (lambda given: given["image"], "returns a Image, must return the dict"),
        (lambda given: {**given, "image": given["image"][:1]}, r"image of shape \[1, 32, 48\]"),
    ],
)
def test_what_no_longer_says_what_it_is_is_refused(pipeline: object, message: str) -> None:
    with pytest.raises(AmodalError, match=message):
        Augment(pipeline)(*sample())  # type: ignore[arg-type]
