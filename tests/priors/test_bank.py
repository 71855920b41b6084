"""The memory bank: K_s slots a class, exact search, values of slots."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from amodal.priors.bank import Bank, pack, unpack
from amodal.priors.bank_build import medoids
from amodal.priors.boxes import box_deltas, expand_boxes
from amodal.priors.types import PriorInstances, Retrieved

FIELD = torch.randn(784, 24, generator=torch.Generator().manual_seed(9))


def encode(masks: Tensor, sizes: Tensor) -> Tensor:
    """A stand-in for E: a random projection, and the log aspect ratio."""
    return torch.cat([masks.float().flatten(1) @ FIELD, (sizes[:, :1] / sizes[:, 1:]).log()], dim=1)


def objects(labels: list[int], seed: int = 0) -> PriorInstances:
    """Rectangles in the grid of the amodal frame, of which a lower part is hidden; two objects an image."""
    count = len(labels)
    generator = torch.Generator().manual_seed(seed)
    line = torch.arange(28)
    inset = torch.randint(0, 6, (count, 1, 1), generator=generator)
    amodal = (line >= inset) & (line[:, None] >= 0) & torch.ones(count, 28, 28, dtype=torch.bool)
    cut = torch.randint(6, 28, (count, 1, 1), generator=generator)
    low, side = torch.rand(count, 2, generator=generator) * 90, torch.rand(count, 2, generator=generator) * 70 + 8
    boxes = torch.cat([low, low + side], dim=1)
    seen = boxes.clone()
    seen[:, 0] = boxes[:, 0] + side[:, 0] * inset[:, 0, 0] / 28
    seen[:, 3] = boxes[:, 1] + side[:, 1] * cut[:, 0, 0] / 28
    rows = torch.arange(count)
    return PriorInstances(
        amodal=amodal,
        visible=amodal & (line[:, None] < cut),
        own=torch.ones_like(amodal),
        boxes=boxes,
        visible_boxes=seen,
        labels=torch.tensor(labels),
        occlude_rate=1 - cut[:, 0, 0] / 28,
        annotation_ids=1000 + rows,
        image_ids=50 + rows // 2,
    )


def keyed(classes: int, slots: int, dim: int, seed: int = 0) -> tuple[Bank, list[Tensor]]:
    """A bank with random values, and random keys."""
    generator = torch.Generator().manual_seed(seed)
    bank = Bank.empty(classes, slots)
    bank.present[:] = True
    bank.amodal[:] = torch.randint(0, 256, bank.amodal.shape, generator=generator)
    bank.deltas[:] = torch.randn(bank.deltas.shape, generator=generator)
    bank.annotation_ids[:] = torch.randint(0, 40, (classes, slots), generator=generator)
    bank.image_ids[:] = bank.annotation_ids // 4
    return bank, list(torch.randn(classes, slots, dim, generator=generator))


def brute_force(
    bank: Bank, codes: Tensor, labels: Tensor, k: int, keys: list[Tensor], blocked: Tensor | None = None
) -> tuple[list[list[int]], list[list[float]]]:
    """One pair at a time, ordered by (distance, slot)."""
    slots, distances = [], []
    for row, label in enumerate(labels.tolist()):
        pairs = []
        for slot in range(bank.slots):
            distance = float((codes[row] - keys[label][slot]).square().sum(dtype=torch.float64).sqrt().float())
            if blocked is None or not blocked[row, slot]:
                pairs.append((distance, slot))
        pairs = (sorted(pairs) + [(float("inf"), 0)] * k)[:k]
        slots.append([slot for _, slot in pairs])
        distances.append([distance for distance, _ in pairs])
    return slots, distances


def check(bank: Bank, found: Retrieved, expected: tuple[list[list[int]], list[list[float]]]) -> None:
    assert found.slots.tolist() == expected[0]
    torch.testing.assert_close(found.distance, torch.tensor(expected[1]), rtol=1e-6, atol=0)


def test_search_equals_brute_force() -> None:
    bank, keys = keyed(5, 60, 16)
    labels = torch.tensor([3, 0, 3, 4, 1, 0, 0, 3])
    codes = torch.randn(8, 16, generator=torch.Generator().manual_seed(1))
    found = bank.search(codes, labels, 7, keys=keys.__getitem__)
    check(bank, found, brute_force(bank, codes, labels, 7, keys))
    for row, label in enumerate(labels.tolist()):
        for place, slot in enumerate(found.slots[row].tolist()):
            assert torch.equal(found.deltas[row, place], bank.deltas[label, slot])
            assert torch.equal(found.amodal[row, place], unpack(bank.amodal[label, slot]))
    assert found.present.all()


def test_ties_go_by_slot_among_many_identical_keys() -> None:
    bank, keys = keyed(2, 90, 12)
    keys[0][:] = keys[0][:1]
    # Long keys, whose products round by far more than the distances differ.
    keys[1][:] = keys[1][:1] * 3000
    keys[1][[70, 33]] += 1e-3
    labels = torch.tensor([0, 1, 1])
    codes = torch.stack([keys[0][0] + 1, keys[1][0], keys[1][70]])
    found = bank.search(codes, labels, 5, keys=keys.__getitem__)
    check(bank, found, brute_force(bank, codes, labels, 5, keys))
    assert found.slots[0].tolist() == [0, 1, 2, 3, 4]
    assert found.slots[2].tolist()[:2] == [33, 70]


def test_the_own_source_is_left_out() -> None:
    bank, keys = keyed(3, 50, 8)
    labels, rows = torch.tensor([2, 0, 1, 2]), torch.arange(4)
    codes = torch.stack([keys[label][4] for label in labels.tolist()])
    own = bank.annotation_ids[labels, 4]
    found = bank.search(codes, labels, 6, keys=keys.__getitem__, exclude_annotations=own)
    blocked = bank.annotation_ids[labels] == own[:, None]
    assert blocked[rows, 4].all()
    check(bank, found, brute_force(bank, codes, labels, 6, keys, blocked))
    by_image = bank.search(codes, labels, 6, keys=keys.__getitem__, exclude_images=own // 4)
    wider = bank.image_ids[labels] == (own // 4)[:, None]
    assert (wider.sum(dim=1) > blocked.sum(dim=1)).any()
    check(bank, by_image, brute_force(bank, codes, labels, 6, keys, wider))


def test_what_cannot_be_found_is_infinitely_far_and_empty() -> None:
    bank, keys = keyed(3, 4, 8)
    bank.present[1] = False
    bank.annotation_ids[:] = torch.tensor([5, 5, 5, 6])
    asked = []

    def read(label: int) -> Tensor:
        asked.append(label)
        return keys[label]

    labels = torch.tensor([1, 0, 2])
    codes = torch.randn(3, 8, generator=torch.Generator().manual_seed(3))
    found = bank.search(codes, labels, 6, keys=read, exclude_annotations=torch.tensor([5, 5, -1]))
    assert asked == [0, 2]
    assert found.present.tolist() == [False, True, True]
    assert found.distance.isinf().sum(dim=1).tolist() == [6, 5, 2]
    assert found.slots[1].tolist() == [3, 0, 0, 0, 0, 0]
    void = found.distance.isinf()
    assert not found.deltas[void].any()
    assert not found.amodal[void].any()
    assert found.amodal[~void].flatten(1).any(dim=1).all()
    assert sorted(found.slots[2, :4].tolist()) == [0, 1, 2, 3]


def test_nothing_to_search() -> None:
    bank, keys = keyed(2, 9, 8)
    found = bank.search(torch.empty(0, 8), torch.empty(0, dtype=torch.int64), 3, keys=keys.__getitem__)
    assert found.slots.shape == (0, 3)
    assert found.amodal.shape == (0, 3, 28, 28)


def test_new_keys_of_a_class_are_noticed() -> None:
    bank, keys = keyed(1, 30, 8)
    code, label = torch.zeros(1, 8), torch.tensor([0])
    bank.search(code, label, 3, keys=keys.__getitem__)
    other = [keys[0] * torch.linspace(9, 0.1, 30)[:, None]]
    check(bank, bank.search(code, label, 3, keys=other.__getitem__), brute_force(bank, code, label, 3, other))


@pytest.mark.parametrize("key_frame", ["amodal", "visible"])
def test_every_present_class_has_exactly_k_s_slots_of_its_own_objects(key_frame: str) -> None:
    labels = [0] * 30 + [2] * 3 + [3] * 12
    data = objects(labels)
    bank = Bank.build(data, 5, encode, 12, rotate=False, seed=0, key_frame=key_frame)  # type: ignore[arg-type]
    assert (bank.num_classes, bank.slots) == (5, 12)
    assert bank.present.tolist() == [True, False, True, True, False]
    for label in (0, 2, 3):
        sources = bank.annotation_ids[label] - 1000
        assert set(data.labels[sources].tolist()) == {label}
        assert torch.equal(bank.image_ids[label], data.image_ids[sources])
        assert (bank.sizes[label] > 0).all()
        for packed in (bank.visible, bank.amodal, bank.own):
            assert unpack(packed[label]).flatten(1).any(dim=1).all()
    # Clusters: different real objects. Exactly K_s: all of them, in order. Too few: each is used four times.
    assert len(bank.annotation_ids[0].unique()) == 12
    assert bank.annotation_ids[3].tolist() == list(range(1033, 1045))
    assert bank.annotation_ids[2].bincount()[1030:].tolist() == [4, 4, 4]
    assert bank.annotation_ids[2, :3].tolist() == [1030, 1031, 1032]
    for name in ("visible", "sizes", "deltas", "annotation_ids"):
        assert not getattr(bank, name)[[1, 4]].any()


def test_a_slot_holds_its_object() -> None:
    data = objects([1, 0, 1])
    bank = Bank.build(data, 2, encode, 2, rotate=False, seed=0)
    for slot, row in enumerate((0, 2)):
        for name in ("visible", "amodal", "own"):
            assert torch.equal(unpack(getattr(bank, name)[1, slot]) > 0, getattr(data, name)[row])
        box, seen = data.boxes[row], data.visible_boxes[row]
        torch.testing.assert_close(bank.sizes[1, slot], box[2:] - box[:2])
        torch.testing.assert_close(
            bank.visible_boxes[1, slot] * (box[2:] - box[:2]).repeat(2) + box[:2].repeat(2), seen
        )
        torch.testing.assert_close(expand_boxes(bank.deltas[1, slot], seen), box, atol=1e-4, rtol=0)
        masks, sizes = bank.key_inputs(1, "amodal")
        assert torch.equal(masks[slot], data.visible[row])
        torch.testing.assert_close(sizes[slot], seen[2:] - seen[:2])
        assert torch.equal(bank.key_inputs(1, "visible")[0][slot], data.own[row])
    deltas, amodal = bank.read(torch.tensor([1]), torch.tensor([[1, 0]]))
    torch.testing.assert_close(deltas[0], box_deltas(data.visible_boxes, data.boxes)[[2, 0]])
    assert torch.equal(amodal[0] > 0, data.amodal[[2, 0]])


def test_augmented_slots_keep_boxes_and_deltas_together() -> None:
    bank = Bank.build(objects([0, 0]), 1, encode, 40, rotate=True, seed=4)
    side = bank.sizes[0].repeat(1, 2)
    whole = torch.cat([torch.zeros(40, 2), bank.sizes[0]], dim=1)
    expanded = expand_boxes(bank.deltas[0], bank.visible_boxes[0] * side)
    torch.testing.assert_close(expanded, whole, atol=1e-3, rtol=0)
    assert len(bank.visible[0].unique(dim=0)) == 40


def test_the_seed_decides_what_is_kept() -> None:
    data = objects([0] * 60 + [1] * 2)
    first, again, other = (Bank.build(data, 2, encode, 15, rotate=False, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.annotation_ids, again.annotation_ids)
    assert torch.equal(first.visible, again.visible)
    assert not torch.equal(first.visible[1], other.visible[1])


def test_medoids_are_the_members_nearest_to_the_centres() -> None:
    # Three far groups on a line: centres 1, 101 and 205; nearest members 1, 101 and 204.
    points = torch.tensor([0.0, 1, 2, 100, 101, 102, 200, 204, 211])[:, None].repeat(1, 3)
    assert any(medoids(points, 3, seed).tolist() == [1, 4, 7] for seed in range(5))


def test_clusters_without_members_are_refilled_by_the_farthest_rows() -> None:
    # Two different points only: no more than two clusters can have members, yet five different rows are due.
    points = torch.tensor([[0.0, 0], [0, 0], [0, 0], [0, 0], [5, 5], [5, 5], [5, 5]])
    rows = medoids(points, 5, 0).tolist()
    assert len(set(rows)) == 5
    assert {tuple(points[row].tolist()) for row in rows} == {(0.0, 0.0), (5.0, 5.0)}


def test_many_objects_are_clustered_in_mini_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("amodal.priors.bank_build._WHOLE", 100)
    points = torch.randn(2000, 6, generator=torch.Generator().manual_seed(0))
    rows = medoids(points, 40, 0)
    assert len(rows.unique()) == 40
    drawn = torch.randperm(2000, generator=torch.Generator().manual_seed(1))[:40]
    nearest, plain = (torch.cdist(points, points[r]).amin(dim=1).mean() for r in (rows, drawn))
    assert nearest < plain


def test_packing() -> None:
    masks = torch.rand(3, 2, 28, 28, generator=torch.Generator().manual_seed(0)) > 0.5
    assert torch.equal(unpack(pack(masks)), masks.float())
    one = torch.zeros(28, 28, dtype=torch.bool)
    one[0, 1] = True
    assert pack(one)[0] == 0b01000000
