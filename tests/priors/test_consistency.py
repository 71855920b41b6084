"""The consistency score on drawn examples with scores worked out by hand, and re-ranking with it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from amodal.frames import crop_masks
from amodal.priors.consistency import context_boxes, inconsistency, rerank, rerank_order
from amodal.priors.types import Retrieved

INF = float("inf")


def _disc(size: int = 28) -> Tensor:
    """bool [size, size], the disc that fills its box."""
    centre = (torch.arange(size) + 0.5) / size - 0.5
    return centre[:, None] ** 2 + centre**2 <= 0.25


def _half_hidden_disc() -> dict[str, Tensor]:
    """A disc of 56 px at (20, 20), its right half under a square; the visible half in its own box."""
    box = torch.tensor([[20.0, 20.0, 76.0, 76.0]])
    visible = torch.zeros(28, 28)
    visible[:, :14] = _disc()[:, :14].float()
    square = torch.zeros(1, 100, 120, dtype=torch.bool)
    square[:, 10:90, 48:110] = True
    context = torch.tensor([[20.0, 20.0, 104.0, 76.0]])
    return {
        "visible": visible[None],
        "visible_frames": box,
        "others": crop_masks(square, torch.tensor([0]), context, 56),
        "context": context,
    }


def _score(scene: dict[str, Tensor], amodal: Tensor, boxes: list[list[float]]) -> list[float]:
    found = inconsistency(amodal=amodal[None].float(), boxes=torch.tensor([boxes]), **scene)
    return [round(value, 4) for value in found[0].tolist()]


def test_a_disc_half_hidden_by_a_square() -> None:
    scene, disc = _half_hidden_disc(), _disc()
    only_left = disc & (torch.arange(28) < 14)
    rectangle = torch.ones(28, 28, dtype=torch.bool)
    masks = torch.stack([disc, only_left, rectangle, disc & False])
    whole = [20.0, 20.0, 76.0, 76.0]
    found = _score(scene, masks, [whole] * 4)
    cells = int(disc.sum())
    # The corners left of the square are explained by nothing; the half disc alone is consistent as well.
    corners = 28 * 14 - cells / 2
    assert found == [0.0, 0.0, round(corners / 784, 4), INF]


def test_each_term_by_hand() -> None:
    scene = _half_hidden_disc()
    full = torch.ones(1, 28, 28)
    cells = int(_disc().sum())
    # A square candidate on the right half covers nothing of V: 0 / 784 outside, all of V missed.
    assert _score(scene, full, [[48.0, 20.0, 76.0, 76.0]]) == [1.0]
    # One in the background at the left, 14 of its 28 columns over the left half of the disc's box. Those hold half
    # the disc; the rest of the candidate lies on nothing.
    assert _score(scene, full, [[-8.0, 20.0, 48.0, 76.0]]) == [round(1 - cells / 2 / 784, 4)]
    # The upper half of the disc's box: two rows of candidate cells in each row of V's. Unexplained is the corner at the
    # left, 14 x 14 cells of V without a quarter disc; the lower half of V is missed.
    upper = (2 * (14 * 14 - cells / 4)) / 784 + 0.5
    assert _score(scene, full, [[20.0, 20.0, 76.0, 48.0]]) == [round(upper, 4)]


def test_without_evidence_what_sticks_out_is_inconsistent() -> None:
    scene = _half_hidden_disc()
    scene["others"] = torch.zeros_like(scene["others"])
    assert _score(scene, _disc()[None], [[20.0, 20.0, 76.0, 76.0]]) == [0.5]


def test_an_empty_visible_mask_says_nothing() -> None:
    scene = _half_hidden_disc()
    scene["visible"] = torch.zeros(1, 28, 28)
    boxes = [[20.0, 20.0, 76.0, 76.0], [0.0, 0.0, 10.0, 10.0], [5.0, 5.0, 5.0, 5.0]]
    masks = torch.stack([_disc(), _disc(), torch.zeros(28, 28, dtype=torch.bool)])
    assert _score(scene, masks, boxes) == [0.0, 0.0, INF]


def test_boxes_without_area_give_finite_scores() -> None:
    scene = _half_hidden_disc()
    assert _score(scene, _disc()[None], [[30.0, 30.0, 30.0, 60.0]]) == pytest.approx([1.0], abs=1.0)
    scene["visible_frames"] = torch.tensor([[20.0, 20.0, 20.0, 76.0]])
    scene["context"] = torch.tensor([[20.0, 20.0, 20.0, 20.0]])
    assert all(0 <= value <= 2 for value in _score(scene, _disc()[None], [[20.0, 20.0, 76.0, 76.0]]))


def test_against_masks_painted_in_the_image() -> None:
    """Random masks with whole-pixel cells, none of whose centres lies on another's edge."""
    generator = torch.Generator().manual_seed(0)
    edges = torch.randint(0, 4, (2, 6, 4), generator=generator)
    boxes = torch.stack([edges[..., 0], edges[..., 1], edges[..., 0] + 4, edges[..., 1] + 4], dim=-1).float() * 28 + 1
    amodal = (torch.rand(2, 6, 28, 28, generator=generator) > 0.4).float()
    visible = (torch.rand(2, 28, 28, generator=generator) > 0.5).float()
    frames = torch.tensor([[56.0, 28.0, 168.0, 140.0], [0.0, 0.0, 224.0, 224.0]])
    context = torch.tensor([[0.0, 0.0, 224.0, 224.0]]).expand(2, 4)
    others = (torch.rand(2, 56, 56, generator=generator) > 0.6).float()
    found = inconsistency(visible, frames, amodal, boxes, others, context)
    for r in range(2):
        canvas = _paint(others[r], context[r])
        seen = _paint(visible[r], frames[r])
        for m in range(6):
            x = (boxes[r, m, 0] + 4 * (torch.arange(28) + 0.5)).long()
            y = (boxes[r, m, 1] + 4 * (torch.arange(28) + 0.5)).long()
            free = amodal[r, m].bool() & ~(canvas | seen)[y][:, x]
            pasted = _paint(amodal[r, m], boxes[r, m])
            step = (frames[r, 2] - frames[r, 0]) / 28
            rows = (frames[r, 1] + step * (torch.arange(28) + 0.5)).long()
            columns = (frames[r, 0] + step * (torch.arange(28) + 0.5)).long()
            missed = visible[r].bool() & ~pasted[rows][:, columns]
            expected = free.sum() / amodal[r, m].sum() + missed.sum() / visible[r].sum()
            assert found[r, m] == pytest.approx(float(expected), abs=1e-6)


