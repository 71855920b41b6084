"""Settings of model, data and training as plain dataclasses. Imports no torch, so that ``--help`` answers at once.

The defaults are the paper's ResNet-50-FPN on KINS; the YAML files in ``configs/`` hold only differences. Units and
ranges stand beside each field; ``__post_init__`` refuses values outside them with a :class:`ConfigError`. Settings are
frozen: several models may be built from one object, and whoever wants another value makes another object.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from amodal.bounds import (
    CELLS,
    CONVS,
    ENTRIES,
    MANY,
    RATE,
    SIDE,
    STEPS,
    WEIGHTS,
    WIDTH,
    WORKERS,
    above_zero,
    each,
    no_empty,
    within,
)
from amodal.errors import require
from amodal.settings import FitConfig, MethodConfig


@dataclass(frozen=True)
class TransformConfig:
    """Resizing and normalisation of images.

    Attributes:
        min_size: pixels; the shorter side in training, drawn from this list for each image.
        max_size: pixels; the longer side never exceeds it.
        test_min_size: pixels; the shorter side in test.
        test_max_size: pixels; the longest side in test.
        mean: RGB mean of pixel values in 0..1; null: that of the backbone's pretrained weights.
        std: RGB standard deviation of pixel values in 0..1, at least 0.001; null: likewise.
    """

    min_size: list[int] = field(default_factory=lambda: [800])
    max_size: int = 3000
    test_min_size: int = 800
    test_max_size: int = 3000
    mean: list[float] | None = None
    std: list[float] | None = None

    def __post_init__(self) -> None:
        each(self, "model.transform.", "min_size", 16, SIDE)
        within(self, "model.transform.", 16, SIDE, "max_size", "test_min_size", "test_max_size")
        if self.mean is not None:
            each(self, "model.transform.", "mean", 0, 1, count=3)
        if self.std is not None:
            each(self, "model.transform.", "std", 0.001, 1, count=3)
        largest = max(self.min_size)
        rule = f">= model.transform.min_size ({largest})"
        require(self.max_size >= largest, "model.transform.max_size", self.max_size, rule)
        least = self.test_min_size
        rule = f">= model.transform.test_min_size ({least})"
        require(self.test_max_size >= least, "model.transform.test_max_size", self.test_max_size, rule)


@dataclass(frozen=True)
class BackboneConfig:
    """Backbone and feature pyramid.

    Attributes:
        name: "nano" (ResNet-10), "nano18" (ResNet-18-like), any torchvision ResNet ("resnet50", "resnet101", ...), or
            "timm/NAME" for a model of timm that has features of strides 4, 8, 16 and 32.
        weights: torchvision weight name ("ResNet50_Weights.IMAGENET1K_V1", "MaskRCNN_ResNet50_FPN_Weights.COCO_V1"),
            path of a .safetensors file, or null for random initialisation; for timm/NAME "shipped" (they come with the
            package), "timm" (its download), or a .safetensors file.
        norm: "frozen_bn" or "group" (GroupNorm, for training from scratch); the batch norms of a timm model are always
            frozen, and this is of the pyramid alone.
        channels: C, channels of every pyramid level.
        trainable_layers: how many of the five stages, counted from the last, are trained.
        extra_level: add a P6 by max pooling, used by the RPN only.
    """

    name: str = "resnet50"
    weights: str | None = None
    norm: Literal["frozen_bn", "group"] = "frozen_bn"
    channels: int = 256
    trainable_layers: int = 3
    extra_level: bool = True

    def __post_init__(self) -> None:
        no_empty(self, "model.backbone.", "name", "weights")
        within(self, "model.backbone.", 0, 5, "trainable_layers")
        ok = 8 <= self.channels <= WIDTH and self.channels % 8 == 0
        require(ok, "model.backbone.channels", self.channels, f"a multiple of 8, at most {WIDTH}")


@dataclass(frozen=True)
class RPNConfig:
    """Region proposal network.

    Attributes:
        anchor_sizes: pixels of the network image, one for each pyramid level (P6 included).
        aspect_ratios: height / width of the anchors, 0.01 to 100.
        pre_nms_train: proposals kept a level before NMS, in training.
        pre_nms_test: the same in test.
        post_nms_train: proposals kept an image after NMS, in training.
        post_nms_test: the same in test.
        nms: IoU of proposal NMS.
        fg_iou: an anchor is object at an IoU of at least this.
        bg_iou: an anchor is background at an IoU below this.
        batch_per_image: anchors sampled an image.
        positive_fraction: largest share of objects among them.
    """

    anchor_sizes: list[int] = field(default_factory=lambda: [32, 64, 128, 256, 512])
    aspect_ratios: list[float] = field(default_factory=lambda: [0.5, 1.0, 2.0])
    pre_nms_train: int = 2000
    pre_nms_test: int = 1000
    post_nms_train: int = 1000
    post_nms_test: int = 1000
    nms: float = 0.7
    fg_iou: float = 0.7
    bg_iou: float = 0.3
    batch_per_image: int = 256
    positive_fraction: float = 0.5

    def __post_init__(self) -> None:
        each(self, "model.rpn.", "anchor_sizes", 1, SIDE)
        each(self, "model.rpn.", "aspect_ratios", 0.01, 100)
        within(self, "model.rpn.", 1, MANY, "pre_nms_train", "pre_nms_test", "post_nms_train", "post_nms_test")
        within(self, "model.rpn.", 1, MANY, "batch_per_image")
        above_zero(self, "model.rpn.", 1, "nms", "fg_iou", "bg_iou", "positive_fraction")
        require(self.bg_iou <= self.fg_iou, "model.rpn.bg_iou", self.bg_iou, f"<= model.rpn.fg_iou ({self.fg_iou:g})")


@dataclass(frozen=True)
class BoxHeadConfig:
    """Box head, RoI sampling and detection.

    Attributes:
        channels: width of the two fully connected layers.
        pool_size: cells of the pooled map, a side.
        box_weights: Faster R-CNN delta weights (x, y, w, h).
        batch_per_image: proposals sampled an image.
        positive_fraction: largest share of positives among them.
        fg_iou: a proposal is positive at IoU >= fg_iou with an amodal box.
        score_threshold: detections at or below it are dropped.
        nms: IoU of the per-class NMS.
        detections: most detections an image.
    """

    channels: int = 1024
    pool_size: int = 7
    box_weights: list[float] = field(default_factory=lambda: [10.0, 10.0, 5.0, 5.0])
    batch_per_image: int = 512
    positive_fraction: float = 0.25
    fg_iou: float = 0.5
    score_threshold: float = 0.05
    nms: float = 0.5
    detections: int = 100

    def __post_init__(self) -> None:
        within(self, "model.box_head.", 1, WIDTH, "channels")
        within(self, "model.box_head.", 1, CELLS, "pool_size")
        within(self, "model.box_head.", 1, MANY, "batch_per_image", "detections")
        above_zero(self, "model.box_head.", 1, "positive_fraction", "fg_iou", "nms")
        each(self, "model.box_head.", "box_weights", 0.001, 1000, count=4)
        require(0.0 <= self.score_threshold < 1.0, "model.box_head.score_threshold", self.score_threshold, "in [0, 1)")


@dataclass(frozen=True)
class MaskHeadConfig:
    """Mask heads: convolutions, deconvolution, predictor.

    Attributes:
        channels: width of the convolutions.
        convs: 3 x 3 convolutions before the deconvolution.
        pool_size: cells of the pooled map, a side; masks have twice as many.
        soft_targets: train on area fractions of the cells instead of 0 / 1.
    """

    channels: int = 256
    convs: int = 4
    pool_size: int = 14
    soft_targets: bool = False

    def __post_init__(self) -> None:
        within(self, "model.mask_head.", 1, WIDTH, "channels")
        within(self, "model.mask_head.", 1, CELLS, "pool_size")
        within(self, "model.mask_head.", 0, CONVS, "convs")


@dataclass(frozen=True)
class ModelConfig:
    """A detector: its parts and the system's own settings.

    Attributes:
        system: name of the system, see ``amodal methods``, or "my_module:MySystem" for one in a file of your own.
        method: the system's own settings; null for its defaults.
    """

    system: str = "mask_rcnn"
    method: MethodConfig | None = None
    transform: TransformConfig = field(default_factory=TransformConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    rpn: RPNConfig = field(default_factory=RPNConfig)
    box_head: BoxHeadConfig = field(default_factory=BoxHeadConfig)
    mask_head: MaskHeadConfig = field(default_factory=MaskHeadConfig)

    def __post_init__(self) -> None:
        levels = 5 if self.backbone.extra_level else 4
        sizes = self.rpn.anchor_sizes
        require(len(sizes) == levels, "model.rpn.anchor_sizes", sizes, f"{levels} sizes, one for each pyramid level")
        # Found here in no time, and not when the machine has no more memory.
        maps, box, mask = self.backbone.channels, self.box_head, self.mask_head
        for key, value, count in (
            ("model.backbone.channels", maps, 4 * 9 * maps**2),
            ("model.box_head.channels", box.channels, (maps * box.pool_size**2 + box.channels) * box.channels),
            ("model.mask_head.channels", mask.channels, 9 * mask.channels * (maps + mask.convs * mask.channels)),
        ):
            rule = f"less: its layers would have {count / 1e9:.1f} billion weights, the most is {WEIGHTS / 1e9:.1f}"
            require(count <= WEIGHTS, key, value, rule)
        if self.method is not None:
            self.method.check_model(self)


@dataclass(frozen=True)
class DataConfig:
    """Annotation files and image folders.

    Attributes:
        train: annotation file to train on.
        train_images: folder its file names are relative to.
        val: annotation file evaluated during training; null: no evaluation.
        val_images: folder its file names are relative to.
        schema: schema of these files; "auto" recognises it by the keys of their annotations.
        flip: probability of a horizontal flip in training.
        workers: loader processes; at a terminal, more than there are cores are asked for.
    """

    train: str = ""
    train_images: str = ""
    val: str | None = None
    val_images: str | None = None
    schema: str = "auto"
    flip: float = 0.5
    workers: int = 2

    def __post_init__(self) -> None:
        no_empty(self, "data.", "val", "val_images", "schema")
        within(self, "data.", 0, 1, "flip")
        within(self, "data.", 0, WORKERS, "workers")


@dataclass(frozen=True)
class OptimConfig:
    """Optimiser, with linear warm-up and steps as the earlier work has them.

    Attributes:
        name: "sgd" (with momentum) or "adamw" (which does not read ``momentum``).
        lr: learning rate for ``batch_size`` images.
        momentum: SGD momentum.
        weight_decay: L2 penalty; the scales and shifts of normalisation layers have none.
        clip_norm: largest gradient norm; null: no clipping.
        warmup_steps: linear warm-up length.
        warmup_factor: learning rate at step 0 relative to ``lr``.
        milestones: steps at which the rate falls by ``gamma``; values below 1 are fractions of ``steps``.
        gamma: factor of each fall.
    """

    name: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.0025
    momentum: float = 0.9
    weight_decay: float = 1e-4
    clip_norm: float | None = None
    warmup_steps: int = 1000
    warmup_factor: float = 0.001
    milestones: list[float] = field(default_factory=lambda: [0.625, 0.83333])
    gamma: float = 0.1

    def __post_init__(self) -> None:
        above_zero(self, "optim.", RATE, "lr")
        require(0.0 <= self.momentum < 1.0, "optim.momentum", self.momentum, "in [0, 1)")
        within(self, "optim.", 0, RATE, "weight_decay")
        ok = self.clip_norm is None or 0.0 < self.clip_norm <= MANY
        require(ok, "optim.clip_norm", self.clip_norm, f"> 0 and at most {MANY}, or null for no clipping")
        within(self, "optim.", 0, STEPS, "warmup_steps")
        above_zero(self, "optim.", 1, "warmup_factor", "gamma")
        ok = len(self.milestones) <= ENTRIES and all(0 < m <= STEPS for m in self.milestones)
        rule = f"steps > 0 and at most {STEPS}, no more than {ENTRIES} of them"
        require(ok, "optim.milestones", self.milestones, rule)


@dataclass(frozen=True)
class TrainConfig:
    """One training run.

    Attributes:
        out: run folder.
        steps: optimiser steps.
        batch_size: images a step, over all processes and micro-batches.
        accumulate: micro-batches a step.
        seed: of initialisation, data order, augmentation and sampling.
        precision: "no" (float32), "bf16" or "fp16".
        eval_every: steps between evaluations on ``data.val``; 0: only at the end.
        save_every: steps between ``last`` checkpoints.
        log_every: steps between log lines.
        prior: folder of a prior (``amodal prior fit``); null: a system that needs one fits it first. A run that is
            resumed goes on with its checkpoint's.
        prior_fit: how it is fitted then, settings of the system's kind of prior; null for their defaults.
        freeze: parts that are not trained, by name, for instance backbone, rpn, box_head, branch.visible_head.
    """

    out: str = "runs/train"
    steps: int = 48000
    batch_size: int = 1
    accumulate: int = 1
    seed: int = 0
    precision: Literal["no", "bf16", "fp16"] = "no"
    eval_every: int = 5000
    save_every: int = 1000
    log_every: int = 20
    prior: str | None = None
    prior_fit: FitConfig | None = None
    freeze: list[str] = field(default_factory=list)
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)

    def __post_init__(self) -> None:
        no_empty(self, "", "out", "prior")
        within(self, "", 1, STEPS, "steps", "save_every", "log_every")
        within(self, "", 1, MANY, "batch_size", "accumulate")
        within(self, "", 0, STEPS, "eval_every")
        require(0 <= self.seed < 2**31, "seed", self.seed, "in [0, 2^31)")
        ok = self.batch_size % self.accumulate == 0
        require(ok, "accumulate", self.accumulate, f"a divisor of batch_size ({self.batch_size})")
