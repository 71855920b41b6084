"""Prediction: indexing, parts, results format. Pasting itself is tested with the frames."""

from __future__ import annotations

import builtins
import io
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from amodal.errors import AmodalError, DataError
from amodal.prediction import Prediction, _rows, _tight

HEIGHT, WIDTH = 20, 30


def make(visible: bool = True, image: bool = False) -> Prediction:
    """Three objects in a 30 x 20 image: half hidden (the right half), unoccluded, fully hidden."""
    whole = torch.ones(3, 4, 4)
    seen = torch.ones(3, 4, 4)
    seen[0, :, 2:] = 0
    seen[2] = 0
    boxes = torch.tensor([[2.0, 4.0, 10.0, 12.0], [12.0, 2.0, 20.0, 18.0], [22.0, 2.0, 26.0, 6.0]])
    return Prediction(
        boxes=boxes,
        labels=torch.tensor([1, 0, 1]),
        scores=torch.tensor([0.9, 0.5, 0.05]),
        amodal_probs=whole,
        visible_probs=seen if visible else None,
        frames=boxes if visible else None,
        image_size=(HEIGHT, WIDTH),
        class_names=["cup", "fish"],
        category_ids=[3, 7],
        image=np.full((HEIGHT, WIDTH, 3), 99, np.uint8) if image else None,
    )


def test_masks_lie_where_the_boxes_say() -> None:
    prediction = make()
    expected = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    expected[4:12, 2:10] = True
    assert torch.equal(prediction.amodal_masks[0], expected)
    expected[:, 6:] = False
    assert torch.equal(prediction.visible_masks[0], expected)
    hidden = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    hidden[4:12, 6:10] = True
    assert torch.equal(prediction.occluded_masks[0], hidden)


def test_rates_and_visible_boxes_by_hand() -> None:
    prediction = make()
    assert prediction.visible_rates.tolist() == [0.5, 1.0, 0.0]
    assert prediction.visible_boxes.tolist() == [[2, 4, 6, 12], [12, 2, 20, 18], [0, 0, 0, 0]]


def test_rate_counts_only_visible_pixels_inside_the_amodal_mask() -> None:
    prediction = make()
    prediction.visible_probs = torch.ones(3, 4, 4)
    prediction.frames = torch.tensor([[2.0, 4.0, 4.0, 12.0], [0.0, 0.0, 30.0, 20.0], [0.0, 10.0, 30.0, 20.0]])
    assert prediction.visible_rates.tolist() == [0.25, 1.0, 0.0]


def test_empty_amodal_mask_has_rate_one() -> None:
    prediction = make()
    prediction.amodal_probs = torch.zeros(3, 4, 4)
    assert prediction.visible_rates.tolist() == [1.0, 1.0, 1.0]


def test_system_without_visible_masks() -> None:
    prediction = make(visible=False)
    assert prediction.visible_masks is None
    assert prediction.occluded_masks is None
    assert prediction.visible_boxes is None
    assert prediction.visible_rates is None
    assert set(prediction.to_coco(1)[0]) == {"image_id", "category_id", "score", "bbox", "segmentation"}
    with pytest.raises(AmodalError, match="no visible masks"):
        prediction.to_supervision("occluded")


@pytest.mark.parametrize(
    ("index", "rows"),
    [
        (0, [0]),
        (-1, [2]),
        (np.int64(1), [1]),
        (slice(1, None), [1, 2]),
        (slice(None, None, -1), [2, 1, 0]),
        ([2, 0], [2, 0]),
        ([], []),
        ([True, False, True], [0, 2]),
        (np.array([False, True, False]), [1]),
        (torch.tensor([-1, 1]), [2, 1]),
        (torch.tensor([False, False, False]), []),
        (torch.tensor(2), [2]),
    ],
)
def test_indexing(index: object, rows: list[int]) -> None:
    assert _rows(index, 3).tolist() == rows
    whole = make()
    before, after = whole[index], None
    _ = whole.amodal_masks, whole.visible_masks
    after = whole[index]
    for part in (before, after):
        assert len(part) == len(rows)
        assert part.names == [["fish", "cup", "fish"][row] for row in rows]
        assert torch.equal(part.amodal_masks, whole.amodal_masks[rows])
        assert torch.equal(part.visible_masks, whole.visible_masks[rows])
        assert len(part.to_coco(1)) == len(rows)


@pytest.mark.parametrize("index", [3, -4, [0, 5], torch.tensor([True]), torch.tensor([0.5]), torch.zeros(2, 2).long()])
def test_wrong_indices_are_refused(index: object) -> None:
    with pytest.raises(IndexError):
        make()[index]


def test_iteration_gives_every_object_once() -> None:
    assert [part.names for part in make()] == [["fish"], ["cup"], ["fish"]]


def test_score_filter_of_the_documentation() -> None:
    prediction = make()
    assert prediction[prediction.scores > 0.4].names == ["fish", "cup"]


def test_results_format() -> None:
    results = json.loads(json.dumps(make().to_coco(image_id=41)))
    first = results[0]
    assert first["image_id"] == 41
    assert [result["category_id"] for result in results] == [7, 3, 7]
    assert [result["score"] for result in results] == [0.9, 0.5, 0.05]
    assert first["bbox"] == [2.0, 4.0, 8.0, 8.0]
    assert first["visible_bbox"] == [2.0, 4.0, 4.0, 8.0]
    assert first["segmentation"]["size"] == [HEIGHT, WIDTH]
    prediction = make()
    for row, result in enumerate(results):
        for key, masks in (("segmentation", prediction.amodal_masks), ("visible_mask", prediction.visible_masks)):
            assert isinstance(result[key]["counts"], str)
            assert np.array_equal(coco.decode(result[key]).astype(bool), masks[row].numpy())


