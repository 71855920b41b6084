"""Runs the long trainings on a machine with one large GPU: several at a time, within a time limit, resumable.

    python -m benchmarks.gpu --data DATA --runs RUNS --out RESULTS --limit-s 560
    python -m benchmarks.gpu --rehearse --data ../shared/data --runs /tmp/runs --out /tmp/results

The same command continues where the last one stopped. RESULTS gets ``logs.zip`` (metrics, logs, model cards) and one
fp16 ``JOB.safetensors`` a job; ``python -m benchmarks.gpu.unpack RESULTS FOLDER`` makes checkpoint folders of them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch

from benchmarks import pgexp_sets, rehearsal
from benchmarks.gpu import jobs
from benchmarks.gpu.jobs import Job

PACKED = ("*.csv", "*.json", "config.yaml", "*/metrics.json", "*/pycocotools.json", "*/predictions.json")
GRACE_S = 20  # for the running commands to end after SIGTERM, and for packing


class Queue:
    """Runs jobs until they are done or time is up; a stopped command is run again by the next call."""

    def __init__(self, limit_s: float, logs: Path) -> None:
        self.end = time.monotonic() + limit_s - GRACE_S
        self.logs = logs
        self._shared: dict[Path, threading.Lock] = {}
        self._registering = threading.Lock()
        logs.mkdir(parents=True, exist_ok=True)

    def work(self, job: Job) -> str:
        """Run what is left of a job; returns "done", "stopped" (time is up) or "failed"."""
        for command, mark in job.commands:
            if mark is not None and mark.exists():
                continue
            with self._lock(mark):  # jobs share drawn scenes, a prior, the weights that they start from
                if mark is None or not mark.exists():
                    state = self._run(job.name, command)
                    if state != "done":
                        return state
                if mark is not None and not mark.exists():
                    mark.touch()
        return "done"

    def _lock(self, mark: Path | None) -> AbstractContextManager[object]:
        """One job at a time makes what a mark stands for."""
        if mark is None:
            return nullcontext()
        with self._registering:
            return self._shared.setdefault(mark, threading.Lock())

    def _run(self, name: str, command: list[str]) -> str:
        left = self.end - time.monotonic()
        if left <= 5:
            return "stopped"
        print(f"{name}: python {' '.join(command)}", flush=True)
        with (self.logs / f"{name}.log").open("a") as log:
            process = subprocess.Popen([sys.executable, *command], stdout=log, stderr=subprocess.STDOUT)
            try:
                code = process.wait(timeout=left)
            except subprocess.TimeoutExpired:
                process.terminate()
                try:
                    process.wait(timeout=GRACE_S / 2)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                return "stopped"
        return "done" if code == 0 else "failed"


def pack(all_jobs: list[Job], logs: Path, out: Path) -> None:
    """Logs, metrics and cards as one archive; weights as fp16 safetensors."""
    from safetensors.torch import load_file, save_file

    out.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(out / "logs.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for log in sorted(logs.glob("*.log")):
            archive.write(log, f"logs/{log.name}")
        for job in all_jobs:
            for pattern in PACKED:
                for path in sorted(job.run.glob(pattern)):
                    archive.write(path, f"{job.name}/{path.relative_to(job.run)}")
            for name in ("config.yaml", "README.md", "prior/*"):
                for path in sorted(job.checkpoint.glob(name)):
                    archive.write(path, f"{job.name}/last/{path.relative_to(job.checkpoint)}")
    for job in all_jobs:
        if (job.checkpoint / "model.safetensors").exists():
            state = load_file(job.checkpoint / "model.safetensors")
            half = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
            save_file(half, out / f"{job.name}.safetensors", metadata={"format": "pt"})


def main() -> int:
    """Exit code 0: all done, 3: time is up and the same command goes on, 1: a job failed (see its log)."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with eth80_amodal (and eth80_clutter)")
    parser.add_argument("--runs", type=Path, required=True, help="run folders; keep them between calls")
    parser.add_argument("--out", type=Path, required=True, help="results to bring home")
    parser.add_argument(
        "--jobs",
        nargs="+",
        default=["mask_rcnn", "pgexp", "torchvision", "scenes"],
        help=f'the default, "sets" (Table 1 and PGExp+ with their seeds) or single sets: {", ".join(pgexp_sets.SETS)}',
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="each job once for each seed")
    parser.add_argument("--parallel", type=int, default=4, help="jobs at a time (small models wait for the CPU)")
    parser.add_argument("--scenes", type=int, default=6000, help="drawn training scenes")
    parser.add_argument("--limit-s", type=float, default=560, help="seconds for this call")
    parser.add_argument("--rehearse", action="store_true", help="4 steps on a few small pictures, to see that all runs")
    arguments, overrides = parser.parse_known_args()
    if len(overrides) % 2:
        parser.error(f"expected --key value pairs for the trainings, got {' '.join(overrides)}")
    settings = dict(zip((flag.removeprefix("--") for flag in overrides[::2]), overrides[1::2], strict=True))
    data, count = arguments.data, arguments.scenes
    if arguments.rehearse:
        data, count = rehearsal.subset(data, arguments.runs / "data", 6, jobs.SPLITS), 8
        settings = {**rehearsal.SETTINGS, **settings}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    os.environ.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // arguments.parallel, 1)))
    prior = ["--slots", "40", "--encoder-steps", "20", "--flow-steps", "20"] if arguments.rehearse else []
    chosen: list[Job] = []
    if "sets" in arguments.jobs:
        arguments.jobs.remove("sets")
        every = pgexp_sets.chosen([])
        chosen += [jobs.pgexp_set(run, data, arguments.runs, settings, prior, device) for run in every]
    for seed in arguments.seeds:
        for name in arguments.jobs:
            if name == "torchvision":
                chosen.append(jobs.eth80_torchvision(data, arguments.runs, seed, settings, device))
            elif name == "scenes":
                chosen.append(jobs.scenes("pgexp", arguments.runs, count, seed, settings, device))
            elif name in pgexp_sets.SETS:
                run = pgexp_sets.Run(name, seed)
                chosen.append(jobs.pgexp_set(run, data, arguments.runs, settings, prior, device))
            else:
                chosen.append(jobs.eth80(name, data, arguments.runs, seed, settings, device))
    queue = Queue(arguments.limit_s, arguments.runs / "logs")
    with ThreadPoolExecutor(arguments.parallel) as pool:
        states = dict(zip([job.name for job in chosen], pool.map(queue.work, chosen), strict=True))
    pack(chosen, queue.logs, arguments.out)
    print(json.dumps(states))
    if "failed" in states.values():
        return 1
    return 3 if "stopped" in states.values() else 0


if __name__ == "__main__":
    sys.exit(main())