def _paint(mask: Tensor, box: Tensor) -> Tensor:
    """bool [232, 232]: every cell filled as a whole; the edges of cells are whole pixels."""
    canvas = torch.zeros(232, 232, dtype=torch.bool)
    step = int((box[2] - box[0]) / len(mask))
    x, y = int(box[0]), int(box[1])
    big = mask.bool().repeat_interleave(step, 0).repeat_interleave(step, 1)
    canvas[y : y + len(big), x : x + len(big)] = big
    return canvas


def test_parts_of_a_big_batch_are_judged_alike() -> None:
    """More masks than are judged at a time: every object has the score that it has alone."""
    scene = {name: value.repeat(90, *[1] * (value.dim() - 1)) for name, value in _half_hidden_disc().items()}
    left = torch.linspace(-30.0, 30.0, 90)[:, None] + torch.zeros(20)
    boxes = torch.stack([left, left * 0 + 20, left + 60, left * 0 + 70], dim=-1)
    amodal = _disc().float().expand(90, 20, 28, 28)
    found = inconsistency(amodal=amodal, boxes=boxes, **scene)
    for row in (0, 44, 66, 67, 89):
        alone = {name: value[row : row + 1] for name, value in scene.items()}
        assert torch.equal(
            found[row : row + 1], inconsistency(amodal=amodal[row : row + 1], boxes=boxes[row : row + 1], **alone)
        )
    assert len(found[:, 0].unique()) > 10


