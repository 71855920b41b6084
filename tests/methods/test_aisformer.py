"""AISFormer's transformer beside PyTorch's, its products and the order of its queries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from amodal.errors import ConfigError
from amodal.methods.aisformer import AMODAL, OCCLUDER, VISIBLE, AISFormer, Attention, Decoder, Encoder
from amodal.settings import AISFormerConfig

Make = Callable[..., Any]
WIDTH = 16


def _copy_attention(ours: Attention, theirs: nn.MultiheadAttention) -> None:
    theirs.load_state_dict(
        {
            "in_proj_weight": ours.inputs.weight, "in_proj_bias": ours.inputs.bias,
            "out_proj.weight": ours.output.weight, "out_proj.bias": ours.output.bias,
        }
    )  # fmt: skip


def _shaken(module: nn.Module) -> nn.Module:
    """With biases that are not 0."""
    with torch.no_grad():
        for value in module.parameters():
            value.add_(0.1 * torch.randn_like(value))
    return module


@pytest.mark.parametrize("training", [False, True])
def test_attention_is_pytorchs(training: bool, example: Make, place: Make) -> None:
    torch.manual_seed(0)
    rois = place(example(0).targets)
    if not training:
        rois = replace(rois, targets=None, gt_index=None)
    ours = _shaken(Attention(WIDTH, 1e-9 if training else 0.1, 1))
    theirs = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
    _copy_attention(ours, theirs)
    query, key, value = torch.randn(3, len(rois), 5, WIDTH).unbind(0)
    assert torch.allclose(ours(query, key, value, rois), theirs(query, key, value)[0], atol=1e-5)


def test_a_layer_is_pytorchs(example: Make, place: Make) -> None:
    torch.manual_seed(0)
    rois = place(example(0).targets)
    ours = _shaken(Encoder(WIDTH, 0.0))
    theirs = nn.TransformerEncoderLayer(WIDTH, 2, 8 * WIDTH, 0.0, batch_first=True)
    _copy_attention(ours.attention, theirs.self_attn)
    _copy_rest(ours.feed_forward, theirs, [ours.norm, ours.feed_forward.norm])
    cells = torch.randn(len(rois), 9, WIDTH)
    assert torch.allclose(ours(cells, torch.zeros(9, WIDTH), rois), theirs(cells), atol=1e-5)

    decoder = _shaken(Decoder(WIDTH, 0.0))
    layer = nn.TransformerDecoderLayer(WIDTH, 2, 8 * WIDTH, 0.0, batch_first=True)
    _copy_attention(decoder.own, layer.self_attn)
    _copy_attention(decoder.cross, layer.multihead_attn)
    _copy_rest(decoder.feed_forward, layer, [decoder.own_norm, decoder.cross_norm, decoder.feed_forward.norm])
    # With queries and positions of 0 the two are one; with others only keys and queries move, which attention has.
    found = decoder(torch.zeros(4, WIDTH), cells, torch.zeros(9, WIDTH), rois)
    assert torch.allclose(found, layer(torch.zeros(len(rois), 4, WIDTH), cells), atol=1e-5)


def _copy_rest(ours: Any, theirs: Any, norms: list[nn.LayerNorm]) -> None:
    theirs.linear1.load_state_dict(ours.wide.state_dict())
    theirs.linear2.load_state_dict(ours.narrow.state_dict())
    for number, norm in enumerate(norms, 1):
        getattr(theirs, f"norm{number}").load_state_dict(norm.state_dict())


def _branch(tiny_config: Make, **more: float) -> AISFormer:
    torch.manual_seed(0)
    return AISFormer(replace(tiny_config(), method=AISFormerConfig(**more)), 2)


def test_masks_are_products_in_the_order_visible_occluder_amodal_hidden(
    tiny_config: Make, example: Make, place: Make, noise: Make
) -> None:
    branch = _branch(tiny_config)
    nn.init.normal_(branch.pixel_embed.weight)
    rois = replace(place(example(0).targets), targets=None, gt_index=None)
    asked: dict[str, Tensor] = {}
    for name in ("mask_embed", "subtract", "pixel_embed"):
        getattr(branch, name).register_forward_hook(
            lambda m, i, o, name=name: asked.update({name: o, f"{name}<": i[0]})
        )
    output = branch(noise(1), rois)
    embedded, pixels = asked["mask_embed"], asked["pixel_embed"]
    assert embedded.shape[:2] == (len(rois), 4)
    for row, name in ((VISIBLE, "visible_logits"), (AMODAL, "amodal_logits")):
        slow = torch.stack([(embedded[r, row][:, None, None] * pixels[r]).sum(dim=0) for r in range(len(rois))])
        assert torch.allclose(getattr(output, name), slow, atol=1e-4)
    assert torch.equal(asked["subtract<"], torch.cat([embedded[:, AMODAL], embedded[:, VISIBLE]], dim=1))
    slow = (asked["subtract"][:, :, None, None] * pixels).sum(dim=1)
    assert torch.allclose(output.aux[:, 3], slow, atol=1e-4)
    slow = (embedded[:, OCCLUDER, :, None, None] * pixels).sum(dim=1)
    assert torch.allclose(output.aux[:, 1], slow, atol=1e-4)


def test_a_position_is_its_column_then_its_row(tiny_config: Make) -> None:
    branch = _branch(tiny_config)
    half = branch.rows.shape[1]
    position = branch.position(28).view(28, 28, -1)
    assert torch.equal(position[3, 7, :half], branch.columns[7])
    assert torch.equal(position[3, 7, half:], branch.rows[3])


def test_terms_have_their_weights_and_masks(tiny_config: Make, example: Make, place: Make, noise: Make) -> None:
    branch = _branch(tiny_config)
    one = example(4, objects=2)
    rois = place(one.targets)
    output = branch(noise(1), rois)
    plain = {name: term.mean().item() for name, term in branch.loss(output, rois, noise(1)).items()}
    truth = {part: getattr(one.targets, part).crop(rois.gt_index, rois.boxes, 28) for part in ("amodal", "visible")}
    hidden = (truth["amodal"] - truth["visible"]).abs()
    occluder = torch.zeros_like(hidden)
    answers = torch.stack([truth["visible"], occluder, truth["amodal"], hidden], dim=1) * 80 - 40
    output.aux, output.visible_logits = answers, answers[:, VISIBLE]
    right = {name: term.mean().item() for name, term in branch.loss(output, rois, noise(1)).items()}
    for name in ("loss_mask_visible", "loss_mask_amodal", "loss_mask_hidden"):
        assert right[name] == pytest.approx(0.0, abs=1e-6)
    assert right["loss_mask_occluder"] > 0  # It says that nothing is in the way, which is not so.
    assert plain["loss_mask_hidden"] < 0.3 < plain["loss_mask_amodal"]  # 0.25 of log 2, and log 2


def test_widths_that_cannot_be_split_are_told(tiny_config: Make) -> None:
    config = tiny_config()
    with pytest.raises(ConfigError, match=r"model.mask_head.channels is 18, must be a multiple of 4"):
        replace(config, mask_head=replace(config.mask_head, channels=18), method=AISFormerConfig())
