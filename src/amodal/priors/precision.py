"""The precision that codes and flows are computed in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def true_float32(device: str) -> Iterator[None]:
    """No autocast, and convolutions without TF32, which cuDNN takes by default: ten bits of mantissa are too few.

    The keys of a bank and the queries are encoded in batches of other sizes and at other times; only in true float32
    are their codes of equal masks so near that equal masks are found at distance 0. On a CPU nothing changes.

    Args:
        device: type of the device, "cpu" or "cuda".
    """
    # Benchmark mode is off within: it chooses algorithms by batch size.
    exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)  # type: ignore[no-untyped-call, unused-ignore]
    with torch.autocast(device, enabled=False), exact:
        yield
