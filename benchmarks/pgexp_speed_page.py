"""Rewrites the times and memory of PGExp in a page, between ``<!-- speed: pgexp -->`` and ``<!-- end -->``.

python -m benchmarks.pgexp_speed_page docs/benchmarks/pgexp.md
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from amodal.reproduce.pages import rewrite
from amodal.reproduce.tables import markdown
from benchmarks.common import RESULTS


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
        parts.append(markdown(head, rows))
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
    return markdown(["share of inference", *names], rows) if rows else ""


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


def main() -> None:
    """The page's block anew."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("page", type=Path, help="Markdown page")
    parser.add_argument("--results", type=Path, default=RESULTS / "pgexp", help="folder of the result files")
    arguments = parser.parse_args()
    print(f"{rewrite(arguments.page, {'speed': lambda words: speed(arguments.results)})} tables in {arguments.page}")


if __name__ == "__main__":
    main()
