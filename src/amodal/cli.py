"""The command line ``amodal VERB``: one typed function a verb, in ``amodal/verbs``.

Only the module of the verb asked for is imported, and no verb module imports torch before its function runs; so help
answers at once. A mistake of the user ends in one line on stderr and exit code 2.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence

from amodal.arguments import HELP, UsageError, Verb
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
    if words[:1] == ["help"]:
        words = [*words[1:], "--help"]
    if not words or words[0] in HELP:
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
        if not any(word in HELP for word in words):
            raise UsageError(f"a second word is missing; there are {', '.join(map(repr, _families()[verb]))}")
        print(f"usage: amodal {verb} VERB [arguments]\n\nverbs:\n{rows}")
        return 0
    if verb.startswith("-"):
        raise UsageError(f"unknown flag {verb}{nearest(verb, ['--help', '--version'])}")
    if verb not in VERBS:
        raise UsageError(f"unknown verb {verb!r}{nearest(verb, list(VERBS))}")
    function = _load(verb)
    arguments = Verb(verb, function)
    if asked := [word.replace("_", "-") for word in words if word.replace("_", "-") in HELP]:
        print(arguments.help(everything="--help-all" in asked), end="")
        return 0
    result = function(**arguments.parse(words))
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
        "amodal VERB --help explains a verb's arguments, with units, defaults and an example.\n"
        "In flags - and _ are the same. amodal --version prints the version."
    )


def _rows(verbs: list[str]) -> str:
    return "\n".join(f"  {verb:<11} {SUMMARIES[verb]}" for verb in verbs)
