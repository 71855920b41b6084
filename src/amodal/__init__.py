"""amodal: amodal instance segmentation. Whole shapes of objects, hidden parts included.

Public names load on first use, so that ``import amodal`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from amodal.version import __version__ as __version__

_LAZY = {
    "Prediction": "amodal.prediction",
    "build": "amodal.model",
    "load": "amodal.model",
    "evaluate": "amodal.evaluation",
    "datasets": "amodal.datasets",
    "AmodalError": "amodal.errors",
}

if TYPE_CHECKING:
    from amodal import datasets as datasets
    from amodal.errors import AmodalError as AmodalError
    from amodal.evaluation import evaluate as evaluate
    from amodal.model import build as build
    from amodal.model import load as load
    from amodal.prediction import Prediction as Prediction


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'amodal' has no attribute {name!r}")
    module = importlib.import_module(_LAZY[name])
    value = module if name == "datasets" else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
