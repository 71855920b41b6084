"""The systems by name: one table. Imports no torch; what a line names is imported when the system is built.

Adding a system is a file in ``methods/`` and a line in :data:`SYSTEMS`. One of a user's own file needs no line: it is
called ``my_module:MySystem``.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from amodal.errors import ConfigError, nearest, one_line, shown
from amodal.settings import (
    AISFormerConfig,
    ASNConfig,
    BCNetConfig,
    FitConfig,
    MethodConfig,
    PGExpConfig,
    PriorKind,
    VRSPConfig,
)

BRANCH, BOX_SIDE = "amodal.models.branch:Branch", "amodal.models.branch:BoxSide"
"""Classes of what a system is made of, see :func:`check_part`."""

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
    "mask_rcnn8": System(
        "Mask R-CNN, 8 convolutions", "He et al., Mask R-CNN", "ICCV 2017", "amodal.methods.mask_rcnn:MaskRCNN8"
    ),
    "orcnn": System(
        "ORCNN", "Follmann et al., Learning to See the Invisible", "WACV 2019", "amodal.methods.orcnn:ORCNN"
    ),
    "asn": System(
        "ASN",
        "Qi et al., Amodal Instance Segmentation with KINS Dataset",
        "CVPR 2019",
        "amodal.methods.asn:ASN",
        ASNConfig,
        "amodal.methods.asn:TwoStreams",
    ),
    "bcnet": System(
        "BCNet",
        "Ke et al., Deep Occlusion-Aware Instance Segmentation with Overlapping BiLayers",
        "CVPR 2021",
        "amodal.methods.bcnet:BCNet",
        BCNetConfig,
    ),
    "aisformer": System(
        "AISFormer",
        "Tran et al., AISFormer: Amodal Instance Segmentation with Transformer",
        "BMVC 2022",
        "amodal.methods.aisformer:AISFormer",
        AISFormerConfig,
    ),
    "vrsp": System(
        "VRSP",
        "Xiao et al., Amodal Segmentation Based on Visible Region Segmentation and Shape Prior",
        "AAAI 2021",
        "amodal.methods.vrsp:VRSP",
        VRSPConfig,
    ),
    "pgexp": System(
        "PGExp",
        "Chen et al., Amodal Instance Segmentation via Prior-Guided Expansion",
        "AAAI 2023",
        "amodal.methods.pgexp.branch:PGExp",
        PGExpConfig,
    ),
}


MAKERS: dict[str, str] = {"expansion": "amodal.priors.maker:MAKER", "codebook": "amodal.priors.codebook:MAKER"}
"""What fits, saves and loads the package's own kinds of priors, by the name in :class:`amodal.settings.PriorKind`."""


def is_own(name: str) -> bool:
    """Whether the name is that of a system in a user's own file, ``my_module:NAME``."""
    return ":" in name


def source_file(name: str) -> Path:
    """The file of the module that the system ``my_module:NAME`` is named in; imports it.

    Raises:
        ConfigError: there is no such system, or no such file.
    """
    find(name)
    module = name.partition(":")[0]
    file = getattr(sys.modules[module], "__file__", None)
    if not isinstance(file, str):
        raise ConfigError(f"system {name}: {module} is no file, so nothing tells its code from another's")
    return Path(file)


def find(name: str) -> System:
    """The system of that name; ``my_module:NAME`` is a :class:`System` or a branch class in a file of the user's own.

    Such a module is looked for where Python looks, then in the current folder. A branch class may have attributes
    ``title``, ``settings`` and ``box_head``, with the meaning that they have in :class:`System`.

    Raises:
        ConfigError: there is no such system (names the nearest one), or what is there can be none.
        KeyboardInterrupt: its module was interrupted while it was imported.
    """
    if name in SYSTEMS:
        return SYSTEMS[name]
    if not is_own(name) or len(name) > _LONGEST:
        raise ConfigError(f"system is {shown(name)}, no known system{nearest(name, SYSTEMS)}")
    try:
        target = _imported(name)
        system = target if isinstance(target, System) else _of_class(target)
        _check(system)
    except ConfigError as error:
        raise ConfigError(f"system {name}: {error}") from error
    return system


