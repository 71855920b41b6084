"""Numbers worked out by hand, and the rules of method.md that random scenes do not single out."""

import numpy as np
import pytest

from amodal.evaluation import KEYS, evaluate, matches, pr_curves, prepare, table
from amodal.evaluation.table import COLUMNS, MORE, PARTS

pytestmark = pytest.mark.filterwarnings("ignore:no result scores below")


def block(tools, x, y, width, height):
    mask = np.zeros((tools.height, tools.width), bool)
    mask[y : y + height, x : x + width] = True
    return mask


def truth_of(tools, annotations):
    image = {"id": 11, "file_name": "a.png", "width": tools.width, "height": tools.height}
    return tools.write({"images": [image], "annotations": annotations, "categories": [{"id": 2, "name": "cup"}]})


def scene(tools):
    """Two objects of 10 x 4 pixels: A is whole, B shows its upper two rows (visible rate 0.5). Four detections:

    ====== ===== ============================================= ==================
    name   score mask                                          own visible rate
    ====== ===== ============================================= ==================
    f1     .90   where nothing is                              1
    f2     .85   where nothing is                              .5
    b      .80   B less 5 of its 40 pixels: IoU 35 / 40 = .875 18 / 35 = .51
    a      .70   A: IoU 1                                      1
    ====== ===== ============================================= ==================

    *Plain AP.* At the eight thresholds up to .85 the ranking is miss miss hit hit: precision 1/3 at recall .5, 2/4 at
    recall 1, interpolated .5 everywhere: .5. At .90 and .95, b misses: miss miss miss hit, precision 1/4 up to recall
    .5, which is 51 of 101 recalls: .126238. AP = (8 x .5 + 2 x .126238) / 10 = 42.5248 %.

    *AP-occ-gt.* A is ignored and takes a with it. Up to .85: miss miss hit, precision 1/3 at recall 1. Then nothing.
    AP = .8 / 3 = 26.6667 %.

    *AP-occ.* f1 calls itself wholly visible and is ignored, f2 does not: miss hit, precision 1/2. AP = .8 / 2 = 40 %.

    *Box AP.* b's box is 7.7 wide, IoU .77: six thresholds at .5, four at .126238: 35.0495 %.

    *mIoU* = (1 + .875) / 2 = 93.75 %. *mIoU-occ*: B's hidden part has 20 pixels, b's 17 of them: 85 %.
    """
    whole, half = block(tools, 0, 0, 10, 4), block(tools, 0, 6, 10, 4)
    upper = block(tools, 0, 6, 10, 2)
    path = truth_of(tools, [tools.annotation(5, 11, 2, whole, whole), tools.annotation(6, 11, 2, half, half & upper)])
    b = half & ~block(tools, 9, 6, 1, 4) & ~block(tools, 8, 9, 1, 1)
    nowhere, nowhere_else = block(tools, 20, 20, 10, 4), block(tools, 20, 30, 10, 4)
    results = [
        tools.detection(11, 2, 0.90, nowhere, nowhere),
        tools.detection(11, 2, 0.85, nowhere_else, block(tools, 20, 30, 5, 4)),
        tools.detection(11, 2, 0.80, b, b & upper) | {"bbox": [0, 6, 7.7, 4]},
        tools.detection(11, 2, 0.70, whole, whole),
    ]
    return path, results


def test_the_scene(tools):
    found = evaluate(*scene(tools))
    assert found["mask"]["AP"] == pytest.approx(100 * (8 * 0.5 + 2 * 51 / 101 / 4) / 10)
    assert found["mask"]["AP"] == pytest.approx(42.5248, abs=1e-4)
    assert found["mask"]["AP50"] == pytest.approx(50)
    assert found["mask"]["AR100"] == pytest.approx(90)
    assert found["mask"]["AP-occ-gt"] == pytest.approx(80 / 3)
    assert found["mask"]["AP-occ"] == pytest.approx(40)
    assert found["mask"]["AP-occ60"] == pytest.approx(40)
    assert found["box"]["AP"] == pytest.approx(35.0495, abs=1e-4)
    assert found["mask"]["mIoU"] == pytest.approx(93.75)
    assert found["mask"]["mIoU-occ"] == pytest.approx(85)
    assert (found["images"], found["instances"]) == (1, 2)


def test_matches_of_the_scene(tools):
    by_id = {match.annotation_id: match for match in matches(*scene(tools))}
    assert (by_id[5].detection, by_id[5].iou, by_id[5].hidden_iou) == (3, 1.0, None)
    assert by_id[6].detection == 2
    assert (by_id[6].iou, by_id[6].hidden_iou, by_id[6].rate) == pytest.approx((0.875, 0.85, 0.5))


def test_curves_of_the_scene(tools):
    at_50, at_75 = pr_curves(prepare(*scene(tools)))
    assert at_50.precision == pytest.approx([0.5] * 101)
    assert at_75.recall == pytest.approx(np.linspace(0, 1, 101))


def test_a_missed_object_counts_zero_and_low_scores_find_nothing(tools):
    path, results = scene(tools)
    results[3]["score"] = 0.49
    found = evaluate(path, results)["mask"]
    assert found["mIoU"] == pytest.approx(87.5 / 2)
    results[2]["score"] = 0.49
    found = evaluate(path, results)["mask"]
    assert (found["mIoU"], found["mIoU-occ"]) == (0, 0)


