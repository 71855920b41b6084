"""The command line ``amodal VERB``: one typed function a verb, in ``amodal/verbs``.

Only the module of the verb asked for is imported, and no verb module imports torch before its function runs; so help
answers at once. A mistake of the user ends in one line on stderr and exit code 2.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from argparse import SUPPRESS, ArgumentError
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from amodal.errors import AmodalError, is_memory, nearest, one_line
from amodal.launch import let_threads_sleep
from amodal.terminal import safe_streams
from amodal.version import __version__

VERBS: dict[str, str] = {
    "demo": "amodal.verbs.demo:demo",
    "scenes": "amodal.verbs.scenes:scenes",
    "convert": "amodal.verbs.convert:convert",
    "check": "amodal.verbs.check:check",
    "show": "amodal.verbs.show:show",
    "prior fit": "amodal.verbs.prior:fit",
    "prior show": "amodal.verbs.prior_show:show",
    "train": "amodal.verbs.train:train",
    "test": "amodal.verbs.test:test",
    "predict": "amodal.verbs.predict:predict",
    "evaluate": "amodal.verbs.evaluate:evaluate",
    "compare": "amodal.verbs.compare:compare",
    "reproduce": "amodal.verbs.reproduce:reproduce",
    "methods": "amodal.verbs.methods:methods",
    "configs": "amodal.verbs.configs:configs",
    "info": "amodal.verbs.info:info",
}
"""Verb, of one word or two -> ``module:function``."""

SUMMARIES: dict[str, str] = {
    "demo": "draw scenes, predict with the weights that ship with the package, write a report",
    "scenes": "draw a data set of occlusion scenes",
    "convert": "turn any known annotation schema into the canonical one",
    "check": "problems of an annotation file, then its statistics",
    "show": "pictures of visible and hidden parts",
    "prior fit": "fit an expansion prior to annotated masks, and tell how good it is",
    "prior show": "pictures of what a prior retrieves, as in Fig. 5 of the paper",
    "train": "train a system, or fine-tune a checkpoint",
    "test": "predict and evaluate a checkpoint on annotated images",
    "predict": "masks for images or folders of images",
    "evaluate": "metrics from an annotation file and a results file",
    "compare": "runs beside each other: metrics, curves, settings, pictures",
    "reproduce": "an experiment: do the runs that are missing, then its tables and figures",
    "methods": "the systems and their papers",
    "configs": "configurations that come with the package",
    "info": "versions, devices, free memory",
}

_USAGE_EXIT = 2


class UsageError(AmodalError):
    """The command line itself is wrong."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs ``amodal VERB ...``.

    Args:
        argv: the words after ``amodal``; None: those of this process, which is then the command line's own
            (:func:`amodal.launch.let_threads_sleep`).

    Returns:
        The exit code: 0 done, 1 failed or findings, 2 wrong input, 130 interrupted.
    """
    if argv is None:
        let_threads_sleep()
    with safe_streams():
        return _main(list(sys.argv[1:] if argv is None else argv))


def _main(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(_overview())
        return 0 if words else _USAGE_EXIT
    if words[0] == "--version":
        print(f"amodal {__version__}")
        return 0
    verb, rest = _split_verb(words)
    if os.environ.get("AMODAL_DEBUG") == "1":
        return _run(verb, rest)
    try:
        return _run(verb, rest)
    except AmodalError as error:
        return _fail(verb, str(error), _USAGE_EXIT)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(verb, f"{where}{error.strerror or error}", _USAGE_EXIT)
    except KeyboardInterrupt as error:
        return _fail(verb, str(error) or "interrupted", getattr(error, "code", 130))
    except Exception as error:
        if is_memory(error):
            return _fail(verb, f"not enough memory for what is asked ({one_line(error):.200})", 1)
        kind = type(error).__name__
        return _fail(verb, f"unexpected {kind}: {error} (set AMODAL_DEBUG=1 for the traceback)", 1)


def _split_verb(words: list[str]) -> tuple[str, list[str]]:
    """The verb and its arguments: a verb has two words where the first alone is the beginning of such verbs."""
    if words[0] in _families() and len(words) > 1 and not words[1].startswith("-"):
        return " ".join(words[:2]), words[2:]
    return words[0], words[1:]


def _families() -> dict[str, list[str]]:
    """First word of two-word verbs -> these verbs."""
    families: dict[str, list[str]] = {}
    for verb in VERBS:
        first, _, second = verb.partition(" ")
        if second:
            families.setdefault(first, []).append(verb)
    return families


def _run(verb: str, words: list[str]) -> int:
    if verb in _families():
        rows = _rows(_families()[verb])
        if not any(word in ("-h", "--help") for word in words):
            raise UsageError(f"a second word is missing; there are {', '.join(map(repr, _families()[verb]))}")
        print(f"usage: amodal {verb} VERB [arguments]\n\nverbs:\n{rows}")
        return 0
    if verb not in VERBS:
        what = "flag" if verb.startswith("-") else "verb"
        raise UsageError(f"unknown {what} {verb!r}{nearest(verb, list(VERBS))}")
    function = _load(verb)
    parser = _Verb(verb, function)
    if any(word in ("-h", "--help") for word in words):
        print(parser.help(), end="")
        return 0
    result = function(**parser.parse(words))
    sys.stdout.flush()
    return 0 if result is None else int(result)


def _load(verb: str) -> Callable[..., int | None]:
    module, _, name = VERBS[verb].partition(":")
    function: Callable[..., int | None] = getattr(importlib.import_module(module), name)
    return function


def _fail(verb: str, message: str, code: int) -> int:
    print(f"amodal {verb}: {' '.join(message.split())}", file=sys.stderr)
    return code


def _overview() -> str:
    return (
        "usage: amodal VERB [arguments]\n\n"
        "Amodal instance segmentation: whole shapes of objects, hidden parts included.\n\n"
        f"verbs:\n{_rows(list(VERBS))}\n\n"
        "amodal VERB --help names the arguments of a verb with units and defaults; amodal --version prints the version."
    )


def _rows(verbs: list[str]) -> str:
    return "\n".join(f"  {verb:<11} {SUMMARIES[verb]}" for verb in verbs)


class _Verb:
    """The arguments of one verb, read from its function's signature and docstring.

    Parameters without default are positional, the others flags (``trust_bbox`` is ``--trust-bbox``); a ``bool`` with
    default ``False`` is a switch; a ``list`` takes one or more values; ``data__train`` is ``--data.train``, as settings
    are written. ``**settings`` takes every key of the training configuration as ``--key value``; with a hint
    ``Annotated[Any, CLASS]`` the fields of that dataclass, as flags with the texts of its docstring.
    """

    def __init__(self, verb: str, function: Callable[..., Any]) -> None:
        from docstring_parser import parse
        from jsonargparse import ArgumentParser

        self.verb = verb
        self.settings = False
        self.switches: set[str] = set()
        self.flags: dict[str, str] = {"--help": "help"}
        doc = parse(inspect.getdoc(function) or "")
        texts = _texts(function)
        about = "\n\n".join(part for part in (doc.short_description, doc.long_description) if part)
        self.parser = ArgumentParser(prog=f"amodal {verb}", description=about, exit_on_error=False, add_help=False)
        hints = get_type_hints(function, include_extras=True)
        for name, parameter in inspect.signature(function).parameters.items():
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                self._add_settings(hints[name])
            else:
                self._add(name, parameter, hints[name], texts.get(name, ""))

    def _add_settings(self, hint: Any) -> None:
        """Takes the training configuration, or the fields of the dataclass that the hint names."""
        if get_origin(hint) is not Annotated:
            self.settings = True
            return
        cls = get_args(hint)[1]
        hints, texts = get_type_hints(cls), _texts(cls)
        for field in fields(cls):
            default = inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default)
            self._add(field.name, default, hints[field.name], texts.get(field.name, ""))

    def _add(self, name: str, parameter: inspect.Parameter, hint: Any, text: str) -> None:
        many = get_origin(hint) in (list, tuple, Sequence)
        item = get_args(hint)[0] if many else hint
        if parameter.default is inspect.Parameter.empty:
            several = {"nargs": "+"} if many else {}
            self.parser.add_argument(name, type=item, metavar=name.upper(), help=text, **several)
            return
        flag = _flag(name)
        self.flags[flag] = self.flags["--" + name.replace("__", ".")] = name
        if hint is bool and parameter.default is False:
            self.switches.add(flag)
            self.parser.add_argument(flag, dest=name, action="store_true", help=text)
            return
        extra: dict[str, Any] = {"nargs": "+"} if many else {}
        if "__" in name:
            extra["metavar"] = name.rpartition("__")[2].upper()
        default = list(parameter.default) if many else parameter.default
        self.parser.add_argument(flag, dest=name, type=item, default=default, help=text, **extra)

    def help(self) -> str:
        """The help text; for ``train`` with every setting of the configuration."""
        text: str = self.parser.format_help()
        return text + _settings_help() if self.settings else text

    def parse(self, words: list[str]) -> dict[str, Any]:
        """Keyword arguments of the function.

        Raises:
            UsageError: an unknown flag, a missing or surplus argument, or a value of the wrong type.
        """
        words, settings = self._split_settings(words)
        for place, word in enumerate(words):
            flag, _, value = word.partition("=")
            if word == "--":
                break
            if not flag.startswith("--"):
                continue
            if flag not in self.flags:
                known = sorted(known for known in self.flags if "_" not in known)
                raise UsageError(f"unknown flag {flag}{nearest(flag, known)}")
            canonical = _flag(self.flags[flag])
            words[place] = f"{canonical}={value}" if "=" in word else canonical
        for word in words:
            if word.startswith("!!") or "=!!" in word:  # Numbers are read as YAML, whose tags fail in many ways.
                raise UsageError(f"{word}: no value that a flag takes")
        try:
            parsed = vars(self.parser.parse_args(words))
        except ArgumentError as error:
            raise UsageError(_usage_problem(str(error), self.flags)) from None
        return {**{key: value for key, value in parsed.items() if value is not SUPPRESS}, **settings}

    def _split_settings(self, words: list[str]) -> tuple[list[str], dict[str, Any]]:
        """Takes ``--key value`` and ``--key=value`` of the training configuration out of the words."""
        if not self.settings:
            return words, {}
        from amodal.config_io import OWN_SETTINGS, setting_keys

        keys = setting_keys()
        rest: list[str] = []
        settings: dict[str, Any] = {}
        queue = list(words)
        while queue:
            word = queue.pop(0)
            flag, has_value, value = word.partition("=")
            key = flag[2:]
            if not flag.startswith("--") or flag in self.flags:
                rest.append(word)
                continue
            if key not in keys and not key.startswith(OWN_SETTINGS):
                known = ["--" + name for name in keys] + [name for name in self.flags if "_" not in name]
                raise UsageError(f"unknown flag {flag}{nearest(flag, known)}")
            if not has_value:
                if not queue or queue[0].startswith("--"):
                    raise UsageError(f"{flag} needs a value")
                value = queue.pop(0)
            settings[key] = value
        return rest, settings


def _texts(documented: Any) -> dict[str, str]:
    """What the docstring of a function or a dataclass says of each parameter."""
    from docstring_parser import parse

    doc = parse(inspect.getdoc(documented) or "")
    return {param.arg_name: " ".join((param.description or "").split()) for param in doc.params}


def _flag(name: str) -> str:
    """The flag of a parameter; underscores stay in dotted ones, as settings have them."""
    return "--" + (name.replace("__", ".") if "__" in name else name.replace("_", "-"))


def _settings_help() -> str:
    """Help of the whole configuration, the methods' own settings last."""
    from amodal.config import TrainConfig
    from amodal.config_io import settings_help
    from amodal.settings import EXPANSION_PRIOR
    from amodal.systems import SYSTEMS

    text = "\nsettings of the configuration, as in the YAML file or given as --key value:\n\n" + settings_help(
        TrainConfig
    )
    text += f"\n{EXPANSION_PRIOR.title}: {settings_help(EXPANSION_PRIOR.settings, 'prior_fit')}"
    for name, system in SYSTEMS.items():
        if fields := settings_help(system.settings, "model.method"):
            text += f"\n{name} only: {fields}"
    return text


def _usage_problem(message: str, flags: dict[str, str]) -> str:
    from amodal.config_io import parse_problem

    key, rest = parse_problem(message)
    if key is None:
        return rest
    return f"{_flag(key) if key in flags.values() else key.upper()} {rest}"
