"""``bank.safetensors``: the same file format for seven classes and for 1,200, read by memory map."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from amodal.bounds import SIDE
from amodal.errors import WeightsError, counted, printable, shown
from amodal.files import open_weights, write_tensors
from amodal.priors.bank import TENSORS, Bank, layout
from amodal.priors.boxes import box_deltas

FILE = "bank.safetensors"
_KIND, _VERSION = "amodal expansion prior bank", "1"
_TOLERANCE = 1e-3  # of deltas recomputed from the stored boxes, relative where they are large


def save_bank(bank: Bank, folder: str | Path) -> None:
    """Writes ``bank.safetensors`` into ``folder``, made where missing.

    The file is replaced in one step: a bank that was loaded from this very file still reads the old one.
    """
    folder = Path(folder)
    tensors = {name: getattr(bank, name).cpu().contiguous() for name in TENSORS}
    write_tensors(folder / FILE, tensors, {"kind": _KIND, "version": _VERSION})


def load_bank(folder: str | Path) -> Bank:
    """The bank of ``folder``, on the CPU. Masks are read when they are asked for.

    Raises:
        WeightsError: ``bank.safetensors`` is missing, truncated, of another kind or a newer release; a tensor is
            missing, unknown, or has another shape or dtype; a box or delta is not finite, the deltas are not those of
            the boxes, or slots of a present class are empty (of an absent one: filled).
    """
    path = Path(folder) / FILE
    with open_weights(path) as file:
        _check_kind(file.metadata() or {}, path)
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
    _check_layout(tensors, path)
    bank = Bank(**tensors)
    _check_values(bank, path)
    return bank


def _check_kind(metadata: dict[str, str], path: Path) -> None:
    if metadata.get("kind") != _KIND:
        raise WeightsError(f"{path}: not the memory bank of a prior")
    if metadata.get("version") != _VERSION:
        version = printable(metadata.get("version", ""))
        raise WeightsError(f"{path}: version {version:.40} of the format, this release reads {_VERSION}")


def _check_layout(tensors: dict[str, Tensor], path: Path) -> None:
    missing = [name for name in TENSORS if name not in tensors]
    surplus = sorted(set(tensors) - set(TENSORS))
    if missing or surplus:
        what = f"tensor {shown(missing[0])} is missing" if missing else f"tensor {shown(surplus[0])} is unknown"
        raise WeightsError(f"{path}: {what}")
    shape = tensors["deltas"].shape
    if len(shape) != 3 or 0 in shape:
        raise WeightsError(f"{path}: tensor 'deltas' has shape {list(shape)}, must be [classes, slots, 4]")
    for name, (expected, dtype) in layout(shape[0], shape[1]).items():
        tensor = tensors[name]
        if tensor.dtype != dtype:
            raise WeightsError(f"{path}: tensor {name!r} is {tensor.dtype}, must be {dtype}")
        if tensor.shape != expected:
            raise WeightsError(
                f"{path}: tensor {name!r} has shape {list(tensor.shape)}, must be {list(expected)} "
                f"for {counted(shape[0], 'class')} and {counted(shape[1], 'slot')}"
            )


def _check_values(bank: Bank, path: Path) -> None:
    """Refuses what the small tensors show; the masks stay unread."""
    for name in ("deltas", "sizes", "visible_boxes"):
        _refuse(~getattr(bank, name).isfinite().flatten(2).all(dim=2), f"tensor {name!r} is not finite", path)
    flags = bank.present.view(torch.uint8)  # Bytes of a file may be more than 0 and 1.
    if bool((flags > 1).any()):
        raise WeightsError(f"{path}: tensor 'present' holds other bytes than 0 and 1")
    for name in ("annotation_ids", "image_ids"):
        _refuse(getattr(bank, name) < 0, f"tensor {name!r} holds a negative id", path)
    _refuse((bank.sizes > SIDE).any(dim=2), f"a box of more than {SIDE} pixels", path)
    filled = (bank.sizes > 0).all(dim=2)
    _refuse(~filled & bank.present[:, None], "an empty slot, though the class is marked as present", path)
    _refuse(bank.sizes.any(dim=2) & ~bank.present[:, None], "a filled slot, though the class is marked as absent", path)
    side = bank.sizes.repeat(1, 1, 2)
    whole = torch.cat([torch.zeros_like(bank.sizes), bank.sizes], dim=2)
    expected = box_deltas(bank.visible_boxes * side, whole)
    # What is not right, so that a box without area, whose deltas are NaN, is not right either.
    right = ((bank.deltas - expected).abs() <= _TOLERANCE * (1 + expected.abs())).all(dim=2)
    _refuse(~right & bank.present[:, None], "deltas that are not those of its boxes", path)


def _refuse(wrong: Tensor, what: str, path: Path) -> None:
    """Raises for the first True slot of bool [C, Ks]."""
    if bool(wrong.any()):
        label, slot = wrong.nonzero()[0].tolist()
        raise WeightsError(f"{path}: class {label}, slot {slot}: {what}")
