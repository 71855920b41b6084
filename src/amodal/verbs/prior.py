"""``amodal prior fit``: an expansion prior from the masks of an annotation file, and how good it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from amodal.settings import PriorConfig
from amodal.verbs import File, Folder

if TYPE_CHECKING:
    from torch import Tensor

    from amodal.data.store import AnnotationSet
    from amodal.prediction import Prediction
    from amodal.priors.prior import Prior
    from amodal.priors.quality import Judged, Row


REPORT = "report.json"


def fit(
    ann: File,
    out: Folder,
    *,
    val: File | None = None,
    checkpoint: str | None = None,
    images: Folder | None = None,
    device: str = "auto",
    schema: str = "auto",
    **settings: Annotated[Any, PriorConfig],
) -> None:
    """Fit encoder E and flow solver S^f, build the memory bank, and tell how good they are before any training.

    Needs masks only, no pictures. Writes the folder OUT (prior.yaml, encoder, flow and bank as safetensors,
    report.json), which "amodal train ... --prior OUT" takes, and prints the report: reconstruction and flow on held-out
    objects of which more than 15 % is hidden, slots of each class, and what each kind of retrieval gives for them.

    Example:
        amodal prior fit annotations.json runs/prior

    Args:
        ann: annotation file (JSON) in any known schema.
        out: folder for the prior; an earlier prior in it is replaced.
        val: annotation file to judge on; without it a tenth of the images is kept from E and S^f for that.
        checkpoint: trained detector whose own boxes are compared with the prior's; needs --images.
        images: folder of the pictures of the judged file.
        device: where the checkpoint runs: "cpu", "cuda", ...; "auto": the first GPU, or else the CPU.
        schema: schema of the files; "auto" recognises it by the keys of its annotations.
        settings: how it is fitted.
    """
    from amodal.data.reader import load
    from amodal.data.told import tell
    from amodal.errors import ConfigError
    from amodal.files import check_own, check_room
    from amodal.locks import hold
    from amodal.priors.prior_io import FILES, room

    if checkpoint is not None and images is None:
        raise ConfigError("--checkpoint needs --images, the folder of the pictures of the judged file")
    check_own(out, (*FILES, REPORT), "a prior")
    try:
        config = PriorConfig(**settings)
    except ConfigError as error:
        key, _, rule = str(error).partition(" ")
        raise ConfigError(f"--{key.replace('_', '-')} {rule}") from None
    annotations = load(ann, schema=schema)
    other = None if val is None else load(val, schema=schema)
    for read in (annotations, other):
        if read is not None:
            tell(read)
    with hold(out, beside=True):
        check_room(out.parent, room(config, len(annotations.class_names)))
        _fit(annotations, other, out, config, checkpoint, images, device)


def _fit(
    annotations: AnnotationSet,
    other: AnnotationSet | None,
    out: Path,
    config: PriorConfig,
    checkpoint: str | None,
    images: Path | None,
    device: str,
) -> None:
    from amodal.files import replace_folder, write_json
    from amodal.priors.fit import HELD_OUT, fit_prior
    from amodal.priors.prior_io import save_prior
    from amodal.priors.quality import judged_file, judged_objects
    from amodal.priors.report import make_report, report_lines
    from amodal.train.data import annotation_digest

    share = HELD_OUT if other is None else 0.0
    digest = annotation_digest(annotations)  # "prior show" looks whether it is on the file of the bank.
    prior, fitted = fit_prior(annotations, config, held_out=share, data=digest, progress=True)
    if other is None:
        judged = judged_objects(annotations, fitted.instances.take(fitted.held_out), exclude=True, seed=config.seed)
    else:
        judged = judged_file(other, prior, seed=config.seed)
    rows = [] if checkpoint is None or images is None else _detector_rows(prior, judged, checkpoint, images, device)
    report = make_report(prior, fitted, judged, rows, progress=True)
    with replace_folder(out) as folder:
        save_prior(prior, folder)
        write_json(folder / REPORT, report, indent=1)
    print("\n".join(report_lines(report, fitted.seconds)))
    print(f"wrote {out}")


def _detector_rows(prior: Prior, judged: Judged, checkpoint: str, images: Path, device: str) -> list[Row]:
    from amodal.model import load
    from amodal.priors.quality import detector_rows
    from amodal.priors.yardstick import detector_boxes

    model = load(checkpoint, device)

    def detect(image: Tensor) -> Prediction:
        return model.detect([image.to(model.device)])[0]

    boxes, found = detector_boxes(detect, judged, images, progress=True)
    return detector_rows(prior, judged, boxes, found)
