"""Rewrites what the studies found in a page, between its markers ``<!-- study: NAME -->``, and draws the stress curve.

python -m studies.page docs/benchmarks/pgexp.md
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from amodal.errors import DataError
from amodal.reproduce.pages import rewrite
from amodal.reproduce.plan import read_experiment
from amodal.reproduce.tables import markdown
from studies.one_pass import RESULTS

SHORT = (
    ("mask AP", "mask.AP"),
    ("mask AP-occ-gt", "mask.AP-occ-gt"),
    ("mask mIoU-occ", "mask.mIoU-occ"),
    ("box AP", "box.AP"),
    ("box AP-occ-gt", "box.AP-occ-gt"),
)
EXPERIMENT = Path(__file__).parents[1] / "experiments" / "pgexp.yaml"
STYLES = {"own": "-", "clipped": "--", "hull": ":"}


def number(value: float | None, digits: int = 1) -> str:
    """A table cell."""
    return "-" if value is None else f"{value:.{digits}f}"


def oracle(study: dict[str, Any]) -> str:
    """The oracle study, one table a run and split."""
    parts = []
    for run, splits in study.items():
        for split, content in splits.items():
            rows = [[name, *(number(metrics[key]) for _, key in SHORT)] for name, metrics in content["metrics"].items()]
            head = [f"{title(run)}, {split}", *(title for title, _ in SHORT)]
            parts.append(
                markdown(head, rows) + f"\n\n{content['matched']} detections found an object and got its truth."
            )
    return "\n\n".join(parts)


def boxes(study: dict[str, Any]) -> str:
    """Box IoU by occlusion level."""
    parts = []
    for run, splits in study.items():
        for split, matchings in splits.items():
            for matching, levels in matchings.items():
                kinds = list(dict.fromkeys(kind for level in levels for kind in level["iou"]))
                head = [f"{title(run)}, {split}, matched {matching}"]
                head += [
                    f"{100 * v['low']:.0f}-{100 * v['high']:.0f} % hidden ({v['found']} of {v['objects']})"
                    for v in levels
                ]
                rows = [[kind, *(number(level["iou"].get(kind), 3) for level in levels)] for kind in kinds]
                parts.append(markdown(head, rows))
    return "\n\n".join(parts)


def stress(study: dict[str, Any]) -> str:
    """Evidence deleted; the first row is the comparison with the clipping baselines."""
    parts = []
    for run, splits in study.items():
        for split, levels in splits.items():
            ways = {"own": "as it is", "clipped": "clipped", "hull": "hull, clipped"}
            head = [f"{title(run)}, {split}: evidence deleted"]
            head += [f"{title}: {column}" for title in ways.values() for column in ("mask AP", "AP-occ-gt", "mIoU-occ")]
            keys = ("mask.AP", "mask.AP-occ-gt", "mask.mIoU-occ")
            rows = [[f"{row['deleted']} %", *(number(row[way][key]) for way in ways for key in keys)] for row in levels]
            parts.append(markdown(head, rows))
    return "\n\n".join(parts)


def title(run: str) -> str:
    """``#6 PGExp, seed 0`` for ``s6-0``."""
    name, _, seed = run.rpartition("-")
    titles = {row.name: row.title for row in read_experiment(EXPERIMENT).rows}
    return f"{titles.get(name, name)}, seed {seed}"


def draw_stress(study: dict[str, Any], path: Path, key: str = "mask.AP-occ-gt") -> None:
    """``key`` over the share of deleted evidence, one panel a split."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "amodal"})
    from matplotlib import pyplot

    splits = list(dict.fromkeys(split for run in study.values() for split in run))
    size = (5.5 * len(splits), 3.8)
    figure, axes = pyplot.subplots(1, len(splits), figsize=size, layout="constrained", squeeze=False)
    for axis, split in zip(axes[0], splits, strict=True):
        for (run, found), colour in zip(study.items(), pyplot.get_cmap("tab10").colors, strict=False):
            for way, style in STYLES.items():
                rows = found.get(split, [])
                label = f"{title(run).partition(', seed')[0]}{'' if way == 'own' else ', ' + way}"
                values = [row[way][key] or 0.0 for row in rows]
                axis.plot([row["deleted"] for row in rows], values, style, marker=".", color=colour, label=label)
        axis.set(xlabel="evidence deleted, %", ylabel=key.replace(".", " "), title=split)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][-1].legend(frameon=False, fontsize=8)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


WRITERS = {"oracle": oracle, "boxes": boxes, "stress": stress}


def main() -> None:
    """The page's blocks anew, and its picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("page", type=Path, help="Markdown page")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the studies' result files")
    arguments = parser.parse_args()

    def write(words: list[str]) -> str:
        path = arguments.results / f"{words[0]}.json"
        if words[0] not in WRITERS or not path.is_file():
            raise DataError(f"no study {words[0]!r} in {arguments.results}", file=arguments.page)
        study = json.loads(path.read_text())
        if words[0] == "stress":
            draw_stress(study, arguments.page.with_name(f"{arguments.page.stem}-stress.svg"))
        return WRITERS[words[0]](study)

    print(f"{rewrite(arguments.page, {'study': write})} tables in {arguments.page}")


if __name__ == "__main__":
    main()
