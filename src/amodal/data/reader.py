"""Annotation files of every known schema as an :class:`AnnotationSet`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from amodal.bounds import MAX_ID
from amodal.data import cache as cached
from amodal.data import rle
from amodal.data.cache_limit import limit_bytes, prune
from amodal.data.jsonfile import BadValueError, Document, read_bytes
from amodal.data.problems import Findings
from amodal.data.rows import CHUNK, RowReader
from amodal.data.schemas import named, recognise
from amodal.data.schemas.schema import Annotation, Schema
from amodal.data.store import AnnotationSet
from amodal.data.typed import Layout
from amodal.errors import DataError, is_text

_PARTS = ("images", "annotations", "categories")
_KEPT = 2**23
"""Bytes of an array that is made and freed before a file is read: glibc then keeps what is freed up to this size. The
short-lived arrays of each chunk would go back to the system and be paid for anew, page by page."""
_FIRST = 512  # annotations whose keys say what the file is likely to be


def load(
    path: str | Path,
    schema: str = "auto",
    cache: bool = True,
    known_ids: Sequence[int] | None = None,
    strict: bool = True,
) -> AnnotationSet:
    """Reads and checks an annotation file.

    Args:
        path: COCO JSON of any schema in :data:`amodal.data.schemas.SCHEMAS`.
        schema: name of the schema; "auto" recognises it by the keys of its annotations.
        cache: keep the result in the user's cache folder (:mod:`amodal.data.cache`) and read it from there next time.
        known_ids: category ids in label order, of a model or another split; labels then follow them, and an annotation
            of any other category is an error. Default: the file's categories sorted by id.
        strict: raise DataError at the first error; otherwise errors are kept in ``problems`` and their annotations left
            out.
    """
    cache = cache and limit_bytes() > 0
    stored = cached.find(path, schema, known_ids) if cache else None
    if stored is not None:
        return replace(stored, path=str(path))
    np.empty(_KEPT, np.uint8)
    data = read_bytes(path)
    entry = cached.entry_path(path, data, schema, known_ids) if cache else None
    result = _read(open_annotations(data, path), schema, known_ids, strict)
    del data  # as long as the text lives, writing the entry would raise the peak of memory
    if entry and not result.problems:
        cached.save(result, entry)
        prune(entry.parent)
    return result


def _read(content: Document, schema: str, known_ids: Sequence[int] | None, strict: bool) -> AnnotationSet:
    raws = content.items("annotations")
    keys = [content.keys([raw]) for raw in raws[:_FIRST]]
    if schema != "auto":
        return _read_as(named(schema), content, raws, keys, known_ids, strict)[0]
    # All annotations count. A pass over them is saved by reading on as what the first ones say: what is of their
    # layout brings no further key.
    try:
        form = recognise(set().union(*keys), content.path)
    except DataError:
        form = recognise(content.keys(raws), content.path)
    try:
        result, more = _read_as(form, content, raws, keys, known_ids, strict)
    except DataError:
        more = content.keys(raws)
        if recognise(more, content.path) is form:
            raise
    true = recognise(more, content.path)
    return result if true is form else _read_as(true, content, raws, keys, known_ids, strict)[0]


def _read_as(
    form: Schema,
    content: Document,
    raws: list[Any],
    first: list[set[str]],
    known_ids: Sequence[int] | None,
    strict: bool,
) -> tuple[AnnotationSet, set[str]]:
    """The file read as ``form``, and all keys that its annotations have; ``first`` are those of the first ones."""
    findings = Findings(content.path, strict)
    keys: set[str] = set().union(*first)
    if raws and form.categories is None and known_ids is None:
        content.require("categories", content.top)
    images = _read_images(content.objects("images"), findings)
    categories = _read_categories(content.objects("categories"), form, known_ids, findings)
    content.check_rest(_PARTS)
    sizes = np.array([image[2:] for image in images], np.int64).reshape(-1, 2)
    rows = {image[0]: row for row, image in enumerate(images)}
    labels = {number: label for label, (number, _) in enumerate(categories)}
    reader = RowReader(form, rows, sizes, labels, findings)
    layout = None if content.spaced else Layout.of(form, first)
    if layout is None:
        entries = read_entries(content, raws, findings, keys)
        reader.add_entries(form.flatten(entries, findings) if form.flatten else entries)
    else:
        for start in range(0, len(raws), CHUNK):
            part = raws[start : start + CHUNK]
            typed = layout.read(part)
            if typed is None or not reader.add_typed(typed):
                reader.add_entries(read_entries(content, part, findings, keys, start))
    columns, amodal, visible = reader.finish()
    if known_ids is None:
        categories, columns["labels"] = _without_empty(categories, columns["labels"], form, findings)
    result = AnnotationSet.from_columns(
        images=images,
        categories=categories,
        columns=columns,
        amodal=amodal,
        visible=visible,
        path=content.path,
        schema=form.name,
        dropped=findings.dropped,
        noted=findings.noted,
        problems=findings.problems,
    )
    return result, keys


def open_annotations(data: bytes, path: str | Path) -> Document:
    """The parts of an annotation file, its annotations still text. Raises DataError for a file of another kind."""
    content = Document(data, path)
    if isinstance(content.top, list):
        raise DataError("is a list, as results files are; annotations are an object", file=path)
    for key in ("images", "annotations"):
        content.require(key, content.top)
    return content


def read_entries(
    content: Document, raws: list[Any], findings: Findings, keys: set[str] | None = None, start: int = 0
) -> Iterator[Annotation]:
    """The annotations as Python objects; one that is damaged is a finding.

    Args:
        content: the file.
        raws: some of its annotations.
        findings: where damage goes.
        keys: gathers the keys of all of them.
        start: position in the file of the first one.
    """
    for position, raw in enumerate(raws, start):
        fault = None
        try:
            entry = content.value(raw)
        except BadValueError as error:
            fault, entry = str(error), error.entry
        is_object = isinstance(entry, dict)
        if is_object and keys is not None:
            keys.update(entry)
        if fault is not None:
            ids = (entry.get("image_id"), entry.get("id")) if is_object else ()
            findings.error("bad annotation", fault if ids else f"annotation number {position}: {fault}", *ids)
        elif is_object:
            yield entry
        else:
            findings.error("bad annotation", f"annotation number {position} is no object")


def _read_images(entries: list[dict[str, Any]], findings: Findings) -> list[tuple[int, str, int, int]]:
    images: dict[int, tuple[int, str, int, int]] = {}
    for entry in entries:
        number = entry.get("id")
        try:
            if type(number) is not int or not 0 <= number <= MAX_ID:
                raise ValueError(f"image id is {number!r:.40}, must be an integer from 0 to 2^63 - 1")
            image = (number, check_file_name(entry.get("file_name")), *_image_size(entry))
        except ValueError as error:
            findings.error("bad image", str(error), number)
            continue
        if number not in images:
            images[number] = image
        elif images[number] == image:
            findings.drop("image listed twice", number)
        else:
            findings.error("duplicate id", "image id occurs twice with different contents", number)
    return list(images.values())


def _image_size(entry: dict[str, Any]) -> tuple[int, int]:
    height, width = entry.get("height"), entry.get("width")
    for name, value in (("height", height), ("width", width)):
        if type(value) is not int:
            raise ValueError(f"{name} is {value!r:.40}, must be an integer")
    assert isinstance(height, int)
    assert isinstance(width, int)
    rle.check_image_size(height, width)
    return height, width


def check_file_name(name: object) -> str:
    """The image's path relative to the image folder; ValueError for one that leads elsewhere."""
    if not isinstance(name, str) or not name:
        raise ValueError(f"file_name is {name!r:.40}, must be a path relative to the image folder")
    if not is_text(name):
        raise ValueError(f"file_name {name!r:.80} holds a lone surrogate, which is no character")
    outside = name.startswith(("/", "~")) or ".." in name.split("/") or name[1:2] == ":"
    if outside or "\\" in name or "://" in name or "\0" in name:
        raise ValueError(f"file_name {name!r:.80} must be a plain path inside the image folder")
    return name


