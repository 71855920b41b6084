"""The systems by name: one table. Imports no torch; what a line names is imported when the system is built.

Adding a system is a file in ``methods/`` and a line in :data:`SYSTEMS`. One of a user's own file needs no line: it is
called ``my_module:MySystem``.
"""

from __future__ import annotations

import importlib
import os
import sys
from dataclasses import dataclass
from typing import Any

from amodal.errors import ConfigError, nearest, shown
from amodal.settings import MethodConfig, PGExpConfig

_LONGEST = 1000  # characters of "module:NAME"


@dataclass(frozen=True)
class System:
    """One system.

    Attributes:
        title: its name in tables.
        paper: authors and title of the paper it follows.
        venue: where and when that appeared.
        branch: what comes after the boxes: a class, or "module:CLASS", called with (model settings, number of classes,
            prior or None), that gives a :class:`amodal.models.branch.Branch`.
        settings: class of the system's own settings.
        box_head: what finds class and box, where it is not the head that all share: a class, or "module:CLASS", called
            with (model settings, number of classes), that gives a :class:`amodal.models.branch.BoxSide`.
    """

    title: str
    paper: str
    venue: str
    branch: Any
    settings: type[MethodConfig] = MethodConfig
    box_head: Any = "amodal.models.box_head:BoxHead"


SYSTEMS: dict[str, System] = {
    "mask_rcnn": System("Mask R-CNN", "He et al., Mask R-CNN", "ICCV 2017", "amodal.methods.mask_rcnn:MaskRCNN"),
    "pgexp": System(
        "PGExp",
        "Chen et al., Amodal Instance Segmentation via Prior-Guided Expansion",
        "AAAI 2023",
        "amodal.methods.pgexp.branch:PGExp",
        PGExpConfig,
    ),
}


def find(name: str) -> System:
    """The system of that name; ``my_module:NAME`` is a :class:`System` or a branch class in a file of the user's own.

    Such a module is looked for where Python looks, then in the current folder. A branch class may have attributes
    ``title``, ``settings`` and ``box_head``, with the meaning that they have in :class:`System`.

    Raises:
        ConfigError: there is no such system; names the nearest one.
    """
    if name in SYSTEMS:
        return SYSTEMS[name]
    if ":" not in name or len(name) > _LONGEST:
        raise ConfigError(f"system is {shown(name)}, no known system{nearest(name, SYSTEMS)}")
    target = resolve(name)
    if isinstance(target, System):
        return target
    if not isinstance(target, type):
        raise ConfigError(f"system {name}: is a {type(target).__name__}, must be a System or a branch class")
    if not hasattr(target, "forward"):
        raise ConfigError(f"system {name}: is no branch class (amodal.models.branch.Branch)")
    settings = getattr(target, "settings", MethodConfig)
    if not (isinstance(settings, type) and issubclass(settings, MethodConfig)):
        raise ConfigError(f"system {name}: its settings are {settings!r}, must be a subclass of MethodConfig")
    box_head = getattr(target, "box_head", None) or System.box_head
    return System(getattr(target, "title", target.__name__), "-", "-", target, settings, box_head)


def resolve(target: Any) -> Any:
    """What "module:NAME" names; anything but text is returned as it is.

    Raises:
        ConfigError: module or name is not there, or the module cannot be imported.
    """
    if not isinstance(target, str):
        return target
    module, _, name = target.partition(":")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())  # The last place to look, so that no file here hides a library.
    try:
        found = importlib.import_module(module)
    except (Exception, SystemExit) as error:  # A user's file may do anything when it is imported.
        missing = isinstance(error, ModuleNotFoundError) and error.name == module.split(".")[0]
        why = "no such module, here or installed" if missing else f"{type(error).__name__}: {error}"
        raise ConfigError(f"system {target}: {why}") from error
    if not hasattr(found, name):
        raise ConfigError(
            f"system {target}: {module} has no {name!r}{nearest(name, [n for n in vars(found) if n[0] != '_'])}"
        )
    return getattr(found, name)
