"""Parts of a model that are not trained."""

from __future__ import annotations

import torch

from amodal.errors import ConfigError, nearest


def freeze(model: torch.nn.Module, parts: list[str]) -> None:
    """Takes the parameters of parts of the model out of training.

    Args:
        model: the detector.
        parts: names of modules, such as "backbone" or "branch.visible_head".

    Raises:
        ConfigError: a part is unknown or has nothing to train, or nothing would be left to train.
    """
    modules = dict(model.named_modules())
    for part in parts:
        if part not in modules or not part:
            raise ConfigError(
                f"freeze: the model has no part {part!r}{nearest(part, [name for name in modules if name])}"
            )
        parameters = list(modules[part].parameters())
        if not parameters:
            raise ConfigError(f"freeze: {part!r} has no parameters")
        for parameter in parameters:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError(f"freeze: nothing is left to train without {', '.join(parts)}")
