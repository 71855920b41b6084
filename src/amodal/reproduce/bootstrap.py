"""Paired bootstrap over images: is the difference of two rows more than which pictures were tested on?

The images are drawn again with replacement; both rows are evaluated on each draw, with the same images, and so is every
seed that both have. AP is computed anew for each draw from all of its detections, not averaged over images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from amodal.evaluation.coco import IOU_THRESHOLDS, RECALLS, Floats
from amodal.reproduce.per_image import PerImage

_BLOCK = 1 << 22  # numbers in the largest temporary array
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Difference:
    """Row minus row, in points of AP.

    Attributes:
        mean: on the images as they are, mean over the seeds.
        low, high: bounds of the 95 % interval over the draws.
        p: two-sided share of draws on the other side of zero, at least 1 / draws.
        seeds: how many seeds were pooled.
    """

    mean: float
    low: float
    high: float
    p: float
    seeds: int


def average_precision(result: PerImage, metric: str) -> float | None:
    """AP in percent over all images, as the metric itself; None where no object counts."""
    value = float(resampled(result, metric, np.ones((1, result.images), np.int64))[0])
    return None if np.isnan(value) else value


def compare(pairs: Sequence[tuple[PerImage, PerImage]], metric: str, draws: int, seed: int = 0) -> Difference | None:
    """First minus second of each pair (one pair a seed), pooled.

    Args:
        pairs: results on the same images.
        metric: one of ``per_image.METRICS``.
        draws: how often the images are drawn.
        seed: of the draws.

    Returns:
        None where a side has no object that counts.
    """
    images = pairs[0][0].images
    # One draw of images for both sides and every seed: that is what pairs them.
    weights = draw(images, draws, seed)
    whole = np.ones((1, images), np.int64)
    means, spread = [], []
    for first, second in pairs:
        means.append(resampled(first, metric, whole)[0] - resampled(second, metric, whole)[0])
        spread.append(resampled(first, metric, weights) - resampled(second, metric, weights))
    if np.isnan(means).any():
        return None
    pooled = np.mean(spread, axis=0)
    # A draw may hold no object that counts.
    pooled = pooled[~np.isnan(pooled)]
    low, high = np.percentile(pooled, [2.5, 97.5])
    sides = min(np.mean(pooled <= 0), np.mean(pooled >= 0))
    # No number of draws tells less than one of them.
    p = max(min(1.0, 2 * float(sides)), 1 / draws)
    return Difference(float(np.mean(means)), float(low), float(high), p, len(pairs))


def draw(images: int, draws: int, seed: int) -> Counts:
    """int64 [draws, images], how often each image is in each draw of ``images`` images with replacement."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(images, np.full(images, 1 / images), size=draws)


def resampled(result: PerImage, metric: str, weights: Counts) -> Floats:
    """AP in percent of each draw.

    Args:
        result: of one run.
        metric: one of ``per_image.METRICS``.
        weights: int64 [B, images], how often each image counts.

    Returns:
        float64 [B], NaN where no object counts.
    """
    total, classes = np.zeros(len(weights)), np.zeros(len(weights))
    for label in range(result.classes):
        counted = result.counts[metric] & (result.object_label == label)
        objects = weights[:, result.object_image[counted]].sum(axis=1)
        there = objects > 0
        if there.any():
            total[there] += _class_ap(result, metric, label, weights[there], objects[there])
            classes += there
    with np.errstate(invalid="ignore"):
        return 100.0 * total / np.where(classes > 0, classes, np.nan)


def _class_ap(result: PerImage, metric: str, label: int, weights: Counts, objects: Counts) -> Floats:
    """float64 [B], 0 to 1, mean over the IoUs for one class; ``objects`` int64 [B] are at least 1."""
    rows = np.flatnonzero(result.label == label)
    rows = rows[np.argsort(-result.scores[rows], kind="stable")]
    if not len(rows):
        return np.zeros(len(weights))
    needed = _needed(objects)
    ap = np.zeros(len(weights))
    step = max(1, _BLOCK // len(rows))
    for start in range(0, len(weights), step):
        block = slice(start, start + step)
        seen = weights[block][:, result.image[rows]]
        for bit in range(len(IOU_THRESHOLDS)):
            hit = (result.matched[metric][rows] >> bit & 1).astype(bool)
            miss = ~hit & ~(result.ignored[metric][rows] >> bit & 1).astype(bool)
            ap[block] += _area(seen[:, hit | miss], hit[hit | miss], needed[block])
    return ap / len(IOU_THRESHOLDS)


def _needed(objects: Counts) -> Counts:
    """int64 [B, 101], the fewest found objects with which each recall is reached."""
    found = np.ceil(RECALLS * objects[:, None]).astype(np.int64)
    # Products round; what counts is the quotient, as in COCO's code.
    found -= (found - 1) / objects[:, None] >= RECALLS
    found += found / objects[:, None] < RECALLS
    return found


def _area(seen: Counts, hit: NDArray[np.bool_], needed: Counts) -> Floats:
    """float64 [B], mean interpolated precision at the 101 recalls.

    Args:
        seen: int64 [B, D], how often each detection counts, best score first.
        hit: bool [D], whether it took an object; the others took none.
        needed: int64 [B, 101].
    """
    draws, detections = seen.shape
    if not detections:
        return np.zeros(draws)
    ranked = seen.cumsum(axis=1)
    found = (seen * hit).cumsum(axis=1)
    precision = found / np.maximum(ranked, 1)
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    # One search for all draws: each draw's rising counts lie above those of the draw before.
    shift = np.arange(draws)[:, None] * (int(max(found.max(), needed.max())) + 2)
    place = np.searchsorted((found + shift).ravel(), (needed + shift).ravel(), side="left").reshape(draws, -1)
    place -= np.arange(draws)[:, None] * detections
    reached = place < detections
    value = np.take_along_axis(best, np.minimum(place, detections - 1), axis=1)
    area: Floats = np.where(reached, value, 0.0).mean(axis=1)
    return area
