"""The files of a run, read with every fault as one line: whoever has them may have edited, cut or made them.

What a field may hold is said once, in :data:`_RECORD`; a file that passes gives tables without a fault.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from amodal.data.jsonfile import BadValueError, Document, read_bytes, read_object
from amodal.errors import ConfigError, DataError, nearest, printable
from amodal.evaluation import KEYS
from amodal.evaluation.occlusion import BINS
from amodal.reproduce.experiment import BASELINES, COSTS
from amodal.reproduce.identity import What
from amodal.reproduce.per_image import PerImage

VERSION = 1

_DEEPEST = 8  # runs that a run starts from, one after the other
_ROUNDED = 1e-6  # what a percentage may be above 100
_RUN_ID = re.compile(r"[0-9a-f]{12}")
Check = Callable[[str, Any], None]
"""Gets the dotted key and the value; raises :class:`BadValueError`."""


def read_record(path: Path) -> dict[str, Any]:
    """What :func:`amodal.reproduce.collect.collect` wrote, its every field of its type and within its bounds.

    Raises:
        DataError: the file cannot be read, is no run's, damaged, or of a newer release; names the key.
    """
    document = Document(read_bytes(path), path)
    if isinstance(document.top, list):
        raise DataError("no file of a run: holds a list, must be an object", file=path)
    try:
        record = {key: _member(document, key, member) for key, member in document.top.items()}
        if isinstance(record.get("version"), int) and record["version"] > VERSION:
            raise DataError("of a newer release; update amodal", file=path)
        _RECORD("", record)
        _agrees(record)
    except BadValueError as fault:
        raise DataError(f"no file of a run, or damaged: {fault}", file=path) from None
    return record


def read_metrics(path: Path) -> dict[str, Any]:
    """What ``amodal test`` measured, its ``metrics.json``, every field of its type and within its bounds.

    Raises:
        DataError: the file cannot be read, is none of a test's, or damaged; names the key.
    """
    by_class = {"per_class": _named(_object(_PARTS))}
    return _checked(path, _object({"mask": _PARTS["mask"]}, {**_METRICS, **by_class}), "no metrics of a test")


def read_tested(path: Path) -> dict[str, str]:
    """What ``amodal test`` noted of itself, its ``test.json``: texts.

    Raises:
        DataError: the file cannot be read, or holds something else; names the key.
    """
    return _checked(path, _named(_text), "no note of a test")


def _checked(path: Path, check: Check, what: str) -> dict[str, Any]:
    content = read_object(path)
    try:
        check("", content)
    except BadValueError as fault:
        raise DataError(f"{what}, or damaged: {fault}", file=path) from None
    return content


def _member(document: Document, key: str, member: Any) -> Any:
    try:
        return document.value(member)
    except BadValueError as fault:
        raise BadValueError(f"{key}: {fault}") from None


def _agrees(record: dict[str, Any]) -> None:
    """Refuses a name that does not follow from what the run is: its numbers would stand for another one's."""
    name, what = record["id"], record["what"]
    if what is None:
        if _RUN_ID.fullmatch(name):
            raise BadValueError(f"id is {name!r}, as of a run that amodal trained, but what is null")
        return
    try:
        given = What.as_written(what).id
    except ConfigError as error:
        raise BadValueError(f"what.settings: {error}") from None
    if name != given:
        raise BadValueError(f"id is {name!r}, but settings, train and starts_from of what give {given!r}")


def _refuse(key: str, value: Any, rule: str) -> BadValueError:
    kinds = {dict: "an object", list: "a list", type(None): "null"}
    shown = kinds.get(type(value)) or printable(f"{value!r:.40}")
    return BadValueError(f"{printable(key) or 'the file'} is {shown}, must be {rule}")


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _number(low: float, high: float = math.inf, *, whole: bool = False, null: bool = False) -> Check:
    kinds: tuple[type, ...] = (int,) if whole else (int, float)
    noun = "a whole number" if whole else "a number"
    rule = f"{noun} from {low:g} to {high:g}" if high < math.inf else f"{noun} >= {low:g}"
    rule = "a finite number" if low == -math.inf else rule

    def check(key: str, value: Any) -> None:
        if value is None and null:
            return
        fits = isinstance(value, kinds) and not isinstance(value, bool)
        if not fits or not (low <= value <= high * (1 + _ROUNDED)) or math.isinf(value):
            raise _refuse(key, value, f"{rule}{', or null' if null else ''}")

    return check


def _text(key: str, value: Any) -> None:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise _refuse(key, value, "text on one line")


