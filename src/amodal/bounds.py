"""Ranges of settings: the limits themselves, and checks whose messages name key, value and bound. Imports no torch.

Limits are far from everything sensible; they keep out what a computer cannot do: numbers that overflow float32, layers
that fit into no memory, counts that never end.
"""

from __future__ import annotations

from collections.abc import Sequence

from amodal.errors import require

SIDE = 65536
"""Pixels; the longest side of a picture that can be annotated."""
MANY = 1_000_000
"""Most things of one kind an image or a step: anchors, proposals, detections, images, slots."""
STEPS = 1_000_000_000
WIDTH = 16384
"""Most channels of a layer."""
CELLS = 256
"""Most cells of a pooled map, a side."""
CONVS = 64
PRIORS = 4096
"""Most priors that are retrieved for an object."""
WORKERS = 1024
"""Most loader processes."""
CLASSES = 100_000
"""Most classes of a model."""
MAX_ID = 2**63 - 1
"""Largest id of a category, an image, an annotation."""
ENTRIES = 100
"""Most entries of a list of numbers."""
RATE = 1000
"""Largest learning rate, and other factors of the optimiser."""
WEIGHTS = 1 << 30
"""Most numbers in the layers of one part of a model; 4 GB in float32."""


def within(settings: object, section: str, least: float, most: float, *names: str) -> None:
    """Refuses fields of ``settings`` outside [``least``, ``most``] with a :class:`ConfigError`; NaN is outside."""
    for name in names:
        value = getattr(settings, name)
        require(least <= value <= most, section + name, value, f"{least} to {most}")


def above_zero(settings: object, section: str, most: float, *names: str) -> None:
    """Refuses fields of ``settings`` outside (0, ``most``] with a :class:`ConfigError`."""
    for name in names:
        value = getattr(settings, name)
        require(0 < value <= most, section + name, value, f"in (0, {most}]")


def each(settings: object, section: str, name: str, least: float, most: float, count: int | None = None) -> None:
    """Refuses a list that has not ``count`` entries (None: 1 to :data:`ENTRIES`), each in [``least``, ``most``]."""
    values: Sequence[float] = getattr(settings, name)
    length_ok = 1 <= len(values) <= ENTRIES if count is None else len(values) == count
    length = f"1 to {ENTRIES}" if count is None else str(count)
    ok = length_ok and all(least <= value <= most for value in values)
    require(ok, section + name, values, f"{length} numbers, each {least} to {most}")


def no_empty(settings: object, section: str, *names: str) -> None:
    """Refuses texts that are there and empty; null is none."""
    for name in names:
        require(getattr(settings, name) != "", section + name, "", "a name, or left out")
