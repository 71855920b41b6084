"""``amodal predict``: masks for images or folders of images."""

from __future__ import annotations

from pathlib import Path

from amodal.verbs import Folder


def predict(
    checkpoint: str,
    inputs: list[Path],
    out: Folder = Path("runs/predict"),
    threshold: float = 0.5,
    device: str = "auto",
    batch: int = 1,
    no_overlays: bool = False,
    overlay_size: int = 2000,
) -> int:
    """Amodal masks for images or folders of images.

    Writes OUT/predictions.json (a JSON list, one object a row: image_id, file_name, category_id, score, bbox,
    segmentation, and where the system has them visible_mask, visible_bbox), OUT/images.json (id, file_name, height,
    width and number of objects of every image; ids count from 1; error or overlay_error where it could not be read or
    drawn) and OUT/overlays/NAME.png. A run that was killed goes on where it stopped when the same command is given
    again. Several processes share the images: "accelerate launch -m amodal predict ...". Images that cannot be read or
    drawn are listed at the end; the exit code is 2 if none could be read. A name that is too long for a file is cut,
    with a checksum.

    A model sees a picture resized so that its shorter side has test_min_size pixels, or its longer side test_max_size
    where that is less ("transform" in the checkpoint's config.yaml; nano-scenes-v1: 160 and 256, by default 800 and
    3000). Masks and boxes are given in the picture's own pixels; an object of a few pixels after resizing is not found,
    so cut large pictures into tiles.

    Example:
        amodal predict runs/mine/best pictures --out runs/pictures --threshold 0.7

    Args:
        checkpoint: checkpoint folder, or "nano-scenes-v1", which ships with the package, or a Hugging Face id.
        inputs: images, or folders that are searched through, linked folders too. Left out and counted are hidden files
            and formats that are not read.
        out: folder for the results; the images may lie in it. What an earlier run drew into OUT/overlays is no input.
        threshold: lowest score that is kept, 0 to 1.
        device: "cpu", "cuda", "cuda:1", ...; "auto": the first GPU, or else the CPU.
        batch: images of equal size that go through the network together.
        no_overlays: draw no pictures.
        overlay_size: pixels of a drawn picture's longer side at most. Larger images are reduced to it, smaller ones
            enlarged by a whole factor, towards 900 pixels; 0: every image at its own size. Results are not affected.
    """
    from amodal.errors import ConfigError, DataError, counted, name_all
    from amodal.files import write_rows
    from amodal.model import load
    from amodal.pictures import check_threshold
    from amodal.predict import jobs
    from amodal.predict.inputs import gather
    from amodal.predict.team import Team, hold_as_main

    check_threshold(threshold)
    if batch < 1:
        raise ConfigError(f"--batch is {batch}, must be 1 or more")
    if overlay_size < 0:
        raise ConfigError(f"--overlay-size is {overlay_size}, must be 0 (each image's own size) or more")
    gathered = gather(inputs, out, overlays=not no_overlays)
    items = gathered.items
    with hold_as_main(out):
        team = Team(device)
        outcome = jobs.run(
            load(checkpoint, team.device),
            items,
            out,
            threshold=threshold,
            batch=batch,
            team=team,
            overlay_size=overlay_size,
        )
        team.close()
        if outcome is None:
            return 0
        write_rows(out / "predictions.json", outcome.results)
        write_rows(out / "images.json", outcome.images)
        jobs.clear(out)
    read = len(items) - len(outcome.failed)
    print(f"{counted(len(outcome.results), 'object')} in {counted(read, 'image')}: {out / 'predictions.json'}")
    if not no_overlays:
        print(f"pictures: {out / jobs.OVERLAYS}")
    if gathered.left_out:
        print(gathered.told())
    if outcome.undrawn:
        print(name_all("could not be drawn", [(i["file_name"], i["overlay_error"]) for i in outcome.undrawn]))
    if outcome.failed:
        print(name_all("could not be read", [(i["file_name"], i["error"]) for i in outcome.failed]))
    if not read:
        raise DataError(f"none of {counted(len(items), 'image')} could be read")
    return 0
