"""Writes ``docs/benchmarks/pgexp.md`` from the result files of the PGExp benchmarks, whichever exist.

Tables and pictures come from ``benchmarks/results/pgexp``; what they mean is written by hand in
``benchmarks/pgexp_reading.md``, which stands in the page as it is.

    python -m benchmarks.pgexp_page
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import pgexp_pictures
from benchmarks.common import DOCS, RESULTS
from benchmarks.pgexp_sets import SETS, SPLITS, TABLE

HEAD = Path(__file__).with_name("pgexp_head.md")
READING = Path(__file__).with_name("pgexp_reading.md")
ORDER = ("s1", "s2", "s3", "s4", "s5", "s6", "plus", "s6-mixed", "plus-mixed")
HEADS = {"none": "-", "plain": "plain", "prior": "prior", "masks": "masks"}
COLUMNS = (
    ("mask AP", "mask", "AP"),
    ("mask AP-occ-gt", "mask", "AP-occ-gt"),
    ("mask AP-occ", "mask", "AP-occ"),
    ("mask mIoU-occ", "mask", "mIoU-occ"),
    ("box AP", "box", "AP"),
    ("box AP-occ-gt", "box", "AP-occ-gt"),
    ("visible AP", "visible", "AP"),
)
# What the paper's Table 1 (KINS) gains from #1 to #6; its AP-occ has another definition than AP-occ-gt.
PAPER = {"mask AP": 3.7, "mask AP-occ-gt": 5.3, "mask AP-occ": 5.3, "box AP": 3.2, "box AP-occ-gt": 3.5}
SHORT = (
    ("mask AP", "mask.AP"),
    ("mask AP-occ-gt", "mask.AP-occ-gt"),
    ("mask mIoU-occ", "mask.mIoU-occ"),
    ("box AP", "box.AP"),
    ("box AP-occ-gt", "box.AP-occ-gt"),
)
Run = dict[str, Any]


def number(value: float | None, digits: int = 1) -> str:
    """A table cell."""
    return "-" if value is None else f"{value:.{digits}f}"


def table(head: list[str], rows: list[list[str]]) -> str:
    """Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def read_runs(folder: Path) -> dict[str, dict[int, Run]]:
    """Finished runs: name of the set (with suffix) -> seed -> what its result file holds."""
    found: dict[str, dict[int, Run]] = {}
    for path in sorted(folder.glob("*-[0-9]*.json")):
        content = json.loads(path.read_text())
        if "splits" in content:
            name = content["run"].rpartition("-")[0]
            found.setdefault(name, {})[content["seed"]] = content
    return found


def value(run: Run, split: str, part: str, key: str) -> float | None:
    """One metric of a run."""
    answer: float | None = (run["splits"][split]["metrics"].get(part) or {}).get(key)
    return answer


def spread(values: list[float | None]) -> str:
    """Mean, and smallest and largest where there are several."""
    known = [v for v in values if v is not None]
    if len(known) < 2:
        return number(known[0] if known else None)
    return f"{statistics.mean(known):.1f} ({min(known):.1f} to {max(known):.1f})"


def table_one(runs: dict[str, dict[int, Run]], split: str) -> str:
    """Our Table 1 on one split."""
    rows = []
    for name in ORDER:
        if seeds := runs.get(name):
            method = SETS[name].method
            cells = [SETS[name].title, HEADS[method["box_expansion"]], HEADS[method["mask_expansion"]]]
            cells += [spread([value(run, split, part, key) for run in seeds.values()]) for _, part, key in COLUMNS]
            rows.append([*cells, str(len(seeds))])
    return table([split, "AB head", "AM head", *(title for title, _, _ in COLUMNS), "seeds"], rows)


