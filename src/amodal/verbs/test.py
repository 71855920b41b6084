"""``amodal test``: predict and evaluate."""

from __future__ import annotations

from pathlib import Path

from amodal.verbs import File, Folder


def test(
    checkpoint: str,
    ann: File,
    images: Folder,
    out: Folder = Path("runs/test"),  # noqa: PT028
    device: str = "auto",  # noqa: PT028
    batch: int = 1,  # noqa: PT028
    schema: str = "auto",  # noqa: PT028
) -> None:
    """Predict annotated images (scores from 0.05 on) and evaluate the predictions.

    Writes OUT/predictions.json, OUT/metrics.json (percent), OUT/report.html and OUT/test.json (what was tested on what,
    for "amodal compare"), and prints the table. Goes on where it stopped after a kill; several processes share
    the images: "accelerate launch -m amodal test ...". Classes of the checkpoint and of the annotations are matched by
    name.

    Example:
        amodal test runs/mine/best annotations.json pictures --out runs/mine/test

    Args:
        checkpoint: checkpoint folder, or a run folder, which stands for its best/, "nano-scenes-v1", which ships
            with the package, or a Hugging Face id.
        ann: annotation file (JSON) in any known schema.
        images: folder of the images.
        out: folder for the results.
        device: "cpu", "cuda", "cuda:1", ...; "auto": the first GPU, or else the CPU.
        batch: images of equal size that go through the network together.
        schema: schema of the annotation file; "auto" recognises it by the keys of its annotations.
    """
    from amodal.errors import ConfigError
    from amodal.locks import hold_as_main
    from amodal.score import run_test

    if batch < 1:
        raise ConfigError(f"--batch is {batch}, must be 1 or more")
    with hold_as_main(out):
        run_test(checkpoint, ann, images, out, device=device, batch=batch, schema=schema)
