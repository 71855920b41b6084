"""Which class of one list is which of another: by name, whatever the ids; the one rule for every part of the package.

Names that occur once on both sides belong together. Ids decide between classes of the same name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from amodal.errors import DataError, nearest

_LISTED = 10  # classes that are named in a message


class Classes(NamedTuple):
    """The classes of a file, a model or a prior.

    Attributes:
        names: their names, in label order; they may repeat.
        ids: category ids, all different.
        owner: how messages call whose classes they are.
    """

    names: Sequence[str]
    ids: Sequence[int]
    owner: str


@dataclass(frozen=True)
class ClassMatch:
    """Partners of classes.

    Attributes:
        ours, theirs: the two lists.
        partner: for each of ours the label of its partner in theirs; None without one.
    """

    ours: Classes
    theirs: Classes
    partner: list[int | None]

    def __bool__(self) -> bool:
        """Whether any class has a partner."""
        return any(label is not None for label in self.partner)

    @property
    def category_of(self) -> dict[int, int | None]:
        """Their category id for each of ours; None without partner."""
        found = (None if label is None else int(self.theirs.ids[label]) for label in self.partner)
        return dict(zip(map(int, self.ours.ids), found, strict=True))

    @property
    def label_of(self) -> dict[int, int]:
        """Our label for each of their labels that has a partner."""
        return {label: own for own, label in enumerate(self.partner) if label is not None}

    def told(self) -> list[str]:
        """One line for each side that has classes without partner."""
        taken = self.label_of
        ours = [name for name, label in zip(self.ours.names, self.partner, strict=True) if label is None]
        theirs = [name for label, name in enumerate(self.theirs.names) if label not in taken]
        return [
            f"warning: classes of {one.owner} that {other.owner} does not have: {_listed(names, other.names)}"
            for one, other, names in ((self.ours, self.theirs, ours), (self.theirs, self.ours, theirs))
            if names
        ]


def match(ours: Classes, theirs: Classes, *, file: str | Path | None = None) -> ClassMatch:
    """The partner of each of our classes among theirs.

    Args:
        ours, theirs: both lists.
        file: what errors name.

    Raises:
        DataError: a name stands for several classes, and their ids do not tell them apart.
    """
    partner: list[int | None] = [None] * len(ours.names)
    for name in dict.fromkeys(ours.names):
        here, there = _labels(ours, name), _labels(theirs, name)
        if len(here) == len(there) == 1:
            partner[here[0]] = there[0]
            continue
        by_id = {int(theirs.ids[label]): label for label in there}
        for label in here:
            partner[label] = by_id.pop(int(ours.ids[label]), None)
        left = [int(ours.ids[label]) for label in here if partner[label] is None]
        if left and by_id:
            raise DataError(
                f"class name {name!r} stands for categories {_ids(ours, here)} of {ours.owner} and"
                f" {_ids(theirs, there)} of {theirs.owner}, which cannot be told apart; give them names of their own,"
                " or the same ids",
                file=file,
            )
    return ClassMatch(ours, theirs, partner)


def _labels(classes: Classes, name: str) -> list[int]:
    return [label for label, other in enumerate(classes.names) if other == name]


def _ids(classes: Classes, labels: list[int]) -> str:
    return ", ".join(str(classes.ids[label]) for label in labels)


def _listed(names: list[str], others: Sequence[str]) -> str:
    shown = []
    for name in names[:_LISTED]:
        near = nearest(name, others, listed=0, slips_only=True).removeprefix("; ")
        shown.append(f"{name!r} ({near})" if near else repr(name))
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(shown) + more
