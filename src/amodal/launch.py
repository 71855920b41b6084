"""What the surroundings may decide: devices, processes, threads. Every number is decided by the configuration alone."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_PLACES = {
    "ACCELERATE_USE_CPU",
    "ACCELERATE_TORCH_DEVICE",
    "ACCELERATE_CPU_AFFINITY",
    "ACCELERATE_DEBUG_MODE",
    "ACCELERATE_LOG_LEVEL",
    "ACCELERATE_DISABLE_RICH",
}
"""Variables of Accelerate that say where to compute and what to print, not what."""
_NOTHING = {"", "no", "none", "false", "0", "1", "default", "auto"}
"""Values, in lower case, with which a launcher says that nothing is asked."""

THREADS = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""Variables of OpenMP that say how many threads compute, and what they do while they wait for each other."""


def let_threads_sleep() -> None:
    """Lets waiting threads give up their core, in this process and in those that it starts, unless the user has said
    how they wait.

    By default they spin, and where others want the cores, too, they keep each other from what they wait for. Has no
    effect once torch is loaded.
    """
    if not any(key in os.environ for key in THREADS[1:]):
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


@contextmanager
def own_settings() -> Iterator[None]:
    """Hides what ``accelerate config`` and ``accelerate launch`` say about the computation (accumulation, precision,
    compilation, sharding) while the block runs; one line on stderr names what is ignored."""
    hidden = {key: os.environ.pop(key) for key in sorted(os.environ) if key.startswith("ACCELERATE_")
              and key not in _PLACES}  # fmt: skip
    asked = [f"{key}={value}" for key, value in hidden.items() if _asks(key, value)]
    if asked:
        warn(f"warning: ignored, the configuration decides: {', '.join(asked)}")
    try:
        yield
    finally:
        os.environ.update(hidden)


def _asks(key: str, value: str) -> bool:
    if key.startswith("ACCELERATE_USE_") and value == "1":
        return True  # A switch; elsewhere 1 is a count.
    return value.lower() not in _NOTHING


def warn(line: str) -> None:
    """One line on stderr, from the first of several processes alone."""
    if os.environ.get("RANK", "0") == "0":
        print(line, file=sys.stderr)
