"""Changes that must not change the numbers, or only so much."""

import json

import numpy as np
import pytest

from amodal.evaluation import evaluate

pytestmark = pytest.mark.filterwarnings("ignore:no result scores below", "ignore:__array__:DeprecationWarning")
PARTS = ("mask", "box", "visible")


def numbers(found):
    return {part: found[part] for part in PARTS}


@pytest.fixture
def scene(tools):
    """A scene whose scores differ (ties are broken by order, which the changes here change)."""
    return tools.draw_scene(42, images=8, steps=10**9)


@pytest.fixture
def base(tools, scene):
    return evaluate(tools.write(scene[0]), scene[1])


@pytest.mark.parametrize("key", ["annotations", "images", "categories"])
@pytest.mark.parametrize("seed", range(3))
def test_order_of_the_file_changes_no_bit(tools, scene, base, key, seed):
    truth, results = scene
    shuffled = [truth[key][place] for place in np.random.default_rng(seed).permutation(len(truth[key]))]
    assert evaluate(tools.write(truth | {key: shuffled}), results) == base


def test_order_of_tied_annotations_and_images_changes_no_bit(tools):
    truth, results = tools.draw_scene(7, images=8, steps=3)
    wanted = evaluate(tools.write(truth), results)
    truth = {key: truth[key][::-1] for key in truth}
    assert evaluate(tools.write(truth), results) == wanted


def test_order_of_results_changes_no_bit(tools, scene, base):
    truth, results = scene
    assert evaluate(tools.write(truth), results[::-1]) == base


def test_flipping_everything_changes_no_bit(tools, scene, base):
    truth, results = scene

    def flip(entry):
        flipped = dict(entry)
        for key in ("segmentation", "visible_mask"):
            flipped[key] = tools.to_rle(tools.to_mask(entry[key])[:, ::-1])
        for key in ("bbox", "visible_bbox"):
            x, y, w, h = entry[key]
            flipped[key] = [tools.width - x - w, y, w, h]
        return flipped

    flipped = truth | {"annotations": [flip(a) for a in truth["annotations"]]}
    assert evaluate(tools.write(flipped), [flip(r) for r in results]) == base


def test_twice_the_images_give_the_same_numbers(tools, scene, base):
    truth, results = scene
    images = truth["images"] + [i | {"id": i["id"] + 100} for i in truth["images"]]
    annotations = truth["annotations"] + [
        a | {"id": a["id"] + 1000, "image_id": a["image_id"] + 100} for a in truth["annotations"]
    ]
    twice = truth | {"images": images, "annotations": annotations}
    found = evaluate(tools.write(twice), results + [r | {"image_id": r["image_id"] + 100} for r in results])
    for part in PARTS:
        assert found[part] == pytest.approx(base[part], abs=1e-9)
    assert found["instances"] == 2 * base["instances"]


@pytest.mark.parametrize("kind", [{"iscrowd": 1}, {"amodal_known": False}])
def test_ignored_objects_that_nothing_touches_change_no_number(tools, scene, base, kind):
    truth, results = scene
    corner = np.zeros((tools.height, tools.width), bool)
    corner[-2:, -2:] = True
    touched = {r["image_id"] for r in results if (tools.to_mask(r["segmentation"]) & corner).any()}
    free = [i["id"] for i in truth["images"] if i["id"] not in touched]
    assert free
    added = [tools.annotation(900 + n, image, 2, corner, corner, **kind) for n, image in enumerate(free)]
    found = evaluate(tools.write(truth | {"annotations": truth["annotations"] + added}), results)
    parts = PARTS if "iscrowd" in kind else ("mask", "box")  # what is visible of the others is still to be found
    for part in parts:
        assert found[part] == base[part]


def test_results_survive_their_file(tools, scene, base):
    truth, results = scene
    path = tools.write(results)
    assert evaluate(tools.write(truth), path) == base
    assert evaluate(tools.write(truth), json.loads(path.read_text())) == base


def test_the_truth_as_results_scores_everything(tools, scene, base):
    truth, _ = scene
    perfect = [
        {key: a[key] for key in ("image_id", "category_id", "bbox", "segmentation", "visible_mask")} | {"score": 1.0}
        for a in truth["annotations"]
        if not a["iscrowd"]
    ]
    found = evaluate(tools.write(truth), perfect)
    assert found["mask"]["AP"] == pytest.approx(100)
    assert found["mask"]["AP-occ-gt"] == pytest.approx(100)
    assert found["mask"]["mIoU-occ"] == pytest.approx(100)
    assert found["box"]["AP-of-mask"] == pytest.approx(100)
    assert base["mask"]["AR100"] < found["mask"]["AR100"]
