"""The box expansion whose reference is mixed from other boxes, and dropout of its features."""

import math

import torch

from amodal.methods.pgexp.box_head import AmodalBoxHead, geometry, mix_edges
from amodal.methods.pgexp.values import Recalled, Seen
from amodal.structures import RoIs


def _found(deltas: torch.Tensor, boxes: torch.Tensor | None = None) -> Recalled:
    count, k = deltas.shape[:2]
    return Recalled(
        query=torch.ones(count, 28, 28),
        frames=torch.zeros(count, 4),
        slots=torch.arange(k).repeat(count, 1),
        distance=torch.ones(count, k),
        deltas=deltas,
        amodal=torch.ones(count, k, 28, 28),
        boxes=torch.zeros(count, k, 4) if boxes is None else boxes,
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


def test_missing_priors_are_left_out_of_the_numbers():
    seen = torch.tensor([[10.0, 10.0, 20.0, 30.0]])
    found = _found(torch.tensor([[[0.5, 0.0, 0.1, 0.0], [0.1, 0.0, 0.3, 0.0], [0.0, 0.0, 0.0, 0.0]]]))
    two = _found(found.deltas[:, :2])
    found.distance[0, 2] = torch.inf
    torch.testing.assert_close(geometry(seen, seen, found), geometry(seen, seen, two))
    found.distance[:] = torch.inf
    found.deltas[:] = 0.0
    assert torch.equal(geometry(seen, seen, found), torch.zeros(1, 16))


def test_mixed_edges_by_hand():
    boxes = torch.tensor([[[0.0, 0.0, 10.0, 10.0], [4.0, 2.0, 20.0, 10.0]]])
    third = math.log(3.0)  # weights 3/4 and 1/4
    weights = torch.tensor([[[0.0, third, 0.0, 50.0], [0.0, 0.0, third, 0.0]]])
    torch.testing.assert_close(mix_edges(boxes, weights), torch.tensor([[2.0, 0.5, 17.5, 10.0]]))
    crossed = torch.tensor([[[0.0, 0.0, 1.0, 1.0], [8.0, 0.0, 9.0, 1.0]]])
    far = torch.tensor([[[0.0, 0.0, 50.0, 0.0], [50.0, 0.0, 0.0, 0.0]]])
    torch.testing.assert_close(mix_edges(crossed, far), torch.tensor([[1.0, 0.0, 8.0, 1.0]]))


def _asked(head: AmodalBoxHead, noise: torch.Tensor | None = None):
    torch.manual_seed(1)
    seen = torch.tensor([[10.0, 10.0, 20.0, 30.0], [5.0, 5.0, 45.0, 25.0]])
    original = torch.tensor([[8.0, 9.0, 30.0, 33.0], [5.0, 5.0, 60.0, 28.0]])
    features = {str(level): torch.randn(1, 8, 64 >> level, 64 >> level) for level in range(4)}
    found = _found(torch.rand(2, 8, 4), original[:, None].expand(-1, 8, -1).contiguous())
    numbers = geometry(seen, original, found)
    batch, ones = torch.zeros(2, dtype=torch.long), torch.ones(2, 28, 28)
    rois = RoIs(original, batch, batch, torch.ones(2), [(64, 64)], original)
    return head.regress(features, Seen(rois, ones, ones, seen, lambda context: ones), found, numbers, noise)


def test_the_mix_starts_as_the_mean_and_is_trained_by_the_loss():
    torch.manual_seed(0)
    head = AmodalBoxHead(8, prior=True, width=16, reference="mixed")
    _, weights = _asked(head)
    assert torch.equal(weights, torch.zeros(2, 3, 4))
    boxes = torch.rand(2, 3, 4) * 20 + torch.tensor([0.0, 0.0, 40.0, 40.0])
    mixed = mix_edges(boxes, weights)
    torch.testing.assert_close(mixed, boxes.mean(dim=1))
    head.encode(mixed, torch.tensor([[1.0, 2.0, 50.0, 60.0]])).abs().sum().backward()
    assert head.mix.weight.grad.abs().max() > 0


def test_dropout_drops_what_the_noise_says_and_scales_the_rest():
    torch.manual_seed(0)
    head = AmodalBoxHead(8, prior=True, width=16, reference="mixed", dropout=0.5)
    torch.nn.init.normal_(head.predictor.weight)
    plain, _ = _asked(head)
    assert head.dropped == 8 * 16 + 16
    kept, _ = _asked(head, torch.ones(2, head.dropped))  # all stay, twice as large after the last layer
    gone, _ = _asked(head, torch.zeros(2, head.dropped))
    torch.testing.assert_close(gone, head.predictor.bias.expand(2, 4))
    assert not torch.allclose(kept, plain)
    late = torch.ones(2, head.dropped)
    late[:, 8 * 16 :] = 0.0
    torch.testing.assert_close(_asked(head, late)[0], gone)
    half = torch.full((2, head.dropped), 0.5)  # at the limit: stays
    torch.testing.assert_close(_asked(head, half)[0], kept)
