"""Fig. 5: which colours stand where, which way arrows point, what rows say and leave out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from amodal.viz.explanation import BoxPriors, Explanation, FlowPriors, Reranked, Truth
from amodal.viz.prior_figure import figure
from amodal.viz.prior_panels import (
    BLUE,
    FAINT,
    GREEN,
    GREY,
    RED,
    View,
    box_panel,
    candidate_panel,
    flow_panel,
    masks_panel,
    place,
    view_around,
)
from amodal.viz.priors import VISIBLY, Row, box_iou, growth, rows_of

WHOLE = np.array([0.0, 0.0, 100.0, 100.0])
VIEW = View((0.0, 0.0, 100.0, 100.0), 100)


def near(pixels: np.ndarray, color: tuple[int, int, int], tolerance: int = 40) -> np.ndarray:
    """Where a picture has about this colour."""
    return np.abs(pixels.astype(int) - np.array(color)).max(-1) <= tolerance


def strongest(pixel: np.ndarray) -> int:
    return int(np.argmax(pixel))


def test_window_holds_the_boxes_and_stays_in_the_image() -> None:
    view = view_around(np.array([[30.0, 40.0, 60.0, 50.0]]), None, 120)
    assert view.window == (25.0, 25.0, 65.0, 65.0)
    assert view.size == (120, 120)
    view = view_around(np.array([[0.0, 5.0, 30.0, 20.0], [10.0, 0.0, 20.0, 30.0]]), (35, 200), 80)
    assert view.window == (0.0, 0.0, 40.0, 35.0)
    assert view.size == (80, 70)


def test_boxes_move_with_the_window() -> None:
    view = View((10.0, 20.0, 30.0, 60.0), 80)
    assert view.size == (40, 80)
    assert view.canvas == (80, 160)
    assert view.move(np.array([[10.0, 20.0, 20.0, 50.0]])).tolist() == [[0.0, 0.0, 40.0, 120.0]]


def test_masks_land_in_their_boxes() -> None:
    left = np.zeros((4, 4))
    left[:, :2] = 1
    placed = place(np.stack([np.ones((4, 4)), left]), np.array([[10.0, 20.0, 50.0, 60.0]] * 2), VIEW)
    expected = np.zeros((200, 200), bool)
    expected[40:120, 20:100] = True
    assert np.array_equal(placed[0], expected)
    expected[:, 60:] = False
    assert np.array_equal(placed[1], expected)
    assert not place(np.ones((1, 4, 4)), np.array([[10.0, 20.0, 10.0, 60.0]]), VIEW).any()


def test_mask_pictures_fill_what_is_seen_only() -> None:
    grey = np.full((100, 100, 3), 128, np.uint8)
    box = np.array([20.0, 20.0, 80.0, 80.0])
    seen = np.zeros((28, 28))
    seen[:, :14] = 1
    drawn = masks_panel(VIEW, grey, box, np.ones((28, 28)), box, seen, box).astype(int)
    assert np.ptp(drawn[30:70, 26:46].reshape(-1, 3), axis=0).max() == 0
    assert np.ptp(drawn[30:70, 54:74].reshape(-1, 3), axis=0).max() > 60
    assert (drawn[:15] == 128).all()


def test_both_frames_are_seen_even_where_they_coincide() -> None:
    small, large = np.array([20.0, 20.0, 50.0, 50.0]), np.array([20.0, 20.0, 90.0, 70.0])
    nothing = np.zeros((28, 28))
    drawn = box_panel(VIEW, None, nothing, small, small, large)
    blue, red = near(drawn, BLUE), near(drawn, RED)
    assert blue[35, 47:53].any()
    assert not red[35, 47:53].any()
    assert red[45, 86:92].any()
    assert not blue[45, 60:].any()
    assert blue[35, 18:25].any()
    assert red[35, 18:25].any()


def test_true_box_is_dashed() -> None:
    far = np.array([1.0, 1.0, 5.0, 5.0])
    truth = np.array([20.0, 20.0, 90.0, 90.0])
    line = box_panel(VIEW, np.zeros((100, 100, 3), np.uint8) + 200, np.zeros((4, 4)), far, far, far, truth)[
        20:22, 25:85
    ]
    dark = (line.max(-1) < 90).any(0)
    assert 0.3 < dark.mean() < 0.9
    assert np.abs(np.diff(dark.astype(int))).sum() > 6


def points(seen: list[tuple[int, int]], shape: list[tuple[int, int]], flow: np.ndarray | None = None) -> np.ndarray:
    """A flow panel of 280 pixels, 20 a cell, of these cells (row, column) of the 14 x 14 grid."""
    masks = np.zeros((2, 28, 28))
    for mask, cells in zip(masks, (seen, shape), strict=True):
        for row, column in cells:
            mask[2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = 1
    return flow_panel(masks[0], masks[1], np.zeros((2, 14, 14)) if flow is None else flow, WHOLE, 280)


def test_points_of_both_masks() -> None:
    drawn = points([(3, 4), (5, 5)], [(3, 4), (8, 9)])
    assert near(drawn[70, 90], BLUE)
    assert near(drawn[70, 84:88], RED).any(), "a cell of both masks has no red rim"
    assert near(drawn[110, 110], BLUE)
    assert not near(drawn[100:120, 100:120], RED).any()
    assert near(drawn[170, 190], RED)
    assert not near(drawn, GREY, 20).any(), "cells that stay have no arrows"


@pytest.mark.parametrize("axis", [0, 1])
def test_arrows_run_from_the_visible_to_the_amodal_point(axis: int) -> None:
    source, target = (6, 3), (6, 9)
    if axis:
        source, target = source[::-1], target[::-1]
    flow = np.zeros((2, 14, 14))
    flow[axis, target[0], target[1]] = -6 * 2 / 14  # Backward: the target fetches six cells before it.
    drawn = points([source], [target], flow)
    if axis:
        drawn = drawn.swapaxes(0, 1)
    grey = near(drawn, GREY, 50)
    assert grey[130, 80:180].mean() > 0.9
    width = grey[120:140].sum(0)
    assert width[172:184].max() >= 4, "no head at the amodal point"
    assert width[60:160].max() <= 2
    assert not grey[:, 200:].any()


def test_moves_of_less_than_half_a_cell_have_no_arrow() -> None:
    flow = np.zeros((2, 14, 14))
    flow[0, 6, 9] = 0.4 * 2 / 14
    assert not near(points([(6, 3)], [(6, 9)], flow), GREY, 20).any()


def test_flow_panels_have_the_aspect_of_the_box_within_limits() -> None:
    mask, flow = np.ones((28, 28)), np.zeros((2, 28, 28))
    assert flow_panel(mask, mask, flow, np.array([0.0, 0.0, 80.0, 100.0]), 200).shape == (200, 160, 3)
    assert flow_panel(mask, mask, None, np.array([0.0, 0.0, 10.0, 900.0]), 300).shape == (300, 200, 3)
    assert flow_panel(mask, mask, None, np.array([5.0, 5.0, 5.0, 5.0]), 300).shape == (300, 300, 3)


def test_candidates_are_coloured_by_what_could_hide_them() -> None:
    ys, xs = np.mgrid[:200, :200] / 2
    seen, others, shape = xs < 40, (xs >= 40) & (xs < 60) & (ys < 70), (ys < 50) & (xs < 80)
    drawn = candidate_panel(VIEW, None, seen, others, shape, np.array([0.0, 0.0, 80.0, 50.0]))
    assert strongest(drawn[25, 20]) == 2
    assert near(drawn[75, 20], FAINT)
    assert strongest(drawn[25, 50]) == 1
    assert strongest(drawn[25, 70]) == 0
    assert np.ptp(drawn[60, 50].astype(int)) < 10
    assert drawn[60, 50].max() < 220
    assert (drawn[90, 90] > 240).all()
    assert near(drawn[75, 70], (247, 247, 247), 5)
    assert GREEN[1] == max(GREEN)


def test_box_iou() -> None:
    one = np.array([0.0, 0.0, 10.0, 10.0])
    assert box_iou(one, np.array([5.0, 0.0, 15.0, 10.0])) == pytest.approx(50 / 150)
    assert box_iou(one, np.array([10.0, 0.0, 15.0, 10.0])) == 0
    assert box_iou(one[[0, 0, 0, 0]], one[[0, 0, 0, 0]]) == 0


def explain(k: int = 4, candidates: int = 0) -> Explanation:
    """An object seen in its left half; prior number k expands by 10 k pixels to the right."""
    box = np.array([20.0, 20.0, 50.0, 60.0])
    boxes = box + np.array([[0, 0, 10 * n, 0] for n in range(max(k, candidates))])
    shape, distance = np.ones((max(k, candidates), 28, 28)), 1.25 + np.arange(max(k, candidates))
    found = Explanation("cup", box, np.ones((28, 28)), box, amodal_box=boxes[1], amodal=np.ones((28, 28)), score=0.875)
    found.boxes = BoxPriors(boxes[:k], distance[:k].copy())
    flows = np.zeros((k, 2, 14, 14))
    found.flows = FlowPriors(boxes[1], np.ones((28, 28)), shape[:k], flows, distance[:k] / 2)
    if candidates:
        kept = np.arange(candidates) % 2 == 1
        bad = np.where(kept, 0.125, 0.75)
        found.reranked = Reranked(boxes, shape, distance, bad, kept, np.zeros((56, 56)), WHOLE)
    return found


def words(row: Row) -> str:
    return " ".join(key.text for key in row.heading)


def test_rows_of_an_object() -> None:
    image = np.full((100, 100, 3), 90, np.uint8)
    mask = np.zeros((100, 100), bool)
    mask[20:60, 20:60] = True
    rows = rows_of(explain(), image, Truth(np.array([20.0, 20.0, 60.0, 60.0]), mask, mask), side=90)
    assert [words(row).split(":")[0] for row in rows] == [
        "Prediction and truth",
        "Regression transformations",
        "Flow transformations",
    ]
    assert rows[0].captions == ["picture", "prediction, score 0.88", "truth"]
    assert rows[1].captions == [
        "nearest: +0 % area, IoU 0.75, distance 1.25",
        "no. 2: +33 % area, IoU 1.00, distance 2.25",
        "no. 3: +67 % area, IoU 0.80, distance 3.25",
    ]
    assert rows[1].heading[1].text == "visible box, IoU 0.75"
    assert rows[2].captions[0] == "nearest: 0 % of it hidden, distance 0.62"
    assert all(len(row.panels) == len(row.captions) == 3 for row in rows)
    assert all(max(panel.shape[:2]) == 90 for row in rows for panel in row.panels)


def test_without_image_or_estimate_the_first_row_is_left_out() -> None:
    assert len(rows_of(explain(), None)) == 2
    bare = replace(explain(), amodal=None, amodal_box=None)
    rows = rows_of(bare, np.zeros((100, 100, 3), np.uint8))
    assert len(rows) == 2
    assert [caption.split(", ")[1] for caption in rows[1].captions] == [
        f"distance {d}" for d in ("0.62", "1.12", "1.62")
    ]
    assert rows_of(replace(bare, boxes=None, flows=None), None) == []


def test_missing_priors_are_left_out() -> None:
    found = explain(4)
    assert found.boxes is not None
    assert found.flows is not None
    found.boxes.distance[1:] = np.inf
    found.flows.distance[:] = np.inf
    rows = rows_of(found, None)
    assert len(rows) == 1
    assert rows[0].captions == ["nearest: +0 % area, distance 1.25"]


def test_retrieved_shapes_without_flows() -> None:
    found = explain()
    assert found.flows is not None
    found.flows.flows = None
    assert any(key.mark == "arrow" for key in rows_of(explain(), None)[1].heading)
    row = rows_of(found, None)[1]
    assert not any(key.mark == "arrow" for key in row.heading)
    assert "arrow" not in row.note
    assert words(row).startswith("Retrieved shapes")


def test_reranking_shows_the_nearest_kept_and_the_nearest_thrown_away() -> None:
    rows = rows_of(explain(candidates=8), None, side=60)[-2:]
    assert "kept (4 of 8)" in words(rows[0])
    assert "thrown away (4 of 8)" in words(rows[1])
    assert rows[0].captions[0] == "candidate 2: inconsistency 0.12, distance 2.25"
    assert rows[1].captions == [
        "candidate 1: inconsistency 0.75, distance 1.25",
        "candidate 3: inconsistency 0.75, distance 3.25",
        "candidate 5: inconsistency 0.75, distance 5.25",
    ]
    assert not near(rows[1].panels[0], RED, 90).any(), "the nearest candidate is all seen"
    assert near(rows[1].panels[2], RED, 90).any()


def test_reranking_of_an_absent_class_shows_nothing() -> None:
    found = explain(candidates=4)
    assert found.reranked is not None
    found.reranked.distance[:] = np.inf
    assert len(rows_of(found, None)) == 2


def test_every_row_has_units_and_a_key_for_what_is_drawn() -> None:
    image = np.full((100, 100, 3), 90, np.uint8)
    mask = np.zeros((100, 100), bool)
    mask[20:60, 20:60] = True
    rows = rows_of(explain(candidates=8), image, Truth(np.array([20.0, 20.0, 60.0, 60.0]), mask, mask), side=90)
    for row in rows[1:4]:
        assert "it has no unit, smaller is more alike" in row.note
    assert "hatched: hidden part" in rows[0].note.lower()
    assert [key.mark for key in rows[1].heading] == ["", "frame", "frame", "dashed"]
    assert [key.mark for key in rows[2].heading] == ["", "dot", "dot", "arrow"]
    assert "0 to 1" in rows[1].note
    assert "a dot is a cell" in rows[2].note
    assert "Inconsistency: 0 (agrees with everything) to 2" in rows[3].note


def test_growth_is_what_the_nearest_prior_adds() -> None:
    found = explain(2)
    assert growth(found) == 0
    assert found.boxes is not None
    assert found.flows is not None
    found.boxes.boxes = found.boxes.boxes[::-1]
    assert growth(found) == pytest.approx(1 / 3)
    found.flows.visible = np.zeros((28, 28))
    found.flows.visible[:, :7] = 1
    assert growth(found) == pytest.approx(0.75)
    assert growth(found) > VISIBLY
    found.flows.distance[:] = np.inf
    found.boxes.distance[:] = np.inf
    assert growth(found) == 0
    assert growth(replace(found, boxes=None, flows=None)) == 0


def test_figure_places_the_panels_in_rows() -> None:
    rows = rows_of(explain(), None)
    page = figure(rows, "cup", subtitle="annotation 3")
    assert page.dtype == np.uint8
    assert (page[:, :10] == 255).all()
    starts = []
    for row in rows:
        panel = row.panels[1]
        height, width = panel.shape[:2]
        left = (page.shape[1] - width) // 2  # The second of three columns.
        places = [
            y for y in range(page.shape[0] - height) if np.array_equal(page[y : y + height, left : left + width], panel)
        ]
        assert len(places) == 1
        starts.append(places[0])
    assert starts[0] + rows[0].panels[1].shape[0] < starts[1]
    assert figure([], "nothing").ndim == 3
