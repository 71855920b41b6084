"""Building blocks of drawn scenes: dice, coverage, blur, sprites, shape families."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from amodal.data.scenes.clutter import LITTER, OCCLUDERS
from amodal.data.scenes.dice import Dice
from amodal.data.scenes.families import CLASS_NAMES, FAMILIES
from amodal.data.scenes.outlines import Ring, box, ellipse, hole, ring, stroke
from amodal.data.scenes.paint import Light, Part, Pose, blend, cast_shadow, render
from amodal.data.scenes.raster import blur, coverage, noise, sampled, upsampled

LIGHT = Light(-0.6, -0.8, 0.4, (1.0, 1.0, 1.0))


def _inside(rings: list[Ring], x: float, y: float) -> bool:
    """Winding number by crossings to the right, one point at a time."""
    winding = 0
    for outline in rings:
        for (x0, y0), (x1, y1) in zip(outline, np.roll(outline, -1, axis=0), strict=True):
            if (y0 <= y) != (y1 <= y) and x0 + (y - y0) / (y1 - y0) * (x1 - x0) > x:
                winding += 1 if y1 > y0 else -1
    return winding != 0


def test_dice_stream_is_frozen() -> None:
    dice = Dice(3, 4)
    assert dice.uniform() == 0.8983874397838618
    assert dice.whole(0, 9) == 4
    assert "".join(dice.shuffled("abcdef")) == "baecdf"


def test_dice_whole_reaches_both_ends_and_shuffle_keeps_all() -> None:
    dice = Dice(1)
    assert {dice.whole(2, 5) for _ in range(200)} == {2, 3, 4, 5}
    assert sorted(dice.shuffled(range(20))) == list(range(20))


def test_coverage_of_a_box_is_its_area_in_each_pixel() -> None:
    got = coverage([box(1.25, 0.5, 3.5, 2.0)], 3, 5)
    rows, columns = np.array([0.5, 1.0, 0.0]), np.array([0.0, 0.75, 1.0, 0.5, 0.0])
    np.testing.assert_array_equal(got, np.outer(rows, columns).astype(np.float32))


def test_coverage_beyond_the_window_is_cut_on_every_side() -> None:
    np.testing.assert_array_equal(coverage([box(-9, -9, 9, 9)], 3, 4), np.ones((3, 4), np.float32))
    assert coverage([box(-9, -9, -1, 9)], 3, 4).sum() == 0
    assert coverage([box(5, 0, 9, 3)], 3, 4).sum() == 0


@pytest.mark.parametrize("shape", ["star", "ring", "pen"])
def test_coverage_matches_point_sampling(shape: str) -> None:
    star = ring([(2, 2), (8, 14), (14, 3), (1, 9), (15, 10)])
    rings = {
        "star": [star],
        "ring": [ellipse(8, 8, 7, 6), hole(ellipse(8, 8, 3.3, 2.2))],
        "pen": [stroke([(3, 3), (8, 12), (13, 4)], 3.0), box(2, 8, 12, 10)],
    }[shape]
    got = coverage(rings, 16, 16)
    steps = (np.arange(4) + 0.5) / 4
    share = np.zeros((16, 16))
    for i in range(16):
        for j in range(16):
            share[i, j] = np.mean([_inside(rings, j + a, i + b) for a in steps for b in steps])
    assert np.abs(got - share).max() < 0.2
    assert abs(float(got.sum() - share.sum())) < 1


def test_blur_matches_a_slow_box_mean() -> None:
    values = np.random.default_rng(0).random((9, 11)).astype(np.float32)
    padded = np.pad(values, 2)
    slow = np.array([[padded[i : i + 5, j : j + 5].mean() for j in range(11)] for i in range(9)])
    np.testing.assert_allclose(blur(values, 2, passes=1), slow, atol=2e-3)
    assert blur(values, 0) is values


def test_noise_is_smooth_bounded_and_passes_through_its_lattice() -> None:
    field = noise(Dice(5), 64, 48, (4, 3), 3)
    assert field.shape == (64, 48)
    assert 0 <= field.min() < field.max() <= 1
    assert np.abs(np.diff(field, axis=0)).max() < 0.3
    lattice = np.array([[0, 1], [2, 3]], np.float32)
    corner = upsampled(lattice, 200, 200)
    np.testing.assert_allclose(corner[[0, 0, -1, -1], [0, -1, 0, -1]], [0, 1, 2, 3], atol=0.01)
    u, v = np.array([[0.0, 1.0, 2.0]], np.float32), np.array([[0.0, 1.0, 0.0]], np.float32)
    np.testing.assert_array_equal(sampled(lattice, u, v), [[0, 3, 0]])


def test_sprite_mask_is_coverage_of_at_least_one_half() -> None:
    sprite = render([Part((box(-0.5, -0.5, 0.5, 0.5),), (200, 10, 10), 0.0)], Pose(10.5, 0.0, False), LIGHT)
    assert sprite.alpha.max() == 1
    assert sprite.alpha[sprite.mask].min() >= 0.5
    # 10.5 pixels about the origin: -5.25 to 5.25 covers a quarter of the outermost pixels, which are left out.
    assert int(sprite.mask.sum()) == 10 * 10


def test_shading_turns_towards_the_light() -> None:
    ball = [Part((ellipse(0, 0, 0.5, 0.5),), (120, 120, 120), 0.2, 0.0)]
    sprite = render(ball, Pose(60, 0.0, False), Light(-1.0, 0.0, 0.4, (1, 1, 1)))
    middle = sprite.rgb[-sprite.top, :, 0]
    assert middle[-sprite.left - 22] > 135
    assert middle[-sprite.left + 22] < 105


def test_mirror_and_turn_move_the_silhouette() -> None:
    flag = [Part((box(0.0, -0.1, 0.5, 0.1),), (9, 9, 9), 0.0)]
    right, left = (render(flag, Pose(40, 0.0, mirror), LIGHT) for mirror in (False, True))
    np.testing.assert_array_equal(right.alpha, left.alpha[:, ::-1])
    up = render(flag, Pose(40, -np.pi / 2, False), LIGHT)
    assert up.mask.sum() == right.mask.sum() == 20 * 8
    assert up.top < -15


def test_blend_and_shadow_are_cut_by_the_frame() -> None:
    canvas = np.full((6, 6, 3), 100, np.float32)
    blend(canvas, np.ones((4, 4), np.float32), np.full((4, 4, 3), 7, np.float32), -2, 4)
    assert (canvas == 7).all(axis=2).sum() == 4
    blend(canvas, np.ones((4, 4), np.float32), np.float32(0), 6, 0)
    assert canvas.min() == 7
    cast_shadow(canvas, np.ones((2, 2), np.float32), 3, 1, (1, 0), 1, 0.5)
    assert 7 < canvas[4, 1, 0] < 100
    assert canvas[0, 0, 0] == 100


@pytest.mark.parametrize("name", CLASS_NAMES)
def test_family_members_differ_hang_together_and_fill_their_length(name: str) -> None:
    family = FAMILIES[name]
    seen = set()
    for k in range(12):
        sprite = render(family.parts(Dice(k)), Pose(90, 0.0, False), LIGHT)
        seen.add(sprite.mask.tobytes())
        assert ndimage.label(sprite.mask, np.ones((3, 3)))[1] == 1, k
        assert 60 <= max(sprite.mask.any(axis=0).sum(), sprite.mask.any(axis=1).sum()) <= 106, k
        assert sprite.mask.mean() > 0.08
        colours = sprite.rgb[sprite.alpha == 1]
        assert colours.std(axis=0).max() > 8, "parts, texture or shading must show"
    assert len(seen) == 12


@pytest.mark.parametrize("name", CLASS_NAMES)
def test_markings_leave_the_silhouette_alone(name: str) -> None:
    parts = FAMILIES[name].parts(Dice(3))
    assert any(not part.marking for part in parts)
    bare = [part for part in parts if not part.marking]
    pose = Pose(70, 0.3, True)
    np.testing.assert_array_equal(render(parts, pose, LIGHT).alpha, render(bare, pose, LIGHT).alpha)


@pytest.mark.parametrize("maker", sorted({maker for maker, _, _ in OCCLUDERS + LITTER}, key=lambda f: f.__name__))
def test_clutter_draws_something(maker) -> None:
    sprites = [render(maker(Dice(k)), Pose(60, 0.0, False), LIGHT) for k in range(4)]
    assert len({sprite.rgb.tobytes() for sprite in sprites}) == 4
    assert all(sprite.mask.sum() > 60 for sprite in sprites)
