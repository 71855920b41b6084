from __future__ import annotations

import pytest

from amodal.config import OptimConfig
from amodal.train.engine import learning_rate, milestones


def test_hand_worked_rates() -> None:
    config = OptimConfig(lr=1.0, warmup_steps=10, warmup_factor=0.1, milestones=[0.5, 80], gamma=0.1)
    # Warm-up: 0.1 at 0, half-way at 5 is (0.1 + 1) / 2, full from 10 on; falls at 50 and 80 of 100.
    wanted = {0: 0.1, 5: 0.55, 10: 1.0, 49: 1.0, 50: 0.1, 79: 0.1, 80: 0.01, 99: 0.01}
    for step, rate in wanted.items():
        assert learning_rate(step, config, 100) == pytest.approx(rate), step


def test_no_warmup() -> None:
    config = OptimConfig(lr=0.5, warmup_steps=0, milestones=[])
    assert learning_rate(0, config, 10) == 0.5


def test_earlier_work_on_kins() -> None:
    """30,000 and 40,000 of 48,000; 1,000 steps of warm-up from a thousandth (reference: VRSP row)."""
    config = OptimConfig(lr=0.0025, milestones=[0.625, 0.83333])
    assert milestones(config, 48000) == [30000, 40000]
    assert learning_rate(0, config, 48000) == pytest.approx(2.5e-6)
    assert learning_rate(29999, config, 48000) == pytest.approx(2.5e-3)
    assert learning_rate(30000, config, 48000) == pytest.approx(2.5e-4)
    assert learning_rate(40000, config, 48000) == pytest.approx(2.5e-5)
