"""``amodal show``: pictures of an annotation file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from amodal.verbs import File, Folder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from amodal.datasets import AmodalDataset


def show(ann: File, images: Folder, out: Folder, limit: int = 20, schema: str = "auto", size: int = 2000) -> None:
    """Pictures of the annotated instances: visible parts filled, occluded parts hatched, amodal boxes.

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
        size: pixels of a picture's longer side at most. Larger images are reduced to it, smaller ones enlarged by a
            whole factor, towards 900 pixels, so that hatching and text can be read; 0: every image at its own size.
    """
    import numpy as np
    from PIL import Image
    from tqdm import tqdm

    from amodal.data.told import tell
    from amodal.datasets import load
    from amodal.errors import ConfigError, DataError, counted, name_all, one_line
    from amodal.files import fitting_name

    if limit < 0:
        raise ConfigError(f"--limit is {limit}, must be 0 (all) or more")
    if size < 0:
        raise ConfigError(f"--size is {size}, must be 0 (each image's own size) or more")
    data = load(ann, images, schema)
    annotations = data.annotations
    tell(annotations)
    indices = np.unique(annotations.image_index[~annotations.crowd]).tolist()
    chosen = indices[:limit] if limit else indices
    out.mkdir(parents=True, exist_ok=True)
    faults: list[tuple[str, str]] = []
    for index in tqdm(chosen, desc="pictures", unit="image", disable=None):
        name = annotations.file_names[index]
        try:
            picture = Image.fromarray(_picture(data, index, size))
            picture.save(out / fitting_name(f"{annotations.image_ids[index]}_{Path(name).stem}", ".png", name))
        except Exception as fault:  # Of this picture, and no reason to draw no other one.
            faults.append((f"image {annotations.image_ids[index]}", one_line(fault)))
    if faults and len(faults) == len(chosen):
        raise DataError(
            f"none of {counted(len(chosen), 'picture')} could be drawn; {faults[0][0]}: {faults[0][1]}", file=ann
        )
    sides = f"at most {size} pixels a side" if size else "at their own size"
    print(f"{counted(len(chosen) - len(faults), 'picture')}, {sides}: {out}")
    if faults:
        print(name_all("could not be drawn", faults))


def _picture(data: AmodalDataset, index: int, size: int) -> NDArray[np.uint8]:
    import numpy as np

    from amodal.viz.instances import EachMask, draw_instances, drawn_size, resized, sampled

    annotations = data.annotations
    rows = [row for row in annotations.rows(index) if not annotations.crowd[row]]
    image = np.ascontiguousarray(data.image(index).permute(1, 2, 0).numpy())
    height, width, scale = drawn_size(image.shape[0], image.shape[1], size)
    return draw_instances(
        resized(image, height, width),
        annotations.amodal_boxes[rows] * np.array([width / image.shape[1], height / image.shape[0]] * 2),
        EachMask(len(rows), lambda place: sampled(annotations.amodal_mask(rows[place]), height, width)),
        EachMask(len(rows), lambda place: sampled(annotations.visible_mask(rows[place]), height, width)),
        [annotations.class_names[annotations.labels[row]] for row in rows],
        scale=scale,
    )
