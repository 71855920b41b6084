"""The detector that all systems share. This page tells the story; the parts are in the modules beside it."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any, Literal, NamedTuple, overload

import torch
from torch import Tensor, nn

from amodal.config import ModelConfig
from amodal.config_io import structure
from amodal.draws import Draws
from amodal.errors import DataError, counted
from amodal.models.backbone import Backbone
from amodal.models.branch import BoxSide, Branch
from amodal.models.rpn import RegionProposalNetwork
from amodal.models.sampling import Sampler, sought
from amodal.models.transform import Batch, Transform
from amodal.prediction import Prediction
from amodal.structures import BranchOutput, LossTerm, RoIs, Targets


class Regions(NamedTuple):
    """Detections of one batch, on the way to their masks.

    Attributes:
        group: positions of the batch's images among those that were asked for.
        batch: the images as the network sees them.
        features: pyramid levels "0" to "3" (and "pool"), float [B, C, H, W].
        rois: R detections, in the frame of the network image.
    """

    group: list[int]
    batch: Batch
    features: dict[str, Tensor]
    rois: RoIs


class AmodalRCNN(nn.Module):
    """Two-stage detector with amodal boxes: backbone, proposals, box head, and the branch that is a system's own.

    Training: images and targets in, losses by name out. Evaluation: images in, a :class:`~amodal.prediction.Prediction`
    for each out, in the frame of the image as given, whatever the resizing inside.

    Args:
        sample: chooses the regions that a step trains on: :func:`~amodal.models.sampling.sample_rois` with its numbers.

    Attributes:
        settings: what the parts were built from, plain nested data as in a configuration file. It is kept for whoever
            saves or shows the model; nothing here reads it.
        score_threshold: scores of detections are above it.
        class_names: name of each 0-based label.
        category_ids: annotation-file id of each label.
        notices: where pretrained weights in it came from, and under which licence.
    """

    def __init__(
        self,
        transform: Transform,
        backbone: Backbone,
        rpn: RegionProposalNetwork,
        box_head: BoxSide,
        branch: Branch,
        *,
        sample: Sampler,
        settings: dict[str, Any],
        score_threshold: float,
        class_names: list[str],
        category_ids: list[int],
    ) -> None:
        super().__init__()
        self.transform = transform
        self.backbone = backbone
        self.rpn = rpn
        self.box_head = box_head
        self.branch = branch
        self.sample = sample
        self.settings = settings
        self.score_threshold = score_threshold
        self.class_names = class_names
        self.category_ids = category_ids
        self.notices: list[str] = []
        self._draws = Draws()

    @property
    def config(self) -> ModelConfig:
        """The settings as an object, made anew at every call (it takes 20 ms), so that none is shared."""
        return structure(ModelConfig, deepcopy(self.settings), "settings of the model")

    @property
    def device(self) -> torch.device:
        """Where the parameters are; images may come from anywhere."""
        return self.transform.mean.device

    def set_step(self, seed: int, step: int) -> None:
        """Choose the random streams of the next training passes: image size, anchors, proposals, the branch's own.

        They reach the branch as ``rois.draws``.

        Args:
            seed: of the run, >= 0.
            step: optimiser step, >= 0.
        """
        self._draws = Draws(seed, step)

    @overload
    def forward(
        self, images: list[Tensor], targets: list[Targets] | None = None, *, terms: Literal[True]
    ) -> dict[str, LossTerm]: ...

    @overload
    def forward(
        self, images: list[Tensor], targets: list[Targets] | None = None, *, terms: Literal[False] = False
    ) -> dict[str, Tensor] | list[Prediction]: ...

    def forward(
        self, images: list[Tensor], targets: list[Targets] | None = None, *, terms: bool = False
    ) -> dict[str, Tensor] | dict[str, LossTerm] | list[Prediction]:
        """Losses in training mode, predictions in eval mode.

        Args:
            images: uint8 [3, H, W], or float in 0..1; sizes may differ.
            targets: ground truth of each image; needed in training mode, not read in eval mode.
            terms: in training mode, return sums and counts, which add up over micro-batches and processes.

        Returns:
            Training: scalars by name (``loss_objectness, loss_rpn_box, loss_class, loss_box`` and the branch's), to be
            added up with weight 1; :class:`~amodal.structures.LossTerm` with ``terms``. Eval: one prediction an image.

        Raises:
            DataError: an image or target cannot be used; names its position in the batch.
        """
        if not self.training:
            return self.detect(images)
        if targets is None or len(targets) != len(images):
            raise DataError(f"training needs targets for each of {counted(len(images), 'image')}")
        if not images:
            raise DataError("the batch holds no images")
        for index, target in enumerate(targets):
            check_targets(target, len(self.class_names), index)
        losses = self._losses(images, targets)
        return losses if terms else {name: term.mean() for name, term in losses.items()}

    def _losses(self, images: list[Tensor], targets: list[Targets]) -> dict[str, LossTerm]:
        batch, moved = self.transform(images, targets, self._draws)
        features = self.backbone(batch.images)
        losses: dict[str, LossTerm]
        goals = [sought(target, self.branch.detects) for target in moved]
        proposals, losses = self.rpn(features, batch.sizes, goals, self._draws)
        sampled, is_object = self.sample(proposals, goals, batch.sizes, self._draws)
        positives, terms = self.box_head.train_step(features, sampled, is_object)
        # The branch gets the objects as they are: boxes that were sought may be the visible ones.
        positives, sampled = replace(positives, targets=moved), replace(sampled, targets=moved)
        output: BranchOutput = self.branch(features, positives)
        own = self.branch.loss(output, positives, features)
        for more in (terms, own, self.branch.extra_loss(features, sampled, is_object)):
            if twice := sorted(losses.keys() & more.keys()):
                raise ValueError(f"two losses are called {twice[0]!r}, one of them would be lost")
            losses.update(more)
        return losses

    @torch.no_grad()
    def detect(self, images: list[Tensor], threshold: float | None = None) -> list[Prediction]:
        """Predictions for images (see :meth:`forward`), without gradient.

        Args:
            images: uint8 [3, H, W], or float in 0..1; sizes may differ.
            threshold: scores are above it, 0 to 1; None: ``score_threshold``.
        """
        found: dict[int, Prediction] = {}
        for regions in self.regions(images, threshold):
            output = self.branch(regions.features, regions.rois)
            found.update(zip(regions.group, self.predictions(regions, output), strict=True))
        return [found[index] for index in range(len(images))]

    @torch.no_grad()
    def regions(self, images: list[Tensor], threshold: float | None = None) -> Iterator[Regions]:
        """Detections before their masks, batch by batch: what the branch is asked about."""
        for group, batch in self.transform.batches(images):
            features = self.backbone(batch.images)
            proposals, _ = self.rpn(features, batch.sizes)
            rescore = partial(self.branch.rescore, features)
            rois = self.box_head.detect(features, proposals, batch.sizes, rescore, threshold)
            yield Regions(group, batch, features, rois)

    def predictions(self, regions: Regions, output: BranchOutput) -> list[Prediction]:
        """Back to the frames of the images as given, on the CPU, best score first; one prediction an image."""
        rois, batch = regions.rois, regions.batch
        scores = rois.scores if output.score_factor is None else rois.scores * output.score_factor.float()
        fields = {"boxes": output.boxes, "frames": rois.boxes, "labels": rois.labels, "scores": scores}
        fields["amodal_probs"] = output.amodal_logits.float().sigmoid()
        if output.visible_logits is not None:
            fields["visible_probs"] = output.visible_logits.float().sigmoid()
        rows = [part.cpu() for part in rois.per_image()]
        # One transfer a field for the whole batch; after it nothing waits for the device.
        on_cpu = {name: value.detach().cpu() for name, value in fields.items()}
        predictions = []
        for part, (height, width), (original_height, original_width) in zip(
            rows, batch.sizes, batch.originals, strict=True
        ):
            # A branch's factor may have changed the order.
            order = part[on_cpu["scores"][part].argsort(descending=True, stable=True)]
            chosen = {name: value[order] for name, value in on_cpu.items()}
            scale = torch.tensor([original_width / width, original_height / height]).repeat(2)
            limit = torch.tensor([original_width, original_height], dtype=torch.float32).repeat(2)
            for name in ("boxes", "frames"):
                # Sides were rounded when the image was resized, so what lay on its border may land beside it.
                chosen[name] = torch.minimum((chosen[name] * scale).clamp(min=0), limit)
            predictions.append(
                Prediction(
                    boxes=chosen["boxes"],
                    labels=chosen["labels"],
                    scores=chosen["scores"],
                    amodal_probs=chosen["amodal_probs"],
                    visible_probs=chosen.get("visible_probs"),
                    frames=chosen["frames"] if "visible_probs" in chosen else None,
                    image_size=(original_height, original_width),
                    class_names=self.class_names,
                    category_ids=self.category_ids,
                )
            )
        return predictions


def check_targets(targets: Targets, num_classes: int, index: int) -> None:
    """Refuse ground truth that cannot be trained on.

    Raises:
        DataError: labels outside the classes, boxes that are not finite or have no area; names image and annotation.
    """
    boxes, labels = targets.boxes, targets.labels
    if boxes.shape != (len(labels), 4):
        shape = "x".join(str(side) for side in boxes.shape)
        message = f"targets {index} of the batch have boxes of shape {shape} for {counted(len(labels), 'label')}"
        raise DataError(message, image_id=targets.image_id)
    bad = ~torch.isfinite(boxes).all(dim=1) | (boxes[:, 2:] <= boxes[:, :2]).any(dim=1)
    wrong = (labels < 0) | (labels >= num_classes)
    if not bool((bad | wrong).any()):
        return
    row = int(torch.nonzero(bad | wrong)[0])
    message = (
        f"box {[round(v, 2) for v in boxes[row].tolist()]} has no area"
        if bool(bad[row])
        else f"label {int(labels[row])} is none of {counted(num_classes, 'class')}"
    )
    raise DataError(message, image_id=targets.image_id, annotation_id=int(targets.annotation_ids[row]))
