"""Trains and tests the sets of the paper's Table 1 and PGExp+ on photographs: ``docs/benchmarks/pgexp.md``.

Every run starts from one trained set #1 (``RUNS/base/last``), trains equal steps with equal settings and is tested on
dev, val and the cluttered val. A part whose result exists is skipped and a run that was stopped is resumed; what is
finished stands in ``benchmarks/results/pgexp/SET-SEED.json`` and is never repeated.

    python -m benchmarks.pgexp --data ../shared/data --base --init src/amodal/weights/nano-scenes-v1
    python -m benchmarks.pgexp --data ../shared/data [--only s6:0 plus] [--parallel 2]
    python -m benchmarks.pgexp --data ../shared/data --only s6:0 --suffix +lr --optim.lr 0.001
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks import rehearsal
from benchmarks.common import RESULTS, machine
from benchmarks.pgexp_sets import CONFIG, PRIORS, SETS, SPLITS, Run, chosen

ROWS = 60  # of a curve in a result file
# The detector itself: longer, all parts, and the settings it was trained with.
BASE = {
    "steps": "3000", "freeze": "[]", "eval_every": "1500", "optim.lr": "0.0008", "optim.warmup_steps": "100",
    "optim.milestones": "[0.7, 0.9]", "model.method.train_boxes": "proposal",
}  # fmt: skip


def call(command: list[str], log: Path) -> None:
    """Run ``python COMMAND`` on one thread, its output appended to ``log``; stop at its failure."""
    print("$ python", " ".join(command), f">> {log}", flush=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, *command], check=True, stdout=file, stderr=file, env=environment)


def data_flags(data: Path, dev: bool) -> list[str]:
    """Options of ``amodal train`` that name the training split, and the dev split where it is evaluated on the way."""
    photographs = data / "eth80_amodal"
    flags = []
    for part, split in (("train", "train"), ("val", "dev"))[: 1 + dev]:
        flags += [
            f"--data.{part}",
            str(photographs / f"{split}.json"),
            f"--data.{part}_images",
            str(photographs / split),
        ]
    return flags


def fit_prior(arguments: argparse.Namespace, name: str) -> None:
    """``amodal prior fit`` on the training annotations, once, with its table on dev."""
    out = arguments.runs / name
    if (out / "prior.yaml").exists():
        return
    train, dev = (str(arguments.data / "eth80_amodal" / f"{split}.json") for split in ("train", "dev"))
    log = arguments.runs / "logs" / f"{name}.log"
    call(["-m", "amodal", "prior", "fit", train, str(out), "--val", dev, *PRIORS[name], *arguments.prior], log)


def train(arguments: argparse.Namespace, run: Run) -> None:
    """``amodal train`` from the base weights, resumed where it stopped."""
    out = arguments.runs / run.name
    if (out / "trained").exists():
        return
    prior = SETS[run.set].prior
    options = ["--init", str(arguments.init or arguments.runs / "base" / "last"), "--resume", "auto"]
    options += [] if prior is None else ["--prior", str(arguments.runs / prior)]
    dev = run.settings.get("eval_every", "0") != "0"
    options += [*run.flags(), *data_flags(arguments.data, dev), "--out", str(out)]
    out.mkdir(parents=True, exist_ok=True)
    with (out / "commits").open("a") as file:
        file.write(commit() + "\n")
    call(["-m", "amodal", "train", str(CONFIG), *options], arguments.runs / "logs" / f"{run.name}.log")
    (out / "trained").touch()


def test(arguments: argparse.Namespace, run: Run) -> None:
    """``amodal test`` of the last weights on every split that has no metrics yet."""
    out = arguments.runs / run.name
    for split in SPLITS:
        target = folder(out, split)
        if not (target / "metrics.json").exists():
            truth, images = arguments.data / f"{split}.json", arguments.data / split
            command = ["-m", "amodal", "test", str(out / "last"), str(truth), str(images), "--out", str(target)]
            call(command, arguments.runs / "logs" / f"{run.name}.log")


def collect(arguments: argparse.Namespace, run: Run) -> Path:
    """Settings, curves, metrics, seconds and commit of a finished run as one JSON file; returns its path."""
    import yaml

    out = arguments.runs / run.name
    log = read_table(out / "log.csv")
    found = {
        "run": run.name,
        "set": run.set,
        "title": SETS[run.set].title,
        "seed": run.seed,
        "commits": (out / "commits").read_text().split() if (out / "commits").exists() else [],
        "settings": _without_paths(yaml.safe_load((out / "config.yaml").read_text())),
        "seconds": seconds(log),
        "curve": thin(log),
        "eval": read_table(out / "eval.csv"),
        "splits": {split: read_split(arguments.data, split, folder(out, split)) for split in SPLITS},
        "machine": machine(),
    }
    path: Path = arguments.results / f"{run.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found) + "\n")
    return path


def _without_paths(settings: dict[str, Any]) -> dict[str, Any]:
    """A run's settings without the files of one machine."""
    data = {key: value for key, value in settings["data"].items() if not isinstance(value, str)}
    return {key: value for key, value in settings.items() if key not in ("out", "prior")} | {"data": data}


