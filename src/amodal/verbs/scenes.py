"""``amodal scenes``: draw a data set."""

from __future__ import annotations

from amodal.verbs import Folder


def scenes(
    out: Folder,
    images: int = 100,
    size: int = 256,
    seed: int = 0,
    classes: int = 8,
    workers: int = 1,
    overwrite: bool = False,
) -> None:
    """Draw a data set of occlusion scenes with exact amodal and visible masks: OUT/images and OUT/annotations.json.

    The settings of the scenes are frozen under the name scenes-v1: the same numbers here give the same pixels on every
    machine, and scene i of a seed is the same however many are drawn.

    Example:
        amodal scenes data/train --images 400 --seed 1

    Args:
        out: folder for the data set; empty or not there yet.
        images: how many scenes to draw, 1 to 999999.
        size: side of the square pictures, pixels, 64 to 2048.
        seed: seed of all randomness, 0 to 4294967295.
        classes: how many object classes, 2 to 12: cup, fish, car, key, leaf, mushroom, bottle, umbrella, sailboat,
            pear, house, rocket, in this order.
        workers: processes that draw at the same time.
        overwrite: replace the scenes that were drawn into OUT; files that this command did not make stay.
    """
    from amodal.data.scenes.dataset import write_dataset
    from amodal.errors import counted

    path = write_dataset(out, images, size, seed, classes, workers=workers, overwrite=overwrite, progress=True)
    print(f"{counted(images, 'scene')}: {path}")
