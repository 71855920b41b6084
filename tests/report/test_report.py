"""The report: self-contained, escaped, right cases, right colours, robust to small sets."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from amodal.data import rle
from amodal.data.store import AnnotationSet
from amodal.evaluation import prepare
from amodal.evaluation.levels import Curve, Level
from amodal.evaluation.matches import Match
from amodal.report import choose_cases, write_report
from amodal.report.charts import bars, curves
from amodal.report.pictures import matching_colors, window_around
from amodal.viz.instances import sampled

SIDE = 48
EVIL = '<script>alert("1")</script>&'


def disc(x: float, y: float, radius: float) -> np.ndarray:
    ys, xs = np.mgrid[:SIDE, :SIDE] + 0.5
    return (xs - x) ** 2 + (ys - y) ** 2 < radius**2


def make(folder: Path, visible: bool = True, found: bool = True, images: int = 3) -> tuple:
    """Pictures with two discs, the second over the first; detections are the truth moved by a pixel."""
    names = [f"a&b {k}.png" for k in range(images)]
    whole, front = disc(18, 24, 12), disc(28, 24, 10)
    annotations = []
    for k, name in enumerate(names):
        Image.new("RGB", (SIDE, SIDE), (40 * k, 90, 120)).save(folder / name)
        annotations.append({"image": k, "label": 0, "amodal": whole, "visible": whole & ~front})
        annotations.append({"image": k, "label": 1, "amodal": front})
    truth = AnnotationSet.from_masks([(SIDE, SIDE)] * images, annotations, [EVIL, "cup"], file_names=names)
    results = []
    for row in range(len(annotations) if found else 0):
        amodal = np.roll(truth.amodal_mask(row), 1, 0)
        result = {
            "image_id": int(truth.image_ids[truth.image_index[row]]),
            "category_id": truth.category_ids[truth.labels[row]],
            "score": 0.95 - 0.15 * row,
            "bbox": [1.0, 1.0, 20.0, 20.0],
            "segmentation": rle.encode(amodal),
        }
        if visible:
            result["visible_mask"] = rle.encode(np.roll(truth.visible_mask(row), 1, 0))
        results.append(result)
    return truth, results


def write(tmp_path: Path, **options: object) -> str:
    images = tmp_path / "images"
    images.mkdir()
    truth, results = make(images, **options)
    evaluation = prepare(truth, results)
    metrics = evaluation.metrics(per_class=True)
    path = write_report(
        tmp_path / "out", evaluation, images, metrics=metrics, title=f"Report {EVIL}", facts={"System": EVIL}
    )
    assert path == tmp_path / "out" / "report.html"
    return path.read_text(encoding="utf-8")


class Checker(HTMLParser):
    """Collects tags and checks that they close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parsed(text: str) -> Checker:
    checker = Checker()
    checker.feed(text)
    assert checker.open == []
    return checker


@pytest.mark.parametrize("visible", [True, False])
def test_page_is_sound_and_asks_for_nothing(tmp_path: Path, visible: bool) -> None:
    text = write(tmp_path, visible=visible)
    page = parsed(text)
    assert "script" not in {tag for tag, _ in page.tags}
    assert "link" not in {tag for tag, _ in page.tags}
    sources = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert len(sources) >= 9
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert not re.search(r"https?://|url\((?!#)", text)
    assert all(attributes.get("alt") for tag, attributes in page.tags if tag == "img")
    identifiers = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))


def test_names_are_escaped(tmp_path: Path) -> None:
    text = write(tmp_path)
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert "a&amp;b 0.png" in text
    assert "a&b" not in text


def test_pictures_come_before_the_numbers_tables(tmp_path: Path) -> None:
    text = write(tmp_path)
    assert text.index("<img") < text.index('<svg viewBox="0 0 480') < text.index("<table")


@pytest.mark.parametrize("images", [1, 2])
def test_without_any_detection(tmp_path: Path, images: int) -> None:
    text = write(tmp_path, found=False, images=images)
    parsed(text)
    assert "Missed" in text
    assert "Best:" not in text


def match(row: int, iou: float, hidden: float | None, rate: float = 0.5, detection: int | None = 0) -> Match:
    return Match(1, row, row, 0, detection, 0.9, iou, hidden, rate)


