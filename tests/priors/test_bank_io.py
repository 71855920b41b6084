"""``bank.safetensors``: what is written comes back, by memory map; what is damaged is refused with a reason."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from amodal.errors import WeightsError
from amodal.priors.bank import TENSORS, Bank, pack
from amodal.priors.bank_io import FILE, load_bank, save_bank
from amodal.priors.boxes import box_deltas


def filled(classes: int, slots: int, absent: tuple[int, ...] = ()) -> Bank:
    """A bank of random masks and boxes."""
    generator = torch.Generator().manual_seed(0)
    bank = Bank.empty(classes, slots)
    for name in ("visible", "amodal", "own"):
        masks = torch.rand(slots, 28, 28, generator=generator) > 0.5
        getattr(bank, name)[:] = pack(masks)
    bank.sizes[:] = torch.rand(classes, slots, 2, generator=generator) * 90 + 5
    low = torch.rand(classes, slots, 2, generator=generator) * 0.4
    bank.visible_boxes[:] = torch.cat([low, low + 0.5], dim=2)
    whole = torch.cat([torch.zeros_like(bank.sizes), bank.sizes], dim=2)
    bank.deltas[:] = box_deltas(bank.visible_boxes * bank.sizes.repeat(1, 1, 2), whole)
    bank.annotation_ids[:] = torch.arange(slots) + 2**40
    bank.image_ids[:] = torch.arange(slots) // 2
    bank.present[:] = True
    for label in absent:
        for name in TENSORS:
            getattr(bank, name)[label] = 0
    return bank


def test_a_saved_bank_comes_back_bit_equal(tmp_path: Path) -> None:
    bank = filled(4, 6, absent=(1,))
    save_bank(bank, tmp_path / "new" / "folder")
    back = load_bank(tmp_path / "new" / "folder")
    for name in TENSORS:
        assert torch.equal(getattr(back, name), getattr(bank, name)), name
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == [FILE]


def test_a_mapped_bank_survives_saving_over_its_own_file(tmp_path: Path) -> None:
    bank = filled(2, 5)
    save_bank(bank, tmp_path)
    mapped = load_bank(tmp_path)
    save_bank(mapped, tmp_path)
    save_bank(filled(1, 3), tmp_path)
    assert torch.equal(mapped.visible, bank.visible)
    assert load_bank(tmp_path).slots == 3


def test_twelve_hundred_classes_are_mapped_not_read(tmp_path: Path) -> None:
    bank = filled(1200, 40)
    save_bank(bank, tmp_path)
    begin = time.perf_counter()
    back = load_bank(tmp_path)
    assert time.perf_counter() - begin < 2
    # Only a file mapping shows what is written to the file afterwards: nothing was copied, and nothing read early.
    path = tmp_path / FILE
    data = path.read_bytes()
    row = bank.visible[700, 3].numpy().tobytes()
    with path.open("r+b") as file:
        file.seek(data.index(row))
        file.write(bytes(98))
    assert (back.visible == 0).all(dim=2).any()


def edited(folder: Path, change: Callable[[dict[str, Tensor]], None], kind: str | None = None) -> Path:
    """A bank's file with its tensors changed."""
    save_bank(filled(3, 4, absent=(2,)), folder)
    with safe_open(folder / FILE, framework="pt") as file:
        tensors = {name: file.get_tensor(name).clone() for name in TENSORS}
        metadata = file.metadata()
    change(tensors)
    if kind is not None:
        metadata["kind"] = kind
    (folder / FILE).unlink()
    save_file(tensors, folder / FILE, metadata=metadata)
    return folder


def put(name: str, value: Callable[[Tensor], Tensor]) -> Callable[[dict[str, Tensor]], None]:
    def change(tensors: dict[str, Tensor]) -> None:
        tensors[name] = value(tensors[name]).contiguous()

    return change


