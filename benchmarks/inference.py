"""Inference of one picture, ours against torchvision's ``maskrcnn_resnet50_fpn`` with the same weights.

800 x 1333 px, 90 classes, score threshold 0, so that exactly 20 (and 100) objects come out; both end in boolean masks
of the picture's size. Times by turns in one process, peak memory in a process of its own for each.

    python -m benchmarks.inference [--objects 20 100] [--profile]
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import common
from benchmarks.detectors import our_detector, picture, torchvision_detector

SIZE = (800, 1333)
SMALL = (64, 96)


def _callers(size: tuple[int, int], objects: int, which: str) -> dict[str, Callable[[], Tensor]]:
    theirs = torchvision_detector(size, objects, 0.0).eval()
    image = picture(size)
    made: dict[str, Callable[[], Tensor]] = {}
    if which != "theirs":
        ours = our_detector(theirs, size, objects, 0.0).eval()
        made["ours"] = lambda: ours([image])[0].amodal_masks
    if which != "ours":
        made["theirs"] = lambda: theirs([image])[0]["masks"][:, 0] >= 0.5
    return made


def _check(masks: Tensor, size: tuple[int, int], objects: int) -> None:
    if masks.dtype != torch.bool or tuple(masks.shape) != (objects, *size):
        raise RuntimeError(f"expected bool {(objects, *size)}, got {masks.dtype} {tuple(masks.shape)}")


@torch.inference_mode()
def main() -> None:
    """Options beside the common ones: object counts, one side alone with its peak memory, or a profile of both."""
    parser = common.parser(__doc__)
    parser.add_argument("--objects", type=int, nargs="+", default=[20, 100])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--memory-of", choices=["ours", "theirs"], help="run one side once; print its peak memory")
    parser.add_argument("--profile", action="store_true", help="print where the time goes, for both")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    size = SMALL if arguments.small else SIZE
    if arguments.memory_of:
        print(json.dumps(_memory(size, arguments.objects[0], arguments.memory_of)))
        return
    for objects in arguments.objects:
        if arguments.profile:
            for name, call in _callers(size, objects, "both").items():
                call()
                with torch.profiler.profile() as profiler:
                    call()
                print(name, profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=18), sep="\n")
            continue
        callers = _callers(size, objects, "both")
        for call in callers.values():
            _check(call(), size, objects)
        times = common.alternate(callers["ours"], callers["theirs"], 1 if arguments.small else arguments.rounds)
        common.emit(arguments, f"inference-{objects}", **times, size=size, objects=objects)
        memory = {side: _in_child(arguments, objects, side) for side in ("ours", "theirs")}
        ratio = memory["ours"]["above_model_mb"] / memory["theirs"]["above_model_mb"]
        common.emit(arguments, f"inference-memory-{objects}", ratio, **memory, size=size, objects=objects)
    if not (arguments.small or arguments.profile):
        common.fill_page(common.DOCS / "inference.md", _tables(arguments.out))


def _tables(folder: Path) -> str:
    times = common.time_table(folder, {f"inference-{n}": f"{n} objects" for n in (20, 100)})
    rows = ["| memory | ours, MB | torchvision, MB | ratio |", "|---|---|---|---|"]
    for objects in (20, 100):
        path = folder / f"inference-memory-{objects}.json"
        if path.exists():
            found = json.loads(path.read_text())
            cells = [f"{found[side]['above_model_mb']:.0f}" for side in ("ours", "theirs")]
            rows.append(f"| {objects} objects | {cells[0]} | {cells[1]} | **{found['ratio']:.2f}** |")
    return times + "\n\n" + "\n".join(rows)


def _memory(size: tuple[int, int], objects: int, which: str) -> dict[str, float]:
    """MB above what the process held with model and picture loaded (``above_model_mb``), and in all (``peak_mb``)."""
    call = _callers(size, objects, which)[which]
    gc.collect()
    before = common.resident()
    common.reset_peak()
    call()
    return {"above_model_mb": round((common.peak() - before) / 1e6, 1), "peak_mb": round(common.peak() / 1e6, 1)}


def _in_child(arguments: object, objects: int, side: str) -> dict[str, float]:
    options = ["--objects", str(objects), "--memory-of", side, "--threads", str(torch.get_num_threads())]
    if getattr(arguments, "small", False):
        options.append("--small")
    return common.measure_in_child("benchmarks.inference", options)


if __name__ == "__main__":
    main()
