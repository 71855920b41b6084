"""Drawing: which pixels get ink, sizes, labels inside the picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from amodal.data.reader import load
from amodal.errors import printable
from amodal.viz import instances
from amodal.viz.instances import PALETTE, EachMask, color_of, draw_instances, sampled
from amodal.viz.labels import Cover, leader, place
from amodal.viz.scale import auto_scale

GREY = 128


def toy(count: int = 1, side: int = 120) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A grey picture with squares of 60 pixels whose right half is hidden."""
    image = np.full((side, side, 3), GREY, np.uint8)
    whole = np.zeros((count, side, side), bool)
    whole[:, 30:90, 30:90] = True
    seen = whole.copy()
    seen[:, :, 60:] = False
    return image, np.array([[30.0, 30.0, 90.0, 90.0]] * count), whole, seen


def bare(
    image: np.ndarray, boxes: np.ndarray, whole: np.ndarray, seen: np.ndarray | None, **more: object
) -> np.ndarray:
    names = ["cup"] * len(boxes)
    return draw_instances(image, boxes, whole, seen, names, labels=False, outline_boxes=False, **more)


def test_outside_the_masks_nothing_changes() -> None:
    image, boxes, whole, seen = toy()
    drawn = bare(image, boxes, whole, seen, scale=1)
    assert (drawn[~whole[0]] == GREY).all()
    assert (image == GREY).all(), "the given picture was changed"


def test_visible_part_is_even_and_hidden_part_is_striped() -> None:
    drawn = bare(*toy(), scale=1).astype(int)
    visible, hidden = drawn[40:80, 40:55], drawn[40:80, 65:80]
    assert np.ptp(visible.reshape(-1, 3), axis=0).max() == 0
    assert (visible != GREY).any()
    # Stripes: strong contrast, and a fair share of both stripe and gap.
    red = hidden[..., 0]
    assert np.ptp(red) > 80
    assert 0.2 < (red < (red.min() + red.max()) / 2).mean() < 0.8


def test_without_visible_masks_all_is_filled() -> None:
    image, boxes, whole, _ = toy()
    drawn = bare(image, boxes, whole, None, scale=1)
    assert np.ptp(drawn[40:80, 40:80].reshape(-1, 3), axis=0).max() == 0


def test_hidden_stripes_of_neighbours_cross() -> None:
    image, boxes, whole, seen = toy(2)
    hidden = []
    for row in (0, 1):
        chosen = np.arange(2) == row
        drawn = bare(image, boxes, whole & chosen[:, None, None], seen & chosen[:, None, None], scale=1, colors=[0, 0])
        hidden.append(drawn[35:85, 64:84, 0])
    assert not np.array_equal(*hidden)
    # A stripe hardly changes one step along its own diagonal, and much along the other one.
    falling = [np.abs(ink[:-1, :-1].astype(int) - ink[1:, 1:]).mean() for ink in hidden]
    rising = [np.abs(ink[1:, :-1].astype(int) - ink[:-1, 1:]).mean() for ink in hidden]
    assert (falling[0] < rising[0]) != (falling[1] < rising[1])


@pytest.mark.parametrize(
    ("size", "scale"), [((256, 256), 4), ((120, 120), 8), ((800, 1333), 1), ((375, 1242), 1), ((1, 1), 8)]
)
def test_small_pictures_are_enlarged(size: tuple[int, int], scale: int) -> None:
    assert auto_scale(*size) == scale
    image = np.zeros((*size, 3), np.uint8)
    drawn = draw_instances(image, np.zeros((0, 4)), np.zeros((0, *size), bool), None, [])
    assert drawn.shape == (size[0] * scale, size[1] * scale, 3)


def test_masks_stay_in_place_when_enlarged() -> None:
    image, boxes, whole, _ = toy()
    drawn = bare(image, boxes, whole, None, scale=4)
    ink = (drawn != GREY).any(2)
    expected = np.kron(whole[0], np.ones((4, 4), bool))
    assert np.abs(ink.astype(int) - expected).sum() <= 2 * 4 * 240  # at most two pixels around the outline