def _scalar(key: str, value: Any) -> None:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        _finite(key, value)
    elif value is not None and not isinstance(value, (bool, str)):
        raise _refuse(key, value, "text, a number, true, false or null")


def _setting(key: str, value: Any) -> None:
    (_listed(_scalar) if isinstance(value, list) else _scalar)(key, value)


def _listed(item: Check) -> Check:
    def check(key: str, value: Any) -> None:
        if not isinstance(value, list):
            raise _refuse(key, value, "a list")
        for place, one in enumerate(value):
            item(f"{key}[{place}]", one)

    return check


def _named(item: Check) -> Check:
    """An object with any names."""

    def check(key: str, value: Any) -> None:
        if not isinstance(value, dict):
            raise _refuse(key, value, "an object")
        for name, one in value.items():
            if not name or not name.isprintable():
                raise _refuse(f"a name in {key}", name, "text on one line")
            item(_join(key, name), one)

    return check


def _object(fields: Mapping[str, Check], optional: Mapping[str, Check] | None = None, *, null: bool = False) -> Check:
    known = {**fields, **(optional or {})}

    def check(key: str, value: Any) -> None:
        if value is None and null:
            return
        if not isinstance(value, dict):
            raise _refuse(key, value, f"an object{' or null' if null else ''}")
        for name in value:
            if name not in known:
                raise BadValueError(f"unknown key {printable(_join(key, name))!r:.80}{nearest(name, known)}")
        for name, field in known.items():
            if name in value:
                field(_join(key, name), value[name])
            elif name in fields:
                raise BadValueError(f"{_join(key, name)} is missing")

    return check


def _what(key: str, value: Any, depth: int = 0) -> None:
    if depth > _DEEPEST:
        raise BadValueError(f"{key} is nested more than {_DEEPEST} deep")

    def start(key: str, value: Any) -> None:
        if value is None:
            return
        if isinstance(value, dict) and "weights" in value:
            _object({"weights": _text})(key, value)
        else:
            _what(key, value, depth + 1)

    _object({"settings": _named(_setting), "train": _text, "starts_from": start})(key, value)


def _what_or_null(key: str, value: Any) -> None:
    if value is not None:
        _what(key, value)


def _levels(key: str, value: Any) -> None:
    _listed(_LEVEL)(key, value)
    if [(level["low"], level["high"]) for level in value] != list(BINS):
        raise _refuse(key, value, f"the {len(BINS)} levels of occlusion, in their order")


def _per_image(key: str, value: Any) -> None:
    if value is None:
        return
    _object({"version": _COUNT, "images": _COUNT, "classes": _COUNT, "arrays": _named(_ARRAY)})(key, value)
    try:
        PerImage.unpack(value)
    except ValueError as error:
        raise BadValueError(f"{key}.{error}") from None


def _split(key: str, value: Any) -> None:
    _SPLIT(key, value)
    kept, images = value["per_image"], value["metrics"]["images"]
    if kept is not None and kept["images"] != images:
        raise BadValueError(f"{key}.per_image.images is {kept['images']}, but metrics.images is {images}")


_finite = _number(-math.inf)
_COUNT = _number(0, whole=True)
_SHARE = _number(0, 1)
_PERCENT = _number(0, 100, null=True)
_PARTS = {part: _object({}, dict.fromkeys(keys, _PERCENT), null=True) for part, keys in KEYS.items()}
_METRICS = {
    **_PARTS,
    "images": _COUNT,
    "instances": _COUNT,
    "coverage": _number(0, 1, null=True),
}
_LEVEL = _object({"low": _SHARE, "high": _SHARE, "objects": _COUNT, "AP": _PERCENT})
_ARRAY = _object({"dtype": _text, "shape": _listed(_COUNT), "data": _text})
_SPLIT = _object(
    {"digest": _text, "metrics": _object(_METRICS), "levels": _levels, "per_image": _per_image},
    dict.fromkeys(BASELINES, _object(_METRICS, null=True)),
)
_RECORD = _object(
    {
        "version": _number(1, VERSION, whole=True),
        "id": _text,
        "row": _text,
        "title": _text,
        "seed": _COUNT,
        "what": _what_or_null,
        "commits": _listed(_text),
        "machine": _named(_scalar),
        "seconds": _object({}, dict.fromkeys(("total", "step"), _number(0))),
        "curve": _listed(_named(_finite)),
        "cost": _object({}, dict.fromkeys(COSTS, _COUNT)),
        "splits": _named(_split),
    }
)
