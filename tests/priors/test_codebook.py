"""A codebook is fitted, saved and checked as a prior is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from amodal.data.store import AnnotationSet
from amodal.errors import AmodalError, ConfigError
from amodal.priors.codebook import MAKER, SETTINGS, TENSORS, Codebook, eight_ways
from amodal.settings import CodebookConfig

SMALL = CodebookConfig(slots=6, encoder_steps=5)


@pytest.fixture(scope="module")
def book(tiny_annotations: AnnotationSet) -> Codebook:
    return MAKER.fit(tiny_annotations, SMALL, data="digest")[0]


def test_equal_fits_are_equal_and_loading_gives_the_same(
    book: Codebook, tiny_annotations: AnnotationSet, tmp_path: Path
) -> None:
    MAKER.save(book, tmp_path / "one")
    MAKER.save(MAKER.fit(tiny_annotations, SMALL, data="digest")[0], tmp_path / "two")
    for name in (SETTINGS, TENSORS):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    again = MAKER.load(tmp_path / "one")
    assert MAKER.read_settings(tmp_path / "one") == (SMALL, "digest")
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in book.state_dict().items())
    assert (again.class_names, again.category_ids) == (book.class_names, book.category_ids)


def test_codes_are_those_of_the_masks_in_eight_ways_until_they_are_too_many(book: Codebook) -> None:
    assert book.codes.shape[1:] == (6, 392)
    assert max(book.counts.tolist()) == 6
    mask = torch.zeros(1, 28, 28, dtype=torch.bool)
    mask[0, 2, 5] = True
    ways = eight_ways(mask)
    places = {tuple(torch.nonzero(way)[0].tolist()) for way in ways}
    assert places == {(2, 5), (22, 2), (25, 22), (5, 25), (2, 22), (22, 25), (25, 5), (5, 2)}


def test_it_follows_the_model_and_stays_single(book: Codebook) -> None:
    assert {value.dtype for value in book.half().state_dict().values()} == {torch.float32, torch.int64}
    assert not any(value.requires_grad for value in book.parameters())


def test_other_classes_are_refused(book: Codebook) -> None:
    book.check_classes(book.class_names, book.category_ids)
    with pytest.raises(ConfigError, match="fit a codebook for these data"):
        book.check_classes(["other", *book.class_names[1:]], book.category_ids)


def test_damaged_folders_are_one_line_that_names_the_file(book: Codebook, tmp_path: Path) -> None:
    def fails(name: str) -> str:
        with pytest.raises(AmodalError) as caught:
            MAKER.load(tmp_path / "book")
        assert str(tmp_path / "book" / name) in str(caught.value)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    with pytest.raises(AmodalError, match="no such folder of a shape codebook"):
        MAKER.load(tmp_path / "nothing")
    for old, new in (("slots: 6", "slots: 7"), ("slots: 6", "slots: 0"), ("slots", "slotz"), ("class_names", "names")):
        MAKER.save(book, tmp_path / "book")
        path = tmp_path / "book" / SETTINGS
        path.write_text(path.read_text().replace(old, new))
        fails(TENSORS if new == "slots: 7" else SETTINGS)
    MAKER.save(book, tmp_path / "book")
    tensors = load_file(tmp_path / "book" / TENSORS)
    save_file({**tensors, "counts": tensors["counts"] + 9}, tmp_path / "book" / TENSORS)
    assert "counts must be from 0 to 6" in fails(TENSORS)
    save_file({**tensors, "codes": tensors["codes"] * float("nan")}, tmp_path / "book" / TENSORS)
    fails(TENSORS)
    (tmp_path / "book" / TENSORS).write_bytes(b"cut")
    fails(TENSORS)
