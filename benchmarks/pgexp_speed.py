"""PGExp beside this project's own Mask R-CNN: inference, memory, bank search, re-ranking and the training step.

R-50-FPN, 90 classes x 1,000 slots, one picture of 800 x 1333 px, score threshold 0, so that exactly 20 (and 100)
objects come out. Both sides take turns in one process; memory is measured in processes of their own.

    python -m benchmarks.pgexp_speed [inference memory search step] [--small]
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import json
import pickle
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from amodal.models.rcnn import AmodalRCNN
from amodal.settings import PGExpConfig
from benchmarks import common, pgexp_pair
from benchmarks.detectors import CLASSES, ellipses, our_targets, picture

SIZE, SMALL = (800, 1333), (64, 96)
OBJECTS = (20, 100)
SYSTEMS = {"pgexp": PGExpConfig(), "plus": PGExpConfig(rerank="occluder")}
PARTS = ("inference", "memory", "search", "step")


def _slots(arguments: argparse.Namespace) -> int:
    return 40 if arguments.small else pgexp_pair.SLOTS


def _size(arguments: argparse.Namespace) -> tuple[int, int]:
    return SMALL if arguments.small else SIZE


def _masks(model: AmodalRCNN, image: Tensor) -> Tensor:
    """What a user gets: bool [N, H, W]."""
    return model.detect([image])[0].amodal_masks


@torch.inference_mode()
def inference(arguments: argparse.Namespace) -> None:
    """``pgexp`` and PGExp+ each by turns with Mask R-CNN, 20 and 100 objects."""
    size, rounds = _size(arguments), 1 if arguments.small else arguments.rounds
    image, prior = picture(size), pgexp_pair.drawn_prior(slots=_slots(arguments))
    for objects in OBJECTS:
        base = pgexp_pair.mask_rcnn(size, objects, 0.0).eval()
        for name, method in SYSTEMS.items():
            ours = pgexp_pair.pgexp(base, prior, method).eval()
            found = ours.detect([image])[0]
            if len(found) != objects or found.visible_probs is None:
                raise RuntimeError(f"{len(found)} objects came out, not {objects}")
            filled = float((found.visible_probs >= 0.5).float().mean())
            shares = parts(partial(_masks, ours, image), ours, rounds)
            times = common.alternate(partial(_masks, ours, image), partial(_masks, base, image), rounds)
            details: dict[str, Any] = {"visible_share": round(filled, 3), "parts": shares}
            common.emit(arguments, f"pgexp-inference-{name}-{objects}", **times, **details, size=size, objects=objects)


def _trim() -> None:
    """Give memory of freed models back, which the call would use again and so hide; where the C library can (glibc)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def parts(call: Callable[[], Any], model: AmodalRCNN, rounds: int) -> dict[str, float]:
    """Share of a prediction's processor time that each module of the branch takes (median), by its name."""
    spent: dict[str, float] = {}
    hooks = [hook for title, module in model.branch.named_children() for hook in _timed(module, title, spent)]
    try:
        shares = []
        for _ in range(rounds):
            spent.clear()
            start = time.process_time()
            call()
            total = time.process_time() - start
            shares.append({title: seconds / total for title, seconds in spent.items()})
    finally:
        for hook in hooks:
            hook.remove()
    return {title: round(statistics.median(s.get(title, 0.0) for s in shares), 4) for title in shares[0]}


def _timed(module: nn.Module, title: str, spent: dict[str, float]) -> list[RemovableHandle]:
    """Hooks that add the module's processor time to ``spent[title]``."""
    started: list[float] = []

    def begin(*_: Any) -> None:
        started.append(time.process_time())

    def end(*_: Any) -> None:
        spent[title] = spent.get(title, 0.0) + time.process_time() - started.pop()

    return [module.register_forward_pre_hook(begin), module.register_forward_hook(end)]


def memory(arguments: argparse.Namespace) -> None:
    """Peak memory above what the process holds with model, prior, keys and picture, each side in its own process."""
    for objects in OBJECTS:
        options = ["--objects", str(objects), "--threads", str(arguments.threads)]
        options += ["--small"] if arguments.small else []
        found = {
            side: common.measure_in_child("benchmarks.pgexp_speed", ["--memory-of", side, *options])
            for side in ("mask_rcnn", *SYSTEMS)
        }
        for name in SYSTEMS:
            ratio = found[name]["above_model_mb"] / found["mask_rcnn"]["above_model_mb"]
            details = {"ours": found[name], "theirs": found["mask_rcnn"], "objects": objects}
            common.emit(arguments, f"pgexp-memory-{name}-{objects}", ratio, **details)


