"""``amodal demo``: from nothing to a report."""

from __future__ import annotations

from pathlib import Path

from amodal.verbs import Folder


def demo(out: Folder = Path("runs/demo"), device: str = "auto", images: int = 40) -> None:
    """Draw occlusion scenes, predict them with the weights that ship with the package, evaluate, write a report.

    Writes OUT/report.html (pictures first), OUT/metrics.json, OUT/predictions.json and the scenes in OUT/scenes, and
    prints the table and the report's path. The scenes are of a seed that training never uses.

    Example:
        amodal demo --out runs/demo --images 10

    Args:
        out: folder for the results; scenes of an earlier demo in it are replaced.
        device: "cpu", "cuda", "cuda:1", ...; "auto": the first GPU, or else the CPU.
        images: how many scenes to draw.
    """
    from amodal.score import run_demo

    run_demo(out, device=device, images=images)
