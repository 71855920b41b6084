"""Drawn scenes as a data set on disk: pictures and canonical annotations."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from amodal.data import rle
from amodal.data.scenes.families import CLASS_NAMES
from amodal.data.scenes.raster import Bools
from amodal.data.scenes.scene import SETTINGS, Scene, SceneSettings, draw
from amodal.errors import ConfigError, DataError, named
from amodal.files import write_json, write_picture
from amodal.locks import LOCK, hold

MIN_SIZE, MAX_SIZE = 64, 2048
MAX_IMAGES = 999_999
MAX_SEED = 2**32 - 1
MIN_CLASSES = 2
ANNOTATIONS = "annotations.json"
UNFINISHED = ".unfinished"
"""Folder in which scenes lie until all are drawn."""
_OLD = "replaced.json"
_NAME = re.compile(r"\d{6}\.png")


def _in_range(flag: str, value: int, low: int, high: int | None) -> None:
    if value < low or (high is not None and value > high):
        allowed = f"{low} or more" if high is None else f"{low} to {high}"
        nearest = low if value < low or high is None else high
        raise ConfigError(f"{flag}: {value} is not allowed, it is {allowed}; the nearest valid value is {nearest}")


def scene_settings(name: str, size: int, classes: int) -> SceneSettings:
    """The frozen settings of that name, at a size and with a number of classes.

    Raises:
        ConfigError: unknown name, or a number out of range.
    """
    if name not in SETTINGS:
        raise ConfigError(f"settings: {name!r} is not known; known are {', '.join(SETTINGS)}")
    _in_range("--size", size, MIN_SIZE, MAX_SIZE)
    _in_range("--classes", classes, MIN_CLASSES, len(CLASS_NAMES))
    return replace(SETTINGS[name], size=size, classes=classes)


def _xywh(mask: Bools) -> list[int]:
    """Tight box of a mask that is not empty: x, y, width, height in pixels."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    x, y = int(columns[0]), int(rows[0])
    return [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y]


def annotations_of(scene: Scene, image_id: int) -> list[dict[str, Any]]:
    """Canonical annotations of a scene without ids, from the lowest object to the topmost."""
    out = []
    for amodal, visible, label in zip(scene.amodal, scene.visible, scene.labels, strict=True):
        area, seen = int(amodal.sum()), int(visible.sum())
        out.append(
            {
                "image_id": image_id,
                "category_id": label + 1,
                "iscrowd": 0,
                "segmentation": rle.encode(amodal),
                "bbox": _xywh(amodal),
                "area": area,
                "visible_mask": rle.encode(visible),
                "visible_bbox": _xywh(visible),
                "occlude_rate": 1 - seen / area,
            }
        )
    return out


def _write_scene(index: int, folder: Path, seed: int, settings: SceneSettings) -> list[dict[str, Any]]:
    """Draws scene `index`, writes its picture, returns its annotations."""
    scene = draw(seed, index, settings)
    write_picture(folder / f"{index + 1:06d}.png", Image.fromarray(scene.image), compress_level=1)
    return annotations_of(scene, index + 1)


def drawn_seed(out: Path) -> int | None:
    """The seed of the scenes that were drawn into a folder; None where there are none, or they are no drawn ones."""
    content = _drawn_content(out / ANNOTATIONS)
    return None if content is None else content["info"]["seed"]


def _drawn_content(path: Path) -> dict[str, Any] | None:
    """An annotation file, if it is one that was written here."""
    try:
        content = json.loads(path.read_bytes())
        info = content["info"]
        known = info["settings"] in SETTINGS and type(info["seed"]) is int and isinstance(content["images"], list)
    except (OSError, ValueError, RecursionError, LookupError, TypeError):
        return None
    return content if known else None


def _drawn_pictures(out: Path) -> list[Path]:
    """The pictures in `out` that were drawn here, also those of a run that was killed while it put them in place."""
    names: set[str] = set()
    for path in (out / ANNOTATIONS, out / UNFINISHED / ANNOTATIONS, out / UNFINISHED / _OLD):
        content = _drawn_content(path)
        listed = [] if content is None else [str(image.get("file_name")) for image in content["images"]]
        names |= {name for name in listed if _NAME.fullmatch(name)}
    return [path for name in sorted(names) if os.path.lexists(path := out / "images" / name)]


