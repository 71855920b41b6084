"""One rule for which class is which: by name, ids between equal names."""

import pytest

from amodal.data.classes import Classes, ClassMatch, match
from amodal.errors import DataError


def pair(ours: dict[int, str], theirs: dict[int, str]) -> ClassMatch:
    first, second = (Classes(list(one.values()), list(one), owner) for one, owner in ((ours, "A"), (theirs, "B")))
    return match(first, second, file="b.json")


def test_names_decide_whatever_the_ids() -> None:
    found = pair({1: "cup", 2: "fish"}, {2: "cup", 101: "fish"})
    assert found.category_of == {1: 2, 2: 101}
    assert not found.told()


def test_classes_of_one_name_are_told_apart_by_id() -> None:
    found = pair({1: "car", 5: "car"}, {5: "car", 1: "car"})
    assert found.category_of == {1: 1, 5: 5}
    assert found.label_of == {1: 0, 0: 1}
    assert pair({1: "car"}, {1: "car", 5: "car"}).category_of == {1: 1}


def test_classes_that_cannot_be_told_apart_are_refused() -> None:
    with pytest.raises(DataError, match=r"b\.json: class name 'car' stands for categories 3 of A and 1, 5 of B"):
        pair({3: "car"}, {1: "car", 5: "car"})


def test_classes_without_partner_are_named_with_the_nearest() -> None:
    found = pair({1: "cup", 2: "fish"}, {1: "cup", 2: "Fish", 3: "dog"})
    assert found.category_of == {1: 1, 2: None}
    assert found.told() == [
        "warning: classes of A that B does not have: 'fish' (nearest is 'Fish')",
        "warning: classes of B that A does not have: 'Fish' (nearest is 'fish'), 'dog'",
    ]
    assert not pair({1: "cup"}, {1: "dog"})
