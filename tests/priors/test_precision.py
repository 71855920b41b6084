"""Codes and flows are computed in true float32."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from amodal.priors.encoder import MaskEncoder
from amodal.priors.precision import true_float32
from amodal.priors.prior import Prior


def state() -> tuple[bool, bool]:
    return torch.backends.cudnn.allow_tf32, torch.is_autocast_enabled("cpu")


def test_no_tf32_and_no_autocast_within_and_as_before_behind() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert state() == (True, True)
        with true_float32("cpu"):
            assert state() == (False, False)
        assert state() == (True, True)


def test_the_convolutions_of_encoder_and_solver_run_so(tiny_prior: Prior, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[bool, bool]] = []
    plain = torch.nn.Conv2d.forward

    def forward(self: torch.nn.Conv2d, x: Tensor) -> Tensor:
        seen.append(state())
        return plain(self, x)

    monkeypatch.setattr(torch.nn.Conv2d, "forward", forward)
    masks = torch.rand(2, 28, 28, generator=torch.Generator().manual_seed(0)) > 0.5
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for work in (
            lambda: MaskEncoder(392)(masks),
            lambda: MaskEncoder(392).decode(torch.rand(2, 392)),
            lambda: tiny_prior.solve(masks.float(), torch.ones(2, 28, 28)),
        ):
            seen.clear()
            assert work().dtype == torch.float32
            assert seen
            assert set(seen) == {(False, False)}
