"""What the benchmarks share: alternating timing, peak memory of a child process, and how a result is written down."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def parser(description: str) -> argparse.ArgumentParser:
    """An argument parser with the options that every benchmark has."""
    made = argparse.ArgumentParser(description=description.splitlines()[0])
    made.add_argument(
        "--small", action="store_true", help="tiny sizes: shows that the benchmark runs, measures nothing"
    )
    made.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="threads of torch (default: all cores)")
    made.add_argument("--out", type=Path, default=RESULTS, help="folder of the result files")
    return made


def machine() -> dict[str, Any]:
    """Processor, cores and versions, to stand beside the numbers."""
    import torch
    import torchvision

    names = [line.split(":", 1)[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
    }


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []


def alternate(ours: Callable[[], object], theirs: Callable[[], object], rounds: int) -> dict[str, Any]:
    """Time both by turns, so that a busy moment of the machine hits both; one unmeasured turn first.

    Returns:
        Seconds of every round, medians, ``ratio`` of the medians (below 1: ours is faster), and ``cpu_ratio``, that of
        processor time, which a busy machine disturbs less.
    """
    ours(), theirs()
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    processor: dict[str, list[float]] = {"ours": [], "theirs": []}
    for turn in range(rounds):
        pair = [("ours", ours), ("theirs", theirs)]
        for name, call in pair if turn % 2 == 0 else pair[::-1]:
            start, start_processor = time.perf_counter(), time.process_time()
            call()
            seconds[name].append(time.perf_counter() - start)
            processor[name].append(time.process_time() - start_processor)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    used = {name: statistics.median(values) for name, values in processor.items()}
    return {
        "ratio": medians["ours"] / medians["theirs"],
        "cpu_ratio": round(used["ours"] / used["theirs"], 4),
        "ours_s": round(medians["ours"], 4),
        "theirs_s": round(medians["theirs"], 4),
        "rounds_ours_s": [round(v, 4) for v in seconds["ours"]],
        "rounds_theirs_s": [round(v, 4) for v in seconds["theirs"]],
    }


def resident() -> int:
    """Bytes of this process that are in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def reset_peak() -> None:
    """Let :func:`peak` count from now on, where the system allows it (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak() -> int:
    """The most bytes of this process that were in memory at once, since the start or :func:`reset_peak`."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure_in_child(module: str, arguments: list[str]) -> dict[str, Any]:
    """Run ``python -m module arguments`` and read the JSON object in its last line."""
    done = subprocess.run([sys.executable, "-m", module, *arguments], check=True, stdout=subprocess.PIPE, text=True)
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def emit(arguments: argparse.Namespace, name: str, ratio: float, **details: Any) -> None:
    """Write ``name.json`` into the results and print the one line that scripts read."""
    line = {"benchmark": name, "ratio": round(ratio, 4), **details}
    if not arguments.small:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / f"{name}.json").write_text(json.dumps({**line, "machine": machine()}, indent=1) + "\n")
    print(json.dumps(line), flush=True)