def test_greedy_matching_gives_an_object_to_the_higher_score(tools):
    path, results = scene(tools)
    copy = results[2] | {"score": 0.95, "segmentation": tools.to_rle(block(tools, 0, 6, 8, 4))}
    found = {m.annotation_id: m for m in matches(path, [*results, copy])}
    assert found[6].detection == 4
    assert found[6].iou == pytest.approx(0.8)


def test_a_system_without_visible_masks_has_no_number_that_needs_them(tools):
    path, results = scene(tools)
    for result in results:
        del result["visible_mask"], result["visible_bbox"]
    found = evaluate(path, results)
    assert set(found["visible"].values()) == {None}
    assert found["mask"]["AP-occ"] is found["mask"]["AP-occ75"] is found["box"]["AP-occ"] is None
    assert found["mask"]["mIoU-occ"] is None
    assert found["mask"]["AP-occ-gt"] == pytest.approx(80 / 3)
    assert " - " in table(found)


def test_an_empty_mask_is_a_false_positive_at_every_level(tools):
    path, results = scene(tools)
    empty = block(tools, 0, 0, 0, 0)
    results[1] = tools.detection(11, 2, 0.85, empty, empty)
    results[0] = tools.detection(11, 2, 0.90, empty, empty)
    assert evaluate(path, results)["mask"]["AP-occ"] == pytest.approx(80 / 3)


def test_unknown_amodal_masks_are_neither_found_nor_missed(tools):
    whole = block(tools, 0, 0, 10, 4)
    other = block(tools, 20, 20, 10, 4)
    known = tools.annotation(5, 11, 2, whole, whole)
    unknown = tools.annotation(6, 11, 2, other, other, amodal_known=False)
    path = truth_of(tools, [known, unknown])
    found = [tools.detection(11, 2, 0.6, whole, whole), tools.detection(11, 2, 0.9, other, other)]
    both, one = evaluate(path, found), evaluate(path, found[:1])
    assert both["mask"]["AP"] == one["mask"]["AP"] == pytest.approx(100)
    assert both["visible"]["AP"] == pytest.approx(100)
    assert one["visible"]["AP"] == pytest.approx(100 * 51 / 101)
    assert both["mask"]["mIoU"] == 100


def test_a_fully_hidden_object_is_ignored_in_visible_metrics_only(tools):
    whole, nothing = block(tools, 0, 0, 10, 4), block(tools, 0, 0, 0, 0)
    other = block(tools, 20, 20, 10, 4)
    path = truth_of(tools, [tools.annotation(5, 11, 2, whole, whole), tools.annotation(6, 11, 2, other, nothing)])
    found = evaluate(path, [tools.detection(11, 2, 0.6, whole, whole)])
    assert found["visible"]["AP"] == pytest.approx(100)
    assert found["mask"]["AP"] == pytest.approx(100 * 51 / 101)
    assert found["mask"]["AP-occ-gt"] == 0


def test_vrsp_compat_ignores_rates_above_one(tools):
    """Visible 44 pixels, amodal 40, no stored rate: 1.1 is clamped to 1, or leaves the object out of plain AP."""
    whole, more = block(tools, 0, 0, 10, 4), block(tools, 0, 0, 11, 4)
    other = block(tools, 20, 20, 10, 4)
    annotations = [tools.annotation(5, 11, 2, whole, more), tools.annotation(6, 11, 2, other, other)]
    for entry in annotations:
        del entry["occlude_rate"]
    path = truth_of(tools, annotations)
    found = [tools.detection(11, 2, 0.6, other, other)]
    assert evaluate(path, found)["mask"]["AP"] == pytest.approx(100 * 51 / 101)
    assert evaluate(path, found, vrsp_compat=True)["mask"]["AP"] == pytest.approx(100)


def test_stored_rates_decide_and_the_bound_is_inclusive(tools):
    whole, other = block(tools, 0, 0, 10, 4), block(tools, 20, 20, 10, 4)
    first = tools.annotation(5, 11, 2, whole, whole) | {"occlude_rate": 0.15}
    second = tools.annotation(6, 11, 2, other, other) | {"occlude_rate": 0.149}
    found = evaluate(truth_of(tools, [first, second]), [tools.detection(11, 2, 0.6, whole, whole)])
    assert found["mask"]["AP-occ-gt"] == pytest.approx(100)
    assert found["mask"]["AP-occ-gt75"] is None


def test_boxes_come_from_masks_unless_the_file_is_trusted(tools):
    whole = block(tools, 0, 0, 10, 4)
    path = truth_of(tools, [tools.annotation(5, 11, 2, whole, whole) | {"bbox": [20, 20, 8, 8]}])
    results = [tools.detection(11, 2, 0.6, whole, whole) | {"bbox": [20, 20, 8, 8]}]
    assert evaluate(path, results)["box"]["AP"] == 0
    assert evaluate(path, results, trust_bbox=True)["box"]["AP"] == pytest.approx(100)
    assert evaluate(path, results)["box"]["AP-of-mask"] == pytest.approx(100)
    assert evaluate(path, results, trust_bbox=True)["box"]["AP-of-mask"] == 0


def test_no_results_at_all_score_zero_everywhere(tools):
    path, _ = scene(tools)
    found = evaluate(path, [])
    assert {value for part in ("mask", "box", "visible") for value in found[part].values()} == {0.0}


def test_the_list_of_metrics_is_that_of_what_is_computed_and_shown(tools):
    found = evaluate(*scene(tools))
    assert {part: tuple(found[part]) for part in KEYS} == KEYS
    assert {*COLUMNS, *MORE} == {key for keys in KEYS.values() for key in keys}
    assert [part for part, _ in PARTS] == list(KEYS)