def _read_categories(
    entries: list[dict[str, Any]], form: Schema, known_ids: Sequence[int] | None, findings: Findings
) -> list[tuple[int, str]]:
    names: dict[int, str] = dict(form.categories or ())
    for entry in [] if form.categories else entries:
        number, name = entry.get("id"), entry.get("name")
        if type(number) is not int or not 0 <= number <= MAX_ID or not isinstance(name, str):
            findings.error("bad category", f"category {number!r:.40} named {name!r:.40} is not an integer and a name")
        elif not is_text(name):
            findings.error("bad category", f"the name {name!r:.40} of category {number} holds a lone surrogate")
        elif names.setdefault(number, name) != name:
            findings.error("duplicate id", f"category id {number} has two names, {names[number]!r} and {name!r}")
    if known_ids is not None:
        return [(number, names.get(number, str(number))) for number in known_ids]
    return sorted(names.items())


def _without_empty(
    categories: list[tuple[int, str]], labels: Any, form: Schema, findings: Findings
) -> tuple[list[tuple[int, str]], Any]:
    """Drops the classes that the schema says are never used, if they are not."""
    used = set(np.unique(labels).tolist())
    kept = [label for label, (_, name) in enumerate(categories) if name not in form.empty_classes or label in used]
    for label, (_, name) in enumerate(categories):
        if label not in kept:
            findings.drop("class without instances", name)
    move = np.zeros(len(categories), np.int32)
    move[kept] = np.arange(len(kept))
    return [categories[label] for label in kept], move[labels]
