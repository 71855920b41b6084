"""Equal to pycocotools where it has the number, to a slow evaluator of our own where it has not."""

import numpy as np
import pytest

from amodal.evaluation import evaluate, levels, pr_curves, prepare

pytestmark = pytest.mark.filterwarnings("ignore:no result scores below", "ignore:__array__:DeprecationWarning")
LEVELS = [("AP-occ", 0.85), ("AP-occ75", 0.75), ("AP-occ60", 0.60)]
TRUTH_LEVELS = [("AP-occ-gt", 0.85), ("AP-occ-gt75", 0.75), ("AP-occ-gt60", 0.60)]


def same(found, wanted):
    return wanted is None if found is None else found == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("part", ["mask", "box", "visible"])
@pytest.mark.parametrize("seed", range(6))
def test_plain_numbers_are_those_of_pycocotools(tools, seed, part):
    """Crowded scenes with crowds, score ties, empty masks, a class without truth and over 100 detections of a class."""
    truth, results = tools.draw_scene(seed, many=seed % 2 == 0)
    found = evaluate(tools.write(truth), results)[part]
    for key, wanted in tools.pycocotools(truth, results, part).items():
        assert same(found[key], wanted), key


def test_numbers_of_nothing_are_those_of_pycocotools(tools):
    truth, _ = tools.draw_scene(1)
    found = evaluate(tools.write(truth), [])
    for part in ("mask", "box", "visible"):
        assert found[part]["AP"] == 0
        assert found[part]["AR100"] == 0
    nothing = evaluate(tools.write(truth | {"annotations": []}), [])
    assert nothing["mask"]["AP"] is None
    assert nothing["mask"]["mIoU"] is None
    assert nothing["box"]["AP-occ-gt"] is None
    no_images = prepare(tools.write({"images": [], "annotations": [], "categories": []}), [])
    assert no_images.metrics(per_class=True)["mask"]["AP"] is None
    assert [level.ap for level in levels(no_images)] == [None] * 5
    assert pr_curves(no_images) == no_images.matches == []


@pytest.mark.parametrize("part", ["mask", "box"])
@pytest.mark.parametrize("seed", range(10, 16))
def test_occluded_ap_is_that_of_the_slow_evaluator(tools, seed, part):
    truth, results = tools.draw_scene(seed, unknown=seed % 2 == 0)
    found = evaluate(tools.write(truth), results)[part]
    slow_part = "amodal" if part == "mask" else "box"
    assert same(found["AP"], tools.slow_ap(truth, results, slow_part))
    for key, level in LEVELS:
        assert same(found[key], tools.slow_ap(truth, results, slow_part, level, own_rate=True)), key
    for key, level in TRUTH_LEVELS:
        assert same(found[key], tools.slow_ap(truth, results, slow_part, level)), key


@pytest.mark.parametrize("seed", range(40, 44))
def test_miou_is_that_of_the_slow_evaluator(tools, seed):
    truth, results = tools.draw_scene(seed, images=8)
    found = evaluate(tools.write(truth), results)["mask"]
    assert (found["mIoU"], found["mIoU-occ"]) == pytest.approx(tools.slow_miou(truth, results), abs=1e-9)


@pytest.mark.parametrize("seed", range(50, 53))
def test_boxes_that_are_not_those_of_the_masks(tools, seed):
    """Box AP reads the stored boxes, with all their decimals, AP-of-mask those of the masks."""
    truth, results = tools.draw_scene(seed)
    tight = tools.pycocotools(truth, results, "box")
    rng = np.random.default_rng(seed)
    moved = [r | {"bbox": (np.array(r["bbox"]) + rng.uniform(0.1, 4, 4)).tolist()} for r in results]
    found = evaluate(tools.write(truth), moved)["box"]
    assert same(found["AP-of-mask"], tight["AP"])
    for key, wanted in tools.pycocotools(truth, moved, "box").items():
        assert same(found[key], wanted), key
    assert found["AP"] != pytest.approx(tight["AP"])


def test_visible_ap_counts_objects_whose_amodal_mask_is_unknown(tools):
    truth, results = tools.draw_scene(20, unknown=True)
    assert any(not a.get("amodal_known", True) for a in truth["annotations"])
    found = evaluate(tools.write(truth), results)
    assert same(found["visible"]["AP"], tools.slow_ap(truth, results, "visible"))


def test_levels_are_those_of_the_slow_evaluator(tools):
    truth, results = tools.draw_scene(30, images=10)
    for level in levels(prepare(tools.write(truth), results)):
        last = level.high == 0.85

        def counts(rate, level=level, last=last):
            hidden = round(1 - rate, 9)
            return level.low <= hidden and (hidden <= level.high if last else hidden < level.high)

        assert same(level.ap, tools.slow_ap(truth, results, counts=counts)), level


def test_per_class_numbers_average_to_the_whole(tools):
    truth, results = tools.draw_scene(3)
    found = evaluate(tools.write(truth), results, per_class=True)
    classes = found["per_class"]
    assert list(classes) == ["cup", "car", "key", "fish"]
    values = [numbers["mask"]["AP"] for numbers in classes.values() if numbers["mask"]["AP"] is not None]
    assert found["mask"]["AP"] == pytest.approx(sum(values) / len(values))
    assert classes["fish"]["mask"]["AP"] is None
    only_cups = truth | {"annotations": [a for a in truth["annotations"] if a["category_id"] == 2]}
    cups = evaluate(tools.write(only_cups), [r for r in results if r["category_id"] == 2])
    for part in ("mask", "box", "visible"):
        assert classes["cup"][part] == pytest.approx(cups[part])
