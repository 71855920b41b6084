"""The learning rate as a function of the step."""

from __future__ import annotations

from amodal.config import OptimConfig


def milestones(config: OptimConfig, steps: int) -> list[int]:
    """Steps at which the rate falls: values below 1 are fractions of ``steps``, rounded to whole steps."""
    return sorted(round(value * steps) if value < 1 else round(value) for value in config.milestones)


def learning_rate(step: int, config: OptimConfig, steps: int) -> float:
    """The rate that step ``step`` (0-based) uses.

    It rises linearly from ``warmup_factor * lr`` at step 0 to ``lr`` at ``warmup_steps``, and is multiplied by
    ``gamma`` from every milestone on.
    """
    rate = config.lr * config.gamma ** sum(step >= milestone for milestone in milestones(config, steps))
    if step >= config.warmup_steps:
        return rate
    progress = step / config.warmup_steps
    return rate * (config.warmup_factor * (1.0 - progress) + progress)
