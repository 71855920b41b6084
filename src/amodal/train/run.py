"""``amodal train``: the page that tells what a training run does, from top to bottom."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.state import AcceleratorState
from accelerate.utils import GradientAccumulationPlugin
from tqdm import tqdm

from amodal.checkpoint import save_model
from amodal.config import TrainConfig
from amodal.config_io import to_yaml
from amodal.datasets import AmodalDataset
from amodal.errors import ConfigError, counted
from amodal.files import named, recover, replace_folder, write_text
from amodal.launch import own_settings
from amodal.model import AmodalModel, build, complete
from amodal.train.data import TrainImages, fingerprint, load_data, train_loader
from amodal.train.engine import Batch, StepResult, learning_rate, make_optimizer, train_step
from amodal.train.freeze import freeze
from amodal.train.init import start_from
from amodal.train.log import CsvLog
from amodal.train.prior import run_prior
from amodal.train.signals import Signals, Stopped
from amodal.train.state import RunState, read_state, restore, save_state
from amodal.train.told import closing, expected, opening, stopped
from amodal.train.validate import draw_samples, flat_metrics, is_best, mask_ap, validate

if TYPE_CHECKING:
    from amodal.data.store import AnnotationSet
    from amodal.models.branch import Prior


_TIMED = 5  # steps after which the time left is told


@dataclass
class _Run:
    """The parts of a run that its steps share."""

    config: TrainConfig
    out: Path
    accelerator: Accelerator
    model: AmodalModel
    prepared: torch.nn.Module
    optimizer: torch.optim.Optimizer
    images: TrainImages
    val: AmodalDataset | None
    state: RunState
    metrics: dict[str, Any] | None = None


def train_run(config: TrainConfig, *, resume: bool = False, init: str | None = None) -> None:
    """Trains a detector into the run folder ``config.out``.

    Args:
        config: all settings.
        resume: go on from ``last/`` where it exists; the result is that of an unkilled run, bit for bit on a CPU.
        init: checkpoint folder whose weights start the run.

    Raises:
        ConfigError: settings do not fit the device, the data or the run that is resumed.
        AmodalError: data are faulty, or a loss is not finite.
    """
    with own_settings():
        _train(replace(config, model=complete(config.model)), resume, init)


def _train(config: TrainConfig, resume: bool, init: str | None) -> None:
    accelerator = _accelerator(config)
    out = Path(config.out)
    last = out / "last"
    if accelerator.is_main_process:
        recover(last)
    accelerator.wait_for_everyone()
    resuming = _resumes(last, resume)
    images, val = load_data(config)
    data = images.data.annotations
    facts = fingerprint(images)
    state = read_state(last, config, facts) if resuming else RunState(0, None, {}, facts)

    prior = run_prior(config, data, facts["digest"], accelerator, last if resuming else None)
    fresh = init is None and not resuming
    model = _build(config, data, prior, pretrained=fresh)
    if init is not None and not resuming:
        accelerator.print(start_from(model, init))
    freeze(model, config.freeze)
    optimizer = make_optimizer(model, config.optim)
    model.to(accelerator.device)
    if resuming:
        restore(last, model, optimizer)
    prepared, engine = accelerator.prepare(model, optimizer)
    if accelerator.scaler is not None and state.scaler:
        accelerator.scaler.load_state_dict(state.scaler)
    if accelerator.is_main_process:
        write_text(out / "config.yaml", to_yaml(config))
    run = _Run(config, out, accelerator, model, prepared, engine, images, val, state)
    if accelerator.is_main_process:
        print(opening(config, model, accelerator.device, len(images), 0 if val is None else len(val), state.step))
    # Several processes would have to agree on the step to stop after; they are killed and resumed.
    with Signals() if accelerator.num_processes == 1 else contextlib.nullcontext(Signals()) as signals:
        _loop(run, signals)
    with named(out / "tensorboard"):
        accelerator.end_training()
    if accelerator.is_main_process:
        print(closing(config, run.metrics))


def _loop(run: _Run, signals: Signals) -> None:
    config, accelerator, start = run.config, run.accelerator, run.state.step
    if accelerator.is_main_process:
        log, evals = CsvLog(run.out / "log.csv", start), CsvLog(run.out / "eval.csv", start)
    accelerator.init_trackers("tensorboard", init_kwargs={"tensorboard": {"purge_step": start}})
    loader = iter(train_loader(run.images, config, start, accelerator.process_index, accelerator.num_processes))
    bar = tqdm(
        total=config.steps, initial=start, desc=f"train {config.model.system}", unit="step",
        disable=not accelerator.is_main_process, mininterval=1.0,
    )  # fmt: skip
    run.prepared.train()
    spent: list[float] = []
    quickest = math.inf
    with bar:
        for step in range(start, config.steps):
            rate = learning_rate(step, config.optim, config.steps)
            clock = time.perf_counter()
            result = _step(run, [next(loader) for _ in range(config.accumulate)], step, rate)
            spent.append(time.perf_counter() - clock)
            quickest = min(quickest, spent[-1])
            done = run.state.step = step + 1
            bar.update()
            if done == start + _TIMED and accelerator.is_main_process:
                tqdm.write(expected(quickest, config.steps - done), file=sys.stderr)
            if accelerator.is_main_process and (done % config.log_every == 0 or done == config.steps):
                bar.set_postfix(loss=f"{result.loss:.3f}", lr=f"{rate:.2g}")
                row = {"lr": rate, "loss": result.loss, **result.losses, "grad_norm": result.grad_norm}
                log.write(done, {**row, "seconds": sum(spent) / len(spent)})
                spent.clear()
                _track(run, {f"train/{name}": value for name, value in row.items()})
            if done == config.steps or (config.eval_every and done % config.eval_every == 0):
                values = _evaluate(run)
                if accelerator.is_main_process and values:
                    evals.write(done, values)
                    numbers = {name: value for name, value in values.items() if value is not None}
                    _track(run, {f"val/{name}": value for name, value in numbers.items()})
            if done == config.steps or done % config.save_every == 0 or signals.caught is not None:
                _save_last(run)
            if signals.caught is not None and done < config.steps:
                raise Stopped(stopped(config, done), signals.caught)


def _track(run: _Run, values: dict[str, float]) -> None:
    with named(run.out / "tensorboard"):
        run.accelerator.log(values, step=run.state.step)


def _step(run: _Run, batches: list[Batch], step: int, rate: float) -> StepResult:
    device = run.accelerator.device
    moved = [
        ([image.to(device, non_blocking=True) for image in images], [target.to(device) for target in targets])
        for images, targets in batches
    ]
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    run.model.set_step(run.config.seed, step)
    return train_step(run.accelerator, run.prepared, run.optimizer, moved, run.config.optim.clip_norm)


def _evaluate(run: _Run) -> dict[str, float | None]:
    """Metrics on the validation set, pictures, and ``best/`` where they are the highest so far."""
    accelerator, step = run.accelerator, run.state.step
    metrics = None
    if run.val is not None:
        metrics = validate(accelerator, run.model, run.val, run.config.data.workers, step)
    if accelerator.is_main_process:
        draw_samples(accelerator, run.model, run.val or run.images.data, run.out / "samples" / f"{step:06d}")
        run.metrics = metrics or run.metrics
        score = None if metrics is None else mask_ap(metrics)
        if is_best(score, run.state.best):
            run.state.best = score
            with replace_folder(run.out / "best") as folder:
                save_model(run.model, folder, _card(run, metrics))
    accelerator.wait_for_everyone()
    return {} if metrics is None else flat_metrics(metrics)


def _save_last(run: _Run) -> None:
    accelerator = run.accelerator
    if accelerator.is_main_process:
        if accelerator.scaler is not None:
            run.state.scaler = accelerator.scaler.state_dict()
        with replace_folder(run.out / "last") as folder:
            save_state(folder, run.model, run.optimizer, run.state, run.config, _card(run, run.metrics))
    accelerator.wait_for_everyone()


def _card(run: _Run, metrics: dict[str, Any] | None) -> dict[str, Any]:
    config = run.config
    data = f"{Path(config.data.train).name}, {counted(len(run.images), 'image')}"
    steps = f"{run.state.step} of {config.steps}, {counted(config.batch_size, 'image')} each, seed {config.seed}"
    return {"metrics": metrics, "data": data, "steps": steps}


def _resumes(last: Path, resume: bool) -> bool:
    if last.exists() and not resume:
        raise ConfigError(f"{last.parent} holds a run; give --resume auto to go on with it, or another --out")
    return resume and last.exists()


def _build(config: TrainConfig, data: AnnotationSet, prior: Prior | None, *, pretrained: bool) -> AmodalModel:
    return build(
        config.model.system,
        len(data.class_names),
        config=config.model,
        class_names=data.class_names,
        category_ids=data.category_ids,
        prior=prior,
        pretrained=pretrained,
        seed=config.seed,
    )


def _accelerator(config: TrainConfig) -> Accelerator:
    # No batch statistics exist, so buffers are equal everywhere without being sent.
    kwargs = DistributedDataParallelKwargs(broadcast_buffers=False)
    # The others wait while the main process fits a prior.
    patience = InitProcessGroupKwargs(timeout=timedelta(hours=2))
    cuda = torch.cuda.is_available()
    if config.precision == "fp16" and not cuda:
        raise ConfigError("precision is 'fp16', this device has no float16 training; take 'no' or 'bf16'")
    if config.precision == "bf16" and cuda and not torch.cuda.is_bf16_supported():
        raise ConfigError("precision is 'bf16', this GPU has no bfloat16; take 'no' or 'fp16'")
    # Accelerate keeps the precision of a process's first run for ever; a second run may want another one.
    AcceleratorState._reset_state()
    accelerator = Accelerator(
        mixed_precision=config.precision,
        log_with="tensorboard",
        project_dir=config.out,
        # Our own steps add micro-batches up; Accelerate's state outlives a run, so 1 is said each time.
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        kwargs_handlers=[kwargs, patience],
    )
    if config.batch_size % (accelerator.num_processes * config.accumulate):
        rule = f"a multiple of accumulate ({config.accumulate}) times processes ({accelerator.num_processes})"
        raise ConfigError(f"batch_size is {config.batch_size}, must be {rule}")
    return accelerator
