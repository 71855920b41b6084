"""``amodal train``: the page that tells what a training run does, from top to bottom."""

from __future__ import annotations

import math
import sys
import time
from contextlib import closing as closed
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.state import AcceleratorState
from accelerate.utils import GradientAccumulationPlugin
from tqdm import tqdm

from amodal.checkpoint import CONFIG, save_model
from amodal.config import TrainConfig
from amodal.config_io import to_yaml
from amodal.datasets import AmodalDataset
from amodal.errors import ConfigError, DataError, counted, named
from amodal.files import recover, replace_folder, write_text
from amodal.launch import own_settings
from amodal.locks import hold_as_main
from amodal.model import AmodalModel, build, complete
from amodal.train.data import TrainImages, fingerprint, load_data, loader_deaths, train_loader
from amodal.train.early import check_early
from amodal.train.engine import Batch, StepResult, learning_rate, make_optimizer, train_step
from amodal.train.folder import EVALS, LOG, TRACKED, check_run_folder, check_run_room
from amodal.train.freeze import freeze
from amodal.train.init import start_from
from amodal.train.log import CsvLog, quiet_tensorboard
from amodal.train.prior import run_prior
from amodal.train.samples import draw_samples
from amodal.train.signals import Signals, Stopped
from amodal.train.state import RunState, planned_steps, read_state, restore, save_state
from amodal.train.told import STOPPING, closing, expected, halted, opening, other_length, stopped
from amodal.train.validate import flat_metrics, is_best, mask_ap, nested_metrics, validate

if TYPE_CHECKING:
    from amodal.data.store import AnnotationSet
    from amodal.models.branch import Prior


_TIMED = 5  # steps after which the time left is told


@dataclass
class _Progress:
    """What a run could say if it were ended now.

    Attributes:
        config: its settings.
        saved: step of ``last/``; 0: there is none.
        done: finished steps; None before the first one of this process.
    """

    config: TrainConfig
    saved: int = 0
    done: int | None = None

    def halted(self) -> str:
        """What is said when a signal ends it at once."""
        return halted(self.config, self.saved, self.done)


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
    progress: _Progress
    shortened: bool = False
    metrics: dict[str, Any] | None = None


def train_run(config: TrainConfig, *, resume: bool = False, init: str | None = None) -> None:
    """Trains a detector into the run folder ``config.out``.

    Args:
        config: all settings.
        resume: go on from ``last/`` where it exists; the result is that of an unkilled run, bit for bit on a CPU.
        init: checkpoint folder whose weights start the run.

    Raises:
        ConfigError: settings do not fit the device, the data or the run that is resumed.
        AmodalError: data are faulty, a loss is not finite, the disk is full, or another process works in the folder.
    """
    with own_settings(), hold_as_main(config.out):
        _train(replace(config, model=complete(config.model)), resume, init)


def _train(config: TrainConfig, resume: bool, init: str | None) -> None:
    accelerator = _accelerator(config)
    last = Path(config.out) / "last"
    if accelerator.is_main_process:
        check_run_folder(Path(config.out))
        # A kill may have come while last/ was replaced; put right before any process looks.
        recover(last)
    accelerator.wait_for_everyone()
    resuming = _resumes(last, resume)
    now = _Progress(config)
    alone, main = accelerator.num_processes == 1, accelerator.is_main_process
    with quiet_tensorboard(), Signals(now.halted, STOPPING, alone=alone, main=main) as signals:
        run, line = _prepare(config, accelerator, last if resuming else None, init, now)
        if main:
            start = run.state.step
            print(opening(config, run.model, accelerator.device, len(run.images), len(run.val or ()), start))
            if line:
                print(line)
        with loader_deaths():
            _loop(run, signals)
        with named(run.out / TRACKED):
            accelerator.end_training()
        if main:
            print(closing(config, run.metrics, run.state.best))


def _prepare(
    config: TrainConfig, accelerator: Accelerator, last: Path | None, init: str | None, progress: _Progress
) -> tuple[_Run, str]:
    """The parts of a run, resumed from ``last`` or new, and what is to be said of its length."""
    images, val = load_data(config)
    data = images.data.annotations
    facts = fingerprint(images)
    state, planned = RunState(0, None, {}, facts), config.steps
    if last is not None:
        state = read_state(last, config, facts)
        planned = planned_steps(last)
    progress.saved = state.step
    check_early(config, len(images), accelerator.num_processes, init, last is not None)
    prior = run_prior(config, data, facts["digest"], accelerator, last)
    model = _build(config, data, prior, pretrained=init is None and last is None)
    if init is not None:
        accelerator.print(start_from(model, init) if last is None else f"init: {init} is not read, {last} goes on")
    freeze(model, config.freeze)
    optimizer = make_optimizer(model, config.optim)
    model.to(accelerator.device)
    if last is not None:
        # Before the engine wraps the two: names in the files are those of the bare model.
        restore(last, model, optimizer, state.step)
    prepared, engine = accelerator.prepare(model, optimizer)
    if accelerator.scaler is not None and state.scaler:
        accelerator.scaler.load_state_dict(state.scaler)
    out = Path(config.out)
    if accelerator.is_main_process:
        check_run_room(out, model)
        with named(out):
            # First of all: by this folder a run killed at any later moment is known as one.
            (out / TRACKED).mkdir(parents=True, exist_ok=True)
        write_text(out / CONFIG, to_yaml(config))
    shortened = config.steps < planned
    run = _Run(config, out, accelerator, model, prepared, engine, images, val, state, progress, shortened)
    return run, other_length(config, planned, state.step)


