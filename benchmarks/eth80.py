"""Mask R-CNN and PGExp set #1 on real photographs, beside torchvision's own Mask R-CNN: ``docs/benchmarks/eth80.md``.

Everything of ours goes through the command line, from annotation file to report. Each part is skipped where its result
exists, and a run that was stopped is resumed, so the same command continues and in the end collects.

    python -m benchmarks.eth80 --data ../shared/data --runs runs/eth80
    python -m benchmarks.eth80 --data ../shared/data --runs runs/eth80 --collect
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from benchmarks import eth80_page

CONFIG = Path(__file__).with_name("eth80.yaml")
SYSTEMS = ("torchvision", "mask_rcnn", "pgexp")
SPLITS = ("eth80_amodal/dev", "eth80_amodal/val", "eth80_clutter/val")


def split_name(split: str) -> str:
    """Name of a split's folder in a run."""
    return split.replace("/", "_")


def run(command: list[str]) -> None:
    """Run a command, shown first, and stop at its failure."""
    print("$", " ".join(command), flush=True)
    subprocess.run([sys.executable, *command], check=True)


def train_torchvision(arguments: argparse.Namespace, overrides: list[str]) -> None:
    """torchvision's Mask R-CNN: train, predict, and evaluate the predictions with the evaluator of all systems."""
    out = arguments.runs / "torchvision"
    if not all((out / split_name(split) / "predictions.json").exists() for split in SPLITS):
        data = arguments.data / "eth80_amodal"
        tests = [str(arguments.data / split) for split in SPLITS]
        module = ["-m", "benchmarks.eth80_torchvision", str(CONFIG), "--data", str(data), "--out", str(out)]
        run([*module, "--test", *tests, *overrides])
    for split in SPLITS:
        folder = out / split_name(split)
        if not (folder / "metrics.json").exists():
            truth = arguments.data / f"{split}.json"
            options = ["--out", str(folder / "metrics.json")]
            run(["-m", "amodal", "evaluate", str(truth), str(folder / "predictions.json"), *options])


def train_ours(system: str, arguments: argparse.Namespace, overrides: list[str]) -> None:
    """One of our systems: ``amodal train``, then ``amodal test`` of its last checkpoint on every split."""
    out = arguments.runs / system
    data = arguments.data / "eth80_amodal"
    if not (out / "done").exists():
        options = ["--model.system", system, "--out", str(out), "--resume", "auto"]
        if system == "pgexp":  # set #1 of Table 1: the base, without prior
            options += ["--model.method.box_expansion", "none", "--model.method.mask_expansion", "plain"]
        for part, split in (("train", "train"), ("val", "dev")):
            options += [f"--data.{part}", str(data / f"{split}.json"), f"--data.{part}_images", str(data / split)]
        run(["-m", "amodal", "train", str(CONFIG), *options, *overrides])
        (out / "done").touch()
    for split in SPLITS:
        folder = out / split_name(split)
        if not (folder / "metrics.json").exists():
            truth, images = arguments.data / f"{split}.json", arguments.data / split
            run(["-m", "amodal", "test", str(out / "last"), str(truth), str(images), "--out", str(folder)])


def main() -> None:
    """Options that are not known here go to the training of every system, for instance ``--steps 4``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with eth80_amodal and eth80_clutter")
    parser.add_argument("--runs", type=Path, default=Path("runs/eth80"), help="run folders")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=SYSTEMS)
    parser.add_argument(
        "--collect", action="store_true", help="train nothing; write tables and pictures of what exists"
    )
    parser.add_argument("--name", default="eth80", help="name of the result file and of the page's pictures")
    arguments, overrides = parser.parse_known_args()
    if not arguments.collect:
        for system in arguments.systems:
            if system == "torchvision":
                train_torchvision(arguments, overrides)
            else:
                train_ours(system, arguments, overrides)
    eth80_page.collect(
        arguments.data, arguments.runs, [s for s in SYSTEMS if (arguments.runs / s).is_dir()], arguments.name
    )


if __name__ == "__main__":
    main()
