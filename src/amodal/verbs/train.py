"""``amodal train``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

SHOWN = (
    "data.train",
    "data.train_images",
    "data.val",
    "data.val_images",
    "out",
    "steps",
    "batch_size",
    "eval_every",
    "optim.lr",
    "seed",
    "precision",
    "prior",
    "model.system",
    "model.backbone.weights",
    "model.transform.min_size",
    "data.workers",
)
"""The settings that the short help shows."""


def train(
    config: str,
    *,
    resume: Literal["auto"] | None = None,
    init: str | None = None,
    **settings: Annotated[Any, SHOWN],
) -> int:
    """Train a system, or fine-tune a checkpoint on other classes.

    Writes a run folder: config.yaml, log.csv, eval.csv, TensorBoard files, last/ (to resume from), best/ (highest
    amodal mask AP on --data.val; the newest weights while it is undefined) and sample pictures. Classes of the two
    files are matched by name. Many devices: "accelerate launch -m amodal train CONFIG ...".

    Example:
        amodal train mask_rcnn/nano --data.train train.json --data.train_images train --out runs/mine

    Args:
        config: YAML file with differences from the defaults, or from another file that it names as its base; or the
            name of one that comes with the package, such as mask_rcnn/nano ("amodal configs" lists them).
        resume: "auto" continues RUN/last with the result of an unkilled run, or starts where there is none. More
            --steps than it was begun with make the run longer.
        init: checkpoint whose weights start the run: a folder (of a run, too), "nano-scenes-v1", which ships with the
            package, or a Hugging Face id; classes are matched by name, new ones start afresh.
        settings: any setting of the configuration, which wins over the file.
    """
    from amodal.config_io import load_config

    loaded = load_config(config, settings)
    from amodal.train.run import train_run

    train_run(loaded, resume=resume == "auto", init=init)
    return 0