def gains(runs: dict[str, dict[int, Run]], split: str) -> str:
    """What #6 and PGExp+ gain over #1, seed by seed, beside the paper's margins."""
    rows = []
    for name in ("s6", "plus", "s6-mixed", "plus-mixed"):
        shared = sorted(set(runs.get("s1", {})) & set(runs.get(name, {})))
        if shared:
            cells = []
            for _, part, key in COLUMNS:
                pairs = [[value(runs[s][seed], split, part, key) for s in (name, "s1")] for seed in shared]
                differences = [a - b for a, b in pairs if a is not None and b is not None]
                cells.append(_signed(differences))
            rows.append([f"{SETS[name].title} - #1", *cells, str(len(shared))])
    paper = [f"+{PAPER[title]:.1f}" if title in PAPER else "" for title, _, _ in COLUMNS]
    rows.append(["goal: the paper's #6 - #1 on KINS", *paper, ""])
    return table([split, *(title for title, _, _ in COLUMNS), "seeds"], rows)


def _signed(differences: list[float]) -> str:
    if not differences:
        return "-"
    text = f"**{statistics.mean(differences):+.1f}**"
    return text if len(differences) < 2 else f"{text} ({min(differences):+.1f} to {max(differences):+.1f})"


def by_level(runs: dict[str, dict[int, Run]], split: str) -> str:
    """Mask AP by hidden share, mean over the seeds."""
    rows, head = [], [f"{split}, mask AP at"]
    for name in ORDER:
        if seeds := runs.get(name):
            every = [run["splits"][split]["levels"] for run in seeds.values()]
            if len(head) == 1:
                head += [f"{100 * v['low']:.0f}-{100 * v['high']:.0f} % hidden ({v['objects']})" for v in every[0]]
            columns = zip(*([level["AP"] for level in levels] for levels in every), strict=True)
            rows.append([SETS[name].title, *(spread(list(column)) for column in columns)])
    return table(head, rows)


def variants(runs: dict[str, dict[int, Run]]) -> str:
    """Options that were tried, on dev, beside the set that they change."""
    rows = []
    for name in (n for n in runs if n not in TABLE or n in ("s6", "plus")):
        for seed, run in sorted(runs[name].items()):
            title = f"{run['title']} (`{name}`, seed {seed}, {run['settings']['steps']} steps)"
            metrics = [value(run, "eth80_amodal/dev", part, key) for _, part, key in COLUMNS]
            rows.append([title, *(number(v) for v in metrics)])
    return table(["eth80_amodal/dev", *(title for title, _, _ in COLUMNS)], rows)


def times(runs: dict[str, dict[int, Run]]) -> str:
    """Seconds of the trainings."""
    rows = []
    for name in ORDER:
        if seeds := runs.get(name):
            used = [run["seconds"] for run in seeds.values() if run["seconds"]]
            cells = [spread([u[key] / unit for u in used]) for key, unit in (("step", 1.0), ("total", 60.0))]
            rows.append([SETS[name].title, *cells])
    return table(["training", "seconds a step (median)", "minutes"], rows)


def oracle(study: dict[str, Any]) -> str:
    """The oracle study, one table a run and split."""
    parts = []
    for run, splits in study.items():
        for split, content in splits.items():
            rows = [[name, *(number(metrics[key]) for _, key in SHORT)] for name, metrics in content["metrics"].items()]
            head = [f"{_title(run)}, {split}", *(title for title, _ in SHORT)]
            parts.append(table(head, rows) + f"\n\n{content['matched']} detections found an object and got its truth.")
    return "\n\n".join(parts)


def boxes(study: dict[str, Any]) -> str:
    """Box IoU by occlusion level."""
    parts = []
    for run, splits in study.items():
        for split, matchings in splits.items():
            for matching, levels in matchings.items():
                kinds = list(dict.fromkeys(kind for level in levels for kind in level["iou"]))
                head = [f"{_title(run)}, {split}, matched {matching}"]
                head += [
                    f"{100 * v['low']:.0f}-{100 * v['high']:.0f} % hidden ({v['found']} of {v['objects']})"
                    for v in levels
                ]
                rows = [[kind, *(number(level["iou"].get(kind), 3) for level in levels)] for kind in kinds]
                parts.append(table(head, rows))
    return "\n\n".join(parts)