def test_the_context_holds_candidates_and_visible_box() -> None:
    boxes = torch.tensor([[[0.0, 5.0, 10.0, 20.0], [2.0, 1.0, 8.0, 30.0]]])
    assert context_boxes(boxes, torch.tensor([[4.0, 4.0, 50.0, 6.0]])).tolist() == [[0.0, 1.0, 50.0, 30.0]]


def _found(distance: list[list[float]]) -> Retrieved:
    shape = (len(distance), len(distance[0]))
    slots = torch.arange(shape[1]).expand(shape)
    deltas, amodal = slots[..., None].expand(*shape, 4).float(), slots[..., None, None].expand(*shape, 28, 28).float()
    return Retrieved(slots, torch.tensor(distance), deltas, amodal, torch.ones(shape[0], dtype=torch.bool))


def test_weight_zero_is_plain_retrieval() -> None:
    found = _found([[1.0, 2.0, 3.0, 4.0]])
    score = torch.tensor([[2.0, INF, 0.0, 0.0]])
    assert rerank(found, score, 0.0, 2).slots.tolist() == [[0, 1]]


def test_cost_is_relative_distance_plus_weighted_inconsistency() -> None:
    # Relative distances 0.4, 0.8, 1.2, 1.6; with weight 1 the costs are 1.4, 0.8, 1.3, 1.7.
    distance, score = torch.tensor([[1.0, 2.0, 3.0, 4.0]]), torch.tensor([[1.0, 0.0, 0.1, 0.1]])
    assert rerank_order(distance, score, 1.0, 2).tolist() == [[1, 2]]
    # With weight 0.5: 0.9, 0.8, 1.25, 1.65.
    assert rerank_order(distance, score, 0.5, 2).tolist() == [[0, 1]]
    # The unit of the distance does not matter.
    assert rerank_order(1000 * distance, score, 1.0, 2).tolist() == [[1, 2]]


def test_kept_candidates_stay_in_the_order_of_distance() -> None:
    found = rerank(_found([[1.0, 2.0, 3.0, 4.0]]), torch.tensor([[2.0, 0.5, 2.0, 0.0]]), 100.0, 2)
    assert found.slots.tolist() == [[1, 3]]
    assert found.distance.tolist() == [[2.0, 4.0]]
    assert found.deltas[0, :, 0].tolist() == [1.0, 3.0]
    assert found.amodal[0, :, 0, 0].tolist() == [1.0, 3.0]
    assert found.inconsistency is not None
    assert found.inconsistency.tolist() == [[0.5, 0.0]]


def test_ties_and_slots_left_out() -> None:
    equal = torch.zeros(1, 4)
    assert rerank_order(equal, torch.zeros(1, 4), 1.0, 3).tolist() == [[0, 1, 2]]
    assert rerank_order(equal, torch.tensor([[1.0, 0.0, 1.0, 0.0]]), 1.0, 3).tolist() == [[0, 1, 3]]
    left_out = torch.tensor([[1.0, 2.0, INF, INF], [INF] * 4])
    score = torch.tensor([[1.9, 0.0, INF, 0.0], [INF] * 4])
    assert rerank_order(left_out, score, 1.0, 2).tolist() == [[0, 1], [0, 1]]


def test_no_objects() -> None:
    empty = inconsistency(
        torch.zeros(0, 28, 28), torch.zeros(0, 4), torch.zeros(0, 5, 28, 28), torch.zeros(0, 5, 4),
        torch.zeros(0, 56, 56), torch.zeros(0, 4),
    )  # fmt: skip
    assert empty.shape == (0, 5)
    assert rerank_order(torch.zeros(0, 5), empty, 1.0, 3).shape == (0, 3)
