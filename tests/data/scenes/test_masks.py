"""Whole scenes: exact masks, occlusion, determinism, frozen settings."""

from __future__ import annotations

import copy
import hashlib
import time
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from amodal.data.scenes import CLASS_NAMES, SETTINGS, Scene, draw
from amodal.data.scenes.dice import Dice
from amodal.data.scenes.scene import Pile, Thing, _light, compose, paint

V1 = SETTINGS["scenes-v1"]
SMALL = replace(V1, size=128)


@cache
def scenes() -> list[Scene]:
    return [draw(42, index, SMALL) for index in range(64)]


@cache
def rates() -> np.ndarray:
    return np.array([1 - v.sum() / a.sum() for s in scenes() for a, v in zip(s.amodal, s.visible, strict=True)])


@cache
def _composed(index: int) -> tuple[Dice, Pile]:
    dice = Dice(42, index)
    return dice, compose(dice, _light(dice), SMALL)


def _things(index: int) -> list[Thing]:
    return _composed(index)[1].things


def _painted(index: int, things: list[Thing]) -> np.ndarray:
    """The picture of scene `index` with other things in it; ground and light stay."""
    dice, pile = copy.deepcopy(_composed(index)[0]), Pile(SMALL, things)
    return paint(dice, pile, _light(Dice(42, index))).astype(int)


def _recoloured(thing: Thing, value: float) -> Thing:
    return replace(thing, sprite=replace(thing.sprite, rgb=np.full_like(thing.sprite.rgb, value)))


def test_pixels_are_frozen() -> None:
    scene = draw(0, 0, V1)
    assert (
        hashlib.sha256(scene.image.tobytes()).hexdigest()
        == "23d90fe0ebbf771761df0259abe3e133a1bd6669aab8890fba68eb2476eb0973"
    )
    assert (
        hashlib.sha256(scene.amodal.tobytes() + scene.visible.tobytes()).hexdigest()
        == "eb1c560282b9fd5b3afafd66a04f9a4aaf9b18a63178f287b0d2975ed5b1cf21"
    )
    small = draw(0, 7, replace(V1, size=64, classes=12))
    assert (
        hashlib.sha256(small.image.tobytes()).hexdigest()
        == "f60ec730f8fb3e73979a4131b6458f147d356f0830d0467561dd9bc7f6b22a2d"
    )


def test_settings_are_frozen() -> None:
    assert list(SETTINGS) == ["scenes-v1"]
    assert repr(V1) == (
        "SceneSettings(size=256, classes=8, objects=(2, 8), object_size=(0.1, 0.45), clutter=(0, 3), litter=(0, 9), "
        "crowding=0.8, max_rate=0.85, min_inside=0.4, min_visible=0.0008, tries=20)"
    )
    assert CLASS_NAMES[:8] == ("cup", "fish", "car", "key", "leaf", "mushroom", "bottle", "umbrella")
    with pytest.raises(AttributeError):
        V1.size = 9  # type: ignore[misc]


def test_same_seed_same_scene_whatever_was_drawn_before() -> None:
    first = draw(7, 5, SMALL)
    draw(7, 4, SMALL)
    again = draw(7, 5, SMALL)
    assert (first.image == again.image).all()
    assert (first.visible == again.visible).all()
    assert (draw(8, 5, SMALL).image != first.image).any()
    assert (draw(7, 6, SMALL).image != first.image).any()


def test_shapes_dtypes_and_order() -> None:
    for scene in scenes()[:10]:
        assert scene.image.shape == (128, 128, 3)
        assert scene.image.dtype == np.uint8
        assert scene.amodal.shape == scene.visible.shape == (len(scene.labels), 128, 128)
        assert scene.amodal.dtype == scene.visible.dtype == np.bool_


def test_visible_is_inside_amodal_and_visible_parts_are_disjoint() -> None:
    for scene in scenes():
        assert not (scene.visible & ~scene.amodal).any()
        assert (scene.visible.sum(axis=0) <= 1).all()
        assert scene.visible.any(axis=(1, 2)).all()


@pytest.mark.parametrize("index", range(4))
def test_visible_is_amodal_less_everything_above(index: int) -> None:
    things = _things(index)
    masks = [thing.mask(128) for thing in things]
    expected = [
        mask & ~np.any([np.zeros_like(mask), *masks[k + 1 :]], axis=0)
        for k, mask in enumerate(masks)
        if things[k].label is not None
    ]
    np.testing.assert_array_equal(scenes()[index].visible, expected)