def stress(study: dict[str, Any]) -> str:
    """Evidence deleted; the first row is the comparison with the clipping baselines."""
    parts = []
    for run, splits in study.items():
        for split, levels in splits.items():
            ways = {"own": "as it is", "clipped": "clipped", "hull": "hull, clipped"}
            head = [f"{_title(run)}, {split}: evidence deleted"]
            head += [f"{title}: {column}" for title in ways.values() for column in ("mask AP", "AP-occ-gt", "mIoU-occ")]
            keys = ("mask.AP", "mask.AP-occ-gt", "mask.mIoU-occ")
            rows = [[f"{row['deleted']} %", *(number(row[way][key]) for way in ways for key in keys)] for row in levels]
            parts.append(table(head, rows))
    return "\n\n".join(parts)


def _title(run: str) -> str:
    name, _, seed = run.rpartition("-")
    return f"{SETS[name].title if name in SETS else name}, seed {seed}"


def speed(folder: Path) -> str:
    """Times and memory beside Mask R-CNN; nothing where nothing was measured."""
    rows = []
    for system, title in (("pgexp", "PGExp"), ("plus", "PGExp+")):
        for objects, goal in ((20, 1.25), (100, 1.5)):
            if found := _read(folder / f"pgexp-inference-{system}-{objects}.json"):
                rows.append([f"inference, {title}, {objects} objects", *_pair(found), f"{goal}"])
            if found := _read(folder / f"pgexp-memory-{system}-{objects}.json"):
                sides = [f"{found[side]['above_model_mb']:.0f} MB" for side in ("ours", "theirs")]
                rows.append([f"memory, {title}, {objects} objects", *sides, f"**{found['ratio']:.2f}**", "", "1.3"])
        if found := _read(folder / f"pgexp-step-{system}.json"):
            rows.append([f"training step, {title}", *_pair(found), "1.6"])
    parts = []
    if rows:
        head = ["beside own Mask R-CNN", "ours", "Mask R-CNN", "ratio", "ratio of processor time", "goal"]
        parts.append(table(head, rows))
    parts += [text for text in (_shares(folder), _search(folder), _fit(folder)) if text]
    return "\n\n".join(parts)


def _pair(found: dict[str, Any]) -> list[str]:
    cells = []
    for side in ("ours", "theirs"):
        rounds = found[f"rounds_{side}_s"]
        cells.append(f"{found[f'{side}_s']:.2f} s ({min(rounds):.2f} to {max(rounds):.2f})")
    return [*cells, f"**{found['ratio']:.2f}**", f"{found['cpu_ratio']:.2f}"]


def _shares(folder: Path) -> str:
    found = {
        f"{title}, {objects} objects": content["parts"]
        for system, title in (("pgexp", "PGExp"), ("plus", "PGExp+"))
        for objects in (20, 100)
        if (content := _read(folder / f"pgexp-inference-{system}-{objects}.json"))
    }
    names = list(dict.fromkeys(name for parts in found.values() for name in parts))
    rows = [
        [title, *(f"{100 * parts[name]:.1f} %" if name in parts else "-" for name in names)]
        for title, parts in found.items()
    ]
    return table(["share of inference", *names], rows) if rows else ""


def _search(folder: Path) -> str:
    found = _read(folder / "pgexp-search.json")
    if not found:
        return ""
    ms = ", ".join(f"{value} ms ({name.removeprefix('ms, ')})" for name, value in found["one_search"].items())
    shares = ", ".join(f"{100 * value:.2f} % ({name})" for name, value in found["share_of_inference"].items())
    what = f"{found['objects']} objects in {found['classes']} classes x 1,000 slots"
    return f"**Search**, {what}: {ms}; both searches of a picture take {shares} of its inference (goal: 1 %)."


def _fit(folder: Path) -> str:
    found = _read(folder / "pgexp-prior-fit.json")
    if not found:
        return ""
    took = f"{found['seconds'] / 60:.1f} minutes ({found['cpu_seconds'] / 60:.1f} of processor time)"
    size = f"{found['peak_mb'] / 1000:.2f} GB at most, {found['folder_mb']:.0f} MB on disk"
    goal = "goal: 10 minutes, 4 GB"
    return f"**`prior fit`** on {found['instances']:,} drawn instances in 7 classes: {took}, {size} ({goal})."


