"""``amodal prior show``: which objects, which pictures, the model's own queries, one-line errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from amodal import build
from amodal.checkpoint import save_model
from amodal.cli import main
from amodal.data.canonical import write
from amodal.data.classes import Classes, ClassMatch, match
from amodal.data.store import AnnotationSet
from amodal.errors import ConfigError, DataError
from amodal.priors.prior import Prior
from amodal.priors.prior_io import save_prior
from amodal.settings import PGExpConfig
from amodal.train.data import annotation_digest
from amodal.verbs.prior_show import choose_rows, show
from amodal.viz.explanation import BoxPriors, Explanation

Make = Callable[..., Any]


@pytest.fixture
def place(tmp_path: Path, tiny_annotations: AnnotationSet, tiny_prior: Prior, example: Make) -> Path:
    """A folder with the tiny prior, its annotations and their pictures."""
    save_prior(tiny_prior, tmp_path / "prior")
    write(tiny_annotations, tmp_path / "ann.json")
    (tmp_path / "images").mkdir()
    for index, name in enumerate(tiny_annotations.file_names):
        Image.fromarray(example(index).image.permute(1, 2, 0).numpy()).save(tmp_path / "images" / name)
    return tmp_path


@pytest.fixture
def matched(tiny_annotations: AnnotationSet) -> Callable[..., ClassMatch]:
    """The classes of a prior with these names, matched with those of the annotations."""

    def make(*names: str) -> ClassMatch:
        theirs = Classes(tiny_annotations.class_names, tiny_annotations.category_ids, "the annotations")
        return match(Classes(names, range(1, len(names) + 1), "the prior"), theirs)

    return make


def test_pictures_of_partly_hidden_objects(
    place: Path, tiny_annotations: AnnotationSet, capsys: pytest.CaptureFixture[str], matched: Callable[..., ClassMatch]
) -> None:
    show(place / "prior", place / "ann.json", place / "out", limit=3)
    rows = choose_rows(tiny_annotations, matched("square", "disc"), 3)
    printed = capsys.readouterr().out
    assert printed.startswith("3 pictures, ")
    assert printed.endswith(f" with a visible expansion, drawn at 300 px a panel: {place / 'out'}\n")
    numbers = [int(tiny_annotations.annotation_ids[row]) for row in rows]
    found = sorted((place / "out").iterdir())
    assert sorted(int(path.stem.split("_")[-1]) for path in found) == sorted(numbers)
    picture = np.asarray(Image.open(found[0]))
    assert picture.shape[1] == 972
    # With images the same rows, the picture behind the boxes.
    show(place / "prior", place / "ann.json", place / "seen", images=place / "images", limit=3)
    other = np.asarray(Image.open(place / "seen" / found[0].name))
    assert other.shape == picture.shape
    assert not np.array_equal(other, picture)
    assert np.array_equal(other[:70], picture[:70]), "the titles differ"


def test_one_that_expands_takes_the_place_of_the_last(
    place: Path,
    tiny_annotations: AnnotationSet,
    capsys: pytest.CaptureFixture[str],
    matched: Callable[..., ClassMatch],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = choose_rows(tiny_annotations, matched("square", "disc"), 0)
    chosen = choose_rows(tiny_annotations, matched("square", "disc"), 2)
    wanted = [row for row in rows if row not in chosen][-1]

    def found(prior: Prior, annotations: AnnotationSet, part: list[int], **rest: object) -> list[Explanation]:
        made = []
        for row in part:
            box, grid = annotations.amodal_boxes[row], np.ones((28, 28))
            wider = box + np.array([0, 0, 20 * (row == wanted), 0])
            made.append(Explanation("disc", box, grid, box, boxes=BoxPriors(wider[None], np.ones(1))))
        return made

    monkeypatch.setattr("amodal.priors.explain.explain_objects", found)
    show(place / "prior", place / "ann.json", place / "out", limit=2, draw_size=150)
    assert "2 pictures, 1 with a visible expansion, drawn at 150 px a panel" in capsys.readouterr().out
    numbers = {int(path.stem.split("_")[-1]) for path in (place / "out").iterdir()}
    assert numbers == {int(tiny_annotations.annotation_ids[row]) for row in (chosen[0], wanted)}


def test_rows_are_hidden_objects_of_known_classes_at_even_steps(
    tiny_annotations: AnnotationSet, matched: Callable[..., ClassMatch]
) -> None:
    rate = tiny_annotations.occlude_rate
    hidden = [row for row in range(36) if 0.15 <= rate[row] <= 0.85]
    assert choose_rows(tiny_annotations, matched("square", "disc"), 0) == hidden
    assert choose_rows(tiny_annotations, matched("square", "disc"), 2) == [hidden[0], hidden[-1]]
    discs = choose_rows(tiny_annotations, matched("disc", "moon"), 0)
    assert discs == [row for row in hidden if tiny_annotations.labels[row] == 1]
    with pytest.raises(DataError, match="moon"):
        choose_rows(tiny_annotations, matched("moon"), 0)


@pytest.mark.parametrize("same", [False, True])
def test_own_images_are_left_out_on_the_fitted_file(
    same: bool,
    place: Path,
    tiny_annotations: AnnotationSet,
    tiny_prior: Prior,
    monkeypatch: pytest.MonkeyPatch,
    matched: Callable[..., ClassMatch],
) -> None:
    asked = []
    search = Prior.search

    def listen(self: Prior, *given: Any, **more: Any) -> Any:
        asked.append(more["exclude_images"])
        return search(self, *given, **more)

    monkeypatch.setattr(Prior, "search", listen)
    data = annotation_digest(tiny_annotations) if same else "another"
    parts = (tiny_prior.class_names, tiny_prior.category_ids, tiny_prior.encoder, tiny_prior.flow, tiny_prior.bank)
    save_prior(Prior(tiny_prior.config, *parts, data=data), place / "prior")
    show(place / "prior", place / "ann.json", place / "out", limit=1)
    (row,) = choose_rows(tiny_annotations, matched("square", "disc"), 1)
    expected = int(tiny_annotations.image_ids[tiny_annotations.image_index[row]])
    assert [None if images is None else images.tolist() for images in asked] == [[expected] if same else None]


def test_a_model_asks_with_what_it_sees(
    place: Path,
    tiny_annotations: AnnotationSet,
    tiny_prior: Prior,
    tiny_config: Make,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    matched: Callable[..., ClassMatch],
) -> None:
    method = PGExpConfig(k=3, candidates=5, box_channels=16, rerank="occluder", rerank_weight=1.0)
    model = build("pgexp", 2, config=replace(tiny_config("pgexp"), method=method), prior=tiny_prior)
    save_model(model, place / "ckpt")
    first, second = choose_rows(tiny_annotations, matched("square", "disc"), 2)

    def found(model: Any, image: np.ndarray) -> list[Explanation]:
        """Only the first object is found, in its place."""
        assert model.prior is not None
        assert image.shape == (96, 96, 3)
        box, mask = tiny_annotations.amodal_boxes[first], np.ones((28, 28))
        name = tiny_annotations.class_names[tiny_annotations.labels[first]]
        return [Explanation(name, box, mask, box, 0.5, box, mask)]

    monkeypatch.setattr("amodal.pictures.explain_image", found)
    show(
        place / "prior",
        place / "ann.json",
        place / "out",
        images=place / "images",
        checkpoint=str(place / "ckpt"),
        limit=2,
    )
    assert tiny_annotations.image_index[first] != tiny_annotations.image_index[second]
    told = "1 picture, 0 with a visible expansion, drawn at 300 px a panel"
    assert capsys.readouterr().out == f"{told}: {place / 'out'} (objects not detected: 1)\n"
    (path,) = (place / "out").iterdir()
    assert path.stem.endswith(f"_{tiny_annotations.annotation_ids[first]}")


def test_errors(place: Path, tiny_config: Make, capsys: pytest.CaptureFixture[str]) -> None:
    given = (place / "prior", place / "ann.json", place / "out")
    with pytest.raises(ConfigError, match="--limit is -1"):
        show(*given, limit=-1)
    with pytest.raises(ConfigError, match="--draw-size is 50, must be 100 to 2000"):
        show(*given, draw_size=50)
    with pytest.raises(ConfigError, match="--checkpoint needs --images"):
        show(*given, checkpoint="x")
    save_model(build("mask_rcnn", 2, config=tiny_config()), place / "plain")
    with pytest.raises(ConfigError, match=r"plain: this model uses no expansion prior"):
        show(*given, images=place / "images", checkpoint=str(place / "plain"))
    assert main(["prior", "show", str(place / "nothing"), str(place / "ann.json"), str(place / "out")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "nothing" in error
    assert not (place / "out").exists()


def test_what_is_left_out_is_told(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = json.loads((place / "ann.json").read_text())
    data["annotations"][0] |= {"segmentation": [[1, 1, 5, 5]]}
    (place / "ann.json").write_text(json.dumps(data))
    show(place / "prior", place / "ann.json", place / "out", limit=1)
    assert f"{place / 'ann.json'}: left out 1: empty amodal mask (e.g. 1)" in capsys.readouterr().err


def test_command_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prior", "show", *(str(place / name) for name in ("prior", "ann.json", "out")), "--limit", "1"]) == 0
    assert "1 picture, " in capsys.readouterr().out


def test_a_broken_picture_and_a_long_name_cost_nothing_else(
    place: Path, tiny_annotations: AnnotationSet, capsys: pytest.CaptureFixture[str], matched: Callable[..., ClassMatch]
) -> None:
    rows = choose_rows(tiny_annotations, matched("square", "disc"), 0)
    first, last = (int(tiny_annotations.image_index[row]) for row in (rows[0], rows[-1]))
    names = list(tiny_annotations.file_names)
    names[last] = "k" * 250 + ".png"
    (place / "images" / tiny_annotations.file_names[last]).rename(place / "images" / names[last])
    (place / "images" / names[first]).write_bytes(b"no picture")
    write(replace(tiny_annotations, file_names=names), place / "ann.json")
    show(place / "prior", place / "ann.json", place / "out", images=place / "images", limit=0)
    hit = [row for row in rows if int(tiny_annotations.image_index[row]) == first]
    printed = capsys.readouterr()
    assert f"{len(rows) - len(hit)} pictures, " in printed.out
    assert f"could not be drawn:\n  annotation {int(tiny_annotations.annotation_ids[hit[0]])}: " in printed.err
    assert len(list((place / "out").iterdir())) == len(rows) - len(hit)
