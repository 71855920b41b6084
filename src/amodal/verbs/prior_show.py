"""``amodal prior show``: Fig. 5 for objects of an annotation file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from amodal.verbs import File, Folder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from amodal.data.classes import ClassMatch
    from amodal.data.store import AnnotationSet
    from amodal.model import AmodalModel
    from amodal.priors.prior import Prior
    from amodal.viz.explanation import Explanation

    Reader = Callable[[int], NDArray[np.uint8] | None]
    Explained = Iterator[tuple[int, Callable[[], Explanation | None]]]

_CHUNK = 16
_TRIED = 48  # further objects that are asked until one expands visibly


def show(
    prior: Folder,
    ann: File,
    out: Folder,
    images: Folder | None = None,
    checkpoint: str | None = None,
    limit: int = 20,
    device: str = "auto",
    schema: str = "auto",
    draw_size: int = 300,
) -> None:
    """Pictures of what a prior says about objects: the nearest regression and flow transformations (Fig. 5).

    Writes OUT/IMAGE_NAME_ANNOTATION.png for objects hidden by 15 to 85 %, at even steps through the file:
    prior-expanded boxes, flows with arrows, and where the prior re-ranks, candidates that are kept and thrown away,
    with their keys and units. Where none of the objects expands visibly, the last one gives way to another that does.
    The prior is asked with the true visible masks; with a checkpoint it is asked with those that the model sees, and a
    first row shows picture, prediction and truth. On the file that a prior was fitted on, true masks do not retrieve
    objects of their own image. Objects whose picture cannot be read or drawn are listed at the end; the exit code is 2
    if none could.

    Example:
        amodal prior show runs/prior annotations.json runs/prior-pictures --images pictures

    Args:
        prior: folder of an expansion prior ("amodal prior fit", or the prior folder of a checkpoint).
        ann: annotation file (JSON) in any known schema.
        out: folder for the pictures.
        images: folder of the images, shown behind the boxes.
        checkpoint: folder, shipped name or Hugging Face id of a model that uses a prior; needs --images.
        limit: how many objects at most; 0 shows all.
        device: "cpu", "cuda", "cuda:1", ...; "auto": the first GPU, or else the CPU.
        schema: schema of the file; "auto" recognises it by the keys of its annotations.
        draw_size: pixels of a panel's longer side, 100 to 2000.
    """
    from tqdm import tqdm

    from amodal.data.reader import load as load_annotations
    from amodal.data.told import tell
    from amodal.errors import ConfigError, DataError, DiskError, counted, name_all, one_line, require
    from amodal.files import check_room
    from amodal.launch import warn
    from amodal.pictures import pick_device
    from amodal.priors.annotated import match_prior
    from amodal.priors.prior_io import load_prior
    from amodal.viz.priors import VISIBLY, growth

    require(100 <= draw_size <= 2000, "--draw-size", draw_size, "100 to 2000")
    if limit < 0:
        raise ConfigError(f"--limit is {limit}, must be 0 (all) or more")
    if checkpoint is not None and images is None:
        raise ConfigError("--checkpoint needs --images, the folder of the images that the model looks at")
    place = pick_device(device)
    annotations = load_annotations(ann, schema=schema)
    tell(annotations)
    folder = load_prior(prior, place)
    matched = match_prior(folder, annotations)
    for line in matched.told():
        warn(line)
    rows = choose_rows(annotations, matched, limit)
    read = _reader(annotations, images)
    if checkpoint is None:
        explain_all = partial(_from_truth, folder, annotations)
    else:
        explain_all = partial(_from_model, _model(checkpoint, folder, str(place)), annotations, read)
    check_room(out)
    missed = expanding = 0
    faults: list[tuple[str, str]] = []
    for row, explain in tqdm(explain_all(rows), total=len(rows), desc="pictures", unit="object", disable=None):
        shown = row
        try:
            explanation = explain()
            if row == rows[-1] and not expanding and (explanation is None or growth(explanation) < VISIBLY):
                other = _one_that_expands(explain_all(_others(annotations, matched, rows)))
                shown, explanation = other or (row, explanation)
            if explanation is None:
                missed += 1
                continue
            _save(out, annotations, shown, explanation, read(shown), draw_size)
            expanding += growth(explanation) >= VISIBLY
        except DiskError:
            raise
        except Exception as fault:
            faults.append((f"annotation {int(annotations.annotation_ids[shown])}", one_line(fault)))
    if faults and len(faults) == len(rows):
        raise DataError(
            f"none of {counted(len(rows), 'picture')} could be drawn; {faults[0][0]}: {faults[0][1]}", file=ann
        )
    drawn = len(rows) - missed - len(faults)
    told = f", {expanding} with a visible expansion, drawn at {draw_size} px a panel" if drawn else ""
    print(f"{counted(drawn, 'picture')}{told}: {out}" + (f" (objects not detected: {missed})" if missed else ""))
    if faults:
        warn(name_all("could not be drawn", faults))


def choose_rows(annotations: AnnotationSet, matched: ClassMatch, limit: int) -> list[int]:
    """Rows of objects hidden by 15 to 85 % whose class has a partner in the prior, at even steps; 0: no limit.

    Raises:
        DataError: there is no such object.
    """
    import numpy as np

    from amodal.errors import DataError
    from amodal.viz.priors import HIDDEN, choose_shown

    known = np.isin(annotations.labels, list(matched.label_of))
    usable = np.flatnonzero(known & ~annotations.crowd & annotations.amodal_known)
    rows: list[int] = usable[choose_shown(annotations.occlude_rate[usable], limit)].tolist()
    if not rows:
        ours, (low, high) = ", ".join(matched.ours.names[:5]), HIDDEN
        message = f"no object hidden by {100 * low:.0f} to {100 * high:.0f} % of a class of the prior ({ours})"
        raise DataError(message, file=annotations.path or None)
    return rows


def _others(annotations: AnnotationSet, matched: ClassMatch, rows: list[int]) -> list[int]:
    """Further rows like ``rows``, at even steps."""
    import numpy as np

    from amodal.viz.priors import choose_shown

    rest = np.array(sorted(set(choose_rows(annotations, matched, 0)) - set(rows)), dtype=np.int64)
    others: list[int] = rest[choose_shown(annotations.occlude_rate[rest], _TRIED)].tolist()
    return others


def _one_that_expands(explained: Explained) -> tuple[int, Explanation] | None:
    """The first object whose priors add visibly to what is visible of it."""
    from amodal.viz.priors import VISIBLY, growth

    for row, explain in explained:
        explanation = explain()
        if explanation is not None and growth(explanation) >= VISIBLY:
            return row, explanation
    return None


def _reader(annotations: AnnotationSet, images: Path | None) -> Reader:
    """Reads the image of a row; the last one is kept, since an image's objects follow each other."""
    from functools import lru_cache

    from amodal.data.images import read_image

    @lru_cache(maxsize=1)
    def image(index: int) -> NDArray[np.uint8] | None:
        if images is None:
            return None
        size = int(annotations.heights[index]), int(annotations.widths[index])
        number = int(annotations.image_ids[index])
        return read_image(images, annotations.file_names[index], size=size, image_id=number)

    return lambda row: image(int(annotations.image_index[row]))


