"""Which other objects count as seen, in the frames of the context boxes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from amodal.data.masks import InstanceMasks
from amodal.data.store import AnnotationSet
from amodal.priors.evidence import annotated_evidence, predicted_evidence, truth_evidence
from amodal.structures import RoIs, Targets

CONTEXT = [0.0, 0.0, 80.0, 40.0]


def _rectangle(x0: int, y0: int, x1: int, y1: int, size: tuple[int, int] = (40, 80)) -> Tensor:
    mask = torch.zeros(size, dtype=torch.bool)
    mask[y0:y1, x0:x1] = True
    return mask


def _rois(boxes: list[list[float]], batch: list[int], scores: list[float] | None = None, **rest: object) -> RoIs:
    tensor = torch.tensor(boxes).reshape(-1, 4)
    return RoIs(
        boxes=tensor,
        batch=torch.tensor(batch, dtype=torch.int64),
        labels=torch.zeros(len(batch), dtype=torch.int64),
        scores=torch.tensor(scores or [1.0] * len(batch)),
        image_sizes=[(40, 80)] * (max(batch, default=0) + 1),
        decoded=tensor,
        **rest,  # type: ignore[arg-type]
    )


def _targets(masks: list[Tensor], ignore: list[bool] | None = None) -> Targets:
    source = InstanceMasks.from_dense(torch.stack(masks))
    boxes = torch.from_numpy(source.measure()[1].astype(np.float32))
    count = len(masks)
    return Targets(
        image_id=1,
        boxes=boxes,
        visible_boxes=boxes,
        labels=torch.zeros(count, dtype=torch.int64),
        occlude_rate=torch.zeros(count),
        amodal_known=torch.ones(count, dtype=torch.bool),
        ignore=torch.tensor(ignore or [False] * count),
        annotation_ids=torch.arange(count),
        amodal=source,
        visible=source,
    )


def _context(count: int) -> Tensor:
    return torch.tensor([CONTEXT]).repeat(count, 1)


def _on_grid(mask: Tensor) -> Tensor:
    """float [20, 20], a mask whose edges are multiples of 4 px by 2 px, on the context's grid."""
    return mask[1::2][:, 2::4].float()


A, B, C = _rectangle(0, 0, 40, 20), _rectangle(40, 0, 80, 20), _rectangle(20, 20, 60, 40)


def test_annotated_masks_of_other_objects_of_the_same_image() -> None:
    rois = _rois(
        [CONTEXT] * 3, [0, 0, 1], gt_index=torch.tensor([0, 2, 0]), targets=[_targets([A, B, C]), _targets([B])]
    )
    found = truth_evidence(rois, _context(3), 20)
    assert torch.equal(found[0], _on_grid(B | C))
    assert torch.equal(found[1], _on_grid(A | B))
    assert torch.equal(found[2], torch.zeros(20, 20))


def test_crowds_and_hidden_objects_are_no_evidence() -> None:
    targets = _targets([A, B, C, A & False], ignore=[False, True, False, False])
    rois = _rois([CONTEXT], [0], gt_index=torch.tensor([0]), targets=[targets])
    assert torch.equal(truth_evidence(rois, _context(1), 20)[0], _on_grid(C))


def test_the_context_may_be_any_box() -> None:
    rois = _rois([CONTEXT], [0], gt_index=torch.tensor([0]), targets=[_targets([A, B])])
    context = torch.tensor([[-40.0, 0.0, 120.0, 40.0]])
    expected = torch.zeros(20, 20)
    expected[:10, 10:15] = 1
    assert torch.equal(truth_evidence(rois, context, 20)[0], expected)


def test_regions_without_ground_truth_have_no_annotated_evidence() -> None:
    with pytest.raises(ValueError, match="ground truth"):
        truth_evidence(_rois([CONTEXT], [0]), _context(1))


def test_the_annotation_file_gives_the_same() -> None:
    masks = [A.numpy(), B.numpy(), C.numpy(), (A & False).numpy()]
    amodal = [A.numpy(), B.numpy(), C.numpy(), A.numpy()]
    items = [{"image": 0, "label": 0, "amodal": a, "visible": v} for a, v in zip(amodal, masks, strict=True)]
    items += [
        {"image": 1, "label": 0, "amodal": B.numpy()},
        {"image": 1, "label": 0, "amodal": C.numpy(), "crowd": True},
    ]
    annotations = AnnotationSet.from_masks(
        [(40, 80)] * 2, [{**item, "id": 70 - n} for n, item in enumerate(items)], ["a"]
    )
    found = annotated_evidence(annotations, torch.tensor([66, 70, 68]), _context(3), 20)
    assert torch.equal(found[0], torch.zeros(20, 20))
    assert torch.equal(found[1], _on_grid(B | C))
    assert torch.equal(found[2], _on_grid(A | B))


