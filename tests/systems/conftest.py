"""Systems of the package and toys that stand for coming ones, each with a prior where it needs one."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from amodal.checkpoint import maker_of, prior_kind
from amodal.config import ModelConfig
from amodal.data.store import AnnotationSet
from amodal.model import AmodalModel, build
from amodal.settings import CodebookConfig, FitConfig, MethodConfig, PGExpConfig, PriorConfig, VRSPConfig
from amodal.systems import find

PAGE = Path(__file__).resolve().parents[2] / "docs/extending.md"
ORCNN = "orcnn_of_the_page:MyORCNN"

SMALL: dict[str, tuple[MethodConfig, FitConfig]] = {
    "pgexp": (
        PGExpConfig(k=2, candidates=4, box_channels=16),
        PriorConfig(slots=5, encoder_steps=5, flow_steps=2, k=2, candidates=4),
    ),
    "vrsp": (VRSPConfig(k=2, reclass_channels=16), CodebookConfig(slots=5, encoder_steps=5)),
}
"""Settings of systems whose defaults would take long."""


@pytest.fixture(scope="session", autouse=True)
def example_of_the_page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The example of docs/extending.md as a module that can be imported."""
    folder = tmp_path_factory.mktemp("modules")
    code = PAGE.read_text().split("```python\n")[1].split("```")[0]
    (folder / "orcnn_of_the_page.py").write_text(code)
    sys.path.append(str(folder))
    yield
    sys.path.remove(str(folder))


@pytest.fixture(scope="session")
def priors() -> dict[Any, Any]:
    """Priors that were fitted, by settings."""
    return {}


@pytest.fixture
def make(
    tiny_config: Callable[..., ModelConfig], tiny_annotations: AnnotationSet, priors: dict[Any, Any]
) -> Callable[..., AmodalModel]:
    """Makes a tiny model of two classes, with a prior where its system needs one; keywords are settings of its own."""

    def made(system: str, *, seed: int = 0, score_threshold: float = 0.0, **own: Any) -> AmodalModel:
        method, fit = SMALL.get(system, (find(system).settings(), None))
        method = replace(method, **own)
        kind, prior = prior_kind(method), None
        if kind is not None:
            fit = fit or kind.settings()
            if fit not in priors:
                priors[fit] = maker_of(kind).fit(tiny_annotations, fit, data="tiny")[0]
            prior = priors[fit]
        config = replace(tiny_config(score_threshold=score_threshold), method=method)
        return build(system, 2, config=config, prior=prior, seed=seed)

    return made
