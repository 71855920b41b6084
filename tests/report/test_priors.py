"""The report's section on priors: which objects, whose explanation, sound markup, nothing for other systems."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from amodal.data import rle
from amodal.data.store import AnnotationSet
from amodal.evaluation import prepare
from amodal.evaluation.matches import Match
from amodal.evaluation.metrics import Evaluation
from amodal.report import write_report
from amodal.report.priors import choose_explained, explain_cases
from amodal.viz.explanation import BoxPriors, Explanation, FlowPriors, Reranked
from amodal.viz.priors import find_box

SIDE = 40
EVIL = "<b>cup</b>"


def match(row: int, rate: float, detection: int | None = 0) -> Match:
    return Match(1, row, row, 0, detection, 0.9, 0.8, 0.5, rate)


def test_found_objects_that_are_partly_hidden_at_even_steps() -> None:
    matches = [match(row, 0.5) for row in range(13)]
    matches += [match(20, 0.9), match(21, 0.1), match(22, 0.5, detection=None)]
    assert [one.row for one in choose_explained(matches, 4)] == [0, 4, 8, 12]
    assert [one.row for one in choose_explained(matches[12:], 4)] == [12]
    assert [one.row for one in choose_explained(matches[13:], 4)] == [20, 21]
    assert choose_explained(matches[-1:]) == []


def explanation(box: list[float], name: str = EVIL, rerank: bool = True) -> Explanation:
    own = np.array(box)
    made = Explanation(name, own, np.ones((28, 28)), own, 0.9, own, np.ones((28, 28)))
    boxes, distance, shapes = np.stack([own, own + np.array([0, 0, 5, 5])]), np.array([1.0, 2.0]), np.ones((2, 28, 28))
    made.boxes = BoxPriors(boxes, distance)
    made.flows = FlowPriors(own, np.ones((28, 28)), shapes, np.zeros((2, 2, 14, 14)), distance)
    if rerank:
        kept = np.array([True, False])
        made.reranked = Reranked(boxes, shapes, distance, distance / 4, kept, np.zeros((56, 56)), own)
    return made


def test_explanations_belong_to_the_best_box_of_the_class() -> None:
    near, exact = explanation([0, 0, 10, 9]), explanation([0, 0, 10, 10])
    box = np.array([0.0, 0.0, 10.0, 10.0])
    assert find_box([near, exact, near], EVIL, box) is exact
    assert find_box([explanation([0, 0, 10, 10], "hat"), near], EVIL, box) is near
    assert find_box([explanation([0, 0, 10, 4])], EVIL, box) is None
    assert find_box([explanation([0, 0, 10, 5])], EVIL, box) is not None
    assert find_box([], EVIL, box) is None


@pytest.fixture
def evaluated(tmp_path: Path) -> Evaluation:
    """Two pictures with a half-hidden square each, found in its place."""
    whole = np.zeros((SIDE, SIDE), bool)
    whole[10:30, 5:25] = True
    seen = whole.copy()
    seen[:, 15:] = False
    items = []
    for image in range(2):
        Image.new("RGB", (SIDE, SIDE), (200, 90 * image, 90)).save(tmp_path / f"{image}.png")
        items.append({"image": image, "label": 0, "amodal": whole, "visible": seen})
    truth = AnnotationSet.from_masks([(SIDE, SIDE)] * 2, items, [EVIL], file_names=["0.png", "1.png"])
    results = [
        {"image_id": int(number), "category_id": 1, "score": 0.9, "bbox": [5.0, 10.0, 20.0, 20.0]}
        | {"segmentation": rle.encode(whole), "visible_mask": rle.encode(seen)}
        for number in truth.image_ids
    ]
    return prepare(truth, results)


def report(evaluation: Evaluation, folder: Path, **more: object) -> str:
    metrics = evaluation.metrics(per_class=True)
    return write_report(folder, evaluation, folder, metrics=metrics, title="t", facts={}, **more).read_text()


def test_cases_are_explained_image_by_image(evaluated: Evaluation, tmp_path: Path) -> None:
    asked = []

    def explain(image: np.ndarray) -> list[Explanation]:
        asked.append(int(image[0, 0, 1]))
        found = [5, 10, 25, 30] if image[0, 0, 1] == 0 else [26, 31, 39, 39]  # The second is elsewhere.
        return [explanation(found)]

    cases = explain_cases(evaluated, tmp_path, explain)
    assert asked == [0, 90]
    assert [case.match.image_id for case in cases] == [1]
    assert cases[0].truth.visible.sum() == 200
    assert cases[0].image.shape == (SIDE, SIDE, 3)


def test_what_expands_is_shown_and_comes_first(evaluated: Evaluation, tmp_path: Path, monkeypatch: Any) -> None:
    def explain(image: np.ndarray) -> list[Explanation]:
        made = explanation([5, 10, 25, 30], rerank=False)
        if image[0, 0, 1] == 90:
            assert made.boxes is not None
            made.boxes.boxes = made.boxes.boxes[::-1]
        return [made]

    cases = explain_cases(evaluated, tmp_path, explain)
    assert [case.match.image_id for case in cases] == [2, 1]
    # One object alone is shown: the first does not expand, so the second takes its place.
    monkeypatch.setattr(choose_explained, "__defaults__", (1,))
    assert [case.match.image_id for case in explain_cases(evaluated, tmp_path, explain)] == [2]


@pytest.mark.parametrize("rerank", [False, True])
def test_section(rerank: bool, evaluated: Evaluation, tmp_path: Path) -> None:
    cases = explain_cases(evaluated, tmp_path, lambda image: [explanation([5, 10, 25, 30], rerank=rerank)])
    text = report(evaluated, tmp_path, priors=cases)
    section = text[text.index("<h2>Expansion priors") : text.index("<h2>Curves")]
    assert text.index("<h2>Pictures") < text.index("<h2>Expansion priors")
    assert section.count("<article") == 2
    assert section.count("<img") == 2 * (3 + 2 + 2 + 2 * rerank)
    assert EVIL not in text
    assert "&lt;b&gt;cup&lt;/b&gt;, 50 % hidden, mask IoU 1.00" in section
    assert "IoU 1.00" in section
    assert section.count("smaller is more alike") == 2 + rerank, "said once a row, not for every object"
    assert ("kept (1 of 2)" in section) == ("thrown away (1 of 2)" in section) == rerank
    for tag in ("section", "article", "div", "figure", "figcaption", "ul", "li", "h3", "p", "svg"):
        assert len(re.findall(rf"<{tag}[ >]", text)) == text.count(f"</{tag}>")


def test_other_systems_have_no_such_section(evaluated: Evaluation, tmp_path: Path) -> None:
    assert "Expansion priors" not in report(evaluated, tmp_path)


def test_a_class_that_the_bank_does_not_know_shows_nothing(evaluated: Evaluation, tmp_path: Path) -> None:
    def explain(image: np.ndarray) -> list[Explanation]:
        unknown = explanation([5, 10, 25, 30])
        assert unknown.boxes is not None
        assert unknown.flows is not None
        assert unknown.reranked is not None
        for part in (unknown.boxes, unknown.flows, unknown.reranked):
            part.distance = np.full(2, np.inf)
        return [unknown]

    cases = explain_cases(evaluated, tmp_path, explain)
    assert len(cases) == 2
    assert "Expansion priors" not in report(evaluated, tmp_path, priors=cases)
