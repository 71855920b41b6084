"""Reading a KINS-size annotation file: ours (with every check) beside pycocotools.COCO (with none).

Each reading runs in a process of its own; the two take turns. Prints one JSON line whose ``ratio`` is the time of the
first reading relative to pycocotools, and writes ``docs/benchmarks/reading.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

_MEASURE = """
import json, sys, time
def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024
{imports}
before, start, wall = resident(), time.process_time(), time.perf_counter()
data = {call}
seconds, wall = time.process_time() - start, time.perf_counter() - wall
peak = int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1]) / 1024
print("\\n" + json.dumps([seconds, wall, resident() - before, peak - before]))
"""
_REMARKS = (
    "Goals: first reading at most 1.5 times pycocotools, reading again at most 0.1 and memory at most 0.3 (all met",
    "on a quiet machine; beside other work 1.8 was seen). Before typed structures it took 2.5 times pycocotools on a",
    "quiet machine and 2.8 times beside other work. Where it goes now, of 19,000 instances: rasterising polygons, in",
    "pycocotools' own C code, 35 %; checks, areas, boxes and overlaps of run lengths in numpy 23 %; JSON 16 %; Python",
    "that runs once an annotation 14 %. What pycocotools takes for the polygons alone is half of its COCO().",
)
_READERS = {
    "pycocotools": ("from pycocotools.coco import COCO", "COCO(sys.argv[1])"),
    "first": ("from amodal.data.reader import load", "load(sys.argv[1])"),
    "cached": ("from amodal.data.reader import load", "load(sys.argv[1])"),
}


def draw_file(path: Path, images: int, annotations: int) -> None:
    """A file like KINS: pictures of 1242 x 375, an outline of 40 points whole and a compressed RLE visible."""
    import numpy as np
    from pycocotools import mask

    rng = np.random.default_rng(0)
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    entries = []
    for number in range(annotations):
        radius = np.exp(rng.normal([3.6, 3.2], [0.7, 0.6]))
        centre = rng.random(2) * [1242, 375]
        wobble = rng.uniform(0.85, 1.0, (40, 1))
        points = centre + np.stack([np.cos(angles), np.sin(angles)], 1) * radius * wobble
        outline = np.clip(points, 0, [1242, 375]).round(2).ravel().tolist()
        cut = np.minimum(points, centre + radius * rng.uniform(0, 1.2, 2)).clip(0, [1242, 375]).ravel().tolist()
        seen = mask.frPyObjects([cut], 375, 1242)[0]
        box = mask.toBbox(mask.frPyObjects([outline], 375, 1242)[0]).tolist()
        entries.append(
            {
                "id": number + 1,
                "image_id": number * images // annotations,
                "category_id": (1, 2, 4, 5, 6, 7, 8)[number % 7],
                "iscrowd": 0,
                "area": box[2] * box[3],
                "bbox": box,
                "inmodal_bbox": mask.toBbox(seen).tolist(),
                "segmentation": [outline],
                "inmodal_seg": {"size": [375, 1242], "counts": seen["counts"].decode()},
            }
        )
    names = ("cyclist", "pedestrian", "rider", "car", "tram", "truck", "van", "misc")
    content = {
        "images": [{"id": i, "file_name": f"{i:06d}.png", "height": 375, "width": 1242} for i in range(images)],
        "categories": [{"id": i, "name": name} for i, name in enumerate(names, 1)],
        "annotations": entries,
    }
    path.write_text(json.dumps(content))


def measure(reader: str, path: Path, cache: Path) -> list[float]:
    """Seconds of processor and wall clock, growth of memory after reading and at its peak (MiB), in a fresh process."""
    imports, call = _READERS[reader]
    environment = {**os.environ, "AMODAL_CACHE": str(cache)}
    command = [sys.executable, "-c", _MEASURE.format(imports=imports, call=call), str(path)]
    answer = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    numbers: list[float] = json.loads(answer.strip().splitlines()[-1])
    return numbers


def run(images: int, annotations: int, repeats: int) -> tuple[dict[str, list[list[float]]], float]:
    """All measurements of each reader, and the file's size in MB."""
    found: dict[str, list[list[float]]] = {name: [] for name in _READERS}
    with tempfile.TemporaryDirectory() as folder:
        path, cache = Path(folder) / "instances.json", Path(folder) / "cache"
        draw_file(path, images, annotations)
        for _ in range(repeats):
            for entry in cache.glob("*"):
                entry.unlink()
            for reader in _READERS:
                found[reader].append(measure(reader, path, cache))
        return found, path.stat().st_size / 1e6


def page(rows: dict[str, list[float]], what: str, repeats: int, load: tuple[float, float]) -> str:
    """The Markdown page of the medians."""
    peer = rows["pycocotools"]
    titles = {"pycocotools": "`pycocotools.COCO()`", "first": "first reading", "cached": "second reading (cache)"}
    lines = [
        "# Reading annotations",
        "",
        f"{what} Measured by `python benchmarks/reading.py`: medians of {repeats}, readers by turns, every",
        "reading in a fresh process, imports not counted. Both use one thread; other work on the machine shows in the",
        f"seconds of the wall clock, and less in those of the processor (load {load[0]:.1f} to {load[1]:.1f} on",
        f"{os.cpu_count()} cores). Memory is the growth of resident memory. pycocotools checks nothing; ours decodes",
        "every RLE, rasterises every polygon, and recomputes boxes, areas and occlusion rates.",
        "",
        "| reader | processor, s | x | wall clock, s | x | MiB after | x | MiB at peak | x |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        cells = " | ".join(f"{value:.3g} | {value / reference:.2f}" for value, reference in zip(row, peer, strict=True))
        lines.append(f"| {titles[name]} | {cells} |")
    return "\n".join([*lines, "", *_REMARKS]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="a fiftieth of the size, once; writes no page")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each reader (default 3)")
    arguments = parser.parse_args()
    images, annotations = (150, 1900) if arguments.small else (7500, 95000)
    before = os.getloadavg()[0]
    found, megabytes = run(images, annotations, 1 if arguments.small else arguments.repeats)
    after = os.getloadavg()[0]
    rows = {name: [statistics.median(column) for column in zip(*runs, strict=True)] for name, runs in found.items()}
    if not arguments.small:
        what = (
            f"{images} images, {annotations} instances, {megabytes:.0f} MB of JSON, Python {platform.python_version()}."
        )
        target = Path(__file__).parents[1] / "docs" / "benchmarks" / "reading.md"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(page(rows, what, arguments.repeats, (min(before, after), max(before, after))))
    peer = rows["pycocotools"]
    ratios = {name: [value / reference for value, reference in zip(rows[name], peer, strict=True)] for name in rows}
    line = {
        "benchmark": "reading",
        "ratio": round(ratios["first"][0], 3),
        "cached_ratio": round(ratios["cached"][0], 3),
        "wall_ratio": round(ratios["first"][1], 3),
        "memory_ratio": round(ratios["first"][2], 3),
        "peak_memory_ratio": round(ratios["first"][3], 3),
        "cached_memory_ratio": round(ratios["cached"][2], 3),
        "instances": annotations,
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
