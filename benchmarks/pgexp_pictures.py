"""The pictures of ``docs/benchmarks/pgexp.md``."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from benchmarks.pgexp_sets import SETS

TERMS = (
    ("loss_mask_amodal", "amodal mask loss (Eq. 7), in B^a"),
    ("loss_box_amodal", "box loss of the AB head (Eq. 5)"),
)
SPLIT = "eth80_amodal/val"
STYLES = {"own": "-", "clipped": "--", "hull": ":"}


def curves(runs: dict[str, dict[int, dict[str, Any]]], path: Path) -> None:
    """Losses of seed 0 and mask AP by occlusion (mean over the seeds) of the sets of Table 1."""
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
    for name, colour in zip(SETS, _colours(pyplot), strict=False):
        if name not in runs:
            continue
        seeds = runs[name]
        title, first = SETS[name].title, seeds[min(seeds)]
        for axis, (term, _) in zip(axes, TERMS, strict=False):
            rows = [(row["step"], row[term]) for row in first["curve"] if term in row]
            if rows:
                axis.plot([r[0] for r in rows], smooth([r[1] for r in rows]), label=title, color=colour)
        every = [run["splits"][SPLIT]["levels"] for run in seeds.values()]
        shares = [f"{100 * level['low']:.0f}-{100 * level['high']:.0f}" for level in every[0]]
        means = [statistics.mean(level[i]["AP"] or 0.0 for level in every) for i in range(len(shares))]
        axes[2].plot(shares, means, marker="o", label=title, color=colour)
    for axis, (_, title) in zip(axes, TERMS, strict=False):
        axis.set(xlabel="step", title=title)
    axes[2].set(xlabel="hidden share of the object, %", ylabel="mask AP", title="by occlusion, val")
    axes[2].legend(frameon=False)
    _finish(pyplot, figure, axes, path)


def stress(study: dict[str, Any], path: Path, key: str = "mask.AP-occ-gt") -> None:
    """``key`` over the share of deleted evidence, one panel a split."""
    pyplot = _pyplot()
    splits = list(dict.fromkeys(split for run in study.values() for split in run))
    figure, axes = pyplot.subplots(
        1, len(splits), figsize=(5.5 * len(splits), 3.8), layout="constrained", squeeze=False
    )
    for axis, split in zip(axes[0], splits, strict=True):
        for (run, found), colour in zip(study.items(), _colours(pyplot), strict=False):
            name = run.rpartition("-")[0]
            for way, style in STYLES.items():
                rows = found.get(split, [])
                label = f"{SETS[name].title if name in SETS else name}{'' if way == 'own' else ', ' + way}"
                values = [row[way][key] or 0.0 for row in rows]
                axis.plot([row["deleted"] for row in rows], values, style, marker=".", color=colour, label=label)
        axis.set(xlabel="evidence deleted, %", ylabel=key.replace(".", " "), title=split)
    axes[0][-1].legend(frameon=False, fontsize=8)
    _finish(pyplot, figure, axes[0], path)


def smooth(values: list[float], share: float = 0.3) -> list[float]:
    """Running mean with exponential weights."""
    level, smoothed = values[0], []
    for value in values:
        level += share * (value - level)
        smoothed.append(level)
    return smoothed


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "amodal"})
    from matplotlib import pyplot

    return pyplot


def _colours(pyplot: Any) -> list[Any]:
    return list(pyplot.get_cmap("tab10").colors)


def _finish(pyplot: Any, figure: Any, axes: Any, path: Path) -> None:
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