@pytest.mark.parametrize("index", range(3))
def test_recolouring_an_object_changes_its_visible_pixels(index: int) -> None:
    things = _things(index)
    scene, objects = scenes()[index], [k for k, thing in enumerate(things) if thing.label is not None]
    assert (_painted(index, things) == scene.image).all()
    for n, k in enumerate(objects):
        black, white = (
            _painted(index, [*things[:k], _recoloured(things[k], value), *things[k + 1 :]]) for value in (0.0, 255.0)
        )
        changed = (black != white).any(axis=2)
        assert changed[scene.visible[n]].all()
        # Elsewhere it shows only through the soft edge of a thing above, which covers at least half of the pixel.
        soft = np.any([_soft_edge(thing) for thing in things[k + 1 :]] or [np.zeros_like(changed)], axis=0)
        assert not (changed & ~scene.visible[n] & ~(soft & scene.amodal[n])).any()


def _soft_edge(thing: Thing) -> np.ndarray:
    """Pixels of the picture that the thing covers by half or more, but not wholly."""
    sprite = thing.sprite
    partly = replace(thing, sprite=replace(sprite, alpha=np.where(sprite.alpha < 1, sprite.alpha, np.float32(0))))
    return partly.mask(128)


@pytest.mark.parametrize("index", range(3))
def test_a_solid_thing_above_leaves_no_trace_of_what_it_hides(index: int) -> None:
    things = _things(index)
    hardened = []
    for thing in things:
        sprite = thing.sprite
        hardened.append(replace(thing, sprite=replace(sprite, alpha=(sprite.alpha > 0).astype(np.float32))))
    for n, k in enumerate(k for k, thing in enumerate(things) if thing.label is not None):
        black, white = (
            _painted(index, [*hardened[:k], _recoloured(hardened[k], value), *hardened[k + 1 :]])
            for value in (0.0, 255.0)
        )
        np.testing.assert_array_equal((black != white).any(axis=2), scenes()[index].visible[n])


@pytest.mark.parametrize("index", range(3))
def test_without_the_others_an_object_shows_its_whole_amodal_mask(index: int) -> None:
    things = _things(index)
    scene, objects = scenes()[index], [thing for thing in things if thing.label is not None]
    for n, thing in enumerate(objects):
        alone = [_painted(index, [_recoloured(thing, value)]) for value in (0.0, 255.0)]
        np.testing.assert_array_equal((alone[0] != alone[1]).any(axis=2), scene.amodal[n])


def test_occlusion_covers_the_whole_range_up_to_85_percent() -> None:
    assert rates().max() <= 0.85
    counts, _ = np.histogram(rates(), [0, 0.001, 0.15, 0.3, 0.45, 0.6, 0.75, 0.851])
    assert counts.sum() == len(rates())
    assert (counts >= 0.04 * len(rates())).all()
    assert 0.45 <= (rates() > 0.15).mean() <= 0.65


def test_objects_and_unannotated_clutter_both_hide() -> None:
    hidden = covered = 0
    for scene in scenes():
        top = scene.visible.any(axis=0)
        for amodal, visible in zip(scene.amodal, scene.visible, strict=True):
            gone = amodal & ~visible
            hidden += int(gone.sum())
            covered += int((gone & top).sum())
    assert 0.5 < covered / hidden < 0.8


def test_objects_are_cut_by_the_frame_but_mostly_inside() -> None:
    touching = 0
    for index in range(16):
        for thing in _things(index):
            if thing.label is not None:
                inside = thing.mask(128).sum() / thing.sprite.mask.sum()
                assert inside >= SMALL.min_inside
                touching += inside < 1
    assert touching >= 8


def test_two_to_eight_objects_of_all_classes_in_many_sizes() -> None:
    counts = [len(scene.labels) for scene in scenes()]
    assert min(counts) >= 1
    assert max(counts) <= 8
    assert np.mean([count >= 2 for count in counts]) > 0.95
    assert {label for scene in scenes() for label in scene.labels} == set(range(8))
    sides = [np.sqrt(a.sum()) / 128 for scene in scenes() for a in scene.amodal]
    assert min(sides) < 0.08
    assert max(sides) > 0.25


def test_number_of_classes() -> None:
    settings = replace(SMALL, size=64, classes=12)
    assert {label for k in range(30) for label in draw(1, k, settings).labels} == set(range(12))
    two = replace(SMALL, size=64, classes=2)
    assert {label for k in range(8) for label in draw(1, k, two).labels} == {0, 1}


def test_hundred_scenes_take_less_than_twenty_seconds() -> None:
    spent = []
    for _ in range(2):
        started = time.process_time()
        for index in range(6):
            draw(3, index, V1)
        spent.append(time.process_time() - started)
    assert min(spent) / 6 * 100 < 20
