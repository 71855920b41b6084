"""How long ``amodal --help`` and ``import amodal`` take, against the goal of one second.

python -m benchmarks.startup
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from benchmarks import common

GOAL_S = 1.0


def _median(command: list[str], rounds: int) -> float:
    seconds = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def main() -> None:
    """Each command is started anew; the first start (cold file cache) does not count. ``ratio`` is to the goal."""
    arguments = common.parser(__doc__).parse_args()
    rounds = 1 if arguments.small else 7
    commands = {
        "import": ["-c", "import amodal"],
        "help": ["-m", "amodal", "--help"],
        "help-train": ["-m", "amodal", "train", "--help"],
        "help-evaluate": ["-m", "amodal", "evaluate", "--help"],
    }
    for name, command in commands.items():
        seconds = _median([sys.executable, *command], rounds)
        common.emit(arguments, f"startup-{name}", seconds / GOAL_S, seconds=round(seconds, 3), goal_s=GOAL_S)


if __name__ == "__main__":
    main()
