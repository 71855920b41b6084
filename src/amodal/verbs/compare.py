"""``amodal compare``: runs beside each other on one page."""

from __future__ import annotations

from pathlib import Path

from amodal.verbs import File, Folder


def compare(
    runs: list[Path],
    out: File = Path("runs/compare.html"),
    annotations: File | None = None,
    images: Folder | None = None,
    limit: int = 8,
    draws: int = 1000,
) -> None:
    """Runs beside each other on one page: metrics, curves, settings that differ, and the pictures that differ most.

    Writes one HTML file that needs nothing else, and prints the first metrics. Every run is compared with the first.
    Differences of AP have a 95 % interval (paired bootstrap over the images) where the predictions are there. Runs that
    were tested on unlike data are refused; what a run lacks is said on stderr.

    Args:
        runs: two or more run folders of train (with a test folder inside, else their best validation), folders of
            test, or JSON files of an experiment's runs.
        out: the page to write, HTML.
        annotations: annotation file (JSON) that was tested on; needed where it has moved, or an earlier release tested.
        images: folder of its images, likewise.
        limit: how many images are shown at most; 0: none.
        draws: how often the bootstrap draws the images; 0: no intervals.

    Example:
        amodal compare runs/a runs/b --out runs/a-and-b.html
    """
    from amodal.compare.compare import compare as run
    from amodal.errors import ConfigError

    for flag, value in (("--limit", limit), ("--draws", draws)):
        if value < 0:
            raise ConfigError(f"{flag} is {value}, must be 0 (none) or more")
    print(run(runs, out, annotations=annotations, images=images, limit=limit, draws=draws))
    print(f"\npage: {out}")
