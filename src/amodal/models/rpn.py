"""Region proposal network (Ren et al., NeurIPS 2015) on the pyramid, from torchvision's head, box coder and NMS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import batched_nms, clip_boxes_to_image

from amodal.draws import Draws, Purpose, choose_balanced
from amodal.models.matching import match
from amodal.structures import LossTerm, Targets

_SMALLEST = 1e-3  # pixels; proposals with a shorter side are dropped


class AnchorGrid(nn.Module):
    """Anchors of every pyramid level, centred at multiples of the level's stride as torchvision's are.

    Strides are powers of two, not image size / map size: the latter is off on the coarsest level of most sizes.
    """

    def __init__(self, sizes: Sequence[int], aspect_ratios: Sequence[float]) -> None:
        super().__init__()
        ratios = torch.tensor(list(aspect_ratios))
        self.per_cell = len(aspect_ratios)
        self.strides = [4 * 2**level for level in range(len(sizes))]
        extents = [torch.stack([size / ratios.sqrt(), size * ratios.sqrt()], dim=1) for size in sizes]
        # Rounded as torchvision's are, whose weights were trained with such anchors.
        self._shapes = [torch.cat([-extent, extent], dim=1).div(2).round() for extent in extents]
        self._cached: tuple[object, Tensor, list[int]] | None = None

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, list[int]]:
        """float32 [M, 4] xyxy pixels over all levels (row, column, shape in turn), and how many each level has."""
        key = (maps[0].device, *(tuple(level.shape[-2:]) for level in maps))
        cached = self._cached
        if cached is None or cached[0] != key:
            levels = [
                self._level(level, shape.to(level.device), stride)
                for level, shape, stride in zip(maps, self._shapes, self.strides, strict=True)
            ]
            # Kept for the next call and returned from here: another thread may have put its own size there meanwhile.
            cached = self._cached = (key, torch.cat(levels), [len(level) for level in levels])
        return cached[1], cached[2]

    @staticmethod
    def _level(level: Tensor, shapes: Tensor, stride: int) -> Tensor:
        height, width = level.shape[-2:]
        y, x = torch.meshgrid(
            torch.arange(height, device=level.device) * stride,
            torch.arange(width, device=level.device) * stride,
            indexing="ij",
        )
        return (torch.stack([x, y, x, y], dim=-1)[:, :, None] + shapes).reshape(-1, 4)


class RegionProposalNetwork(nn.Module):
    """Scores anchors, and turns the best into proposals.

    Args:
        channels: C of the pyramid.
        anchor_sizes, aspect_ratios: of the anchors, see :class:`AnchorGrid`.
        pre_nms_train, pre_nms_test: proposals kept a level before NMS.
        post_nms_train, post_nms_test: proposals kept an image after it.
        nms: IoU of proposal NMS.
        fg_iou, bg_iou: an anchor is object from the first on, background below the second.
        batch_per_image: anchors sampled an image.
        positive_fraction: largest share of objects among them.
    """

    def __init__(
        self,
        channels: int,
        *,
        anchor_sizes: Sequence[int],
        aspect_ratios: Sequence[float],
        pre_nms_train: int,
        pre_nms_test: int,
        post_nms_train: int,
        post_nms_test: int,
        nms: float,
        fg_iou: float,
        bg_iou: float,
        batch_per_image: int,
        positive_fraction: float,
    ) -> None:
        super().__init__()
        self.kept_train, self.kept_test = (pre_nms_train, post_nms_train), (pre_nms_test, post_nms_test)
        self.nms, self.fg_iou, self.bg_iou = nms, fg_iou, bg_iou
        self.batch_per_image, self.positive_fraction = batch_per_image, positive_fraction
        self.anchors = AnchorGrid(anchor_sizes, aspect_ratios)
        self.head = RPNHead(channels, self.anchors.per_cell)
        self.coder = BoxCoder((1.0, 1.0, 1.0, 1.0))

    def forward(
        self,
        features: Mapping[str, Tensor],
        sizes: list[tuple[int, int]],
        targets: list[Targets] | None = None,
        draws: Draws | None = None,
    ) -> tuple[list[Tensor], dict[str, LossTerm]]:
        """Proposals, and with targets the loss terms ``loss_objectness`` and ``loss_rpn_box``.

        Args:
            features: every level of the pyramid, float [B, C, H, W].
            sizes: (height, width) of each image without padding.
            targets: ground truth of each image, in its frame; None in test.
            draws: chooses the anchors that are trained on; needed with targets.

        Returns:
            float32 [P, 4] an image, xyxy pixels clipped to it, best first, without gradient; loss terms, empty in test.
            Both are sums over sampled anchors, and the number of these is their count.
        """
        maps = list(features.values())
        logits, deltas = self.head(maps)
        anchors, counts = self.anchors(maps)
        # Float32 from here on, under autocast, too: box corners in bfloat16 would be whole pixels off.
        scores = torch.cat([_rows(level, 1).squeeze(-1) for level in logits], dim=1).float()
        codes = torch.cat([_rows(level, 4) for level in deltas], dim=1).float()
        proposals = [
            self._propose(image_scores, image_codes, anchors, counts, size, targets is not None)
            for image_scores, image_codes, size in zip(scores.detach(), codes.detach(), sizes, strict=True)
        ]
        if targets is None:
            return proposals, {}
        if draws is None:
            raise ValueError("training needs draws")
        return proposals, self._losses(scores, codes, anchors, sizes, targets, draws)

    def _propose(
        self,
        scores: Tensor,
        codes: Tensor,
        anchors: Tensor,
        counts: list[int],
        size: tuple[int, int],
        trains: bool,
    ) -> Tensor:
        """Proposals of an image: the best anchors of each level, decoded, clipped, and thinned by NMS in each level."""
        before, after = self.kept_train if trains else self.kept_test
        rows, levels, first = [], [], 0
        for level, (part, count) in enumerate(zip(torch.split(scores, counts), counts, strict=True)):
            top = part.topk(min(before, count)).indices + first
            rows.append(top)
            levels.append(torch.full_like(top, level))
            first += count
        chosen, level_of = torch.cat(rows), torch.cat(levels)
        boxes = clip_boxes_to_image(self.coder.decode_single(codes[chosen], anchors[chosen]), size)
        large = ((boxes[:, 2:] - boxes[:, :2]) >= _SMALLEST).all(dim=1)
        boxes, chosen, level_of = boxes[large], chosen[large], level_of[large]
        # Levels do not suppress each other: each has objects of its own size.
        kept = batched_nms(boxes, scores[chosen], level_of, self.nms)[:after]
        proposals: Tensor = boxes[kept]
        return proposals

    def _losses(
        self,
        scores: Tensor,
        codes: Tensor,
        anchors: Tensor,
        sizes: list[tuple[int, int]],
        targets: list[Targets],
        draws: Draws,
    ) -> dict[str, LossTerm]:
        centres = (anchors[:, :2] + anchors[:, 2:]) / 2
        objectness, regression, sampled = scores.new_zeros(()), scores.new_zeros(()), 0
        for image, (target, (height, width)) in enumerate(zip(targets, sizes, strict=True)):
            # anchors over the padding are left out, so the samples do not depend on the other images of the batch
            inside = (centres[:, 0] < width) & (centres[:, 1] < height)
            found = match(anchors, target, self.fg_iou, self.bg_iou, force=True)
            positive, negative = choose_balanced(
                found.positive & inside,
                found.negative & inside,
                self.batch_per_image,
                self.positive_fraction,
                draws.stream(target.image_id, Purpose.ANCHORS),
            )
            rows = torch.cat([positive, negative])
            wanted = torch.cat([scores.new_ones(len(positive)), scores.new_zeros(len(negative))])
            loss = F.binary_cross_entropy_with_logits(scores[image, rows], wanted, reduction="sum")
            objectness = objectness + loss
            # The box of an object whose amodal shape is unknown is that of its visible part: no goal for an amodal box.
            known = positive[target.amodal_known[found.gt_index[positive]]]
            goal = self.coder.encode_single(target.boxes[found.gt_index[known]], anchors[known])
            # beta is torchvision's.
            regression = regression + F.smooth_l1_loss(codes[image, known], goal, beta=1 / 9, reduction="sum")
            sampled += len(rows)
        count = scores.new_tensor(float(sampled))
        return {"loss_objectness": LossTerm(objectness, count), "loss_rpn_box": LossTerm(regression, count)}


def _rows(level: Tensor, values: int) -> Tensor:
    """Head output [B, A * values, H, W] -> [B, H * W * A, values]."""
    batch, _, height, width = level.shape
    return level.view(batch, -1, values, height, width).permute(0, 3, 4, 1, 2).reshape(batch, -1, values)
