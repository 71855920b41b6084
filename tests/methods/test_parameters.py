"""Trainable numbers of each system at 256 channels and 8 classes, from the layers that its paper and code list."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from amodal.config import ModelConfig
from amodal.priors.codebook import Codebook
from amodal.priors.encoder import MaskEncoder
from amodal.settings import BCNetConfig, CodebookConfig, VRSPConfig
from amodal.systems import SYSTEMS, resolve

C, N = 256, 8
CONV = 9 * C * C + C
"""A 3 x 3 convolution of C to C channels."""
DECONV = 4 * C * C + C
MASK_HEAD = 4 * CONV + DECONV + N * (C + 1)
BOX_HEAD = 49 * C * 1024 + 1024 + 1024 * 1024 + 1024 + 1025 * (N + 1) + 1025 * 4 * N


def _count(module: nn.Module) -> int:
    return sum(value.numel() for value in module.parameters() if value.requires_grad)


def _branch(system: str, **more: object) -> nn.Module:
    entry = SYSTEMS[system]
    branch: nn.Module = resolve(entry.branch)(ModelConfig(method=entry.settings(**more)), N, None)
    return branch


@pytest.mark.parametrize(
    ("system", "expected"),
    [
        ("mask_rcnn", 2_624_776),
        ("mask_rcnn8", 4_985_096),
        ("orcnn", 5_249_552),
        ("bcnet", 6_296_580),
        ("vrsp", 58_315_544),
        ("aisformer", 4_220_944 - 2 * N),  # The released head has a predictor that nothing ever uses.
        ("asn", 12_854_802 - 2 * (C + 1)),  # ... and a map of the background in each mask head, which nothing trains.
    ],
)
def test_mask_side(system: str, expected: int) -> None:
    assert _count(_branch(system)) == expected


def test_parts_add_up_to_the_totals() -> None:
    assert MASK_HEAD == 2_624_776
    assert _count(_branch("orcnn")) == 2 * MASK_HEAD
    assert _count(_branch("bcnet", class_specific=True)) == 6_303_776
    fuse, recls = 9 * (C + 16) * C + C, 196 * C * 1024 + 1024 + 1024 * 1024 + 1024 + 1025 * N
    assert _count(_branch("vrsp")) == 2 * MASK_HEAD + fuse + recls
    assert BCNetConfig().class_specific is False
    assert VRSPConfig().k == 16


def test_auto_encoder_is_small_and_frozen() -> None:
    for dim, expected in ((392, 1_905), (128, 3_073)):
        encoder = MaskEncoder(dim)
        assert sum(value.numel() for value in encoder.parameters()) == expected
    codes, counts = torch.zeros(1, 1, 392), torch.ones(1, dtype=torch.long)
    assert _count(Codebook(CodebookConfig(slots=1), ["c"], [1], MaskEncoder(392), codes, counts)) == 0


def test_box_side() -> None:
    def count(system: str) -> int:
        entry = SYSTEMS[system]
        return _count(resolve(entry.box_head)(ModelConfig(method=entry.settings()), N))

    assert {count(system) for system in SYSTEMS if system != "asn"} == {BOX_HEAD} == {13_937_705}
    assert count("asn") == 30_460_975 - 4 * 1025  # The released one has deltas of the background, which nothing trains.