def _read(path: Path) -> dict[str, Any] | None:
    content: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
    return content


def sections(folder: Path, pictures: Path, name: str = "pgexp") -> dict[str, str]:
    """The page's sections by heading; those without results are left out."""
    runs = read_runs(folder)
    made: dict[str, str] = {}
    if runs:
        dev, val, clutter = SPLITS
        made["Sets of Table 1"] = "\n\n".join([table_one(runs, val), gains(runs, val), by_level(runs, val)])
        made["Cluttered pictures"] = "\n\n".join(
            [table_one(runs, clutter), gains(runs, clutter), by_level(runs, clutter)]
        )
        made["Dev, and options that were tried on it"] = "\n\n".join([table_one(runs, dev), variants(runs)])
        pgexp_pictures.curves(runs, pictures / f"{name}-curves.svg")
        made["Curves and times"] = f"![Losses and mask AP by occlusion]({name}-curves.svg)\n\n" + times(runs)
    studies: list[tuple[str, str, Callable[[dict[str, Any]], str]]] = [
        ("Oracles", "oracle", oracle),
        ("Boxes by occlusion", "boxes", boxes),
        ("Evidence deleted, and clipping instead of a prior", "stress", stress),
    ]
    for heading, kind, write in studies:
        if study := _read(folder / f"{kind}.json"):
            made[heading] = write(study)
            if kind == "stress":
                pgexp_pictures.stress(study, pictures / f"{name}-stress.svg")
                made[heading] += f"\n\n![Mask AP-occ-gt over the share of deleted evidence]({name}-stress.svg)"
    if text := speed(folder):
        made["Speed and memory"] = text
    return made


def main() -> None:
    """Head, reading, tables: the whole page anew."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS / "pgexp", help="folder of the result files")
    parser.add_argument("--docs", type=Path, default=DOCS, help="folder of the page and its pictures")
    parser.add_argument("--name", default="pgexp", help="of the page, and what its pictures' names begin with")
    parser.add_argument("--head", type=Path, default=HEAD, help="what the page begins with")
    parser.add_argument("--reading", type=Path, default=READING, help="what is written by hand")
    arguments = parser.parse_args()
    arguments.docs.mkdir(parents=True, exist_ok=True)
    parts = [path.read_text().strip() for path in (arguments.head, arguments.reading) if path.exists()]
    parts += [
        "\n\n".join([f"## {heading}", *([NOTES[heading]] if heading in NOTES else []), text])
        for heading, text in sections(arguments.results, arguments.docs, arguments.name).items()
    ]
    page = arguments.docs / f"{arguments.name}.md"
    page.write_text("\n\n".join(parts) + "\n")
    print(page)


NOTES = {
    "Cluttered pictures": "The same weights on pictures whose occluders are in part not annotated.",
    "Dev, and options that were tried on it": "Options are chosen by these numbers, not by those on val.",
    "Oracles": (
        "One stage at a time answers with the truth, for detections that found an object (class right, IoU of B^o at "
        "least 0.5); weights, scores and the other stages stay as they are. *Random priors*: slots of the class drawn "
        "at random instead of retrieved; a model that loses nothing by that does not use its prior."
    ),
    "Boxes by occlusion": (
        "Mean IoU with the true amodal box over the objects that were found; B^p: the K prior-expanded boxes. Matching "
        "by box favours B^o a little, since objects with a worse B^o do not count; matching by visible mask is fair."
    ),
    "Evidence deleted, and clipping instead of a prior": (
        "A share of the detections may not serve as evidence. *Clipped*: the run's own amodal masks cut to what the "
        "same evidence allows; *hull*: the convex hull of the visible mask, cut likewise. PGExp+ is worth what it "
        "gains over these."
    ),
    "Speed and memory": (
        "R50-FPN, one picture of 800 x 1333 px, 90 classes x 1,000 slots of drawn masks, equal weights where the "
        "systems share parts; runs alternate in one process. A machine shared with other work stretched the seconds of "
        "all but the third row; read the ratios. Goal for re-ranking: 5 % of inference."
    ),
}


if __name__ == "__main__":
    main()