def _model(checkpoint: str, prior: Prior, device: str) -> AmodalModel:
    """The checkpoint's model, asking this prior.

    Raises:
        ConfigError: the model uses no such prior, or one of other classes.
    """
    from amodal.checkpoint import prior_kind
    from amodal.errors import ConfigError
    from amodal.model import load
    from amodal.settings import EXPANSION_PRIOR

    model = load(checkpoint, device)
    if prior_kind(model.config.method) != EXPANSION_PRIOR:
        raise ConfigError(f"--checkpoint {checkpoint}: this model uses no expansion prior")
    prior.check_classes(model.class_names, model.category_ids)
    model.branch.prior = prior
    return model


def _from_truth(prior: Prior, annotations: AnnotationSet, rows: list[int]) -> Explained:
    from amodal.priors.explain import explain_objects
    from amodal.train.data import annotation_digest

    own = bool(prior.data) and prior.data == annotation_digest(annotations)
    for first in range(0, len(rows), _CHUNK):
        part = rows[first : first + _CHUNK]
        for row, found in zip(part, explain_objects(prior, annotations, part, exclude_own_image=own), strict=True):
            yield row, partial(_same, found)


def _same(found: Explanation) -> Explanation:
    return found


def _from_model(model: AmodalModel, annotations: AnnotationSet, read: Reader, rows: list[int]) -> Explained:
    """For each object the detection of its class whose amodal box is nearest; None where none is near."""
    from functools import lru_cache

    from amodal.pictures import explain_image
    from amodal.viz.priors import find_box

    firsts = {int(annotations.image_index[row]): row for row in reversed(rows)}

    @lru_cache(maxsize=1)  # An image's objects follow each other.
    def found_in(index: int) -> list[Explanation]:
        image = read(firsts[index])
        assert image is not None
        return explain_image(model, image)

    def explain(row: int) -> Explanation | None:
        name = annotations.class_names[annotations.labels[row]]
        return find_box(found_in(int(annotations.image_index[row])), name, annotations.amodal_boxes[row])

    for row in rows:
        yield row, partial(explain, row)


def _save(
    out: Path,
    annotations: AnnotationSet,
    row: int,
    explanation: Explanation,
    image: NDArray[np.uint8] | None,
    side: int,
) -> None:
    from PIL import Image

    from amodal.files import fitting_name, write_picture
    from amodal.viz.explanation import Truth
    from amodal.viz.prior_figure import figure
    from amodal.viz.priors import rows_of

    index = int(annotations.image_index[row])
    number, name = int(annotations.annotation_ids[row]), annotations.file_names[index]
    truth = Truth(annotations.amodal_boxes[row], annotations.amodal_mask(row), annotations.visible_mask(row))
    asked = "true visible mask" if explanation.score is None else "visible mask as the model sees it"
    page = figure(
        rows_of(explanation, image, truth, side=side),
        f"{explanation.name}, {100 * annotations.occlude_rate[row]:.0f} % hidden",
        subtitle=f"annotation {number} in {name}; the query is the {asked}",
        side=side,
    )
    file = fitting_name(f"{annotations.image_ids[index]}_{Path(name).stem}", f"_{number}.png", name)
    write_picture(out / file, Image.fromarray(page), drawn=True)
