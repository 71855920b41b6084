"""Annotations that all look alike, read by a typed structure: fast, and without a word about what is odd.

Most files repeat one set of keys with values of the same types. A :class:`Layout` is that set as a structure of
msgspec's, which refuses any other key and any other type while it reads. Polygons go at once into one flat array, so
that their numbers do not stay Python objects. Whatever is refused is read again, one annotation at a time, by readers
that can say what is wrong (:mod:`amodal.data.jsonfile`, :mod:`amodal.data.rows`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any

import msgspec

from amodal.data.mask_columns import Unread
from amodal.data.schemas.schema import Schema

_MOST_KEYS = 60


class _RLE(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    size: tuple[int, int]
    counts: str


_MASK = list[list[float]] | _RLE
_BOX = tuple[float, float, float, float]


class Typed:
    """N annotations of one layout, as columns.

    Attributes:
        masks: key of the schema -> the masks there.
    """

    def __init__(self, objects: list[Any], read: Mapping[str, Callable[[Any], Any]], masks: dict[str, Unread]) -> None:
        self._objects, self._read = objects, read
        self.masks = masks

    def __len__(self) -> int:
        return len(self._objects)

    def column(self, key: str | None) -> list[Any] | None:
        """The values of ``key``, ``msgspec.UNSET`` where it is absent; None where no annotation has it."""
        return list(map(self._read[key], self._objects)) if key and key in self._read else None


class Layout:
    """The keys of annotations, of which some may be absent, and the types of those that the schema knows."""

    def __init__(self, schema: Schema, keys: set[str], always: set[str]) -> None:
        """
        Args:
            schema: what the annotations are read as; it has no ``flatten``.
            keys: what an annotation may have.
            always: what it must have, a part of ``keys``.
        """
        types: dict[str | None, Any] = {
            schema.rate: float,
            schema.box: _BOX,
            schema.visible_box: _BOX,
            schema.visible: _MASK,
            schema.amodal: _MASK,
            "id": int,
            "image_id": int,
            "category_id": int,
            "iscrowd": bool | int,
            "amodal_known": bool | int,
        }
        # Members of an object need not be names in Python's sense.
        names = {key: f"key{place}" for place, key in enumerate([*always, *(keys - always)])}
        required = [(names[key], types.get(key, Any)) for key in always]
        optional = [(names[key], types.get(key, Any) | msgspec.UnsetType, msgspec.UNSET) for key in keys - always]
        structure = msgspec.defstruct(
            "Annotation",
            [*required, *optional],
            rename={name: key for key, name in names.items()},
            forbid_unknown_fields=True,
            gc=False,
        )
        self._decode = msgspec.json.Decoder(structure).decode
        self._read = {key: attrgetter(name) for key, name in names.items()}
        self._masks = [(key, names[key]) for key in (schema.amodal, schema.visible) if key and key in keys]
        self._optional = [self._read[key] for key in keys - always]
        self._free = [self._read[key] for key in keys - types.keys()]

    @staticmethod
    def of(schema: Schema, first: Sequence[set[str]]) -> Layout | None:
        """The layout of annotations of which the first ones have these keys; None where a structure cannot have it."""
        keys: set[str] = set().union(*first)
        if schema.flatten or not first or len(keys) > _MOST_KEYS:
            return None
        try:
            return Layout(schema, keys, set.intersection(*first))
        except ValueError:  # quotes, control characters or lone surrogates in a key
            return None

    def read(self, items: Sequence[Any]) -> Typed | None:
        """Annotations that are still text (``msgspec.Raw``).

        None where one is of another layout or has a key twice, or where a polygon or an RLE holds what none does.
        """
        objects: list[Any] = []
        masks = {key: Unread(len(items)) for key, _ in self._masks}
        parts = [(name, self._read[key], masks[key].outlines.add) for key, name in self._masks]
        try:
            for row, one in enumerate(map(self._decode, items)):
                objects.append(one)
                for name, get, add in parts:
                    if type(mask := get(one)) is list:
                        add(row, mask)
                        setattr(one, name, None)  # the numbers of a chunk would not fit into the processor's cache
            for key, column in masks.items():
                found = list(map(self._read[key], objects))
                rows = [row for row, mask in enumerate(found) if type(mask) is _RLE]
                column.add_rles(rows, [found[row].size for row in rows], [found[row].counts for row in rows])
        except (msgspec.MsgspecError, RecursionError, ValueError, TypeError):  # TypeError: no longer text
            return None
        # Every key in the text ends in `":`; where keys and text agree, none is lost.
        keys = len(objects) * len(self._read) + sum(2 * len(column.rles) for column in masks.values())
        for get in self._optional:
            keys -= list(map(get, objects)).count(msgspec.UNSET)
        for get in self._free:
            keys += sum(len(value) for value in map(get, objects) if type(value) is dict)
        return Typed(objects, self._read, masks) if b",".join(items).count(b'":') == keys else None
