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
    draw_size: int = 2000,
    tile: int = 0,
    tile_overlap: float = 0.25,
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
    3000). Masks and boxes are given in the picture's own pixels; an object of a few pixels after resizing is not found.
    With --tile a larger picture is cut into tiles, each of which the model sees resized in this way, beside the whole
    picture for what is larger than a tile; take about the size of the pictures that the model was trained on. What the
    border of a tile cuts off is taken from where it is whole, and one NMS in each class goes over all.

    Example:
        amodal predict runs/mine/best pictures --out runs/pictures --threshold 0.7

    Args:
        checkpoint: checkpoint folder, or a run folder, which stands for its best/, "nano-scenes-v1", which ships
            with the package, or a Hugging Face id.
        inputs: images, or folders that are searched through, linked folders too. Left out and counted are hidden files
            and formats that are not read.
        out: folder for the results; the images may lie in it. What an earlier run drew into OUT/overlays is no input.
        threshold: lowest score that is kept, 0 to 1.
        device: "cpu", "cuda", "cuda:1", ...; "auto": the first GPU, or else the CPU.
        batch: images of equal size, or tiles of one image, that go through the network together.
        no_overlays: draw no pictures.
        draw_size: pixels of a drawn picture's longer side at most. Larger images are reduced to it, smaller ones
            enlarged by a whole factor, towards 900 pixels; 0: every image at its own size. Results are not affected.
        tile: pixels of a tile's side, 32 or more; images that are larger are cut. 0: every image as a whole.
        tile_overlap: least share of its side that a tile has in common with the next one, 0 to 0.9; an object larger
            than that may be whole in no tile.
    """
    from amodal.errors import ConfigError, DataError, counted, name_all
    from amodal.files import write_rows
    from amodal.launch import warn
    from amodal.locks import hold_as_main
    from amodal.model import load
    from amodal.pictures import check_threshold, seen_size
    from amodal.predict import jobs
    from amodal.predict.inputs import gather
    from amodal.predict.team import Team
    from amodal.tiles import Tiling
    from amodal.viz.scale import check_draw_size, drawn_at

    check_threshold(threshold)
    if batch < 1:
        raise ConfigError(f"--batch is {batch}, must be 1 or more")
    check_draw_size(draw_size)
    tiling = Tiling.of(tile, tile_overlap, batch)
    gathered = gather(inputs, out, overlays=not no_overlays)
    items = gathered.items
    with hold_as_main(out):
        jobs.check_out(out, ("predictions.json", "images.json"))
        team = Team(device)
        model = load(checkpoint, team.device)
        if team.is_main:
            print(seen_size(model.config.transform))
            if tiling is not None:
                print(f"larger ones than {tile} px are cut into tiles of that size, each seen so, and seen whole, too")
        outcome = jobs.run(
            model,
            items,
            out,
            threshold=threshold,
            batch=batch,
            team=team,
            overlay_size=draw_size,
            tiling=tiling,
        )
        team.close()
        if outcome is None:
            return 0
        write_rows(out / "predictions.json", outcome.results)
        write_rows(out / "images.json", outcome.images)
        jobs.clear(out)
    read = len(items) - len(outcome.failed)
    print(f"{counted(len(outcome.results), 'object')} in {counted(read, 'image')}: {out / 'predictions.json'}")
    drawn = [(i["height"], i["width"]) for i in outcome.images if not {"error", "overlay_error"} & i.keys()]
    if drawn and not no_overlays:
        print(f"{drawn_at(drawn, draw_size)}: {out / jobs.OVERLAYS}")
    if gathered.left_out:
        warn(gathered.told())
    if outcome.undrawn:
        warn(name_all("could not be drawn", [(i["file_name"], i["overlay_error"]) for i in outcome.undrawn]))
    if outcome.failed:
        warn(name_all("could not be read", [(i["file_name"], i["error"]) for i in outcome.failed]))
    if not read:
        raise DataError(f"none of {counted(len(items), 'image')} could be read")
    return 0
