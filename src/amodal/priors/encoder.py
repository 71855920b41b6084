"""E, the encoder whose codes are compared by L2 distance (Sec. 3.1, search): a small auto-encoder of masks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from amodal.errors import ConfigError
from amodal.priors.precision import true_float32

_CHANNELS = 8
_BATCH = 32
_LEARNING_RATE = 2e-2
_LEAK = 0.2  # slope of the ReLUs below 0 at the start of a fit
_ATTEMPTS = 3
_SEEDS = 2**31  # seeds are smaller, so no second attempt is the first one of another seed
_CHUNK = 4096  # masks encoded at a time, so that 95,000 of them need no gigabyte
_LAYERS = {392: 2, 128: 3}
_SIDE = {392: 7, 128: 4}  # cells of the latent map


class MaskEncoder(nn.Module):
    """Auto-encoder of 28 x 28 masks after Xiao et al. (AAAI 2021), whose first half is E.

    Convolutions 3 x 3 with stride 2, 8 channels and ReLU, two of them (latent 8 x 7 x 7, 392 numbers) or three (8 x 4 x
    4, 128 numbers); back up by bilinear doubling and 3 x 3 convolutions. No number of a code is negative.

    Args:
        dim: length of a code, 392 or 128.

    Raises:
        ConfigError: another length.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        if dim not in _LAYERS:
            raise ConfigError(f"encoder is {dim!r}, must be 392 or 128")
        self.dim = dim
        layers = _LAYERS[dim]
        self.down = nn.ModuleList(
            nn.Conv2d(1 if n == 0 else _CHANNELS, _CHANNELS, 3, stride=2, padding=1) for n in range(layers)
        )
        # 4 doubled twice is 16, 14 is wanted: of three convolutions the second one has no padding.
        self.up = nn.ModuleList(
            nn.Conv2d(_CHANNELS, _CHANNELS, 3, padding=0 if layers == 3 and n == 1 else 1) for n in range(layers)
        )
        self.out = nn.Conv2d(_CHANNELS, 1, 3, padding=1)

    def forward(self, masks: Tensor) -> Tensor:
        """E(M): masks bool or float [N, 28, 28], 0 or 1 -> codes float32 [N, dim], under autocast too."""
        return torch.cat([self._latent(part).flatten(1) for part in torch.split(masks, _CHUNK)])

    def decode(self, codes: Tensor) -> Tensor:
        """Codes float32 [N, dim] -> mask probabilities float32 [N, 28, 28]."""
        side = _SIDE[self.dim]
        maps = codes.view(-1, _CHANNELS, side, side)
        return torch.cat([torch.sigmoid(self._logits(part)) for part in torch.split(maps, _CHUNK)])

    def _latent(self, masks: Tensor, slope: float = 0.0) -> Tensor:
        """float32 [N, 8, h, w]; ``slope`` is that of the ReLUs below 0."""
        with true_float32(masks.device.type):
            x = masks.float()[:, None]
            for conv in self.down:
                x = F.leaky_relu(conv(x), slope).contiguous(memory_format=torch.channels_last)
            return x

    def _logits(self, latent: Tensor, slope: float = 0.0) -> Tensor:
        """float32 [N, 28, 28] of a latent map float32 [N, 8, h, w]."""
        with true_float32(latent.device.type):
            # So few channels run twice as fast on a CPU where they lie side by side.
            x = latent.contiguous(memory_format=torch.channels_last)
            for conv in self.up:
                x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
                x = F.leaky_relu(conv(x), slope)
            logits: Tensor = self.out(x)[:, 0]
            return logits


def fit_encoder(masks: Tensor, dim: int, *, steps: int, seed: int, progress: bool = False) -> MaskEncoder:
    """E, fitted to reconstruct masks (mean squared error, Adam, cosine schedule).

    A channel of the latent map that is 0 for every mask is lost for the distance. While the ReLUs leak, such a channel
    still learns, so they begin leaky and are plain from half-way on; if a channel is dead in the end all the same, the
    fit is repeated with the next seed, and the best of three is kept.

    Args:
        masks: bool [M, 28, 28], M > 0.
        dim: length of a code, 392 or 128.
        steps: optimiser steps.
        seed: of initialisation and order.
        progress: show a progress bar.

    Returns:
        A frozen encoder in evaluation mode on the device of the masks.

    Raises:
        ConfigError: no masks, or an unknown length.
    """
    if len(masks) == 0:
        raise ConfigError("the encoder has no masks to learn from")
    generator = torch.Generator().manual_seed(seed)
    sample = masks[torch.randint(len(masks), (_CHUNK,), generator=generator).to(masks.device)]
    fits: list[tuple[int, MaskEncoder]] = []
    for attempt in range(_ATTEMPTS):
        encoder = _fit(masks, dim, steps, seed + attempt * _SEEDS, progress)
        fits.append((len(dead_channels(encoder, sample)), encoder))
        if fits[-1][0] == 0:
            break
    return min(fits, key=lambda fit: fit[0])[1]


def _fit(masks: Tensor, dim: int, steps: int, seed: int, progress: bool) -> MaskEncoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = MaskEncoder(dim).to(masks.device)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=_LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(seed)
    for step in tqdm(range(steps), desc="encoder", unit="step", leave=False, disable=None if progress else True):
        slope = max(0.0, _LEAK * (1 - 2 * step / steps))
        batch = masks[torch.randint(len(masks), (_BATCH,), generator=generator).to(masks.device)].float()
        rebuilt = torch.sigmoid(encoder._logits(encoder._latent(batch, slope), slope))
        optimizer.zero_grad()
        F.mse_loss(rebuilt, batch).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return encoder.eval().requires_grad_(False)


@torch.no_grad()
def reconstruction_iou(encoder: MaskEncoder, masks: Tensor) -> float:
    """Mean IoU of masks bool [M, 28, 28] and their reconstructions, cut at 0.5; two empty masks count 1, M = 0 NaN."""
    rebuilt = torch.cat([encoder.decode(encoder(part)) >= 0.5 for part in torch.split(masks, _CHUNK)])
    shared = (rebuilt & masks).flatten(1).sum(dim=1)
    either = (rebuilt | masks).flatten(1).sum(dim=1)
    return float(torch.where(either > 0, shared / either.clamp(min=1), 1.0).mean())


@torch.no_grad()
def dead_channels(encoder: MaskEncoder, masks: Tensor) -> list[int]:
    """Channels of the latent map that stay 0 for all of the masks bool [M, 28, 28]: they tell no two masks apart."""
    highest = torch.zeros(_CHANNELS, device=masks.device)
    for part in torch.split(masks, _CHUNK):
        highest = highest.maximum(encoder(part).view(len(part), _CHANNELS, -1).amax(dim=(0, 2)))
    return [int(channel) for channel in torch.nonzero(highest <= 0)]
