"""The mask encoder: shapes, fitting, dead channels, what its quality is measured by."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from amodal.errors import ConfigError
from amodal.priors import encoder as module
from amodal.priors.encoder import MaskEncoder, dead_channels, fit_encoder, reconstruction_iou


def shapes(count: int, seed: int = 0) -> Tensor:
    """bool [count, 28, 28], ellipses of which every second one is cut by a straight edge."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(28) + 0.5, torch.arange(28) + 0.5, indexing="ij")
    centre_x, centre_y = (12 + 4 * torch.rand(2, count, 1, 1, generator=generator)).unbind()
    radius_x, radius_y = (7 + 7 * torch.rand(2, count, 1, 1, generator=generator)).unbind()
    masks = ((x - centre_x) / radius_x) ** 2 + ((y - centre_y) / radius_y) ** 2 < 1
    slope = torch.randn(count, 1, 1, generator=generator)
    cut = slope * (x - 14) + (y - 14) < 2
    cut[::2] = True
    return masks & cut


@pytest.fixture(scope="module")
def fitted() -> MaskEncoder:
    return fit_encoder(shapes(512), 392, steps=200, seed=3)


@pytest.mark.parametrize(("dim", "parameters"), [(392, 1905), (128, 3073)])
def test_code_and_mask_sizes(dim: int, parameters: int) -> None:
    encoder = MaskEncoder(dim)
    # 80 for the first layer, 584 for each other 8 -> 8 layer, 73 for the output.
    assert sum(p.numel() for p in encoder.parameters()) == parameters
    for count in (0, 5):
        codes = encoder(shapes(count).float())
        assert codes.shape == (count, dim)
        assert (codes >= 0).all()
        rebuilt = encoder.decode(codes)
        assert rebuilt.shape == (count, 28, 28)
        assert ((rebuilt > 0) & (rebuilt < 1)).all()


def test_a_code_follows_the_layers_of_the_reference() -> None:
    encoder, masks = MaskEncoder(128), shapes(4).float()
    plain = nn.Sequential(*(layer for conv in encoder.down for layer in (conv, nn.ReLU())))
    torch.testing.assert_close(encoder(masks), plain(masks[:, None]).flatten(1))


def test_bool_masks_autocast_and_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, masks = MaskEncoder(392), shapes(10)
    codes = encoder(masks.float())
    assert torch.equal(encoder(masks), codes)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = encoder(masks.float())
        rebuilt = encoder.decode(codes)
    assert mixed.dtype == rebuilt.dtype == torch.float32
    assert torch.equal(mixed, codes)
    assert torch.equal(rebuilt, encoder.decode(codes))
    monkeypatch.setattr(module, "_CHUNK", 3)
    torch.testing.assert_close(encoder(masks), codes)
    torch.testing.assert_close(encoder.decode(codes), rebuilt)


def test_a_fit_rebuilds_masks_it_has_not_seen(fitted: MaskEncoder) -> None:
    unseen = shapes(200, seed=1)
    assert reconstruction_iou(fitted, unseen) > 0.93
    assert reconstruction_iou(MaskEncoder(392), unseen) < 0.8
    assert dead_channels(fitted, unseen) == []
    assert not any(p.requires_grad for p in fitted.parameters())
    assert not fitted.training


def test_the_seed_decides_and_the_callers_random_numbers_are_left_alone() -> None:
    masks = shapes(64)
    torch.manual_seed(5)
    following = torch.rand(1)
    torch.manual_seed(5)
    one, two, other = (fit_encoder(masks, 128, steps=3, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(1), following)
    assert torch.equal(one(masks), two(masks))
    assert not torch.equal(one(masks), other(masks))


def test_weights_carried_over_give_the_same_bits(fitted: MaskEncoder) -> None:
    copy = MaskEncoder(392)
    copy.load_state_dict({name: value.clone() for name, value in fitted.state_dict().items()})
    assert torch.equal(copy(shapes(9)), fitted(shapes(9)))


def test_dead_channels_are_found() -> None:
    encoder = MaskEncoder(392)
    with torch.no_grad():
        for channel in range(8):
            encoder.down[-1].bias[channel] = -1e3 if channel in (2, 5) else 1e3
    assert dead_channels(encoder, shapes(3)) == [2, 5]


def _with_dead(count: int) -> MaskEncoder:
    encoder = MaskEncoder(392)
    with torch.no_grad():
        encoder.down[-1].bias.copy_(torch.tensor([-1e3] * count + [1e3] * (8 - count)))
    return encoder


@pytest.mark.parametrize(("dead", "tried", "kept"), [([0], 1, 0), ([2, 0], 2, 1), ([3, 1, 2], 3, 1)])
def test_a_fit_with_dead_channels_is_repeated(
    monkeypatch: pytest.MonkeyPatch, dead: list[int], tried: int, kept: int
) -> None:
    made, seeds = [_with_dead(count) for count in dead], []

    def fit(masks: Tensor, dim: int, steps: int, seed: int, progress: bool) -> MaskEncoder:
        seeds.append(seed)
        return made[len(seeds) - 1]

    monkeypatch.setattr(module, "_fit", fit)
    assert fit_encoder(shapes(4), 392, steps=1, seed=10) is made[kept]
    assert seeds == [10, 10 + 2**31, 10 + 2**32][:tried]


def test_reconstruction_iou_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    masks = torch.zeros(3, 28, 28, dtype=torch.bool)
    masks[0, :10] = True
    masks[1, :4] = True
    rebuilt = torch.zeros(3, 28, 28)
    rebuilt[0, 5:15] = 0.5  # 5 rows in common, 15 together
    rebuilt[1, :4] = 0.9
    rebuilt[1, 4:] = 0.49
    encoder = MaskEncoder(392)
    monkeypatch.setattr(encoder, "decode", lambda codes: rebuilt)
    assert reconstruction_iou(encoder, masks) == pytest.approx((5 / 15 + 1 + 1) / 3)


def test_what_cannot_be_fitted_is_refused() -> None:
    with pytest.raises(ConfigError, match="100"):
        MaskEncoder(100)
    with pytest.raises(ConfigError, match="no masks"):
        fit_encoder(torch.zeros(0, 28, 28, dtype=torch.bool), 392, steps=1, seed=0)
