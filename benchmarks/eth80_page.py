"""Tables and curves of the runs on photographs: one result file, one picture, and the tables inside the page."""

from __future__ import annotations

import csv
import json
import statistics
from pathlib import Path
from typing import Any

from benchmarks.common import DOCS, RESULTS, fill_page, machine

TITLES = {"torchvision": "torchvision Mask R-CNN", "mask_rcnn": "ours, `mask_rcnn`", "pgexp": "ours, `pgexp` set #1"}
COLUMNS = [
    ("mask AP", "mask", "AP"),
    ("AP50", "mask", "AP50"),
    ("AP75", "mask", "AP75"),
    ("AP-occ-gt", "mask", "AP-occ-gt"),
    ("AP-occ", "mask", "AP-occ"),
    ("mIoU", "mask", "mIoU"),
    ("mIoU-occ", "mask", "mIoU-occ"),
    ("box AP", "box", "AP"),
    ("box AP-occ-gt", "box", "AP-occ-gt"),
    ("AP of the mask's box", "box", "AP-of-mask"),
    ("visible AP", "visible", "AP"),
]


def _read(path: Path) -> Any:
    return json.loads(path.read_text()) if path.exists() else None


def _log(path: Path) -> list[tuple[int, float]]:
    """(step, loss) rows of a run's log."""
    if not path.exists():
        return []
    with path.open() as file:
        return [(int(row["step"]), float(row["loss"])) for row in csv.DictReader(file)]


def _seconds_per_step(run: Path) -> float | None:
    """Median over the log's intervals for our runs, mean for torchvision's."""
    if times := _read(run / "time.json"):
        return float(times["train_seconds"]) / max(int(times["step"]), 1)
    if not (run / "log.csv").exists():
        return None
    with (run / "log.csv").open() as file:
        values = [float(row["seconds"]) for row in csv.DictReader(file) if row.get("seconds")]
    return statistics.median(values) if values else None


def _split(data: Path, split: str, folder: Path) -> dict[str, Any]:
    """Metrics of one system on one split, AP by occlusion level and the precision-recall curve at IoU 0.5."""
    from amodal.evaluation.api import prepare
    from amodal.evaluation.levels import levels, pr_curves

    evaluation = prepare(data / f"{split}.json", folder / "predictions.json")
    curve = pr_curves(evaluation, (0.5,))
    return {
        "metrics": _read(folder / "metrics.json"),
        "levels": [{"low": v.low, "high": v.high, "objects": v.objects, "AP": v.ap} for v in levels(evaluation)],
        "precision_at_50": [round(p, 4) for p in curve[0].precision] if curve else None,
    }


def collect(data: Path, runs: Path, systems: list[str], name: str) -> None:
    """Write ``results/NAME.json``, ``docs/benchmarks/NAME-curves.svg``, and the tables between the page's markers."""
    found: dict[str, Any] = {"benchmark": name, "machine": machine(), "systems": {}}
    for system in systems:
        splits = {}
        for split in ("eth80_amodal/dev", "eth80_amodal/val", "eth80_clutter/val"):
            folder = runs / system / split.replace("/", "_")
            if (folder / "metrics.json").exists():
                splits[split] = _split(data, split, folder)
        if splits:
            seconds = _seconds_per_step(runs / system)
            loss = _log(runs / system / "log.csv")
            found["systems"][system] = {"splits": splits, "seconds_per_step": seconds, "loss": loss}
    ready = found["systems"]
    if not ready:
        print(f"nothing is finished in {runs}")
        return
    ours, theirs = (ready.get(s, {}).get("splits", {}).get("eth80_amodal/val") for s in ("mask_rcnn", "torchvision"))
    if ours and theirs:
        found["ap_difference"] = round(ours["metrics"]["mask"]["AP"] - theirs["metrics"]["mask"]["AP"], 3)
        found["ratio"] = round(ours["metrics"]["mask"]["AP"] / max(theirs["metrics"]["mask"]["AP"], 1e-9), 4)
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(found) + "\n")
    text = "\n\n".join([_table(ready), _level_table(ready)])
    print(text)
    fill_page(DOCS / f"{name}.md", text)
    _draw(ready, DOCS / f"{name}-curves.svg")
    print(json.dumps({"benchmark": name, "ratio": found.get("ratio"), "ap_difference": found.get("ap_difference")}))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _table(ready: dict[str, Any]) -> str:
    parts = []
    for split in ("eth80_amodal/val", "eth80_clutter/val", "eth80_amodal/dev"):
        rows = [f"| {split} | " + " | ".join(c[0] for c in COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
        for system, run in ready.items():
            if split in run["splits"]:
                metrics = run["splits"][split]["metrics"]
                cells = [_number((metrics.get(part) or {}).get(key)) for _, part, key in COLUMNS]
                rows.append(f"| {TITLES[system]} | " + " | ".join(cells) + " |")
        parts.append("\n".join(rows))
    return "\n\n".join(parts)


def _level_table(ready: dict[str, Any]) -> str:
    parts = []
    for split in ("eth80_amodal/val", "eth80_clutter/val"):
        any_run = next((run for run in ready.values() if split in run["splits"]), None)
        if any_run is None:
            continue
        levels = any_run["splits"][split]["levels"]
        heads = [f"{100 * v['low']:.0f}-{100 * v['high']:.0f} % hidden ({v['objects']})" for v in levels]
        rows = [f"| {split}, mask AP at | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
        for system, run in ready.items():
            if split in run["splits"]:
                cells = [_number(v["AP"]) for v in run["splits"][split]["levels"]]
                rows.append(f"| {TITLES[system]} | " + " | ".join(cells) + " |")
        parts.append("\n".join(rows))
    return "\n\n".join(parts)


def _draw(ready: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.fonttype"] = "none"
    matplotlib.rcParams["svg.hashsalt"] = "amodal"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    split = "eth80_amodal/val"
    for system, run in ready.items():
        label = TITLES[system].replace("`", "")
        if run["loss"]:
            steps, losses = zip(*run["loss"], strict=True)
            axes[0].plot(steps, _smooth(losses), label=label)
        if split not in run["splits"]:
            continue
        result = run["splits"][split]
        if result["precision_at_50"]:
            axes[1].plot([i / 100 for i in range(101)], result["precision_at_50"], label=label)
        names = [f"{100 * v['low']:.0f}-{100 * v['high']:.0f}" for v in result["levels"]]
        axes[2].plot(names, [v["AP"] for v in result["levels"]], marker="o", label=label)
    for axis, x, y, title in (
        (axes[0], "step", "sum of losses", "training (pgexp has one loss more)"),
        (axes[1], "recall", "precision", "amodal masks at IoU 0.5, val"),
        (axes[2], "hidden share of the object, %", "mask AP", "by occlusion, val"),
    ):
        axis.set(xlabel=x, ylabel=y, title=title)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _smooth(values: tuple[float, ...], share: float = 0.3) -> list[float]:
    smoothed, level = [], values[0]
    for value in values:
        level += share * (value - level)
        smoothed.append(level)
    return smoothed
