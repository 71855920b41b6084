"""``amodal prior fit`` on as many instances as KINS has: 95,000 drawn ones in 7 classes. Seconds and peak memory.

python -m benchmarks.prior_fit [--small] [--threads 2]
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import common
from benchmarks.reading import draw_file

GOAL_S, GOAL_MB = 600.0, 4000.0


def main() -> None:
    """``ratio`` is the time relative to the goal of ten minutes."""
    parser = common.parser(__doc__ or "")
    parser.add_argument("--keep", type=Path, help="folder for the drawn file and the prior (default: a temporary one)")
    arguments, options = parser.parse_known_args()
    images, instances = (60, 700) if arguments.small else (7500, 95000)
    if arguments.small:
        options = ["--slots", "50", "--encoder-steps", "20", "--flow-steps", "20", *options]
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "instances.json"
        draw_file(path, images, instances)
        environment = {
            **os.environ, "OMP_NUM_THREADS": str(arguments.threads), "AMODAL_CACHE": str(folder / "cache")
        }  # fmt: skip
        command = [sys.executable, "-m", "amodal", "prior", "fit", str(path), str(folder / "prior"), *options]
        start = time.perf_counter()
        subprocess.run(command, check=True, env=environment)
        seconds = time.perf_counter() - start
        size = sum(file.stat().st_size for file in (folder / "prior").rglob("*") if file.is_file()) / 1e6
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    arguments.out = arguments.out if arguments.out != common.RESULTS else common.RESULTS / "pgexp"
    common.emit(
        arguments,
        "pgexp-prior-fit",
        seconds / GOAL_S,
        seconds=round(seconds, 1),
        cpu_seconds=round(used.ru_utime + used.ru_stime, 1),
        peak_mb=round(used.ru_maxrss / 1000, 1),
        goal={"seconds": GOAL_S, "mb": GOAL_MB},
        folder_mb=round(size, 1),
        images=images,
        instances=instances,
    )


if __name__ == "__main__":
    main()