def _seen(masks: list[Tensor], boxes: list[list[float]]) -> Tensor:
    """float [R, 28, 28], 0.9 inside and 0.1 outside the masks, in the frames of boxes."""
    source = InstanceMasks.from_dense(torch.stack(masks))
    return source.crop(torch.arange(len(masks)), torch.tensor(boxes), 28) * 0.8 + 0.1


def test_predicted_masks_that_are_sure_enough() -> None:
    boxes = [[0.0, 0.0, 40.0, 20.0], [40.0, 0.0, 80.0, 20.0], [20.0, 20.0, 60.0, 40.0], [0.0, 0.0, 80.0, 40.0]]
    probs = _seen([A, B, C, A | B | C], boxes)
    rois = _rois(boxes, [0, 0, 0, 1], [0.9, 0.3, 0.29, 0.9])
    found = predicted_evidence(rois, probs, _context(4), 20)
    assert torch.equal(found[0], _on_grid(B))
    assert torch.equal(found[1], _on_grid(A))
    assert torch.equal(found[2], _on_grid(A | B))
    assert torch.equal(found[3], torch.zeros(20, 20))


def test_detections_can_be_taken_from_the_evidence() -> None:
    boxes = [[0.0, 0.0, 40.0, 20.0], [40.0, 0.0, 80.0, 20.0], [20.0, 20.0, 60.0, 40.0]]
    keep = torch.tensor([True, False, True])
    found = predicted_evidence(_rois(boxes, [0] * 3), _seen([A, B, C], boxes), _context(3), 20, keep=keep)
    assert torch.equal(found[0], _on_grid(C))
    assert torch.equal(found[1], _on_grid(A | C))


@pytest.mark.parametrize(("width", "duplicate"), [(22, True), (18, False)])
def test_duplicates_are_no_evidence(width: int, duplicate: bool) -> None:
    """The second mask is the left part of the first, width / 40 of it, in another frame: that is their IoU."""
    part = _rectangle(0, 0, width, 20)
    boxes = [[0.0, 0.0, 40.0, 20.0], [0.0, 0.0, 80.0, 40.0]]
    found = predicted_evidence(_rois(boxes, [0, 0]), _seen([A, part], boxes), _context(2), 20)
    assert bool(found[0].any()) is not duplicate
    assert bool(found[1].any()) is not duplicate


def test_overlapping_boxes_of_different_shapes_are_no_duplicates() -> None:
    lower, upper = torch.ones(40, 80).tril(-1).bool(), torch.ones(40, 80).triu(1).bool()
    lower, upper = lower & (torch.arange(80) < 40), upper & (torch.arange(80) < 40)
    boxes = [[0.0, 0.0, 40.0, 40.0]] * 2
    found = predicted_evidence(_rois(boxes, [0, 0]), _seen([lower, upper], boxes), _context(2), 20)
    assert bool(found[0].any())
    assert bool(found[1].any())


def test_no_regions() -> None:
    rois = _rois([], [])
    assert predicted_evidence(rois, torch.zeros(0, 28, 28), torch.zeros(0, 4), 20).shape == (0, 20, 20)
    rois = _rois([], [], gt_index=torch.zeros(0, dtype=torch.int64), targets=[_targets([A])])
    assert truth_evidence(rois, torch.zeros(0, 4), 20).shape == (0, 20, 20)


def test_many_pairs_equal_a_loop() -> None:
    """More pairs than one chunk holds, against masks moved one by one."""
    generator = torch.Generator().manual_seed(1)
    corners = torch.rand(40, 2, generator=generator) * torch.tensor([60.0, 20.0])
    boxes = torch.cat([corners, corners + 20], dim=1)
    probs = (torch.rand(40, 28, 28, generator=generator) > 0.5).float()
    rois = _rois(boxes.tolist(), [0] * 40)
    context = torch.cat([corners - 10, corners + 30], dim=1)
    found = predicted_evidence(rois, probs, context, 14)
    from amodal.frames import resample

    for r in range(40):
        moved = [
            resample(probs[e : e + 1], boxes[e : e + 1], context[r : r + 1], 14)[0] >= 0.5 for e in range(40) if e != r
        ]
        assert torch.equal(found[r], torch.stack(moved).any(0).float())
