"""The arguments of one verb of the command line: read from its function, parsed, and explained."""

from __future__ import annotations

import inspect
import re
from argparse import SUPPRESS, ArgumentError
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from amodal.errors import AmodalError, nearest, refuse_address
from amodal.helptext import Doc, Row, all_settings, page, read_doc, row, switch

HELP = ("-h", "--help", "--help-all")

_BY_NAME = ("out", "images")  # In some verbs they are flags anyway, so whoever writes them always as flags is right.


class UsageError(AmodalError):
    """The command line itself is wrong."""


class Verb:
    """The arguments of one verb, read from its function's signature and docstring.

    Parameters without default are positional and may be given by name, too; the others are flags (``trust_bbox`` is
    ``--trust-bbox``); dashes and underscores in flags are the same. A ``bool`` with default ``False`` is a switch; a
    ``list`` takes one or more values; ``data__train`` is ``--data.train``, as settings are written. ``**settings``
    takes every key of the training configuration as ``--key value``; ``Annotated[Any, KEYS]`` says which of them the
    short help shows, and ``Annotated[Any, CLASS]`` takes the fields of that dataclass as flags instead.
    """

    def __init__(self, verb: str, function: Callable[..., Any]) -> None:
        self.verb = verb
        self.doc: Doc = read_doc(function)
        self.texts = dict(self.doc.texts)
        self.hints = get_type_hints(function, include_extras=True)
        self.parameters: dict[str, inspect.Parameter] = {}
        self.settings = False
        self.shown: tuple[str, ...] = ()
        for name, parameter in inspect.signature(function).parameters.items():
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                self._take_settings(self.hints[name])
            else:
                self.parameters[name] = parameter
        self.flags = {_plain(_flag(name)): name for name in self.parameters}

    def _take_settings(self, hint: Any) -> None:
        """Takes the training configuration, or the fields of the dataclass that the hint names."""
        which = get_args(hint)[1] if get_origin(hint) is Annotated else ()
        if not isinstance(which, type):
            self.settings, self.shown = True, which
            return
        self.hints |= get_type_hints(which, include_extras=True)
        self.texts |= read_doc(which).texts
        for field in fields(which):
            made = inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default)
            self.parameters[field.name] = made

    def help(self, everything: bool = False) -> str:
        """The help text, with every setting of the configuration where ``everything`` is asked for."""
        needed = [name for name, parameter in self.parameters.items() if _is_needed(parameter)]
        sections = {
            "arguments": [row(name.upper(), self.hints[name], self.texts.get(name, "")) for name in needed],
            "flags": [self._flag_row(name) for name in self.parameters if name not in needed],
        }
        if self.settings:
            known = self._known_settings()
            by_key = {one.name[2:]: one for rows in known.values() for one in rows}
            sections |= known if everything else {"settings used most": [by_key[key] for key in self.shown]}
        words = [f"{name.upper()} ..." if _many(self.hints[name])[0] else name.upper() for name in needed]
        flags = ["[--flag VALUE ...]"] if len(self.parameters) > len(needed) else []
        return page(
            f"amodal {' '.join([self.verb, *words, *flags])}",
            self.doc.about,
            {title: rows for title, rows in sections.items() if rows},
            self._closing(needed, self.settings and not everything),
        )

    def _known_settings(self) -> dict[str, list[Row]]:
        """The settings of the configuration that are no flags of the verb itself."""
        sections = all_settings()
        return {title: [one for one in rows if one.name[2:] not in self.flags] for title, rows in sections.items()}

    def _closing(self, needed: Sequence[str], more: bool) -> list[str]:
        lines = ["example:", *(f"  {line}" for line in self.doc.examples), ""] if self.doc.examples else []
        if more:
            lines.append(f"amodal {self.verb} --help-all shows every setting of the configuration.")
        named = [name for name in needed if name in _BY_NAME]
        return [*lines, *(f"{name.upper()} may be given by name, too: --{name} {name.upper()}" for name in named)]

    def _flag_row(self, name: str) -> Row:
        text, hint, default = self.texts.get(name, ""), self.hints[name], self.parameters[name].default
        return switch(_flag(name), text) if _is_switch(hint, default) else row(_flag(name), hint, text, default)

    def parse(self, words: Iterable[str]) -> dict[str, Any]:
        """Keyword arguments of the function.

        Raises:
            UsageError: an unknown flag, a missing or surplus argument, or a value of the wrong type.
            DataError: an address where a path must be.
        """
        rest, settings = self._split_settings(list(words))
        try:
            parsed = vars(self._parser(rest).parse_args(rest))
        except (ArgumentError, AttributeError, LookupError) as error:
            tags = [word for word in rest if "!!" in word]  # jsonargparse reads values as YAML, and stumbles on these.
            told = f"{', '.join(map(repr, tags))}: must be a plain value, no YAML tag"
            raise UsageError(told if tags else self._problem(str(error))) from None
        given = {key: value for key, value in parsed.items() if value is not SUPPRESS}
        for value in given.values():
            for one in value if isinstance(value, list) else [value]:
                if isinstance(one, Path):
                    refuse_address(one)
        return {**given, **settings}

    def _parser(self, words: Sequence[str]) -> Any:
        from jsonargparse import ArgumentParser

        parser = ArgumentParser(prog=f"amodal {self.verb}", exit_on_error=False, add_help=False)
        named = {word.partition("=")[0] for word in words}
        for name, parameter in self.parameters.items():
            many, item = _many(self.hints[name])
            extra: dict[str, Any] = {"nargs": "+"} if many else {}
            if not _is_needed(parameter):
                if _is_switch(item, parameter.default):
                    parser.add_argument(_flag(name), dest=name, action="store_true")
                    continue
                default = list(parameter.default) if many else parameter.default
                parser.add_argument(_flag(name), dest=name, type=item, default=default, **extra)
            elif _flag(name) in named:
                parser.add_argument(_flag(name), dest=name, type=item, required=True, **extra)
            else:
                parser.add_argument(name, type=item, **extra)
        return parser

    def _split_settings(self, words: list[str]) -> tuple[list[str], dict[str, Any]]:
        """The words with every flag of the verb as help writes it, without those of the training configuration."""
        keys = _setting_keys() if self.settings else {}
        rest: list[str] = []
        settings: dict[str, Any] = {}
        while words:
            word = words.pop(0)
            flag, has_value, value = word.partition("=")
            plain = _plain(flag)
            if word == "--":
                return [*rest, word, *words], settings
            if not flag.startswith("--"):
                rest.append(word)
            elif plain in self.flags:
                rest.append(_flag(self.flags[plain]) + has_value + value)
            elif key := self._setting(plain, keys):
                if not has_value:
                    if not words or words[0].startswith("--"):
                        raise UsageError(f"--{key} needs a value")
                    value = words.pop(0)
                settings[key] = value
            else:
                known = [*(_flag(name) for name in self.parameters), "--help", *(f"--{key}" for key in keys.values())]
                near = nearest(flag, known) or f"; amodal {self.verb} --help{'-all' if keys else ''} names all"
                raise UsageError(f"unknown flag {flag}{near}")
        return rest, settings

    def _setting(self, plain: str, keys: dict[str, str]) -> str | None:
        """The key of the configuration that a flag names, also of a system in a file of the user's own."""
        if not self.settings:
            return None
        from amodal.config_io import OWN_SETTINGS

        return plain if plain.startswith(OWN_SETTINGS) else keys.get(plain)

    def _problem(self, message: str) -> str:
        from amodal.config_io import parse_problem

        message = " ".join(message.split())
        if found := re.fullmatch(r"the following arguments are required: (.*)", message):
            names = ", ".join(name.upper() for name in found[1].split(", "))
            return f"{names} missing; amodal {self.verb} --help says what is needed"
        if found := re.fullmatch(r"argument (\S+): expected (one|at least one) argument", message):
            return f"{found[1]} needs a value"
        key, rest = parse_problem(message)
        if key is None:
            return rest
        return f"{key.upper() if _is_needed(self.parameters[key]) else _flag(key)} {rest}"