def _of_class(target: Any) -> System:
    if not isinstance(target, type):
        raise ConfigError(f"is a {type(target).__name__}, must be a System or a branch class")
    settings = getattr(target, "settings", MethodConfig)
    box_head = getattr(target, "box_head", None) or System.box_head
    return System(getattr(target, "title", target.__name__), "-", "-", target, settings, box_head)


def _check(system: System) -> None:
    """Refuses a system of the user's own whose parts are of the wrong type, before anything is made of them."""
    check_part(resolve(system.branch), BRANCH)
    check_part(resolve(system.box_head), BOX_SIDE)
    for field in ("title", "paper", "venue"):
        if not isinstance(getattr(system, field), str):
            raise ConfigError(f"its {field} is {getattr(system, field)!r:.60}, must be text")
    settings = system.settings
    if not (isinstance(settings, type) and issubclass(settings, MethodConfig)):
        raise ConfigError(f"its settings are {settings!r:.60}, must be a subclass of MethodConfig")
    try:
        get_type_hints(settings)
        kind = settings().prior_kind
    except Exception as error:  # A user's class may do anything when it is made.
        raise ConfigError(f"its settings {settings.__name__} have no usable defaults ({one_line(error)})") from error
    if kind is None:
        return
    if not isinstance(kind, PriorKind):
        raise ConfigError(f"prior_kind of {settings.__name__} is {kind!r:.60}, must be a PriorKind or None")
    if not (isinstance(kind.settings, type) and issubclass(kind.settings, FitConfig)):
        raise ConfigError(
            f"the settings of its {kind.title} are {kind.settings!r:.60}, must be a subclass of FitConfig"
        )


def check_part(part: Any, contract: str) -> None:
    """Refuses what neither is of the class ``contract`` nor makes such objects: a class of another kind, an abstract
    one, or an object that is no function.

    Args:
        part: a class, a function, or anything else.
        contract: "module:CLASS". Told by name, so that whoever reads settings alone imports no torch.

    Raises:
        ConfigError: says what it is instead.
    """
    kind = part if isinstance(part, type) else type(part)
    if contract not in {f"{parent.__module__}:{parent.__qualname__}" for parent in kind.__mro__}:
        if inspect.isfunction(part):
            return
        shown = part.__name__ if isinstance(part, type) else f"an object of type {kind.__name__}"
        raise ConfigError(f"{shown} is no {contract.partition(':')[2]}")
    if inspect.isabstract(part):
        raise ConfigError(f"{part.__name__} is abstract, it lacks {', '.join(sorted(part.__abstractmethods__))}")


def resolve(target: Any) -> Any:
    """What "module:NAME" names; anything but text is returned as it is.

    Raises:
        ConfigError: module or name is not there, or the module cannot be imported.
        KeyboardInterrupt: it was interrupted while it was imported.
    """
    if not isinstance(target, str):
        return target
    try:
        return _imported(target)
    except ConfigError as error:
        raise ConfigError(f"{target}: {error}") from error


def _imported(target: str) -> Any:
    module, _, name = target.partition(":")
    if module.partition(".")[0] != "amodal" and os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())  # The last place to look, so that no file here hides a library.
    try:
        found = importlib.import_module(module)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"{target}: interrupted while it was imported") from None
    except BaseException as error:  # A user's file may do anything when it is imported.
        missing = isinstance(error, ModuleNotFoundError) and error.name == module.partition(".")[0]
        raise ConfigError("no such module, here or installed" if missing else one_line(error)) from error
    try:
        return getattr(found, name)
    except AttributeError:
        known = nearest(name, [other for other in vars(found) if other[0] != "_"])
        raise ConfigError(f"{module} has no {name!r}{known}") from None
