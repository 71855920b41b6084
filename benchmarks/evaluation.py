"""Evaluation: all our metrics against pycocotools' plain AP for amodal mask, amodal box and visible mask.

Both sides start from the same two JSON files and end in numbers; runs alternate in one process. Prints one JSON line
whose ``ratio`` is our median time relative to pycocotools', and writes ``docs/benchmarks/evaluation.md``.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from amodal.data.reader import load
from amodal.evaluation import evaluate
from benchmarks.common import alternate, emit, parser

HEIGHT, WIDTH, CLASSES, OBJECTS, GUESSES = 240, 320, 7, 12, 40
PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks" / "evaluation.md"
ROUNDS = {"ours": "rounds_ours_s", "theirs": "rounds_theirs_s"}
COMPUTED = (
    "AP, AP50, AP75, AR100 of mask, box and visible mask; both AP-occ at three levels for mask and box; AP-of-mask, "
    "mIoU, mIoU-occ, coverage"
)


def encode(mask: np.ndarray) -> dict[str, Any]:
    rle = coco_mask.encode(np.asfortranarray(mask))
    return {"size": [HEIGHT, WIDTH], "counts": rle["counts"].decode()}


def box(mask: np.ndarray) -> list[float]:
    x, y = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return [float(x[0]), float(y[0]), float(np.ptp(x) + 1), float(np.ptp(y) + 1)] if len(x) else [0.0] * 4


def ellipse(shape: np.ndarray) -> np.ndarray:
    cx, cy, rx, ry = shape
    y, x = np.ogrid[:HEIGHT, :WIDTH]
    inside: np.ndarray = (((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 <= 1).astype(np.uint8)
    return inside


def draw(images: int, folder: Path) -> tuple[Path, Path]:
    """Files of a truth and of results: overlapping objects and detections near them."""
    rng = np.random.default_rng(0)
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image in range(1, images + 1):
        sizes = rng.uniform([0, 0, 8, 8], [WIDTH, HEIGHT, 45, 45], (OBJECTS, 4))
        labels = rng.integers(1, CLASSES + 1, OBJECTS)
        masks = [ellipse(size) for size in sizes]
        for place, (mask, label) in enumerate(zip(masks, labels.tolist(), strict=True)):
            visible = mask & ~np.any(masks[place + 1 :], axis=0) if place + 1 < OBJECTS else mask
            if not mask.any():
                continue
            ids = {"id": len(annotations) + 1, "image_id": image, "category_id": label, "iscrowd": 0}
            truth = {"segmentation": encode(mask), "bbox": box(mask), "area": int(mask.sum())}
            seen = {"visible_mask": encode(visible), "occlude_rate": 1 - float(visible.sum() / mask.sum())}
            annotations.append(ids | truth | seen)
        for _ in range(GUESSES):
            near = int(rng.integers(OBJECTS))
            guess = ellipse(np.abs(sizes[near] * rng.normal(1, 0.15, 4)) + 1)
            seen_guess = guess & ~masks[int(rng.integers(OBJECTS))]
            ids = {"image_id": image, "category_id": int(labels[near]), "score": float(rng.random())}
            results.append(
                ids | {"bbox": box(guess), "segmentation": encode(guess), "visible_mask": encode(seen_guess)}
            )
    infos = [{"id": n, "file_name": f"{n}.png", "width": WIDTH, "height": HEIGHT} for n in range(1, images + 1)]
    categories = [{"id": n, "name": str(n)} for n in range(1, CLASSES + 1)]
    paths = folder / "truth.json", folder / "results.json"
    truth_file = {"images": infos, "annotations": annotations, "categories": categories}
    for path, content in zip(paths, (truth_file, results), strict=True):
        path.write_text(json.dumps(content))
    return paths


def ours(truth: Path, results: Path) -> dict[str, Any]:
    """Every metric, from the files."""
    return evaluate(load(truth, cache=False), results)


def theirs(truth: Path, results: Path) -> dict[str, float]:
    """Plain AP of the three parts; files are read once, and the copies with visible masks made without re-reading."""
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO(str(truth))
        found = json.loads(results.read_text())
        seen = COCO()
        seen.dataset = gt.dataset | {
            "annotations": [
                a | {"segmentation": a["visible_mask"]} for a in gt.dataset["annotations"] if a["occlude_rate"] < 1
            ]
        }
        seen.createIndex()
        keys = ("image_id", "category_id", "score")
        parts = {
            "mask": (gt, [{k: r[k] for k in keys} | {"segmentation": r["segmentation"]} for r in found], "segm"),
            "box": (gt, [{k: r[k] for k in keys} | {"bbox": r["bbox"]} for r in found], "bbox"),
            "visible": (seen, [{k: r[k] for k in keys} | {"segmentation": r["visible_mask"]} for r in found], "segm"),
        }
        numbers = {}
        for part, (side, detections, kind) in parts.items():
            run = COCOeval(side, side.loadRes(detections), kind)
            run.evaluate()
            run.accumulate()
            run.summarize()
            numbers[part] = 100 * float(run.stats[0])
    return numbers


def measure(images: int, rounds: int) -> dict[str, Any]:
    """Times of both sides, and by how much their plain APs differ."""
    with tempfile.TemporaryDirectory() as folder:
        files = draw(images, Path(folder))
        mine, other = ours(*files), theirs(*files)
        worst = max(abs(mine[part]["AP"] - value) for part, value in other.items())
        times = alternate(lambda: ours(*files), lambda: theirs(*files), rounds)
    sizes = {"images": images, "objects": OBJECTS * images, "detections": GUESSES * images}
    return {
        **times,
        "goal": round(1 / 3, 4),
        "times_faster": 1 / times["ratio"],
        "largest_ap_difference": worst,
        "load": round(os.getloadavg()[0], 1),
        **sizes,
    }


def page(result: dict[str, Any]) -> str:
    """The page of docs/benchmarks."""
    spread = {side: f"{min(result[key]):.2f} to {max(result[key]):.2f}" for side, key in ROUNDS.items()}
    return f"""# Speed of evaluation

`python -m benchmarks.evaluation`, {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}.

{result["images"]} drawn images of {WIDTH} x {HEIGHT} with {OBJECTS} overlapping objects and {GUESSES} detections each,
{CLASSES} classes. Both sides read the same two JSON files (ours with every check of every mask, and without its cache)
and end in numbers; runs alternate, medians of {len(result["rounds_ours_s"])} (smallest to largest). The machine's load
average at the end was {result["load"]}: where that exceeds its cores, other work stretched the seconds of both sides.

| | computes | seconds |
|---|---|---|
| amodal | {COMPUTED} | {result["ours_s"]:.2f} ({spread["ours"]}) |
| pycocotools | plain AP of mask, box and visible mask | {result["theirs_s"]:.2f} ({spread["theirs"]}) |

**{result["times_faster"]:.1f} times faster** (goal: 3); {1 / result["cpu_ratio"]:.1f} times in processor time.
Largest difference of the three plain APs, in percent: {result["largest_ap_difference"]:.1e}.
"""


def main() -> None:
    """Measures, writes the result and the page, prints the line."""
    arguments = parser(__doc__).parse_args()
    result = measure(5, 1) if arguments.small else measure(300, 5)
    if not arguments.small:
        PAGE.write_text(page(result))
    emit(arguments, "evaluation", result.pop("ratio"), **result)


if __name__ == "__main__":
    main()
