"""One optimiser step over all micro-batches and processes, with the gradient of the one big batch, at what rate."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from amodal.config import OptimConfig
from amodal.errors import AmodalError
from amodal.structures import LossTerm, Targets

Batch = tuple[list[Tensor], list[Targets]]


@dataclass
class StepResult:
    """What a step tells the log.

    Attributes:
        losses: every loss of the whole batch by name, already divided by its count.
        grad_norm: norm of the gradient before clipping.
    """

    losses: dict[str, float]
    grad_norm: float

    @property
    def loss(self) -> float:
        """Sum of all losses, what is minimised."""
        return sum(self.losses.values())


def make_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """SGD or AdamW over the trainable parameters; normalisation layers without weight decay."""
    plain: list[nn.Parameter] = []
    normal: list[nn.Parameter] = []
    for module in model.modules():
        is_norm = isinstance(module, (nn.GroupNorm, nn.LayerNorm))
        own = [value for value in module.parameters(recurse=False) if value.requires_grad]
        (normal if is_norm else plain).extend(own)
    groups = [{"params": plain, "weight_decay": config.weight_decay}, {"params": normal, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    if config.name == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr)
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum)


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


def train_step(
    accelerator: Accelerator,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[Batch],
    clip_norm: float | None,
) -> StepResult:
    """Forward, backward and update over this process's micro-batches.

    Every normaliser is a count over the whole batch: counts are added over micro-batches and processes before the first
    backward. With several micro-batches a pass without gradients collects them first. DDP averages gradients over
    processes, so losses are multiplied by their number.

    Args:
        accelerator: the engine.
        model: prepared model; called as ``model(images, targets, terms=True)``.
        optimizer: prepared optimiser.
        batches: micro-batches (images, targets) of this process, on its device.
        clip_norm: largest gradient norm; None: no clipping.

    Raises:
        AmodalError: a loss or the gradient is not finite; names the images. Parameters are as before the step.
    """
    optimizer.zero_grad(set_to_none=True)
    counts = _count_all(accelerator, model, batches) if len(batches) > 1 else None
    totals: dict[str, Tensor] = {}
    for number, (images, targets) in enumerate(batches):
        last = number == len(batches) - 1
        # Gradients travel once, with the last micro-batch.
        with contextlib.nullcontext() if last else accelerator.no_sync(model):
            terms: dict[str, LossTerm] = model(images, targets, terms=True)
            if counts is None:
                counts = _reduce(accelerator, {name: term.count for name, term in terms.items()})
            scaled = [term.total * (accelerator.num_processes / counts[name]) for name, term in terms.items()]
            # One pass for all terms, since they may share a graph.
            accelerator.backward(torch.stack(scaled).sum())
        for name, term in terms.items():
            totals[name] = totals.get(name, 0.0) + term.total.detach().float()
    assert counts is not None
    sums = _reduce(accelerator, totals, floor=None)
    losses = {name: float(sums[name] / counts[name]) for name in totals}
    # An infinite limit clips nothing, and the norm is still told.
    norm = accelerator.clip_grad_norm_(model.parameters(), float("inf") if clip_norm is None else clip_norm)
    result = StepResult(losses, float(norm) if norm is not None else 0.0)
    # A gradient scaler meets infinities on purpose and skips the step itself; a loss must be finite in any case.
    gradient_ok = accelerator.scaler is not None or _finite(result.grad_norm)
    if not (_finite(result.loss) and gradient_ok):
        raise AmodalError(_blame(accelerator, model, batches, result))
    optimizer.step()
    return result


def _count_all(accelerator: Accelerator, model: nn.Module, batches: Sequence[Batch]) -> dict[str, Tensor]:
    # Without DDP, which would wait for a backward pass. Draws are functions of (seed, step, image), so the second pass
    # counts the same.
    bare = accelerator.unwrap_model(model)
    counts: dict[str, Tensor] = {}
    with torch.no_grad(), accelerator.autocast():
        for images, targets in batches:
            for name, term in bare(images, targets, terms=True).items():
                counts[name] = counts.get(name, torch.zeros_like(term.count)) + term.count
    return _reduce(accelerator, counts)


def _reduce(accelerator: Accelerator, values: dict[str, Tensor], floor: float | None = 1.0) -> dict[str, Tensor]:
    """Scalars added over processes, in one message; counts are at least 1 afterwards."""
    stacked = torch.stack([value.detach().float() for value in values.values()])
    summed: Tensor = accelerator.reduce(stacked, reduction="sum")
    if floor is not None:
        # Nothing counted in the whole batch is a loss of 0 / 1, not of 0 / 0.
        summed = summed.clamp(min=floor)
    return dict(zip(values, summed, strict=True))


def _finite(value: float) -> bool:
    # NaN and infinities minus themselves are NaN.
    return value - value == 0.0


def _blame(accelerator: Accelerator, model: nn.Module, batches: Sequence[Batch], result: StepResult) -> str:
    """The message for a loss or gradient that is not finite: which term, and which images alone show it."""
    bare: Any = accelerator.unwrap_model(model)
    alone: list[int] = []
    everyone: list[int] = []
    with torch.no_grad(), accelerator.autocast():
        for images, targets in batches:
            for image, target in zip(images, targets, strict=True):
                terms = bare([image], [target], terms=True)
                everyone.append(target.image_id)
                if not all(_finite(float(term.total)) for term in terms.values()):
                    alone.append(target.image_id)
    alone, everyone = gather_object(alone), gather_object(everyone)
    bad = [name for name, value in result.losses.items() if not _finite(value)]
    what = f"loss {', '.join(bad)}" if bad else "gradient"
    ids = ", ".join(str(value) for value in sorted(set(alone or everyone)))
    return f"{what} is not finite; images {ids}; last checkpoint is untouched, try a lower optim.lr or optim.clip_norm"
