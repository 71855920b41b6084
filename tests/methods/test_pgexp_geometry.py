"""The box expansion that is told in numbers where boxes lie, and the one that starts from the priors' median box."""

import math

import torch

from amodal.config_methods import PGExpConfig
from amodal.methods.pgexp_box import AmodalBoxHead, geometry
from amodal.priors.types import Retrieved


def _found(deltas: torch.Tensor) -> Retrieved:
    count, k = deltas.shape[:2]
    return Retrieved(
        slots=torch.arange(k).repeat(count, 1),
        distance=torch.ones(count, k),
        deltas=deltas,
        amodal=torch.ones(count, k, 28, 28),
        present=torch.ones(count, dtype=torch.bool),
    )


def test_the_numbers_by_hand():
    seen = torch.tensor([[10.0, 10.0, 20.0, 30.0]])
    original = torch.tensor([[10.0, 10.0, 30.0, 30.0]])
    deltas = torch.tensor([[[0.5, 0.0, 0.1, 0.0], [0.1, 0.0, 0.3, 0.0], [0.3, 0.0, 0.2, 0.6]]])
    numbers = geometry(seen, original, _found(deltas))[0]
    torch.testing.assert_close(numbers[:4], torch.tensor([0.5, 0.0, math.log(2), 0.0]))
    torch.testing.assert_close(numbers[4:8], torch.tensor([0.3, 0.0, 0.2, 0.0]))
    torch.testing.assert_close(numbers[8:12], deltas[0, 0])
    torch.testing.assert_close(numbers[12], torch.tensor([0.5, 0.1, 0.3]).std(unbiased=False))
    torch.testing.assert_close(geometry(seen, original, None)[0], numbers[:4])


def test_the_head_starts_from_the_original_box():
    torch.manual_seed(0)
    seen = torch.tensor([[10.0, 10.0, 20.0, 30.0], [5.0, 5.0, 45.0, 25.0]])
    original = torch.tensor([[8.0, 9.0, 30.0, 33.0], [5.0, 5.0, 60.0, 28.0]])
    found = _found(torch.rand(2, 8, 4))
    features = {str(level): torch.randn(1, 8, 64 >> level, 64 >> level) for level in range(4)}
    others = original[:, None].expand(-1, 8, -1).contiguous()
    for weights in ([1.0, 1.0, 1.0, 1.0], [10.0, 10.0, 5.0, 5.0]):
        head = AmodalBoxHead(8, PGExpConfig(box_channels=16, geometry=True, delta_weights=weights))
        torch.nn.init.zeros_(head.predictor.weight)
        numbers = geometry(seen, original, found)
        deltas = head(features, torch.zeros(2, dtype=torch.long), seen, others, torch.zeros(2, 8, 3), numbers)
        boxes = head.decode(deltas, seen, torch.tensor([[64.0, 64.0]]).expand(2, 2))
        torch.testing.assert_close(boxes, original)
        moved = head(features, torch.zeros(2, dtype=torch.long), seen, others, torch.zeros(2, 8, 3), numbers + 1.0)
        assert not torch.allclose(deltas, moved)