def spoil(name: str, label: int, slot: int, value: float) -> Callable[[dict[str, Tensor]], None]:
    def change(tensors: dict[str, Tensor]) -> None:
        tensors[name][label, slot] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("own"), "tensor 'own' is missing"),
        (lambda tensors: tensors.update(more=torch.zeros(1)), "tensor 'more' is unknown"),
        (put("deltas", lambda t: t[0]), r"'deltas' has shape \[4, 4\]"),
        (put("amodal", lambda t: t[:, :3]), r"'amodal' has shape \[3, 3, 98\], must be \[3, 4, 98\]"),
        (put("present", lambda t: t[:2]), r"'present' has shape \[2\], must be \[3\]"),
        (put("visible", lambda t: t.to(torch.int16)), "'visible' is torch.int16"),
        (put("present", lambda t: t.to(torch.uint8)), "'present' is torch.uint8"),
        (spoil("deltas", 1, 2, float("nan")), "class 1, slot 2: tensor 'deltas' is not finite"),
        (spoil("sizes", 0, 3, float("inf")), "class 0, slot 3: tensor 'sizes' is not finite"),
        (spoil("sizes", 1, 1, 0.0), "class 1, slot 1: an empty slot"),
        (spoil("sizes", 2, 0, 8.0), "class 2, slot 0: a filled slot"),
        (put("present", lambda t: ~t), "class 2, slot 0: an empty slot"),
        (spoil("deltas", 0, 1, 0.3), "class 0, slot 1: deltas that are not those of its boxes"),
        (spoil("visible_boxes", 0, 2, 0.5), "class 0, slot 2: deltas that are not those of its boxes"),  # no area: NaN
        (spoil("sizes", 0, 3, 1e6), "class 0, slot 3: a box of more than 65536 pixels"),
        (spoil("image_ids", 1, 0, -1), "class 1, slot 0: tensor 'image_ids' holds a negative id"),
        (put("visible_boxes", lambda t: t * 1.1), "class 0, slot 0: deltas that are not those of its boxes"),
    ],
)
def test_damaged_banks_are_refused(tmp_path: Path, change: Callable[[dict[str, Tensor]], None], message: str) -> None:
    with pytest.raises(WeightsError, match=message) as error:
        load_bank(edited(tmp_path, change))
    assert FILE in str(error.value)
    assert "\n" not in str(error.value)


def test_truncated_and_foreign_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such file"):
        load_bank(tmp_path)
    path = edited(tmp_path, lambda tensors: None, kind="something else") / FILE
    with pytest.raises(WeightsError, match="not the memory bank"):
        load_bank(tmp_path)
    save_bank(filled(2, 3), tmp_path)
    whole = path.read_bytes()
    for length in (0, 5, 200, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(WeightsError, match="no whole safetensors file"):
            load_bank(tmp_path)
    path.write_bytes(whole.replace(b'"version":"1"', b'"version":"2"'))
    with pytest.raises(WeightsError, match="version 2"):
        load_bank(tmp_path)


def test_flags_are_0_or_1(tmp_path: Path) -> None:
    """Other bytes are no flags, though PyTorch takes them for some."""
    save_bank(filled(2, 3), tmp_path)
    data = (tmp_path / FILE).read_bytes()
    with safe_open(tmp_path / FILE, framework="pt") as file:
        assert file.get_tensor("present").tolist() == [True, True]
    start = 8 + int.from_bytes(data[:8], "little")
    place = start + json.loads(data[8:start])["present"]["data_offsets"][0]
    (tmp_path / FILE).write_bytes(data[:place] + b"\x07" + data[place + 1 :])
    with pytest.raises(WeightsError, match="tensor 'present' holds other bytes than 0 and 1"):
        load_bank(tmp_path)


def test_a_tiny_visible_part_of_a_long_object_is_no_damage(tmp_path: Path) -> None:
    # Deltas of a thousand box widths: float32 boxes keep them only to four digits.
    bank = filled(1, 1)
    bank.sizes[:] = torch.tensor([3000.0, 500.0])
    seen = torch.tensor([2990.0, 10.0, 2991.0, 12.0])
    bank.visible_boxes[:] = seen / bank.sizes[0, 0].repeat(2)
    bank.deltas[:] = box_deltas(seen, torch.tensor([0.0, 0.0, 3000.0, 500.0]))
    save_bank(bank, tmp_path)
    assert torch.equal(load_bank(tmp_path).deltas, bank.deltas)
