"""Parts that a run does not train."""

import pytest
from torch import nn

from amodal.errors import ConfigError
from amodal.train.freeze import freeze


def _model() -> nn.ModuleDict:
    branch = nn.ModuleDict({"visible_head": nn.Linear(2, 2), "amodal_head": nn.Linear(2, 2)})
    return nn.ModuleDict(
        {"backbone": nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), "act": nn.ReLU(), "branch": branch}
    )


def test_named_parts_are_frozen_and_nothing_else():
    model = _model()
    freeze(model, ["backbone", "branch.visible_head"])
    trained = {name for name, value in model.named_parameters() if value.requires_grad}
    assert trained == {"branch.amodal_head.weight", "branch.amodal_head.bias"}


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (["backbon"], "nearest is 'backbone'"),
        ([""], "no part ''"),
        (["act"], "'act' has no parameters"),
        (["backbone", "branch"], "nothing is left to train"),
    ],
)
def test_what_cannot_be_frozen_is_refused(parts: list[str], message: str):
    with pytest.raises(ConfigError, match=message):
        freeze(_model(), parts)