def test_empty_and_one_pixel_masks_and_flat_boxes() -> None:
    image, boxes, whole, seen = toy(3)
    whole[0], seen[0] = False, False
    whole[1], seen[1] = False, False
    whole[1, 0, 0] = True
    boxes[0] = 0
    boxes[1] = [0, 0, 1, 1]
    drawn = draw_instances(image, boxes, whole, seen, ["a", "b", "c"], [0.1, 0.2, 0.3])
    assert drawn.shape == (960, 960, 3)


def test_box_and_label_leave_ink_only_when_asked() -> None:
    image, boxes, whole, seen = toy()
    plain = bare(image, boxes, whole, seen, scale=2)
    boxed = draw_instances(image, boxes, whole, seen, ["cup"], labels=False, scale=2)
    labelled = draw_instances(image, boxes, whole, seen, ["cup"], [0.5], outline_boxes=False, scale=2)
    assert 0 < (plain != boxed).any(2).sum() < 2000
    assert (plain != labelled)[:60].any()


def test_weight_makes_lines_thicker() -> None:
    thin, thick = (bare(*toy(), scale=4, weight=weight) for weight in (1.0, 3.0))
    color = np.array(color_of(0))
    near = [(np.abs(drawn[160:320, 170:230].astype(int) - color).max(2) < 20).sum() for drawn in (thin, thick)]
    assert near[0] == near[1] == 0  # inside the visible part there are no lines
    rim = [(np.abs(drawn[:, 120:160].astype(int) - color).max(2) < 40).sum() for drawn in (thin, thick)]
    assert rim[1] > 1.5 * rim[0]


def test_palette_differs_in_lightness_or_hue() -> None:
    colors = np.array(PALETTE, int)
    apart = np.abs(colors[:, None] - colors[None]).sum(2)[np.triu_indices(len(colors), 1)]
    assert apart.min() >= 60
    assert color_of(len(PALETTE)) == color_of(0)


def test_labels_stay_inside_and_off_each_other() -> None:
    boxes = np.array([[0, 0, 50, 50], [0, 2, 50, 52], [4, 0, 54, 50], [180, 90, 200, 100]], float)
    corners = place(boxes, [(60, 15)] * 4, (200, 100))
    rectangles = [(x, y, x + 60, y + 15) for x, y in corners]
    for x0, y0, x1, y1 in rectangles:
        assert x0 >= 0
        assert y0 >= 0
        assert x1 <= 200
        assert y1 <= 100
    for i, a in enumerate(rectangles):
        for b in rectangles[i + 1 :]:
            assert min(a[2], b[2]) <= max(a[0], b[0]) or min(a[3], b[3]) <= max(a[1], b[1])


def test_label_goes_above_its_box_when_there_is_room() -> None:
    assert place(np.array([[20.0, 50.0, 90.0, 90.0]]), [(40, 12)], (200, 100)) == [(20, 38)]


def test_label_larger_than_the_picture() -> None:
    assert place(np.array([[0.0, 0.0, 5.0, 5.0]]), [(400, 120)], (20, 10)) == [(0, 0)]


def test_labels_leave_objects_alone_and_small_ones_most_of_all() -> None:
    cover = Cover(100, 300)
    cover.add(slice(0, 100), slice(0, 150), np.ones((100, 150), bool))
    ground, shares = cover.hidden(np.array([[140.0, 0.0, 160.0, 10.0], [0.0, 0.0, 15.0, 10.0]]))
    assert ground.tolist() == pytest.approx([100, 150], abs=15)
    assert shares.tolist() == pytest.approx([0.0067, 0.01], abs=0.002)
    doubled = cover.hidden(np.array([[280.0, 0.0, 320.0, 20.0]]), scale=2.0)
    assert doubled[0][0] == pytest.approx(400, abs=60)
    assert doubled[1][0] == pytest.approx(0.0067, abs=0.002)
    # Left of the picture's middle all is object: the label leaves its box, and a line leads back to it.
    box = np.array([80.0, 40.0, 100.0, 60.0])
    ((x, y),) = place(box[None], [(40, 12)], (300, 100), cover)
    assert x >= 148
    line = leader(box, np.array([x, y, x + 40, y + 12], float))
    assert line is not None
    assert line[0] == x
    assert line[2] == 100
    # A small object is worth more than part of a large one.
    cover.add(slice(40, 60), slice(150, 300), np.ones((20, 150), bool))
    cover.add(slice(0, 40), slice(150, 300), np.ones((40, 150), bool))
    cover.add(slice(60, 100), slice(150, 300), np.ones((40, 150), bool))
    cover.add(slice(26, 38), slice(80, 100), np.ones((12, 20), bool))
    ((x, y),) = place(box[None], [(40, 12)], (300, 100), cover)
    assert y + 12 <= 27 or y >= 37 or x >= 99 or x + 40 <= 81