@torch.inference_mode()
def memory_of(arguments: argparse.Namespace) -> dict[str, float]:
    """MB of one side; ``prior_mb`` is what the bank and the keys of all classes take."""
    size = _size(arguments)
    model = pgexp_pair.mask_rcnn(size, arguments.objects, 0.0).eval()
    prior_mb = 0.0
    if arguments.memory_of != "mask_rcnn":
        before = common.resident()
        prior = pgexp_pair.drawn_prior(slots=_slots(arguments))
        for label in range(CLASSES):
            prior.keys(label)
        gc.collect()
        prior_mb = round((common.resident() - before) / 1e6, 1)
        model = pgexp_pair.pgexp(model, prior, SYSTEMS[arguments.memory_of]).eval()
    image = picture(size)
    gc.collect()
    _trim()
    before = common.resident()
    common.reset_peak()
    _masks(model, image)
    above = round((common.peak() - before) / 1e6, 1)
    return {"above_model_mb": above, "peak_mb": round(common.peak() / 1e6, 1), "prior_mb": prior_mb}


@torch.inference_mode()
def search(arguments: argparse.Namespace) -> None:
    """Both searches of a picture with 100 objects in 60 classes x 1,000 slots, beside the whole of its inference."""
    classes, objects, k = 60, 100, 8
    prior = pgexp_pair.drawn_prior(classes, _slots(arguments))
    found = pgexp_pair.drawn_instances(classes, 2, seed=1)
    rows = torch.randperm(len(found), generator=torch.Generator().manual_seed(0))[:objects]
    masks, boxes, labels = found.visible[rows].float(), found.boxes[rows], found.labels[rows]
    for label in range(classes):
        prior.keys(label)
    seconds = {}
    for most in (k, PGExpConfig().candidates):
        rounds = []
        for _ in range(5 * arguments.rounds):
            start = time.perf_counter()
            prior.search(masks, boxes, labels, most)
            rounds.append(time.perf_counter() - start)
        seconds[most] = statistics.median(rounds)
    whole = _whole(arguments, objects)
    shares = {f"K = {most}": 2 * value / whole for most, value in seconds.items()}
    times = {f"ms, K = {most}": round(1000 * value, 2) for most, value in seconds.items()}
    details = {"one_search": times, "share_of_inference": {key: round(v, 5) for key, v in shares.items()}}
    common.emit(arguments, "pgexp-search", shares[f"K = {k}"], **details, classes=classes, objects=objects)


def _whole(arguments: argparse.Namespace, objects: int) -> float:
    """Seconds of ``pgexp``'s inference as measured before, or now where there is no such result."""
    path = arguments.out / f"pgexp-inference-pgexp-{objects}.json"
    if path.exists() and not arguments.small:
        return float(json.loads(path.read_text())["ours_s"])
    size = _size(arguments)
    prior = pgexp_pair.drawn_prior(slots=_slots(arguments))
    model = pgexp_pair.pgexp(pgexp_pair.mask_rcnn(size, objects, 0.0), prior, SYSTEMS["pgexp"]).eval()
    image = picture(size)
    _masks(model, image)
    start = time.perf_counter()
    _masks(model, image)
    return time.perf_counter() - start


def step(arguments: argparse.Namespace) -> None:
    """Forward, backward, SGD of one picture with 15 objects and 512 RoIs, by turns with Mask R-CNN."""
    size, rounds = _size(arguments), 1 if arguments.small else arguments.rounds
    image = picture(size)
    truth = our_targets(*ellipses(size, 15))
    prior = pgexp_pair.drawn_prior(slots=_slots(arguments))
    base = pgexp_pair.mask_rcnn(size, 100, 0.05).train()
    for name, method in SYSTEMS.items():
        ours = pgexp_pair.pgexp(base, prior, method).train()
        calls = [_stepper(model, image, truth) for model in (ours, base)]
        times = common.alternate(calls[0], calls[1], rounds)
        common.emit(arguments, f"pgexp-step-{name}", **times, size=size, objects=15)


def _stepper(model: AmodalRCNN, image: Tensor, truth: Any) -> Callable[[], None]:
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-6, momentum=0.9)
    steps = iter(range(1_000_000))

    def one() -> None:
        model.set_step(0, next(steps))
        # Copies of the run lengths as a loader hands them over: nothing is decoded yet.
        fresh = {part: pickle.loads(pickle.dumps(getattr(truth, part))) for part in ("amodal", "visible")}
        losses = model([image], [replace(truth, **fresh)], terms=True)
        optimizer.zero_grad()
        torch.stack([term.mean() for term in losses.values()]).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return one


def main() -> None:
    """Runs the parts that are named, all without a name."""
    parser = common.parser(__doc__ or "")
    parser.add_argument("parts", nargs="*", default=PARTS, help=f"out of {', '.join(PARTS)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--objects", type=int, default=20, help="of --memory-of")
    parser.add_argument("--memory-of", choices=["mask_rcnn", *SYSTEMS], help="run one side once; print its memory")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.memory_of:
        print(json.dumps(memory_of(arguments)))
        return
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    arguments.out = arguments.out if arguments.out != common.RESULTS else common.RESULTS / "pgexp"
    for part in arguments.parts:
        {"inference": inference, "memory": memory, "search": search, "step": step}[part](arguments)


if __name__ == "__main__":
    main()