def _is_needed(parameter: inspect.Parameter) -> bool:
    return parameter.default is inspect.Parameter.empty


def _is_switch(hint: Any, default: Any) -> bool:
    return hint is bool and default is False


def _many(hint: Any) -> tuple[bool, Any]:
    """Whether a parameter takes several values, and the type of one, without what is there for help."""
    many = get_origin(hint) in (list, tuple, Sequence)
    item = get_args(hint)[0] if many else hint
    inner = get_args(item)
    if get_origin(item) is Annotated:
        return many, inner[0]
    # Of an optional folder the type is wanted, too: Annotated[Path, "DIR"] | None.
    plain = [get_args(one)[0] if get_origin(one) is Annotated else one for one in inner]
    return many, (plain[0] | None if len(plain) == 2 and plain[1] is type(None) else item)


def _setting_keys() -> dict[str, str]:
    from amodal.config_io import setting_keys

    return {key.replace("-", "_"): key for key in setting_keys()}


def _plain(flag: str) -> str:
    """A flag without its dashes in front, and with all others as underscores."""
    return flag.lstrip("-").replace("-", "_")


def _flag(name: str) -> str:
    """The flag of a parameter as help writes it; underscores stay in dotted ones, as settings have them."""
    return "--" + (name.replace("__", ".") if "__" in name else name.replace("_", "-"))
