"""Help of the command line: what each argument is, what it takes, its default, and an example. Imports no torch."""

from __future__ import annotations

import inspect
import textwrap
import types
from argparse import Action, RawDescriptionHelpFormatter
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

WIDTH = 100
"""Columns of all help."""

_WORDS = {int: ("N", "integer"), float: ("X", "number"), str: ("TEXT", ""), Path: ("PATH", "")}
# Settings are plain text in YAML, also where they name something on disk.
_PLACES = {
    **dict.fromkeys(("out", "prior", "data.train_images", "data.val_images"), "DIR"),
    **dict.fromkeys(("data.train", "data.val"), "FILE"),
}


class _Formatter(RawDescriptionHelpFormatter):
    """Breaks no line at a hyphen: names are typed as they stand."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return _wrap(text, width)


@dataclass(frozen=True)
class Row:
    """One argument of a verb, or one setting, as help shows it.

    Attributes:
        name: "ANN", "--images" or "--optim.lr".
        values: what stands for its values, such as "N" or "{true,false}"; empty for a switch, which takes none.
        text: what it is; type and default stand behind.
    """

    name: str
    values: str
    text: str


@dataclass(frozen=True)
class Doc:
    """What the docstring of a verb or of a dataclass says.

    Attributes:
        about: its paragraphs.
        texts: parameter or field -> what it is.
        examples: command lines.
    """

    about: tuple[str, ...]
    texts: Mapping[str, str]
    examples: tuple[str, ...]


def read_doc(documented: Any) -> Doc:
    """The parts of a docstring; marks of literals are left out, as a terminal has none."""
    from docstring_parser import parse

    doc = parse((inspect.getdoc(documented) or "").replace("``", ""))
    about = [doc.short_description or "", *(doc.long_description or "").split("\n\n")]
    return Doc(
        tuple(" ".join(part.split()) for part in about if part),
        {param.arg_name: " ".join((param.description or "").split()) for param in doc.params},
        tuple(line.strip() for one in doc.examples for line in (one.description or "").splitlines()),
    )


def row(name: str, hint: Any, text: str, default: Any = MISSING, *, null: str = "") -> Row:
    """The row of an argument.

    Args:
        name: as it is typed.
        hint: its type; ``Annotated[Path, "DIR"]`` is a folder, ``Annotated[Path, "FILE"]`` a file.
        text: what it is.
        default: MISSING: it must be given.
        null: how a default of None is written; empty: the text says what None means.
    """
    values, word = _kind(hint)
    shown = "" if default is MISSING else _written(default, null)
    told = ", ".join(part for part in (word, f"default: {shown}" if shown else "") if part)
    return Row(name, values, text.rstrip(".") + (f" ({told})" if told else ""))


def switch(name: str, text: str) -> Row:
    """The row of a flag without a value."""
    return Row(name, "", text.rstrip("."))


def _kind(hint: Any) -> tuple[str, str]:
    """What stands for values of a type, and its name."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return inner[1], _kind(inner[0])[1]
    if origin in (Union, types.UnionType):
        return _kind(next(one for one in inner if one is not type(None)))
    if origin is Literal:
        return "{" + ",".join(map(str, inner)) + "}", ""
    if origin in (list, tuple, Sequence):
        values, word = _kind(inner[0])
        return f"{values} [{values} ...]", f"{word}s" if word else ""
    return ("{true,false}", "") if hint is bool else _WORDS.get(hint, ("VALUE", ""))


def _written(value: Any, null: str) -> str:
    if value is None:
        return null
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return str(value)


def setting_rows(cls: type, prefix: str = "") -> dict[str, list[Row]]:
    """The settings of a dataclass and its sections, as ``--key``: title of the section -> rows; empty without any."""
    hints = get_type_hints(cls, include_extras=True)
    doc = read_doc(cls)
    title = doc.about[0].rstrip(".") if doc.about else cls.__name__
    sections: dict[str, list[Row]] = {title: []}
    for field in fields(cls):
        hint = hints[field.name]
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        if isinstance(hint, type) and is_dataclass(hint):
            sections |= setting_rows(hint, f"{prefix}{field.name}.")
        elif field.name not in ("method", "prior_fit"):  # Their settings hang on the system.
            if (key := prefix + field.name) in _PLACES:
                hint = Annotated[hint, _PLACES[key]]
            made = row(f"--{key}", hint, doc.texts.get(field.name, ""), default, null="null")
            many = f"[{made.values.partition(' ')[0]},...]" if get_origin(hint) is list else made.values
            sections[title].append(Row(made.name, many, made.text))
    return {title: rows for title, rows in sections.items() if rows}


def all_settings() -> dict[str, list[Row]]:
    """Every setting of the training configuration, those of single systems last: title -> rows."""
    from amodal.config import TrainConfig
    from amodal.settings import EXPANSION_PRIOR, SHAPE_CODEBOOK
    from amodal.systems import SYSTEMS

    sections = setting_rows(TrainConfig)
    for kind in (EXPANSION_PRIOR, SHAPE_CODEBOOK):
        for title, rows in setting_rows(kind.settings, "prior_fit.").items():
            sections[f"{kind.title}: {title}"] = rows
    for name, system in SYSTEMS.items():
        for title, rows in setting_rows(system.settings, "model.method.").items():
            sections[f"{name} only: {title}"] = rows
    return sections


def page(usage: str, about: Sequence[str], sections: Mapping[str, Sequence[Row]], closing: Sequence[str]) -> str:
    """The help text, at most :data:`WIDTH` columns wide: usage, paragraphs, sections of rows, closing lines."""
    formatter = _Formatter("", max_help_position=28, width=WIDTH)
    formatter.add_usage(usage, [], [])
    formatter.add_text("\n\n".join("\n".join(_wrap(part, WIDTH)) for part in about))
    for title, rows in sections.items():
        formatter.start_section("\n".join(_wrap(title, WIDTH - 1)))
        # No parser makes these, which would refuse settings that two systems have.
        formatter.add_arguments([_action(one) for one in rows])
        formatter.end_section()
    formatter.add_text("\n".join(closing))
    return formatter.format_help().replace("%%", "%")


def _action(one: Row) -> Action:
    flags = [one.name] if one.name.startswith("--") else []
    nargs = 0 if flags and not one.values else None
    return Action(flags, one.name, nargs, metavar=one.values if flags else one.name, help=one.text.replace("%", "%%"))


def _wrap(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_on_hyphens=False, break_long_words=False)
