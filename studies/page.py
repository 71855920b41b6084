"""Rewrites what the studies found in a page, between its markers ``<!-- study: NAME -->``, and draws the stress curve.

Shown are the answers that there are to the studies' settings of today, on runs of the experiment as its file stands.

    python -m studies.page docs/benchmarks/pgexp.md [--experiment experiments/pgexp.yaml]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from amodal.errors import AmodalError, DataError
from amodal.reproduce.pages import rewrite
from amodal.reproduce.plan import find_experiment, read_experiment
from amodal.reproduce.sources import Given
from amodal.reproduce.tables import markdown
from studies import boxes as boxes_study
from studies import oracle as oracle_study
from studies import stress as stress_study
from studies.study import EXPERIMENT, RESULTS, Study, parts_of

SHORT = (
    ("mask AP", "mask.AP"),
    ("mask AP-occ-gt", "mask.AP-occ-gt"),
    ("mask mIoU-occ", "mask.mIoU-occ"),
    ("box AP", "box.AP"),
    ("box AP-occ-gt", "box.AP-occ-gt"),
)
STYLES = {"own": "-", "clipped": "--", "hull": ":"}


class Answer(NamedTuple):
    """One part of a study: which run (title and seed), which split, and what came out."""

    run: str
    split: str
    value: Any


def number(value: float | None, digits: int = 1) -> str:
    """A table cell."""
    return "-" if value is None else f"{value:.{digits}f}"


def oracle(answers: Sequence[Answer]) -> str:
    """The oracle study, one table a run and split."""
    parts = []
    for run, split, content in answers:
        rows = [[name, *(number(metrics[key]) for _, key in SHORT)] for name, metrics in content["metrics"].items()]
        head = [f"{run}, {split}", *(title for title, _ in SHORT)]
        parts.append(markdown(head, rows) + f"\n\n{content['matched']} detections found an object and got its truth.")
    return "\n\n".join(parts)


def boxes(answers: Sequence[Answer]) -> str:
    """Box IoU by occlusion level."""
    parts = []
    for run, split, matchings in answers:
        for matching, levels in matchings.items():
            kinds = list(dict.fromkeys(kind for level in levels for kind in level["iou"]))
            head = [f"{run}, {split}, matched {matching}"]
            head += [
                f"{100 * v['low']:.0f}-{100 * v['high']:.0f} % hidden ({v['found']} of {v['objects']})" for v in levels
            ]
            rows = [[kind, *(number(level["iou"].get(kind), 3) for level in levels)] for kind in kinds]
            parts.append(markdown(head, rows))
    return "\n\n".join(parts)


def stress(answers: Sequence[Answer]) -> str:
    """Evidence deleted; the first row is the comparison with the clipping baselines."""
    parts = []
    ways = {"own": "as it is", "clipped": "clipped", "hull": "hull, clipped"}
    keys = ("mask.AP", "mask.AP-occ-gt", "mask.mIoU-occ")
    for run, split, levels in answers:
        head = [f"{run}, {split}: evidence deleted"]
        head += [f"{title}: {column}" for title in ways.values() for column in ("mask AP", "AP-occ-gt", "mIoU-occ")]
        rows = [[f"{row['deleted']} %", *(number(row[way][key]) for way in ways for key in keys)] for row in levels]
        parts.append(markdown(head, rows))
    return "\n\n".join(parts)


def draw_stress(answers: Sequence[Answer], path: Path, key: str = "mask.AP-occ-gt") -> None:
    """``key`` over the share of deleted evidence, one panel a split."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "amodal"})
    from matplotlib import pyplot

    splits = list(dict.fromkeys(answer.split for answer in answers))
    runs = list(dict.fromkeys(answer.run for answer in answers))
    colours = dict(zip(runs, pyplot.get_cmap("tab10").colors, strict=False))
    size = (5.5 * len(splits), 3.8)
    figure, axes = pyplot.subplots(1, len(splits), figsize=size, layout="constrained", squeeze=False)
    for axis, split in zip(axes[0], splits, strict=True):
        for run, _, rows in (answer for answer in answers if answer.split == split):
            for way, style in STYLES.items():
                label = f"{run.partition(', seed')[0]}{'' if way == 'own' else ', ' + way}"
                values = [row[way][key] or 0.0 for row in rows]
                deleted = [row["deleted"] for row in rows]
                axis.plot(deleted, values, style, marker=".", color=colours[run], label=label)
        axis.set(xlabel="evidence deleted, %", ylabel=key.replace(".", " "), title=split)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][-1].legend(frameon=False, fontsize=8)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


WRITERS: dict[str, tuple[Study, Callable[[Sequence[Answer]], str]]] = {
    "oracle": (oracle_study.STUDY, oracle),
    "boxes": (boxes_study.STUDY, boxes),
    "stress": (stress_study.study(), stress),
}


def fill(page: Path, experiment: str, results: Path) -> int:
    """Writes the page's blocks anew, and its picture; returns how many blocks there were.

    Raises:
        DataError: a block names no study, or one that has no answers.
    """
    plan = read_experiment(find_experiment(experiment))

    def write(words: list[str]) -> str:
        name = " ".join(words)
        if name not in WRITERS:
            raise DataError(f"a block names the study {name!r}; there are {', '.join(WRITERS)}", file=page)
        study, writer = WRITERS[name]
        parts = [(part, part.read(results)) for part in parts_of(study, plan, Given())]
        answers = [Answer(part.subject.title, part.split.name, value) for part, value in parts if value is not None]
        if not answers:
            raise DataError(f"{results} holds no answers of the study {name!r} to runs of {plan.path}", file=page)
        if name == "stress":
            draw_stress(answers, page.with_name(f"{page.stem}-stress.svg"))
        return writer(answers)

    return rewrite(page, {"study": write})


def main(words: Sequence[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("page", type=Path, help="Markdown page")
    parser.add_argument("--experiment", default=str(EXPERIMENT), help="experiment file, or its name")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the studies' results")
    arguments = parser.parse_args(words)
    try:
        print(f"{fill(arguments.page, arguments.experiment, arguments.results)} tables in {arguments.page}")
    except AmodalError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
