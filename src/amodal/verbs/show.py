"""``amodal show``: pictures of an annotation file."""

from __future__ import annotations

from pathlib import Path

from amodal.verbs import File, Folder


def show(ann: File, images: Folder, out: Folder, limit: int = 20, schema: str = "auto", draw_size: int = 2000) -> None:
    """Pictures of the annotated instances: visible parts filled, hidden parts hatched, amodal boxes.

    Writes OUT/ID_NAME.png for the first images of the file that hold an instance, ID being the image id.
    A name that is too long for a file is cut, with a checksum. Images that cannot be read or drawn are listed at the
    end; the exit code is 2 if none could.

    Example:
        amodal show annotations.json pictures runs/show --limit 10

    Args:
        ann: annotation file (JSON) in any known schema.
        images: folder of the images.
        out: folder for the pictures.
        limit: how many pictures at most; 0 draws all.
        schema: schema of the file; "auto" recognises it by the keys of its annotations.
        draw_size: pixels of a drawn picture's longer side at most. Larger images are reduced to it, smaller ones
            enlarged by a whole factor, towards 900 pixels, so that hatching and text can be read; 0: every image at its
            own size.
    """
    import numpy as np
    from PIL import Image
    from tqdm import tqdm

    from amodal.data.told import tell
    from amodal.datasets import load
    from amodal.errors import ConfigError, DataError, DiskError, counted, name_all, one_line
    from amodal.files import check_room, fitting_name, write_picture
    from amodal.launch import warn
    from amodal.report.truth import draw_truth, shown_rows
    from amodal.viz.scale import check_draw_size, drawn_at

    if limit < 0:
        raise ConfigError(f"--limit is {limit}, must be 0 (all) or more")
    check_draw_size(draw_size)
    data = load(ann, images, schema)
    annotations = data.annotations
    tell(annotations)
    indices = np.unique(annotations.image_index[~annotations.crowd]).tolist()
    chosen = indices[:limit] if limit else indices
    check_room(out)
    faults: list[tuple[str, str]] = []
    drawn: list[tuple[int, int]] = []
    for index in tqdm(chosen, desc="pictures", unit="image", disable=None):
        name = annotations.file_names[index]
        try:
            image = np.ascontiguousarray(data.image(index).permute(1, 2, 0).numpy())
            picture = Image.fromarray(draw_truth(annotations, shown_rows(annotations, index), image, draw_size))
            file = fitting_name(f"{annotations.image_ids[index]}_{Path(name).stem}", ".png", name)
            write_picture(out / file, picture, drawn=True)
            drawn.append((image.shape[0], image.shape[1]))
        except DiskError:
            raise
        except Exception as fault:  # Of this picture, and no reason to draw no other one.
            faults.append((f"image {annotations.image_ids[index]}", one_line(fault)))
    if faults and len(faults) == len(chosen):
        raise DataError(
            f"none of {counted(len(chosen), 'picture')} could be drawn; {faults[0][0]}: {faults[0][1]}", file=ann
        )
    print(f"{counted(len(drawn), 'picture')}{', ' + drawn_at(drawn, draw_size) if drawn else ''}: {out}")
    if faults:
        warn(name_all("could not be drawn", faults))
