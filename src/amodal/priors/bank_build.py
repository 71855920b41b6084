"""Construction of a memory bank: exactly K_s training objects for each class (Sec. 3.1, Construction)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from amodal.priors.augment import augment
from amodal.priors.types import PriorInstances

Encode = Callable[[Tensor, Tensor], Tensor]
"""Key masks bool [N, 28, 28] and (width, height) float32 [N, 2] of their visible boxes -> keys float32 [N, D]."""

_CHUNK = 4096  # masks encoded at once
_WHOLE = 50_000  # more objects than this are clustered in mini-batches
_ROWS = 4096  # keys whose distances to all centres are held at once


def choose_slots(
    instances: PriorInstances,
    num_classes: int,
    encode: Encode,
    slots: int,
    *,
    rotate: bool,
    seed: int,
    key_frame: Literal["amodal", "visible"],
    progress: bool,
) -> Iterator[tuple[int, PriorInstances]]:
    """``slots`` objects for each class that has any.

    Args: as for :meth:`amodal.priors.bank.Bank.build`.

    Yields:
        Class and its K_s objects in the order of ``instances``, augmented ones behind the others.
    """
    order = torch.argsort(instances.labels, stable=True)
    counts = torch.bincount(instances.labels, minlength=num_classes).tolist()
    classes = list(enumerate(torch.split(order, counts)))
    for label, rows in tqdm(classes, desc="bank", unit="class", leave=False, disable=None if progress else True):
        # Each class draws for itself: one class more or less in the file changes nothing in the others.
        own_seed = int(np.random.SeedSequence([seed, label]).generate_state(1)[0])
        if len(rows) > slots:
            members = instances.take(rows)
            yield label, members.take(medoids(_keys(members, encode, key_frame), slots, own_seed))
        elif len(rows):
            yield label, fill(instances.take(rows), slots, rotate=rotate, seed=own_seed)


def fill(instances: PriorInstances, slots: int, *, rotate: bool, seed: int) -> PriorInstances:
    """N <= ``slots`` objects and as many augmented ones as are short; each object is used as often as the others."""
    short = slots - len(instances)
    generator = torch.Generator().manual_seed(seed)
    rounds = -(-short // len(instances))
    turns = [torch.randperm(len(instances), generator=generator) for _ in range(rounds)]
    sources = torch.cat([torch.arange(0), *turns])[:short]
    extra = augment(instances.take(sources), rotate=rotate, seed=seed)
    joined = {name: torch.cat([value, getattr(extra, name)]) for name, value in vars(instances).items()}
    return PriorInstances(**joined)


def medoids(keys: Tensor, count: int, seed: int) -> Tensor:
    """K-Means in E's space; a slot is the real object nearest to its cluster's centre.

    Args:
        keys: float32 [N, D].
        count: clusters, at most N.
        seed: of the first centres and of the mini-batches.

    Returns:
        int64 [count], different rows, ascending: one of each cluster. A cluster that nothing belongs to gets the row
        that is farthest from its own cluster's centre.
    """
    from sklearn.cluster import KMeans, MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning

    # First centres drawn plainly: k-means++ costs many times the rest and lowers the inertia by one part in a hundred.
    if len(keys) <= _WHOLE:
        means = KMeans(count, init="random", n_init=1, max_iter=25, random_state=seed)
    else:
        means = MiniBatchKMeans(
            count, init="random", n_init=1, max_iter=10, batch_size=8192, compute_labels=False, random_state=seed
        )
    with warnings.catch_warnings():
        # Fewer different keys than clusters: full boxes of a class are often the same mask. Seen to below.
        warnings.simplefilter("ignore", ConvergenceWarning)
        means.fit(keys.cpu().numpy())
    centres = torch.from_numpy(means.cluster_centers_).to(keys)
    cluster, distance = _assign(keys, centres)
    # Rows by cluster and by distance in it: the first of each cluster is its medoid.
    order = torch.from_numpy(np.lexsort((distance.numpy(), cluster.numpy())))
    first = torch.diff(cluster[order], prepend=torch.tensor([-1])) != 0
    taken = order[first]
    rest = order[~first]
    farthest = rest[torch.argsort(distance[rest], descending=True, stable=True)]
    return torch.cat([taken, farthest[: count - len(taken)]]).sort().values


def _assign(keys: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Nearest centre int64 [N] and distance to it float32 [N], on the CPU."""
    parts = [torch.cdist(chunk, centres).min(dim=1) for chunk in torch.split(keys, _ROWS)]
    return torch.cat([part.indices for part in parts]).cpu(), torch.cat([part.values for part in parts]).cpu()


def _keys(instances: PriorInstances, encode: Encode, key_frame: Literal["amodal", "visible"]) -> Tensor:
    """float32 [N, D], as the search compares them."""
    masks = instances.visible if key_frame == "amodal" else instances.own
    sizes = instances.visible_boxes[:, 2:] - instances.visible_boxes[:, :2]
    pairs = zip(torch.split(masks, _CHUNK), torch.split(sizes, _CHUNK), strict=True)
    return torch.cat([encode(chunk, size).float().cpu() for chunk, size in pairs])
