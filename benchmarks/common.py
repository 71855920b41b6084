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
DOCS = Path(__file__).parent.parent / "docs" / "benchmarks"


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
        "load": round(os.getloadavg()[0], 1),
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


def fill_page(page: Path, text: str) -> None:
    """Replace what stands between a page's two markers; a page without them is left alone."""
    start, end = "<!-- tables -->", "<!-- /tables -->"
    old = page.read_text() if page.exists() else ""
    if start in old and end in old:
        page.write_text(old.split(start)[0] + f"{start}\n{text}\n{end}" + old.split(end, 1)[1])


def time_table(folder: Path, names: dict[str, str]) -> str:
    """Markdown of the results ``folder/NAME.json`` that exist; ``names`` are NAME: how the row is called."""
    rows = ["| | ours, s | torchvision, s | ratio | ratio of processor time |", "|---|---|---|---|---|"]
    about = ""
    for name, title in names.items():
        path = folder / f"{name}.json"
        if path.exists():
            found = json.loads(path.read_text())
            spread = [f"{min(v):.2f} to {max(v):.2f}" for v in (found["rounds_ours_s"], found["rounds_theirs_s"])]
            cells = [f"{found['ours_s']:.2f} ({spread[0]})", f"{found['theirs_s']:.2f} ({spread[1]})"]
            rows.append(f"| {title} | {cells[0]} | {cells[1]} | **{found['ratio']:.2f}** | {found['cpu_ratio']:.2f} |")
            about = _about(found)
    return "\n".join([*rows, "", about])


def _about(found: dict[str, Any]) -> str:
    where, rounds = found["machine"], len(found["rounds_ours_s"])
    threads = "1 thread" if where["threads"] == 1 else f"{where['threads']} threads"
    versions = f"torch {where['torch']}, torchvision {where['torchvision']}"
    processor = f"{where['cpu']}, {where['cores']} cores, {threads}"
    text = f"Medians of {rounds} rounds (smallest to largest). {processor}, {versions}."
    if where["load"] > where["cores"]:
        load = f"The machine was busy (load {where['load']:.0f} on {where['cores']} cores)"
        text += f" {load}: other work stretched the seconds of both sides; read the ratio of processor time."
    return text
