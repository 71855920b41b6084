"""Drawn instances of the speed benchmarks."""

from __future__ import annotations

import torch
from benchmarks.pgexp_pair import drawn_instances

from amodal.frames import tight_boxes


def test_drawn_instances_are_what_a_prior_expects() -> None:
    drawn = drawn_instances(3, 5)
    assert bool((drawn.visible <= drawn.amodal).all())
    assert bool(drawn.visible.flatten(1).any(1).all())
    frame = torch.tensor([[0.0, 0.0, 28.0, 28.0]]).expand(len(drawn), 4)
    sides = (drawn.boxes[:, 2:] - drawn.boxes[:, :2]).repeat(1, 2)
    tight = drawn.boxes[:, :2].repeat(1, 2) + tight_boxes(drawn.visible.float(), frame) / 28 * sides
    # Right edges are those of the masks; a cut ellipse may start a cell further in than its box.
    assert torch.allclose(tight[:, 2], drawn.visible_boxes[:, 2], atol=1e-3)
    assert bool((tight[:, :2] - drawn.visible_boxes[:, :2]).abs().le(sides[:, :2] / 28 + 1e-3).all())
    assert drawn.own[:, :, -1].any(1).all()
