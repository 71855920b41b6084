"""Any backbone of timm that gives feature maps, as the body under the feature pyramid."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from typing import Any

import timm
from timm.layers.format import Format
from timm.layers.norm_act import freeze_batch_norm_2d
from torch import Tensor, nn

from amodal.errors import ConfigError, nearest

STRIDES = (4, 8, 16, 32)


class TimmBody(nn.Module):
    """A timm model cut off behind its last level, with frozen batch norms.

    Levels are chosen by their stride, since the place of a stride in timm's list differs from model to model.

    Attributes:
        out_channels: channels of the levels with strides 4, 8, 16, 32.
        name: timm's, without ``timm/``; a tag of weights may follow a dot.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        net, any_size = _create(name)
        reductions = list(net.feature_info.reduction())
        # The last map of a stride: some models give several, and the deeper one knows more.
        last = {stride: index for index, stride in enumerate(reductions)}
        if missing := [stride for stride in STRIDES if stride not in last]:
            given = ", ".join(map(str, reductions))
            raise ConfigError(f"{_key(name)}, which has no features of stride {missing[0]} (its strides: {given})")
        if not any_size:
            raise ConfigError(f"{_key(name)}, which takes pictures of one size only")
        self._picked = [last[stride] for stride in STRIDES]
        self._units = [net.feature_info.module_name()[index] for index in self._picked]
        self.out_channels = [net.feature_info.channels()[index] for index in self._picked]
        self._channels_last = getattr(net, "output_fmt", None) == Format.NHWC
        # Statistics of a few small pictures a step would spoil what they were trained to. Each keeps its own epsilon.
        self.net: nn.Module = freeze_batch_norm_2d(net)  # type: ignore[no-untyped-call]

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Images float [B, 3, H, W], H and W multiples of 32 -> levels "0" to "3", strides 4, 8, 16, 32."""
        maps = self.net(images)
        levels = [maps[index] for index in self._picked]
        if self._channels_last:
            levels = [level.permute(0, 3, 1, 2).contiguous() for level in levels]
        return OrderedDict((str(index), level) for index, level in enumerate(levels))

    def freeze(self, trainable_layers: int) -> None:
        """Stop training of all but the last ``trainable_layers`` of five stages.

        The first stage is all before stride 4, the others are what leads to one level each.
        """
        names = [name for name, _ in self.net.named_parameters()]
        ends = [max(self._places(names, unit), default=-1) for unit in self._units]
        # timm registers modules in the order of their use, so a stage is all up to the last parameter of its unit.
        stem = min(self._places(names, self._units[0]), default=0)
        for place, (_, parameter) in enumerate(self.net.named_parameters()):
            stage = 0 if place < stem else 1 + sum(place > end for end in ends[:-1])
            if stage < 5 - trainable_layers:
                parameter.requires_grad_(False)

    @staticmethod
    def _places(names: list[str], unit: str) -> list[int]:
        """Where parameters of ``unit`` stand; a features list writes ``stages.0`` as ``stages_0``."""
        starts = (f"{unit}.", f"{unit.replace('.', '_', 1)}.")
        return [index for index, name in enumerate(names) if name.startswith(starts)]


def pixel_statistics(name: str) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of pixel values in 0..1, R, G, B, that a timm model was trained with."""
    _require_known(name)
    cfg = timm.get_pretrained_cfg(name) or timm.models.PretrainedCfg()
    return list(map(float, cfg.mean)), list(map(float, cfg.std))


def _create(name: str) -> tuple[Any, bool]:
    """timm's list of features, and whether it takes pictures of any size."""
    _require_known(name)
    fixed = bool((timm.get_pretrained_cfg(name) or timm.models.PretrainedCfg()).fixed_input_size)
    try:
        if fixed:
            # Some that were trained at one size do others, too, if told not to insist.
            with contextlib.suppress(TypeError):
                return timm.create_model(name, pretrained=False, features_only=True, strict_img_size=False), True
        return timm.create_model(name, pretrained=False, features_only=True), not fixed
    except Exception as error:  # What timm's builders raise for models without features is of many kinds.
        said = " ".join(str(error).split())[:120]
        raise ConfigError(f"{_key(name)}, which timm does not build as features ({said})") from None


def _require_known(name: str) -> None:
    base = name.split(".")[0]
    if not timm.is_model(base):
        raise ConfigError(f"{_key(name)}, no model of timm{nearest(base, timm.list_models())}")


def _key(name: str) -> str:
    return f"model.backbone.name is 'timm/{name}'"
