"""What a schema says: which keys hold the masks, and what it means when one is absent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from amodal.data.problems import Findings

Annotation = dict[str, Any]


@dataclass(frozen=True)
class Schema:
    """One annotation format.

    Attributes:
        name: what ``--schema`` calls it.
        marks: keys by which it is recognised; each must stand in some annotation of the file.
        one_of: further ones, of which one is enough.
        amodal: key of the amodal mask.
        visible: key of the visible mask, or None where the format has none.
        hidden: key of the hidden mask; where only that one is stored, the visible mask is the amodal one without it.
        visible_box: key of the visible box, xywh pixels.
        box: key of the amodal box, xywh pixels.
        rate: key of the occlusion rate, a fraction.
        absent_visible: what an absent visible mask means: "unoccluded" (the amodal mask), "error", or "modal" (the one
            mask is what is visible, the amodal one is unknown).
        empty_classes: names of classes that fall away when they have no instance.
        flatten: makes flat COCO annotations of the file's; None: they are flat.
        categories: (id, name) of formats whose files list no categories; None: the file lists them.
    """

    name: str
    marks: tuple[str, ...]
    amodal: str
    visible: str | None
    one_of: tuple[str, ...] = ()
    hidden: str | None = None
    visible_box: str | None = None
    box: str | None = "bbox"
    rate: str | None = None
    absent_visible: Literal["unoccluded", "error", "modal"] = "error"
    empty_classes: frozenset[str] = frozenset()
    flatten: Callable[[Iterable[Annotation], Findings], Iterator[Annotation]] | None = None
    categories: tuple[tuple[int, str], ...] | None = None