def _check_out(out: Path, images: int, overwrite: bool) -> None:
    """Refuses a folder whose files would be replaced, unless they were drawn here and may be."""
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file; name a folder that is empty or does not exist")
    if not out.is_dir() or all(path.name in (LOCK, UNFINISHED) for path in out.iterdir()):
        return
    if not overwrite:
        raise ConfigError(f"{out} is not empty; name another folder, or give --overwrite to replace its scenes")
    own = set(_drawn_pictures(out))
    if _drawn_content(out / ANNOTATIONS) is not None:
        own.add(out / ANNOTATIONS)
    targets = (out / ANNOTATIONS, *(out / "images" / f"{k + 1:06d}.png" for k in range(images)))
    for path in targets:
        if path not in own and os.path.lexists(path):
            raise DataError("would be replaced, but was not drawn here; name another folder", file=path)


def _clean_up(out: Path) -> None:
    """Removes what a killed run left: unfinished work, and pictures that it had put in place already."""
    if not (out / ANNOTATIONS).exists():
        for path in _drawn_pictures(out):
            path.unlink()
    shutil.rmtree(out / UNFINISHED, ignore_errors=True)


def _put_in_place(out: Path) -> None:
    """Replaces the scenes in `out` by those in its folder of unfinished work.

    The annotation file goes first and comes last, so that a folder which has one is complete, whenever this is killed.
    """
    work, folder = out / UNFINISHED, out / "images"
    folder.mkdir(exist_ok=True)
    old = _drawn_pictures(out)
    if (out / ANNOTATIONS).exists():
        (out / ANNOTATIONS).replace(work / _OLD)
    for path in old:
        path.unlink()
    for path in (work / "images").iterdir():
        path.replace(folder / path.name)
    (work / ANNOTATIONS).replace(out / ANNOTATIONS)


def _drawn(images: int, work: partial[list[dict[str, Any]]], workers: int) -> Iterator[list[dict[str, Any]]]:
    """Annotations scene by scene, drawn here or in worker processes; the order is the same."""
    if workers == 1:
        yield from map(work, range(images))
        return
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(work, range(images), chunksize=max(1, min(16, images // (4 * workers))))


def write_dataset(
    out: str | Path,
    images: int = 100,
    size: int = 256,
    seed: int = 0,
    classes: int = 8,
    settings: str = "scenes-v1",
    *,
    workers: int = 1,
    overwrite: bool = False,
    progress: bool = False,
) -> Path:
    """Draws scenes and writes them as OUT/images/000001.png ... and OUT/annotations.json (canonical schema).

    The scenes take their place when all are drawn, the annotation file last: a folder that has one is complete, and
    what was there before stays until then.

    Args:
        out: folder that is empty or does not exist.
        images: number of scenes, 1 to 999999.
        size: side of the square pictures in pixels, 64 to 2048.
        seed: 0 to 4294967295; scene i of a seed is the same however many are drawn.
        classes: how many object classes, 2 to 12.
        settings: name of frozen scene settings.
        workers: processes that draw; the pictures do not depend on it.
        overwrite: replace scenes that were drawn into the folder; other files in it stay.
        progress: show a progress bar with the time left on stderr.

    Returns:
        Path of the annotation file.

    Raises:
        ConfigError: a number out of range, or `out` cannot take the data set.
        DataError: a file would be replaced that was not drawn here, or another process works in `out`.
    """
    frozen = scene_settings(settings, size, classes)
    _in_range("--images", images, 1, MAX_IMAGES)
    _in_range("--seed", seed, 0, MAX_SEED)
    _in_range("--workers", workers, 1, None)
    out = Path(out)
    _check_out(out, images, overwrite)
    work = out / UNFINISHED
    with hold(out), named(out):
        _clean_up(out)
        try:
            found: Iterable[list[dict[str, Any]]]
            found = _drawn(images, partial(_write_scene, folder=work / "images", seed=seed, settings=frozen), workers)
            if progress:
                from tqdm import tqdm

                found = tqdm(found, total=images, desc="scenes", unit="image")
            annotations = [annotation for scene in found for annotation in scene]
            write_json(work / ANNOTATIONS, _content(annotations, images, size, seed, classes, settings))
            _put_in_place(out)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return out / ANNOTATIONS


def _content(
    annotations: list[dict[str, Any]], images: int, size: int, seed: int, classes: int, settings: str
) -> dict[str, Any]:
    """The annotation file."""
    return {
        "info": {
            "description": f"Drawn occlusion scenes: {settings}, seed {seed}, {classes} classes, {size} pixels",
            "settings": settings,
            "seed": seed,
        },
        "images": [
            {"id": k + 1, "file_name": f"{k + 1:06d}.png", "width": size, "height": size} for k in range(images)
        ],
        "categories": [{"id": k + 1, "name": name} for k, name in enumerate(CLASS_NAMES[:classes])],
        "annotations": [{"id": k + 1, **annotation} for k, annotation in enumerate(annotations)],
    }