def test_no_line_leads_to_a_box_that_the_label_touches() -> None:
    box = np.array([10.0, 20.0, 50.0, 60.0])
    assert leader(box, np.array([10.0, 8.0, 40.0, 20.0])) is None
    assert leader(box, np.array([20.0, 30.0, 40.0, 42.0])) is None
    assert leader(box, np.array([80.0, 8.0, 110.0, 20.0])) == (80.0, 20.0, 50.0, 20.0)


@pytest.mark.parametrize(("side", "most"), [(400, 0.01), (2000, 0.001)])
def test_labels_hide_little_of_drawn_scenes(
    side: int, most: float, scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Above the corners of their boxes, wherever objects are, they would hide several times as much."""
    truth = load(scenes / "annotations.json")
    rectangles: list[tuple[float, float, float, float]] = []

    def spy(boxes: np.ndarray, sizes: list[tuple[float, float]], *rest: object) -> list[tuple[int, int]]:
        found = place(boxes, sizes, *rest)
        rectangles[:] = [(x, y, x + width, y + high) for (x, y), (width, high) in zip(found, sizes, strict=True)]
        assert min(high for _, high in sizes) >= 14, "too small to read"
        return found

    monkeypatch.setattr(instances, "place", spy)
    monkeypatch.setattr(instances, "_draw_masks", lambda *parts, **more: None)
    shares = []
    for index in range(len(truth.image_ids) if side < 1000 else 2):
        rows = list(truth.rows(index))
        masks = EachMask(len(rows), lambda place, rows=rows: sampled(truth.visible_mask(rows[place]), side, side))
        names = [f"{truth.class_names[truth.labels[row]]} 0.87" for row in rows]
        image = np.full((side, side, 3), GREY, np.uint8)
        draw_instances(image, truth.amodal_boxes[rows] * side / 96, masks, None, names, scale=1)
        under = np.zeros((side, side), bool)
        for x0, y0, x1, y1 in rectangles:
            under[int(y0) : int(y1), int(x0) : int(x1)] = True
        shares += [(under & masks[k]).sum() / max(masks[k].sum(), 1) for k in range(len(rows))]
    assert np.mean(shares) <= most
    assert np.mean(np.array(shares) > 0.5) <= 0.05


@pytest.mark.parametrize("size", [(600, 800), (1, 2000), (1, 1)])
def test_boxes_thinner_than_a_pixel_are_lines(size: tuple[int, int]) -> None:
    height, width = size
    boxes = np.array([[0.2, 0, 0.6, height], [0, 0.1, width, 0.5], [width - 0.4, height - 0.4, width, height]])
    image = np.full((*size, 3), GREY, np.uint8)
    drawn = draw_instances(image, boxes, np.zeros((3, *size), bool), None, ["a"] * 3, labels=False, scale=1)
    assert drawn.shape == image.shape
    assert (drawn[:, 0] != GREY).any(1).all(), "the upright line"
    assert (drawn[0] != GREY).any(1).all(), "the level line"


def test_names_that_no_font_can_draw_become_escapes() -> None:
    assert printable("a\n\x1b[31mb\ud800 \u00e9") == "a\\n\\x1b[31mb\\ud800 \u00e9"
    image, boxes, whole, seen = toy()
    drawn = draw_instances(image, boxes, whole, seen, ["x\n\ud800"], [0.5], scale=2)
    assert (drawn != draw_instances(image, boxes, whole, seen, ["x"], [0.5], scale=2)).any()
