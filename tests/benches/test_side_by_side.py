"""What the benchmarks rest on: equal settings on both sides, ratios, pages that change between their markers."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from benchmarks import common
from benchmarks.eth80_torchvision import batch_indices, build_torchvision

from amodal.config import BackboneConfig, BoxHeadConfig, MaskHeadConfig, ModelConfig, RPNConfig, TransformConfig


def _nano() -> ModelConfig:
    return ModelConfig(
        transform=TransformConfig(min_size=[64], max_size=96, test_min_size=64, test_max_size=96),
        backbone=BackboneConfig(name="nano", norm="group", channels=16, extra_level=False),
        rpn=RPNConfig(anchor_sizes=[16, 32, 64, 128], pre_nms_train=50, post_nms_train=20, batch_per_image=16),
        box_head=BoxHeadConfig(channels=32, batch_per_image=8),
        mask_head=MaskHeadConfig(channels=16),
    )


def test_torchvision_gets_the_sizes_of_our_configuration() -> None:
    model = build_torchvision(_nano(), 3)
    assert model.roi_heads.box_predictor.cls_score.weight.shape == (4, 32)
    assert model.roi_heads.mask_predictor.mask_fcn_logits.out_channels == 4
    assert model.roi_heads.fg_bg_sampler.batch_size_per_image == 8
    assert model.rpn.anchor_generator.sizes == ((16,), (32,), (64,), (128,))
    assert model.transform.min_size == (64,)
    image = torch.rand(3, 64, 96)
    mask = torch.zeros(1, 64, 96, dtype=torch.uint8)
    mask[:, 10:40, 20:60] = 1
    target = {"boxes": torch.tensor([[20.0, 10.0, 60.0, 40.0]]), "labels": torch.tensor([2]), "masks": mask}
    losses = model([image], [target])
    assert all(torch.isfinite(loss) for loss in losses.values())


def test_an_epoch_shows_every_image_once() -> None:
    first_epoch = [batch_indices(12, 4, seed=3, step=step) for step in range(3)]
    assert sorted(itertools.chain(*first_epoch)) == list(range(12))
    assert batch_indices(12, 4, seed=3, step=1) == first_epoch[1]
    assert batch_indices(12, 4, seed=4, step=1) != first_epoch[1]


def test_ratio_is_ours_over_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(common.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(common.time, "process_time", lambda: clock[0] / 2)

    def takes(seconds: float) -> None:
        clock[0] += seconds

    result = common.alternate(lambda: takes(1.0), lambda: takes(4.0), rounds=4)
    assert result["ratio"] == pytest.approx(0.25)
    assert result["cpu_ratio"] == pytest.approx(0.25)
    assert result["rounds_theirs_s"] == [4.0] * 4


def test_pages_change_between_their_markers_only(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- tables -->\nold\n<!-- /tables -->\nafter\n")
    common.fill_page(page, "new")
    assert page.read_text() == "before\n<!-- tables -->\nnew\n<!-- /tables -->\nafter\n"
