"""Box head: class scores and class-specific amodal boxes B^o (paper Sec. 3, Eq. 1: L_cls and L_box^o)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import batched_nms

from amodal.config import ModelConfig
from amodal.models.branch import BoxSide, Rescore
from amodal.models.fills import xavier_fill
from amodal.models.losses import matched
from amodal.models.pooler import Pooler
from amodal.models.sampling import select
from amodal.structures import LossTerm, RoIs

SMALLEST = 1e-2  # pixels; detections with a shorter side are dropped

CHUNK = 512
"""Candidates that a branch re-scores at a time."""


class BoxPredictor(BoxSide):
    """One linear layer for classes, one for boxes, and all that follows from them; what comes before is a subclass's.

    Attributes:
        num_classes: K, background not counted.
        score_threshold: scores of detections are above it.
        nms: IoU of the NMS in each class.
        detections: most detections an image.
    """

    class_rows: ClassVar[dict[str, tuple[int, int]]] = {"cls_score": (1, 1), "bbox_pred": (0, 4)}

    def __init__(self, model: ModelConfig, num_classes: int) -> None:
        super().__init__()
        config = model.box_head
        self.num_classes = num_classes
        self.score_threshold, self.nms, self.detections = config.score_threshold, config.nms, config.detections
        self.pooler = Pooler(config.pool_size)
        weight_x, weight_y, weight_w, weight_h = config.box_weights
        self.coder = BoxCoder((weight_x, weight_y, weight_w, weight_h))

    def add_outputs(self, channels: int) -> None:
        """Makes the two linear layers; a subclass calls it behind its own layers, :meth:`draw_outputs` at the end."""
        self.cls_score = nn.Linear(channels, self.num_classes + 1)
        self.bbox_pred = nn.Linear(channels, self.num_classes * 4)

    def draw_outputs(self) -> None:
        """Their first weights. Apart from their making, since the order of draws is part of what a seed means."""
        # Detectron's initialisation: outputs near zero, so that all classes start alike.
        nn.init.normal_(self.cls_score.weight, std=0.01)
        nn.init.normal_(self.bbox_pred.weight, std=0.001)
        for layer in (self.cls_score, self.bbox_pred):
            nn.init.zeros_(layer.bias)

    @abstractmethod
    def forward(self, features: Mapping[str, Tensor], boxes: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes float32 [S, 4], image int64 [S] -> logits float32 [S, K + 1], background first, deltas [S, K, 4]."""

    def outputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits float32 [S, K + 1] and deltas float32 [S, K, 4] of features [S, D]."""
        # Float32 from here on, under autocast, too: box corners in bfloat16 would be whole pixels off.
        return self.cls_score(x).float(), self.bbox_pred(x).float().view(-1, self.num_classes, 4)

    def box_loss(self, deltas: Tensor, goal: Tensor) -> Tensor:
        """Scalar, the sum over deltas float32 [R, 4] and their truth: L1."""
        return F.l1_loss(deltas, goal, reduction="sum")

    def train_step(
        self, features: Mapping[str, Tensor], sampled: RoIs, is_object: Tensor
    ) -> tuple[RoIs, dict[str, LossTerm]]:
        """Losses of the sampled regions.

        Args:
            features: pyramid levels.
            sampled: S regions with ground truth.
            is_object: bool [S], which are positive.

        Returns:
            The positive regions with ``decoded`` set, and ``loss_class`` (cross-entropy) and ``loss_box`` (L1 on the
            deltas of positives), both sums to be divided by S.
        """
        logits, deltas = self(features, sampled.boxes, sampled.batch)
        return self.losses(logits, deltas, sampled, is_object)

    def losses(
        self, logits: Tensor, deltas: Tensor, sampled: RoIs, is_object: Tensor
    ) -> tuple[RoIs, dict[str, LossTerm]]:
        """What :meth:`train_step` returns, from logits float32 [S, K + 1] and deltas float32 [S, K, 4]."""
        count = logits.new_tensor(float(len(sampled)))
        classes = torch.where(is_object, sampled.labels + 1, 0)
        loss_class = F.cross_entropy(logits, classes, reduction="sum")

        rows = torch.nonzero(is_object).flatten()
        positives = select(sampled, rows)
        chosen = deltas[rows, positives.labels]
        goal = self.coder.encode_single(matched(positives, "boxes"), positives.boxes)
        # The box of an object whose amodal shape is unknown is that of its visible part: no goal for an amodal box.
        known = matched(positives, "amodal_known")
        loss_box = self.box_loss(chosen[known], goal[known])
        decoded = self._decode(chosen.detach(), positives.boxes, positives)
        terms = {"loss_class": LossTerm(loss_class, count), "loss_box": LossTerm(loss_box, count)}
        return replace(positives, decoded=decoded), terms

    def detect(
        self,
        features: Mapping[str, Tensor],
        proposals: list[Tensor],
        sizes: list[tuple[int, int]],
        rescore: Rescore,
        threshold: float | None = None,
    ) -> RoIs:
        """Detections: decode, threshold, ``rescore``, threshold again, NMS in each class on B^o, best of each image.

        Args:
            features: pyramid levels.
            proposals: float32 [P, 4] an image.
            sizes: (height, width) of each image without padding.
            rescore: the branch's hook; gets the candidates, a chunk at a time, and returns new scores, or None to keep
                them.
            threshold: scores are above it; None: ``score_threshold``.

        Returns:
            Regions image by image, best first.
        """
        threshold = self.score_threshold if threshold is None else threshold
        boxes = torch.cat(proposals)
        batch = torch.cat([torch.full((len(p),), i, device=p.device) for i, p in enumerate(proposals)])
        logits, deltas = self(features, boxes, batch)
        scores = logits.softmax(dim=1)[:, 1:]
        # Only what may become a detection is decoded, not every proposal for every class.
        row, label = torch.nonzero(scores > threshold, as_tuple=True)
        candidates = RoIs(
            boxes=boxes[row], batch=batch[row], labels=label, scores=scores[row, label], image_sizes=sizes,
            decoded=boxes[row],
        )  # fmt: skip
        decoded = self._decode(deltas[row, label], candidates.boxes, candidates)
        candidates = replace(candidates, boxes=decoded, decoded=decoded)
        candidates = select(candidates, ((decoded[:, 2:] - decoded[:, :2]) >= SMALLEST).all(dim=1))
        better = rescored(candidates, rescore)
        if better is not None:
            candidates = replace(candidates, scores=better)
            candidates = select(candidates, candidates.scores > threshold)
        found = select(candidates, self._suppress(candidates))
        return replace(found, shared=self.handed_on(features, found))

    def handed_on(self, features: Mapping[str, Tensor], rois: RoIs) -> Tensor | None:
        """``RoIs.shared`` of detections in their final boxes; None: this box side hands on nothing."""
        return None

    def _suppress(self, candidates: RoIs) -> Tensor:
        """int64, rows that survive NMS, image by image, best first.

        NMS goes down the scores, so a prefix of them gives the same survivors as all would; a longer one is tried only
        where there are too few.
        """
        most, kept = self.detections, []
        for rows in candidates.per_image():
            rows = rows[candidates.scores[rows].argsort(descending=True, stable=True)]
            prefix = 10 * most
            survivors = self._nms(candidates, rows[:prefix])
            while len(survivors) < most and prefix < len(rows):
                prefix *= 4
                survivors = self._nms(candidates, rows[:prefix])
            kept.append(survivors[:most])
        return torch.cat(kept)

    def _nms(self, candidates: RoIs, rows: Tensor) -> Tensor:
        """The ``rows`` that survive NMS. Double precision, as NMS moves classes apart by adding to coordinates."""
        boxes, scores = candidates.boxes[rows].double(), candidates.scores[rows].double()
        return rows[batched_nms(boxes, scores, candidates.labels[rows], self.nms)]

    def _decode(self, deltas: Tensor, boxes: Tensor, rois: RoIs) -> Tensor:
        """float32 [R, 4], boxes of one class each, clipped to their images."""
        decoded: Tensor = self.coder.decode_single(deltas, boxes)
        return clip(decoded, rois)


class BoxHead(BoxPredictor):
    """Two fully connected layers on pooled maps: the box side that all systems share but those that bring their own."""

    def __init__(self, model: ModelConfig, num_classes: int) -> None:
        super().__init__(model, num_classes)
        config = model.box_head
        self.fc6 = nn.Linear(model.backbone.channels * config.pool_size**2, config.channels)
        self.fc7 = nn.Linear(config.channels, config.channels)
        self.add_outputs(config.channels)
        for layer in (self.fc6, self.fc7):
            xavier_fill(layer)
        self.draw_outputs()

    def forward(self, features: Mapping[str, Tensor], boxes: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes float32 [S, 4], image int64 [S] -> logits float32 [S, K + 1], background first, deltas [S, K, 4]."""
        x = self.pooler(features, boxes, batch).flatten(1)
        return self.outputs(F.relu(self.fc7(F.relu(self.fc6(x)))))


def rescored(candidates: RoIs, rescore: Rescore) -> Tensor | None:
    """float32 [R], the candidates' new scores, asked for in chunks of :data:`CHUNK`; None: they keep theirs."""
    # Of no candidates torch.split makes one empty chunk, so a branch is asked in every pass.
    parts = [rescore(select(candidates, rows)) for rows in torch.split(torch.arange(len(candidates)), CHUNK)]
    kept = [part.float() for part in parts if part is not None]
    if len(kept) != len(parts):
        if kept:
            raise ValueError("rescore answered for some chunks of the candidates and not for others")
        return None
    return torch.cat(kept)


def clip(boxes: Tensor, rois: RoIs) -> Tensor:
    """Boxes float32 [R, 4] cut to the images that the regions are in."""
    limits = boxes.new_tensor([[width, height, width, height] for height, width in rois.image_sizes])
    return torch.minimum(boxes.clamp(min=0), limits[rois.batch])
