"""Runs the benchmarks one after the other: ``make bench``, or ``python -m benchmarks [NAME ...] [--small]``.

Each ends with JSON lines ``{"benchmark": name, "ratio": r, ...}``. What trains for hours, or needs data that
does not come with the project, is an experiment (``experiments/``, ``amodal reproduce``).
"""

from __future__ import annotations

import argparse
import subprocess
import sys

NAMES = ("startup", "reading", "evaluation", "inference", "training_step", "prior_fit", "pgexp_speed")


def main() -> int:
    """Every benchmark in a process of its own; the exit code is 1 if one of them failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=NAMES, help=f"which (default: all of {', '.join(NAMES)})")
    parser.add_argument("--small", action="store_true", help="tiny sizes: shows that they run, measures nothing")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(NAMES):
        parser.error(f"unknown benchmark {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    failed = []
    for name in arguments.names:
        print(f"== {name}", flush=True)
        command = [sys.executable, "-m", f"benchmarks.{name}", *(["--small"] if arguments.small else [])]
        if subprocess.run(command).returncode:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
