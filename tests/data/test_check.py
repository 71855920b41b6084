"""``check``: each kind of problem from a file made to have it, and statistics worked out by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from amodal.cli import main
from amodal.data import rle
from amodal.data.check import Report, check
from amodal.data.coverage import coverage
from amodal.data.reader import load
from amodal.data.statistics import statistics
from amodal.data.store import AnnotationSet
from amodal.errors import DataError

HEIGHT, WIDTH = 20, 30


def mask(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    out = np.zeros((HEIGHT, WIDTH), bool)
    out[y0:y1, x0:x1] = True
    return out


def entry(number: int, amodal: np.ndarray, visible: np.ndarray, **other: Any) -> dict[str, Any]:
    ys, xs = np.nonzero(amodal)
    box = [int(xs.min()), int(ys.min()), int(np.ptp(xs)) + 1, int(np.ptp(ys)) + 1] if len(xs) else [0, 0, 1, 1]
    return {
        "id": number,
        "image_id": 1,
        "category_id": 1,
        "iscrowd": 0,
        "segmentation": rle.encode(amodal),
        "visible_mask": rle.encode(visible),
        "bbox": box,
        "area": int(amodal.sum()),
        "occlude_rate": 1 - float((amodal & visible).sum()) / max(float(amodal.sum()), 1),
        **other,
    }


def write(path: Path, annotations: list[Any], classes: int = 1, images: list[Any] | None = None) -> Path:
    listed = images or [{"id": 1, "file_name": "a.png", "height": HEIGHT, "width": WIDTH}]
    categories = [{"id": i + 1, "name": f"class {i + 1}"} for i in range(classes)]
    path.write_text(json.dumps({"images": listed, "annotations": annotations, "categories": categories}))
    return path


def found(report: Report) -> list[tuple[str, str, object, object]]:
    return [(p.kind, p.severity, p.image_id, p.annotation_id) for p in report.problems]


def test_a_sound_file_has_no_problem(tmp_path: Path) -> None:
    whole, part = mask(2, 2, 12, 12), mask(2, 2, 7, 12)
    path = write(tmp_path / "a.json", [entry(1, whole, part), entry(2, mask(20, 2, 25, 8), mask(20, 2, 25, 8))])
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "a.png")
    report = check(path, tmp_path)
    assert report.problems == []
    assert not report.has_errors


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"visible_mask": rle.encode(mask(10, 2, 15, 12))}, "visible outside amodal", "30 of 50 visible pixels (60%)"),
        ({"occlude_rate": 0.2}, "stored rate", "0.200, masks give 0.500"),
        ({"bbox": [2, 2, 5, 10]}, "stored box", "is the visible part's, the mask's [2, 2, 12, 12]"),
        ({"bbox": [2, 2, 13, 12]}, "stored box", "is [2, 2, 15, 14] (xyxy), the mask's [2, 2, 12, 12]"),
        ({"invisible_mask": rle.encode(mask(7, 2, 11, 12))}, "hidden part", "differs from amodal minus visible in 10"),
        ({"invisible_mask": rle.encode(mask(6, 2, 12, 12))}, "hidden part", "differs from amodal minus visible in 10"),
        ({"invisible_mask": {"size": [20, 30], "counts": "zzz"}}, "hidden part", "allowed: ASCII"),
        ({"invisible_mask": {"size": [30, 20], "counts": "00"}}, "hidden part", "swapped"),
    ],
)
def test_warnings(tmp_path: Path, change: dict[str, Any], kind: str, words: str) -> None:
    rate = {"occlude_rate": 0.8} if "visible_mask" in change else {}
    annotation = entry(7, mask(2, 2, 12, 12), mask(2, 2, 7, 12), **rate)
    report = check(write(tmp_path / "a.json", [{**annotation, **change}]))
    assert found(report) == [(kind, "warning", 1, 7)]
    assert words in report.problems[0].message
    assert not report.has_errors


def test_a_right_hidden_mask_and_small_differences_pass(tmp_path: Path) -> None:
    annotation = entry(7, mask(2, 2, 12, 12), mask(2, 2, 7, 12), invisible_mask=rle.encode(mask(7, 2, 12, 12)))
    annotation |= {"occlude_rate": 0.515, "bbox": [1, 3.5, 11.5, 9]}
    assert check(write(tmp_path / "a.json", [annotation])).problems == []


def cocoa(path: Path, order: str, hidden: np.ndarray) -> Path:
    """Two regions of an image of the amodal API: a square, and one behind it."""
    regions = [
        {"segmentation": [2, 2, 12, 2, 12, 12, 2, 12], "name": "front", "isStuff": 0, "order": 1, "occlude_rate": 0},
        {
            "segmentation": [7, 2, 17, 2, 17, 12, 7, 12],
            "name": "back",
            "isStuff": 0,
            "order": 2,
            "occlude_rate": 0.5,
            "visible_mask": rle.encode(mask(12, 2, 17, 12)),
            "invisible_mask": rle.encode(hidden),
        },
    ]
    annotation = {"id": 30, "image_id": 1, "size": 2, "depth_constraint": order, "regions": regions}
    images = [{"id": 1, "file_name": "a.png", "height": HEIGHT, "width": WIDTH}]
    path.write_text(json.dumps({"images": images, "annotations": [annotation]}))
    return path


def test_cocoa_regions_and_depth_order(tmp_path: Path) -> None:
    right = mask(7, 2, 12, 12)
    assert check(cocoa(tmp_path / "a.json", "1-2", right)).problems == []
    assert check(cocoa(tmp_path / "a.json", "", right)).problems == []
    cycle = check(cocoa(tmp_path / "a.json", "1-2,2-1", right))
    assert found(cycle) == [("depth order", "warning", 1, 30)]
    assert "cycle" in cycle.problems[0].message
    assert found(check(cocoa(tmp_path / "a.json", "1>2", right))) == [("depth order", "warning", 1, 30)]
    wrong = check(cocoa(tmp_path / "a.json", "1-2", mask(6, 2, 12, 12)))
    assert found(wrong) == [("hidden part", "warning", 1, 2)]
    assert coverage(load(cocoa(tmp_path / "a.json", "1-2", right), cache=False)) == 1.0


def test_a_file_of_crowds_is_told(tmp_path: Path) -> None:
    annotations = [
        entry(i, mask(2 * i, 2, 2 * i + 2, 9), mask(2 * i, 2, 2 * i + 2, 9), iscrowd=i > 1) for i in (1, 2, 3)
    ]
    report = check(write(tmp_path / "a.json", annotations))
    assert found(report) == [("crowds", "warning", None, None)]
    assert "2 of 3 annotations are crowds (iscrowd 1)" in report.problems[0].message
    annotations[1]["iscrowd"] = 0
    assert check(write(tmp_path / "a.json", annotations)).problems == []


def test_overlapping_objects_that_are_all_wholly_visible(tmp_path: Path) -> None:
    one, two, three = mask(2, 2, 12, 12), mask(8, 2, 18, 12), mask(9, 9, 18, 18)
    report = check(write(tmp_path / "a.json", [entry(i, m, m) for i, m in enumerate((one, two, three), 4)]))
    assert found(report) == [("overlap", "warning", 1, 4)]
    assert "annotations 4 and 5 share 40 pixels (40% of the smaller one)" in report.problems[0].message
    assert "so do 2 more pairs of this image" in report.problems[0].message
    sound = [entry(4, one, one), entry(5, two, two & ~one), entry(6, mask(12, 12, 20, 18), mask(12, 12, 20, 18))]
    assert check(write(tmp_path / "a.json", sound)).problems == []
    touching = [entry(4, one, one), entry(5, mask(11, 2, 29, 12), mask(11, 2, 29, 12))]  # 10 of 100 pixels
    touching[0] = entry(4, mask(2, 2, 12, 10), mask(2, 2, 12, 10))  # 8 of 80
    assert check(write(tmp_path / "a.json", touching)).problems == []


@pytest.mark.parametrize("key", ["visible_mask", "occlude_rate", "bbox"])
def test_a_key_that_only_some_annotations_have(key: str, tmp_path: Path) -> None:
    annotations = [entry(i, mask(6 * i, 2, 6 * i + 4, 9), mask(6 * i, 2, 6 * i + 4, 9)) for i in (1, 2, 3)]
    del annotations[1][key]
    report = check(write(tmp_path / "a.json", annotations))
    assert found(report) == [("partial key", "warning", None, None)]
    assert f"only 2 of 3 annotations have {key};" in report.problems[0].message


def test_twins_empty_classes_and_shared_files(tmp_path: Path) -> None:
    square = mask(2, 2, 12, 12)
    images = [{"id": i, "file_name": "a.png", "height": HEIGHT, "width": WIDTH} for i in (1, 2)]
    annotations = [entry(1, square, square), entry(2, square, square), entry(3, square, square, image_id=2)]
    report = check(write(tmp_path / "a.json", annotations, classes=2, images=images))
    assert found(report) == [
        ("duplicate instance", "warning", 1, 2),
        ("empty class", "warning", None, None),
        ("same file", "warning", 2, None),
    ]
    assert "annotation 1" in report.problems[0].message
    assert "'class 2' (id 2)" in report.problems[1].message


def test_errors_of_the_reader_are_listed_and_the_rest_is_counted(tmp_path: Path) -> None:
    square = mask(2, 2, 12, 12)
    bad = entry(2, square, square) | {"segmentation": {"size": [20, 30], "counts": [5]}}
    unknown = entry(3, square, square, category_id=9)
    empty = entry(4, np.zeros_like(square), np.zeros_like(square))
    whole = entry(1, square, square, invisible_mask=rle.encode(np.zeros_like(square)))
    report = check(write(tmp_path / "a.json", [whole, bad, unknown, empty, 5]))
    assert {(p.severity, p.annotation_id) for p in report.problems} == {("error", i) for i in (2, 3, None)}
    assert report.has_errors
    assert report.statistics.instances == 1
    assert [number for _, number, _ in report.dropped] == [1]


def test_pictures(tmp_path: Path) -> None:
    names = ["good.png", "missing.png", "cut.png", "large.png", "turned.png"]
    images = [{"id": i, "file_name": name, "height": HEIGHT, "width": WIDTH} for i, name in enumerate(names, 1)]
    noise = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "good.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "good.png").read_bytes()[:-500])
    Image.new("RGB", (WIDTH + 1, HEIGHT)).save(tmp_path / "large.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise).save(tmp_path / "turned.png", exif=exif)
    square = mask(2, 2, 12, 12)
    path = write(tmp_path / "a.json", [entry(1, square, square)], images=images)
    report = check(path, tmp_path)
    assert found(report) == [
        ("image", "error", 2, None),
        ("image", "error", 3, None),
        ("image", "error", 4, None),
        ("orientation", "warning", 5, None),
    ]
    for problem, name in zip(report.problems, names[1:], strict=True):
        assert problem.message.startswith(name)
    assert check(path).problems == []
    with pytest.raises(DataError, match="no such image folder"):
        check(path, tmp_path / "nowhere")


def test_coverage_by_hand() -> None:
    """The lower square (100 pixels) hides 50 behind the upper one's 5 columns and 20 behind nothing annotated; a fully
    hidden one (16 pixels) lies half under the upper square. 50 + 8 of 70 + 16 hidden pixels are covered. The crowd over
    everything and the modal instance do not count."""
    lower, upper = mask(0, 0, 10, 10), mask(5, 0, 15, 10)
    annotations = [
        {"image": 0, "label": 0, "amodal": lower, "visible": mask(2, 0, 5, 10)},
        {"image": 0, "label": 0, "amodal": upper},
        {"image": 0, "label": 0, "amodal": mask(13, 0, 17, 4), "visible": mask(0, 0, 0, 0)},
        {"image": 0, "label": 0, "amodal": mask(0, 0, 30, 20), "crowd": True},
        {"image": 1, "label": 0, "amodal": mask(0, 0, 30, 20), "visible": mask(0, 0, 3, 3), "amodal_known": False},
    ]
    data = AnnotationSet.from_masks([(HEIGHT, WIDTH)] * 2, annotations, ["cup"])
    assert coverage(data) == pytest.approx(58 / 86)
    bare = AnnotationSet.from_masks([(HEIGHT, WIDTH)], [{"image": 0, "label": 0, "amodal": upper}], ["cup"])
    assert coverage(bare) is None


def test_coverage_equals_a_slow_count() -> None:
    rng = np.random.default_rng(4)
    items = []
    for number in range(24):
        x0, y0 = rng.integers(0, 20), rng.integers(0, 12)
        amodal = mask(x0, y0, x0 + rng.integers(2, 10), y0 + rng.integers(2, 8))
        items.append(
            {"image": number % 3, "label": 0, "amodal": amodal, "visible": amodal & (rng.random((20, 30)) < 0.6)}
        )
    data = AnnotationSet.from_masks([(HEIGHT, WIDTH)] * 3, items, ["cup"])
    hidden = covered = 0
    for a in items:
        dark = a["amodal"] & ~a["visible"]
        others = [b["visible"] for b in items if b is not a and b["image"] == a["image"]]
        hidden += dark.sum()
        covered += (dark & np.any(others, axis=0)).sum()
    assert coverage(data) == pytest.approx(covered / hidden)


def test_statistics_by_hand() -> None:
    square = mask(2, 2, 12, 12)
    annotations = [
        {"image": 0, "label": 0, "amodal": square},
        {"image": 0, "label": 0, "amodal": square, "visible": mask(2, 2, 7, 12)},
        {"image": 0, "label": 1, "amodal": mask(0, 0, 4, 4), "visible": mask(0, 0, 0, 0)},
        {"image": 0, "label": 1, "amodal": square, "amodal_known": False},
        {"image": 0, "label": 1, "amodal": square, "crowd": True},
    ]
    images = [(HEIGHT, WIDTH)] + [(40, 60)] * 2
    data = AnnotationSet.from_masks(images, annotations, ["cup", "car", "key"], category_ids=[1, 5, 9])
    got = statistics(data)
    assert (got.images, got.empty_images, got.most_in_one_image) == (3, 2, 4)
    assert (got.widths, got.heights) == ((30, 60, 60), (20, 40, 40))
    assert (got.instances, got.crowds, got.modal_only, got.fully_hidden, got.cut_by_frame) == (4, 1, 1, 1, 1)
    assert got.histogram == (1, 0, 0, 0, 0, 1, 0, 1)
    cup, car, key = got.classes
    assert (cup.name, cup.category_id, cup.instances, cup.occluded, cup.mean_rate) == ("cup", 1, 2, 1, 0.25)
    assert (car.category_id, car.instances, car.occluded, car.mean_rate) == (5, 2, 1, 1.0)
    assert (key.instances, key.mean_rate) == (0, None)
    text = "\n".join(got.lines())
    assert "0.40 to 0.60" in text
    assert "3, 2 of them without an instance" in text


def test_statistics_of_nothing() -> None:
    got = statistics(AnnotationSet.from_masks([], [], []))
    assert got.images == got.instances == 0
    assert got.sides is got.coverage is None
    assert got.lines()


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    square = mask(2, 2, 12, 12)
    good = [entry(i, square, square, occlude_rate=0.5) for i in range(1, 6)]
    path = write(tmp_path / "a.json", good)
    assert main(["check", str(path), "--limit", "2"]) == 0
    out = capsys.readouterr().out
    assert "warning: image 1, annotation 1: stored occlusion rate 0.500, masks give 0.000" in out
    assert "warning: 3 more of the kind 'stored rate' (--limit 0 prints all)" in out
    assert "no errors, 9 warnings" in out
    assert "coverage" in out
    assert main(["check", str(path), "--images", str(tmp_path)]) == 1
    assert "error: image 1: a.png: no such file" in capsys.readouterr().out
    assert main(["check", str(tmp_path / "none.json")]) == 2


def test_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = [{"id": i, "file_name": f"sub/{i}.jpg", "height": HEIGHT, "width": WIDTH} for i in (3, 4, 5, 6)]
    (tmp_path / "sub").mkdir()
    for i in (3, 4, 5, 6):
        Image.new("RGB", (WIDTH, HEIGHT), "gray").save(tmp_path / "sub" / f"{i}.jpg")
    annotations = [entry(i, mask(2, 2, 12, 12), mask(2, 2, 7, 12), image_id=i) for i in (3, 5, 6)]
    path = write(tmp_path / "a.json", annotations, images=images)
    out = tmp_path / "out"
    assert main(["show", str(path), str(tmp_path), str(out), "--limit", "2"]) == 0
    assert "2 pictures" in capsys.readouterr().out
    assert sorted(p.name for p in out.iterdir()) == ["3_3.png", "5_5.png"]
    picture = np.asarray(Image.open(out / "3_3.png")).astype(int)
    factor = picture.shape[0] // HEIGHT
    assert picture.shape == (HEIGHT * factor, WIDTH * factor, 3)
    inside, outside = picture[8 * factor, 5 * factor], picture[18 * factor, 28 * factor]
    assert np.abs(outside - 128).max() <= 2
    assert np.ptp(inside) > 20  # coloured
    assert main(["show", str(path), str(tmp_path), str(out), "--limit", "-1"]) == 2
    assert main(["show", str(path), str(tmp_path / "none"), str(out)]) == 2