def folder(out: Path, split: str) -> Path:
    """Where a run's results on a split lie."""
    return out / split.replace("/", "_")


def read_split(data: Path, split: str, tested: Path) -> dict[str, Any]:
    """Metrics of one split and mask AP by occlusion level."""
    from amodal.evaluation.api import prepare
    from amodal.evaluation.levels import levels

    evaluation = prepare(data / f"{split}.json", tested / "predictions.json")
    by_level = [{"low": v.low, "high": v.high, "objects": v.objects, "AP": v.ap} for v in levels(evaluation)]
    return {"metrics": json.loads((tested / "metrics.json").read_text()), "levels": by_level}


def read_table(path: Path) -> list[dict[str, float]]:
    """Rows of a run's CSV file, numbers with four significant digits; empty cells are left out."""
    if not path.exists():
        return []
    with path.open() as file:
        rows = [{key: value for key, value in row.items() if value} for row in csv.DictReader(file)]
    return [{k: int(v) if k == "step" else float(f"{float(v):.4g}") for k, v in row.items()} for row in rows]


def thin(rows: list[dict[str, float]], most: int = ROWS) -> list[dict[str, float]]:
    """At most ``most`` rows, each the mean of its neighbours, so that no spike is chosen by chance."""
    size = -(-len(rows) // most) if rows else 1
    groups = [rows[i : i + size] for i in range(0, len(rows), size)]
    return [
        {key: float(f"{sum(row[key] for row in group) / len(group):.4g}") for key in group[0]}
        | {"step": group[-1]["step"]}
        for group in groups
    ]


def seconds(log: list[dict[str, float]]) -> dict[str, float]:
    """Training time: ``total`` over all steps, and ``step``, the median of the log's intervals."""
    if not log:
        return {}
    steps = [row["step"] for row in log]
    lengths = [now - before for now, before in zip(steps, [0, *steps], strict=False)]
    values = sorted(row["seconds"] for row in log)
    total = sum(length * row["seconds"] for length, row in zip(lengths, log, strict=True))
    return {"total": round(total, 1), "step": values[len(values) // 2]}


def commit() -> str:
    """The commit that is checked out, with ``+`` where source files differ from it."""
    git = ["git", "-C", str(Path(__file__).parent)]
    head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True).stdout.strip()
    changed = subprocess.run([*git, "status", "--porcelain", "-uno", ":/src"], capture_output=True, text=True).stdout
    return (head or "unknown") + ("+" if changed.strip() else "")


def work(arguments: argparse.Namespace, run: Run) -> str:
    """One run from start to result file; returns what became of it."""
    if (arguments.results / f"{run.name}.json").exists():
        return "was done"
    finished = all((folder(arguments.runs / run.name, split) / "metrics.json").exists() for split in SPLITS)
    if arguments.collect and not finished:
        return "is not finished"
    try:
        if not finished:
            train(arguments, run)
            test(arguments, run)
        collect(arguments, run)
    except subprocess.CalledProcessError as error:
        return f"failed with exit code {error.returncode}, see {arguments.runs / 'logs' / run.name}.log"
    return "done"


def train_base(arguments: argparse.Namespace) -> None:
    """The set #1 that every run starts from, all parts of it trained."""
    out = arguments.runs / "base"
    settings = {"model.method.box_expansion": "none", "model.method.mask_expansion": "plain", **BASE}
    flags = [word for key, value in settings.items() for word in (f"--{key}", value)]
    start = ["--init", str(arguments.init)] if arguments.init else []
    options = [*flags, *data_flags(arguments.data, True), "--out", str(out), "--resume", "auto", *start]
    options += arguments.overrides
    call(["-m", "amodal", "train", str(CONFIG), *options], arguments.runs / "logs" / "base.log")


def rehearse(arguments: argparse.Namespace) -> None:
    """Tiny pictures, steps and priors instead, in folders of their own."""
    arguments.runs = arguments.runs / "rehearsal"
    arguments.results = arguments.runs / "results"
    arguments.data = rehearsal.subset(arguments.data, arguments.runs / "data", 6, SPLITS)
    arguments.prior = ["--slots", "40", "--encoder-steps", "20", "--flow-steps", "20", *arguments.prior]
    small = [word for key, value in rehearsal.SETTINGS.items() for word in (f"--{key}", value)]
    arguments.overrides = [*small, *arguments.overrides]


def main() -> int:
    """Options that are not known here go to the training of every run, for instance ``--steps 4``."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with eth80_amodal and eth80_clutter")
    parser.add_argument("--runs", type=Path, default=Path("runs/pgexp"), help="run folders")
    parser.add_argument("--results", type=Path, default=RESULTS / "pgexp", help="folder of the result files")
    parser.add_argument("--only", nargs="+", default=[], metavar="SET[:SEED]", help=f"out of {', '.join(SETS)}")
    parser.add_argument("--suffix", default="", help="added to the runs' names, where further options change them")
    parser.add_argument("--parallel", type=int, default=1, help="runs at a time, one thread each")
    parser.add_argument("--init", type=Path, help="checkpoint that the runs start from (default: RUNS/base/last)")
    parser.add_argument("--prior", nargs="*", default=[], metavar="KEY=V", help="further options of `prior fit`")
    parser.add_argument("--collect", action="store_true", help="train nothing; result files of runs that are finished")
    parser.add_argument("--base", action="store_true", help="train the weights that all start from, and stop")
    parser.add_argument("--small", action="store_true", help="tiny sizes in RUNS/rehearsal: shows that it all runs")
    arguments: argparse.Namespace
    arguments, arguments.overrides = parser.parse_known_args()
    arguments.prior = [word for pair in arguments.prior for word in f"--{pair}".split("=", 1)]
    if len(arguments.overrides) % 2 or not all(flag.startswith("--") for flag in arguments.overrides[::2]):
        parser.error(f"expected --key value pairs for the trainings, got {' '.join(arguments.overrides)}")
    if arguments.small:
        rehearse(arguments)
    if arguments.base:
        train_base(arguments)
        return 0
    words = arguments.overrides
    settings = dict(zip((flag.removeprefix("--") for flag in words[::2]), words[1::2], strict=True))
    try:
        runs = chosen(arguments.only, arguments.suffix, settings)
    except ValueError as error:
        parser.error(str(error))
    priors = {SETS[run.set].prior for run in runs if not arguments.collect}
    for name in sorted(prior for prior in priors if prior is not None):
        fit_prior(arguments, name)
    with ThreadPoolExecutor(arguments.parallel) as pool:
        states = dict(zip([run.name for run in runs], pool.map(lambda run: work(arguments, run), runs), strict=True))
    print(json.dumps(states, indent=1))
    return int(any(state.startswith("failed") for state in states.values()))


if __name__ == "__main__":
    sys.exit(main())
