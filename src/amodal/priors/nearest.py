"""Exact nearest keys: a fast product finds the few that can be among the nearest, their differences order them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_CHUNK = 2**23  # numbers of the exact step held at once (64 MiB)


def nearest(
    codes: Tensor,
    groups: Sequence[int],
    keys: Sequence[Tensor],
    norms: Sequence[Tensor],
    k: int,
    blocked: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """The ``k`` keys nearest to each code, d = ||E(query) - E(key)||_2 (Sec. 3.1, Search).

    Args:
        codes: float32 [R, D], queries, those of one class side by side.
        groups: how many of the R rows each of the U classes has, in order.
        keys: U tensors, float32 [Ks, D].
        norms: U tensors, float32 [Ks], squared lengths of the keys.
        k: at most Ks.
        blocked: bool [R, Ks], keys that a row must not find; None: no such key.

    Returns:
        Positions int64 [R, k] and distances float32 [R, k], ascending, ties (of float32 distances) by position. A row
        with fewer than ``k`` keys left ends in position 0 at infinite distance.
    """
    rough = _squared(codes, groups, keys, norms)
    if blocked is not None:
        rough = rough.masked_fill(blocked, torch.inf)
    candidates = _candidates(rough, _slack(codes, groups, norms), k)
    if blocked is not None:
        barred = blocked.gather(1, candidates)
    slots = codes.new_empty(len(codes), k, dtype=torch.int64)
    distance = codes.new_empty(len(codes), k)
    source = torch.stack(list(keys)) if codes.device.type != "cpu" else None
    owner = torch.repeat_interleave(torch.tensor(groups)).to(codes.device)
    rows = max(1, _CHUNK // max(1, candidates.shape[1] * codes.shape[1]))
    for first in range(0, len(codes), rows):
        part = slice(first, first + rows)
        near = _gather(keys, source, owner[part], candidates[part])
        # Summed in double precision, so that equal distances tie whatever the order of the sum.
        exact = near.sub_(codes[part, None]).square_().sum(dim=2, dtype=torch.float64).sqrt().float()
        if blocked is not None:
            exact = exact.masked_fill(barred[part], torch.inf)
        # Candidates stand in the order of their positions, so a stable sort breaks ties as wanted.
        ordered, position = exact.sort(dim=1, stable=True)
        distance[part] = ordered[:, :k]
        slots[part] = candidates[part].gather(1, position[:, :k])
    return slots.masked_fill(distance.isinf(), 0), distance


def _squared(codes: Tensor, groups: Sequence[int], keys: Sequence[Tensor], norms: Sequence[Tensor]) -> Tensor:
    """float32 [R, Ks], squared distances up to rounding: |q|^2 + |k|^2 - 2 q k."""
    if codes.device.type == "cpu":
        # Here reading the keys costs most, so that they are not copied into one tensor.
        parts = torch.split(codes, list(groups))
        rows = [torch.addmm(n[:, None], k, q.T, alpha=-2) for q, k, n in zip(parts, keys, norms, strict=True)]
        rough = torch.cat(rows, dim=1).T.contiguous()
    else:
        # Here each launch costs most: one padded product for all classes.
        padded = torch.nn.utils.rnn.pad_sequence(list(torch.split(codes, list(groups))), batch_first=True)
        product = torch.baddbmm(torch.stack(list(norms))[:, None], padded, torch.stack(list(keys)).mT, alpha=-2)
        kept = torch.arange(padded.shape[1]) < torch.tensor(groups)[:, None]
        rough = product.flatten(0, 1)[kept.flatten().nonzero()[:, 0].to(codes.device)]
    return rough + codes.square().sum(dim=1, keepdim=True)


def _slack(codes: Tensor, groups: Sequence[int], norms: Sequence[Tensor]) -> Tensor:
    """float32 [R, 1], a bound of the rounding errors in :func:`_squared`: n u (|q| + |k|)^2 with room to spare."""
    # Products may be allowed to round their factors (TF32, bfloat16); then nearly every key is a candidate.
    unit = 2**-24 if torch.get_float32_matmul_precision() == "highest" else 2**-8
    longest = torch.stack([norm.max() for norm in norms]).sqrt()
    counts = torch.tensor(groups).to(codes.device)
    reach = codes.norm(dim=1) + torch.repeat_interleave(longest, counts, output_size=len(codes))
    slack: Tensor = (codes.shape[1] + 8) * unit * reach.square()
    return slack[:, None]


def _candidates(rough: Tensor, slack: Tensor, k: int) -> Tensor:
    """int64 [R, M], ascending positions, M >= k: every key that can be among the ``k`` nearest of its row."""
    # Twice, since the k-th and a candidate may be off in opposite directions.
    limit = rough.topk(k, dim=1, largest=False).values[:, -1:] + 2 * slack
    wanted = (rough <= limit) & rough.isfinite()
    count = max(k, int(wanted.sum(dim=1).max()))
    return rough.topk(count, dim=1, largest=False, sorted=False).indices.sort(dim=1).values


def _gather(keys: Sequence[Tensor], source: Tensor | None, owner: Tensor, candidates: Tensor) -> Tensor:
    """float32 [R, M, D], the candidates' keys; ``source`` is the stack of ``keys`` where there is one."""
    if source is not None:
        return source[owner[:, None], candidates]
    classes, counts = torch.unique_consecutive(owner, return_counts=True)
    pieces = torch.split(candidates, counts.tolist())
    return torch.cat([keys[c][piece] for c, piece in zip(classes.tolist(), pieces, strict=True)])