def test_cases_by_hidden_part() -> None:
    matches = [match(row, 0.9, row / 20) for row in range(20)]
    matches += [
        match(20, 0.6, 0.0, rate=0.99),
        match(21, 0.0, 0.0, detection=None),
        match(22, 0.0, None, detection=None),
    ]
    best, worst, missed = choose_cases(matches, np.arange(23))
    assert [case.row for case in best] == [19, 18, 17, 16, 15, 14]
    assert [case.row for case in worst] == [0, 1, 2, 3, 4, 5]
    assert [case.row for case in missed] == [22, 21]


def test_cases_without_visible_masks_and_with_few_objects() -> None:
    best, worst, missed = choose_cases([match(0, 0.6, None), match(1, 0.9, None), match(2, 0.7, None)], np.ones(3))
    assert [case.row for case in best] == [1]
    assert [case.row for case in worst] == [0]
    assert missed == []


def test_bars_show_every_level() -> None:
    chart = bars([Level(0.0, 0.05, 3, 50.0), Level(0.05, 0.15, 0, None)])
    assert chart.count('class="bar"') == 1
    assert ">50.0<" in chart
    assert "n = 3" in chart
    assert "5 to 15 % hidden: undefined" in chart
    bar = re.search(r'class="bar" x="[\d.]+" y="([\d.]+)" width="[\d.]+" height="([\d.]+)"', chart)
    top, height = float(bar[1]), float(bar[2])
    base = top + height
    line = float(re.search(r'class="rule"[^>]*y1="([\d.]+)"', chart)[1])
    assert base == pytest.approx(line, abs=0.1)
    full = bars([Level(0.0, 0.05, 3, 100.0)])
    assert float(re.search(r'class="bar"[^>]*height="([\d.]+)"', full)[1]) == pytest.approx(2 * height, abs=0.2)


def test_curve_runs_from_corner_to_corner() -> None:
    chart = curves([Curve(0.5, [0.0, 0.5, 1.0], [1.0, 0.5, 0.0])])
    points = [tuple(map(float, p.split(","))) for p in re.search(r'points="([^"]+)"', chart)[1].split()]
    assert points[1][0] == pytest.approx((points[0][0] + points[2][0]) / 2, abs=0.1)
    assert points[1][1] == pytest.approx((points[0][1] + points[2][1]) / 2, abs=0.1)
    assert points[0][1] < points[2][1]


def test_detections_get_the_colours_of_their_objects() -> None:
    truth = np.stack([disc(12, 12, 8), disc(36, 36, 8), disc(36, 12, 8)])
    found = np.stack([np.roll(truth[1], 1, 0), disc(12, 36, 8), truth[0]])
    assert matching_colors(found, truth) == [1, 3, 0]
    assert matching_colors(found, truth[:0]) == [0, 1, 2]
    assert matching_colors(found[:0], truth) == []


def test_shrink_samples_pixel_centres() -> None:
    mask = np.zeros((1, 4, 6), bool)
    mask[:, :2, :3] = True
    assert np.array_equal(sampled(mask, 2, 2), [[[True, False], [False, False]]])


def test_windows_stay_in_the_image() -> None:
    rows, columns = window_around(np.array([[0.0, 0.0, 10.0, 20.0]]), 100, 200)
    assert (rows.start, rows.stop) == (0, 30)
    assert (columns.start, columns.stop) == (0, 30)
    rows, columns = window_around(np.array([[80.0, 5.0, 199.0, 95.0], [10.0, 0.0, 20.0, 5.0]]), 100, 200)
    assert (rows.start, rows.stop, columns.start, columns.stop) == (0, 100, 0, 200)
    rows, columns = window_around(np.array([[0.0, 0.0, 1.0, 1.0]]), 8, 8)
    assert (rows.start, rows.stop, columns.start, columns.stop) == (0, 8, 0, 8)


def test_an_image_that_cannot_be_shown_costs_its_place_alone(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    truth, results = make(images)
    (images / "a&b 1.png").write_bytes(b"no picture")
    evaluation = prepare(truth, results)
    metrics = evaluation.metrics(per_class=True)
    text = write_report(tmp_path, evaluation, images, metrics=metrics, title="t", facts={}).read_text()
    Checker().feed(text)
    assert text.count('<article class="scene">') == 3
    assert text.count("not shown") >= 1
    assert "Images that could not be shown</dt><dd>1: a&amp;b 1.png: " in text
    whole = write_report(tmp_path, prepare(truth, results[:0]), images, metrics=metrics, title="t\ud800", facts={})
    assert "t\\ud800" in whole.read_text()
