"""The run folder before anything is written into it: whose it is, and whether it has room for the run."""

from __future__ import annotations

from pathlib import Path

from amodal.checkpoint import CARD, CONFIG, PRIOR, WEIGHTS
from amodal.errors import DataError
from amodal.files import check_own, check_room
from amodal.models.rcnn import AmodalRCNN
from amodal.train.state import OPTIMIZER, STATE

_CHECKPOINT = (CONFIG, WEIGHTS, CARD, PRIOR)
LOG, EVALS = "log.csv", "eval.csv"
"""Tables of a run folder, a row an interval of training and a row a validation."""
TRACKED = "tensorboard"
"""Folder that every run makes before it writes any other, and hardly anybody else."""


def check_run_folder(out: Path) -> None:
    """Refuses a run folder in which files would be replaced that no run wrote.

    Raises:
        DataError: names one.
    """
    check_own(out / "best", _CHECKPOINT, "a checkpoint")
    check_own(out / "last", (*_CHECKPOINT, OPTIMIZER, STATE), "a checkpoint")
    if (out / TRACKED).is_dir() or (out / "last" / STATE).is_file():
        return
    for name in (CONFIG, LOG, EVALS):
        if (out / name).exists():
            raise DataError("is there already, and no run wrote it; choose another --out", file=out / name)


def check_run_room(out: Path, model: AmodalRCNN) -> None:
    """Refuses a disk that cannot take the checkpoints of a run: last/ and best/, and the next last/ beside them.

    Raises:
        DiskError: names the folder.
    """
    weights = sum(value.nbytes for value in model.state_dict().values())
    trained = sum(value.nbytes for value in model.parameters() if value.requires_grad)
    there = sum(path.stat().st_size for name in ("last", "best") for path in (out / name).rglob("*") if path.is_file())
    check_room(out, max(3 * weights + 2 * trained - there, weights + trained))
