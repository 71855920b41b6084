"""AISFormer (Tran et al., BMVC 2022): queries for the masks of a region, answered by a transformer of one layer."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from amodal.config import ModelConfig
from amodal.models.branch import Branch, Prior
from amodal.models.fills import msra_fill
from amodal.models.losses import mask_targets, mask_term, matched
from amodal.models.occluders import occluder_targets, occluder_term
from amodal.models.pooler import Pooler
from amodal.models.seeded import dropout
from amodal.settings import AISFormerConfig
from amodal.structures import BranchOutput, LossTerm, RoIs

VISIBLE, OCCLUDER, AMODAL = 0, 1, 2
QUERIES = 4  # The released code learns a fourth one, whose answer nothing reads.
HEADS = 2
_POSITIONS = 50  # learned rows and columns, of which the first 2P are used


class Attention(nn.Module):
    """Multi-head attention as PyTorch's, with seeded dropout of its weights (PyTorch's own draws cannot be seeded by
    image).

    Args:
        width: D.
        share: of the weights that is dropped in training.
        place: number of its dropout.
    """

    def __init__(self, width: int, share: float, place: int) -> None:
        super().__init__()
        self.share, self.place = share, place
        self.inputs, self.output = nn.Linear(width, 3 * width), nn.Linear(width, width)
        nn.init.xavier_uniform_(self.inputs.weight)
        nn.init.zeros_(self.inputs.bias)
        nn.init.zeros_(self.output.bias)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, rois: RoIs) -> Tensor:
        """float [R, L, D] of queries [R, L, D], keys and values [R, N, D]."""
        weights, biases = self.inputs.weight.chunk(3), self.inputs.bias.chunk(3)
        given = (query, key, value)
        q, k, v = (
            F.linear(x, w, b).view(*x.shape[:2], HEADS, x.shape[2] // HEADS).transpose(1, 2)
            for x, w, b in zip(given, weights, biases, strict=True)
        )
        if rois.targets is None or self.share == 0:
            mixed = F.scaled_dot_product_attention(q, k, v)  # never holds all N x N weights
        else:
            scores = (q @ k.transpose(2, 3)) / q.shape[3] ** 0.5
            mixed = dropout(scores.softmax(dim=3), self.share, rois, self.place) @ v
        result: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return result


class FeedForward(nn.Module):
    """Two linear layers, eight times as wide between them, dropout after each; added to x and normed."""

    def __init__(self, width: int, share: float, place: int) -> None:
        super().__init__()
        self.share, self.place = share, place
        self.wide, self.narrow = nn.Linear(width, 8 * width), nn.Linear(8 * width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, rois: RoIs) -> Tensor:
        """float [R, L, D] -> the same."""
        inner = dropout(F.relu(self.wide(x)), self.share, rois, self.place)
        result: Tensor = self.norm(x + dropout(self.narrow(inner), self.share, rois, self.place + 1))
        return result


class Encoder(nn.Module):
    """One layer: the cells of a region look at each other."""

    def __init__(self, width: int, share: float) -> None:
        super().__init__()
        self.share = share
        self.attention, self.norm = Attention(width, share, 1), nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, share, 3)

    def forward(self, cells: Tensor, position: Tensor, rois: RoIs) -> Tensor:
        """Cells float [R, N, D], their positions [N, D] -> memory [R, N, D]."""
        placed = cells + position
        x = self.norm(cells + dropout(self.attention(placed, placed, cells, rois), self.share, rois, 2))
        result: Tensor = self.feed_forward(x, rois)
        return result


class Decoder(nn.Module):
    """One layer: the queries look at each other, then at the cells."""

    def __init__(self, width: int, share: float) -> None:
        super().__init__()
        self.share = share
        self.own, self.own_norm = Attention(width, share, 5), nn.LayerNorm(width)
        self.cross, self.cross_norm = Attention(width, share, 7), nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, share, 9)

    def forward(self, queries: Tensor, memory: Tensor, position: Tensor, rois: RoIs) -> Tensor:
        """Query embeddings float [Q, D], memory [R, N, D] -> answers [R, Q, D]."""
        x = memory.new_zeros(len(memory), *queries.shape)
        x = self.own_norm(x + dropout(self.own(x + queries, x + queries, x, rois), self.share, rois, 6))
        found = self.cross(x + queries, memory + position, memory, rois)
        result: Tensor = self.feed_forward(self.cross_norm(x + dropout(found, self.share, rois, 8)), rois)
        return result


class AISFormer(Branch):
    """Masks are products of an embedding of each query with an embedding of each cell; none knows a class."""

    def __init__(self, config: ModelConfig, num_classes: int, prior: Prior | None = None) -> None:
        super().__init__()
        method, width, size = config.method, config.mask_head.channels, 2 * config.mask_head.pool_size
        assert isinstance(method, AISFormerConfig)
        self.occluder_weight, self.hidden_weight = method.occluder_weight, method.hidden_weight
        self.pooler = Pooler(config.mask_head.pool_size)
        self.learner = nn.Conv2d(config.backbone.channels, width, 3, padding=1)
        self.deconv = nn.ConvTranspose2d(width, width, 2, stride=2)
        places = max(_POSITIONS, size)
        self.rows, self.columns = (nn.Parameter(torch.rand(places, width // 2)) for _ in range(2))
        self.encoder, self.decoder = Encoder(width, method.dropout), Decoder(width, method.dropout)
        self.queries = nn.Parameter(torch.randn(QUERIES, width))
        self.norm = nn.LayerNorm(width)
        self.pixel_embed = nn.Conv2d(width, width, 1)
        self.mask_embed = perceptron(width, width, width, width)
        self.subtract = perceptron(2 * width, width, width)
        for layer in (self.learner, self.deconv):
            msra_fill(layer)
        nn.init.normal_(self.pixel_embed.weight, std=0.001)
        nn.init.zeros_(self.pixel_embed.bias)  # type: ignore[arg-type]

    def forward(self, features: dict[str, Tensor], rois: RoIs) -> BranchOutput:
        x = F.relu(self.deconv(F.relu(self.learner(self.pooler(features, rois.boxes, rois.batch)))))
        position = self.position(x.shape[3])
        cells = x.flatten(2).transpose(1, 2)
        memory = self.encoder(cells, position, rois)
        embedded = self.mask_embed(self.decoder(self.queries, memory, position, rois))
        hidden = self.subtract(torch.cat([embedded[:, AMODAL], embedded[:, VISIBLE]], dim=1))
        pixels = self.norm(memory + cells).transpose(1, 2).reshape(x.shape)
        answers = torch.cat([embedded[:, : AMODAL + 1], hidden[:, None]], dim=1)
        logits = torch.einsum("rqd,rdyx->rqyx", answers, self.pixel_embed(pixels))
        return BranchOutput(rois.boxes, logits[:, AMODAL], logits[:, VISIBLE], aux=logits)

    def position(self, size: int) -> Tensor:
        """float [S * S, D], of cells row by row: the column's half, then the row's."""
        columns = self.columns[:size].expand(size, -1, -1)
        rows = self.rows[:size, None].expand(-1, size, -1)
        return torch.cat([columns, rows], dim=2).flatten(0, 1)

    def loss(self, output: BranchOutput, rois: RoIs, features: dict[str, Tensor]) -> dict[str, LossTerm]:
        assert output.visible_logits is not None
        _, occluder, amodal, hidden = output.aux.unbind(dim=1)
        size = amodal.shape[-1]
        whole, seen = (mask_targets(rois, part, rois.boxes, size) for part in ("amodal", "visible"))
        others = occluder_targets(rois, rois.boxes, size)
        known = matched(rois, "amodal_known")
        terms = {
            "loss_mask_amodal": (mask_term(amodal, whole, known), 1.0),
            "loss_mask_visible": (mask_term(output.visible_logits, seen), 1.0),
            "loss_mask_occluder": (occluder_term(occluder, others, rois), self.occluder_weight),
            "loss_mask_hidden": (mask_term(hidden, (whole - seen).abs(), known), self.hidden_weight),
        }
        return {name: term.times(weight) for name, (term, weight) in terms.items()}


def perceptron(*widths: int) -> nn.Sequential:
    """Linear layers with ReLU between them, weights Xavier uniform."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layer = nn.Linear(inputs, outputs)
        nn.init.xavier_uniform_(layer.weight)
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])