def test_results_are_rounded_the_same_way_every_time() -> None:
    prediction = make()
    prediction.boxes = prediction.boxes + 1 / 3
    assert prediction.to_coco(1)[0]["bbox"] == [2.3333, 4.3333, 8.0, 8.0]
    assert json.dumps(prediction.to_coco(1)) == json.dumps(prediction[:].to_coco(1))


def test_no_objects() -> None:
    nothing = make(image=True)[[]]
    assert nothing.amodal_masks.shape == (0, HEIGHT, WIDTH)
    assert nothing.visible_boxes.shape == (0, 4)
    assert nothing.visible_rates.shape == (0,)
    assert nothing.to_coco(1) == []
    assert np.unique(np.asarray(nothing.draw())).tolist() == [99]
    assert len(nothing.to_supervision()) == 0


def test_tight_boxes_against_a_slow_search() -> None:
    masks = torch.rand(40, 7, 9, generator=torch.Generator().manual_seed(1)) > 0.93
    for mask, box in zip(masks, _tight(masks).tolist(), strict=True):
        ys, xs = np.nonzero(mask.numpy())
        expected = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1] if len(xs) else [0, 0, 0, 0]
        assert box == expected


def test_repr_says_what_was_found() -> None:
    assert repr(make()) == (
        "Prediction(3 objects in 30 x 20 px, amodal and visible masks: fish 0.90, cup 0.50, fish 0.05)"
    )
    assert repr(make(visible=False)[[]]) == "Prediction(no objects in 30 x 20 px, amodal masks)"


def test_supervision() -> None:
    pytest.importorskip("supervision")
    prediction = make()
    whole, hidden = prediction.to_supervision(), prediction.to_supervision("occluded")
    assert np.array_equal(whole.mask, prediction.amodal_masks.numpy())
    assert np.array_equal(whole.xyxy, prediction.boxes.numpy())
    assert whole.data["class_name"].tolist() == ["fish", "cup", "fish"]
    assert whole.class_id.tolist() == [1, 0, 1]
    assert hidden.xyxy[0].tolist() == [6, 4, 10, 12]
    with pytest.raises(AmodalError, match="'amodal', 'visible' or 'occluded'"):
        prediction.to_supervision("hidden")


def test_supervision_missing_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = builtins.__import__

    def refuse(name: str, *args: object, **kwargs: object) -> object:
        if name == "supervision":
            raise ImportError(name)
        return genuine(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(AmodalError, match="pip install") as caught:
        make().to_supervision()
    assert "\n" not in str(caught.value)


def test_draw_writes_what_it_returns(tmp_path: object) -> None:
    prediction = make(image=True)
    buffer = io.BytesIO()
    drawn = prediction.draw(tmp_path / "out.png")
    drawn.save(buffer, "PNG")
    assert (tmp_path / "out.png").read_bytes() == buffer.getvalue()
    assert np.asarray(drawn).std() > 0
    assert drawn.info["scale"] == drawn.width / prediction.image_size[1]
    assert prediction.draw(size=5).info["scale"] == 5 / max(prediction.image_size)
    with pytest.raises(DataError, match="no image"):
        make().draw()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), height=st.integers(1, 40), width=st.integers(1, 40))
def test_encoding_inside_the_frame_is_that_of_the_whole_mask(seed: int, height: int, width: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(8, 2, 2, generator=generator) * torch.tensor([width, height]) * 1.6 - 0.3 * height
    boxes = torch.cat([corners.amin(1), corners.amax(1)], dim=1)
    boxes[0] = torch.tensor([-5.0, -5.0, width + 5.0, height + 5.0])
    boxes[1] = torch.tensor([0.0, 0.0, 0.0, 0.0])
    prediction = Prediction(
        boxes=boxes,
        labels=torch.zeros(8, dtype=torch.int64),
        scores=torch.linspace(1, 0, 8),
        amodal_probs=torch.cat([torch.ones(3, 5, 5), torch.rand(5, 5, 5, generator=generator)]),
        visible_probs=torch.rand(8, 5, 5, generator=generator),
        image_size=(height, width),
        class_names=["cup"],
        category_ids=[1],
    )
    results = prediction.to_coco(1)
    for key, masks in (("segmentation", prediction.amodal_masks), ("visible_mask", prediction.visible_masks)):
        for mask, result in zip(masks.numpy(), results, strict=True):
            whole = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
            assert result[key] == {"size": [height, width], "counts": whole["counts"].decode()}
    boxes_of = [result["visible_bbox"] for result in results]
    tight = prediction.visible_boxes.tolist()
    assert boxes_of == [[x0, y0, x1 - x0, y1 - y0] for x0, y0, x1, y1 in tight]


def test_memory_follows_the_objects_not_the_picture() -> None:
    """100 objects of 200 pixels in 24 megapixels: dense masks of them would be 2.4 GB."""
    code = """
import resource, torch, numpy as np
from amodal.prediction import Prediction
height, width, count = 4000, 6000, 100
low = torch.rand(count, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([width - 300.0, height - 300.0])
boxes = torch.cat([low, low + 200], 1)
found = Prediction(boxes=boxes, labels=torch.zeros(count, dtype=torch.long), scores=torch.linspace(1, 0.1, count),
    amodal_probs=torch.ones(count, 28, 28), visible_probs=torch.ones(count, 28, 28), frames=boxes,
    image_size=(height, width), class_names=["a"], category_ids=[1], image=np.zeros((height, width, 3), np.uint8))
found[:1].to_coco(1), found[:1].draw(size=100)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found.to_coco(1)
encoded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found.draw()
print((encoded - before) // 1024, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    encoded, drawn = map(int, done.stdout.split())
    assert encoded < 100, "MB to encode"
    assert drawn < 400, "MB to draw"