def _loop(run: _Run, signals: Signals) -> None:
    config, accelerator, start = run.config, run.accelerator, run.state.step
    log, evals = None, None
    if accelerator.is_main_process:
        log, evals = CsvLog(run.out / LOG, start), CsvLog(run.out / EVALS, start)
    with named(run.out / TRACKED):
        # TensorBoard forgets what a killed run wrote beyond its checkpoint.
        accelerator.init_trackers("tensorboard", init_kwargs={"tensorboard": {"purge_step": start}})
    signals.note()
    if start == config.steps:
        # Its end has not been looked at where it was to go on, or where it had other validation data.
        if run.shortened or (run.val is not None and run.state.best is None):
            _evaluate(run, evals)
            _save_last(run)
        elif evals is not None:
            run.metrics = nested_metrics(evals.last)
        return
    loader = train_loader(run.images, config, start, accelerator.process_index, accelerator.num_processes)
    bar = tqdm(
        total=config.steps, initial=start, desc=f"train {config.model.system}", unit="step",
        disable=not accelerator.is_main_process, mininterval=1.0,
    )  # fmt: skip
    run.prepared.train()
    spent: list[float] = []
    quickest = math.inf
    # Loader processes end here whatever happens: an error that is kept keeps them, and Python's exit waits for them.
    with closed(loader), bar:
        for step in range(start, config.steps):
            rate = learning_rate(step, config.optim, config.steps)
            clock = time.perf_counter()
            result = _step(run, [next(loader) for _ in range(config.accumulate)], step, rate)
            spent.append(time.perf_counter() - clock)
            # The first steps fill caches and choose kernels; the quickest tells more of the others than their mean.
            quickest = min(quickest, spent[-1])
            done = run.state.step = run.progress.done = step + 1
            bar.update()
            if done == start + _TIMED and accelerator.is_main_process:
                tqdm.write(expected(quickest, config.steps - done), file=sys.stderr)
            if log is not None and (done % config.log_every == 0 or done == config.steps):
                bar.set_postfix(loss=f"{result.loss:.3f}", lr=f"{rate:.2g}")
                row = {"lr": rate, "loss": result.loss, **result.losses, "grad_norm": result.grad_norm}
                log.write(done, {**row, "seconds": sum(spent) / len(spent)})
                spent.clear()
                _track(run, {f"train/{name}": value for name, value in row.items()})
            if done == config.steps or (config.eval_every and done % config.eval_every == 0):
                try:
                    _evaluate(run, evals)
                except DataError:
                    # A damaged picture costs no steps. Of several processes the others would not come to save.
                    if accelerator.num_processes == 1:
                        _save_last(run)
                    raise
            number = _asked_to_stop(accelerator, signals)
            if done == config.steps or done % config.save_every == 0 or number:
                _save_last(run)
                number = number or _asked_to_stop(accelerator, signals)  # Nothing is lost by ending now.
            if number and done < config.steps:
                # The other processes end without a word, as the main one has said it.
                raise Stopped(stopped(config, done), number) if log is not None else SystemExit(128 + number)


def _asked_to_stop(accelerator: Accelerator, signals: Signals) -> int:
    """The signal after which the run is to end, the same in all processes at the same step; 0: none."""
    number = signals.caught or 0
    if accelerator.num_processes == 1:
        return number
    everyone = accelerator.gather(torch.tensor([number], device=accelerator.device))
    return int(everyone.max())


def _track(run: _Run, values: dict[str, float]) -> None:
    with named(run.out / TRACKED):
        run.accelerator.log(values, step=run.state.step)


def _track_pictures(run: _Run, pictures: dict[str, npt.NDArray[np.uint8]]) -> None:
    tracker = run.accelerator.get_tracker("tensorboard")
    images = {f"samples/{name}": picture[None] for name, picture in pictures.items()}
    with named(run.out / TRACKED):
        tracker.log_images(images, step=run.state.step, dataformats="NHWC")


def _step(run: _Run, batches: list[Batch], step: int, rate: float) -> StepResult:
    device = run.accelerator.device
    moved = [
        ([image.to(device, non_blocking=True) for image in images], [target.to(device) for target in targets])
        for images, targets in batches
    ]
    for group in run.optimizer.param_groups:
        # A function of the step, not a scheduler, whose state a resumed run would need.
        group["lr"] = rate
    run.model.set_step(run.config.seed, step)
    return train_step(run.accelerator, run.prepared, run.optimizer, moved, run.config.optim.clip_norm)


def _evaluate(run: _Run, table: CsvLog | None) -> None:
    """Metrics on the validation set, pictures, and ``best/`` where they are the highest so far.

    ``table`` gets a row; it is there in the main process alone.
    """
    accelerator, step = run.accelerator, run.state.step
    metrics = None
    if run.val is not None:
        metrics = validate(accelerator, run.model, run.val, run.config.data.workers, step)
    if accelerator.is_main_process:
        data = run.val or run.images.data
        _track_pictures(run, draw_samples(accelerator, run.model, data, run.out / "samples" / f"{step:06d}"))
        run.metrics = metrics or run.metrics
        score = None if metrics is None else mask_ap(metrics)
        if is_best(score, run.state.best):
            run.state.best = score
            with replace_folder(run.out / "best") as folder:
                save_model(run.model, folder, _card(run, metrics))
    if table is not None and metrics is not None:
        values = flat_metrics(metrics)
        table.write(step, values)
        _track(run, {f"val/{name}": value for name, value in values.items() if value is not None})
    accelerator.wait_for_everyone()


def _save_last(run: _Run) -> None:
    accelerator = run.accelerator
    if accelerator.is_main_process:
        if accelerator.scaler is not None:
            run.state.scaler = accelerator.scaler.state_dict()
        with replace_folder(run.out / "last") as folder:
            save_state(folder, run.model, run.optimizer, run.state, run.config, _card(run, run.metrics))
        run.progress.saved = run.state.step
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
