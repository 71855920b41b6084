"""Settings of model, data and training as plain dataclasses. Imports no torch, so that ``--help`` answers at once.

The defaults are the paper's ResNet-50-FPN on KINS; the YAML files in ``configs/`` hold only differences. Units and
ranges stand beside each field; ``__post_init__`` refuses values outside them with a :class:`ConfigError`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from amodal.errors import ConfigError


def _require(ok: bool, key: str, value: object, rule: str) -> None:
    if not ok:
        raise ConfigError(f"{key} is {value!r}, must be {rule}")


@dataclass
class TransformConfig:
    """Resizing and normalisation of images.

    Attributes:
        min_size: pixels; the shorter side in training, drawn from this list for each image.
        max_size: pixels; the longer side never exceeds it.
        test_min_size: pixels; the shorter side in test.
        test_max_size: pixels; the longest side in test.
        mean: RGB mean of pixel values in 0..1.
        std: RGB standard deviation of pixel values in 0..1.
    """

    min_size: list[int] = field(default_factory=lambda: [800])
    max_size: int = 3000
    test_min_size: int = 800
    test_max_size: int = 3000
    mean: list[float] = field(default_factory=lambda: [0.485, 0.456, 0.406])
    std: list[float] = field(default_factory=lambda: [0.229, 0.224, 0.225])

    def __post_init__(self) -> None:
        _require(bool(self.min_size) and min(self.min_size) >= 16, "transform.min_size", self.min_size, "sizes >= 16")
        _require(self.test_min_size >= 16, "transform.test_min_size", self.test_min_size, ">= 16")
        _require(self.max_size >= max(self.min_size), "transform.max_size", self.max_size, ">= transform.min_size")
        _require(
            self.test_max_size >= self.test_min_size,
            "transform.test_max_size",
            self.test_max_size,
            ">= transform.test_min_size",
        )


@dataclass
class BackboneConfig:
    """Backbone and feature pyramid.

    Attributes:
        name: "nano" (ResNet-10), "nano18" (ResNet-18-like) or any torchvision ResNet ("resnet50", "resnet101", ...).
        weights: torchvision weight name ("ResNet50_Weights.IMAGENET1K_V1", "MaskRCNN_ResNet50_FPN_Weights.COCO_V1"),
            path of a .safetensors file, or null for random initialisation.
        norm: "frozen_bn" or "group" (GroupNorm, for training from scratch).
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
        _require(0 <= self.trainable_layers <= 5, "backbone.trainable_layers", self.trainable_layers, "0 to 5")
        _require(self.channels >= 8 and self.channels % 8 == 0, "backbone.channels", self.channels, "a multiple of 8")


@dataclass
class RPNConfig:
    """Region proposal network.

    Attributes:
        anchor_sizes: pixels of the network image, one for each pyramid level (P6 included).
        aspect_ratios: height / width of the anchors.
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
        sizes, ratios = self.anchor_sizes, self.aspect_ratios
        _require(bool(sizes) and min(sizes) >= 1, "rpn.anchor_sizes", sizes, "sizes >= 1")
        _require(bool(ratios) and all(0 < r < math.inf for r in ratios), "rpn.aspect_ratios", ratios, "ratios > 0")
        for name in ("pre_nms_train", "pre_nms_test", "post_nms_train", "post_nms_test", "batch_per_image"):
            _require(getattr(self, name) >= 1, f"rpn.{name}", getattr(self, name), ">= 1")
        for name in ("nms", "fg_iou", "bg_iou", "positive_fraction"):
            _require(0.0 < getattr(self, name) <= 1.0, f"rpn.{name}", getattr(self, name), "in (0, 1]")
        _require(self.bg_iou <= self.fg_iou, "rpn.bg_iou", self.bg_iou, "<= rpn.fg_iou")


@dataclass
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
        for name in ("channels", "pool_size", "batch_per_image"):
            _require(getattr(self, name) >= 1, f"box_head.{name}", getattr(self, name), ">= 1")
        for name in ("positive_fraction", "fg_iou"):
            _require(0.0 < getattr(self, name) <= 1.0, f"box_head.{name}", getattr(self, name), "in (0, 1]")
        weights = self.box_weights
        ok = len(weights) == 4 and all(0 < w < math.inf for w in weights)
        _require(ok, "box_head.box_weights", weights, "four weights > 0")
        _require(0.0 <= self.score_threshold < 1.0, "box_head.score_threshold", self.score_threshold, "in [0, 1)")
        _require(0.0 < self.nms <= 1.0, "box_head.nms", self.nms, "in (0, 1]")
        _require(self.detections >= 1, "box_head.detections", self.detections, ">= 1")


@dataclass
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
        for name in ("channels", "pool_size"):
            _require(getattr(self, name) >= 1, f"mask_head.{name}", getattr(self, name), ">= 1")
        _require(self.convs >= 0, "mask_head.convs", self.convs, ">= 0")


@dataclass
class MethodConfig:
    """Settings that belong to one system; each system has a subclass."""

    @property
    def uses_prior(self) -> bool:
        """Whether the system needs an expansion prior."""
        return False


@dataclass
class MaskRCNNConfig(MethodConfig):
    """Mask R-CNN (He et al., ICCV 2017) trained on amodal boxes and amodal masks; it has no visible mask."""


@dataclass
class PGExpConfig(MethodConfig):
    """PGExp (Chen et al., AAAI 2023). The defaults are set #6 of Table 1; with ``rerank: occluder`` it is PGExp+.

    Attributes:
        box_expansion: how B^o becomes B^a (Sec. 3.2). "none": it stays; "plain": a box head without prior, on the maps
            of B^v and B^o; "prior": the prior-guided amodal box head.
        mask_expansion: how the amodal mask is predicted (Sec. 3.3). "plain": from F^e alone; "prior": flow-warped
            features; "masks": the retrieved amodal masks are concatenated instead (the paper's rejected variant).
        detects: which box RPN and box head look for; "visible" is the paper's other rejected variant and needs a box
            expansion and a prior with ``key_frame: visible``.
        k: K, priors retrieved for an object.
        aggregate: "concat": K maps concatenated in order of distance and squeezed (paper); "attention": a weighted mean
            over the priors whose weights see distance and consistency, any K at test.
        rerank: "occluder" (PGExp+) keeps the K of ``candidates`` priors that agree best with what else is seen.
        candidates: priors retrieved before re-ranking, at least ``k``.
        rerank_weight: weight of a candidate's inconsistency beside its relative distance; null: the prior's fitted one.
        train_boxes: B^o in training: the sampled proposal, or the box head's "decoded" box for the object's class.
        reference: box that the deltas of the box expansion refer to: B^v ("visible", paper), B^o ("original"), or the
            box of the median T^r_k(B^v) ("prior"), so that the head starts from what the priors say.
        delta_weights: Faster R-CNN delta weights (x, y, w, h) of the box expansion's loss.
        box_channels: width of the box expansion's fully connected layers.
        geometry: tell the box expansion in numbers, too, where B^o and the priors' boxes lie; it then starts from B^o.
            The paper's head sees features alone.
        exclude: priors that an object in training does not retrieve: "none" (paper), those made from the object itself
            ("instance"), or from any object of its image ("image").
        warmup_steps: training steps in which the mask expansion works in jittered true boxes, since B^a is poor.
        warmup_jitter: largest shift and change of size of these boxes, as a share of the side.
        checkpoint: recompute the warped maps in the backward pass instead of keeping K of them (less memory).
    """

    box_expansion: Literal["none", "plain", "prior"] = "prior"
    mask_expansion: Literal["plain", "prior", "masks"] = "prior"
    detects: Literal["amodal", "visible"] = "amodal"
    k: int = 8
    aggregate: Literal["concat", "attention"] = "concat"
    rerank: Literal["none", "occluder"] = "none"
    candidates: int = 32
    rerank_weight: float | None = None
    train_boxes: Literal["proposal", "decoded"] = "proposal"
    reference: Literal["visible", "original", "prior"] = "visible"
    delta_weights: list[float] = field(default_factory=lambda: [1.0, 1.0, 1.0, 1.0])
    box_channels: int = 1024
    geometry: bool = False
    exclude: Literal["none", "instance", "image"] = "none"
    warmup_steps: int = 0
    warmup_jitter: float = 0.1
    checkpoint: bool = False

    def __post_init__(self) -> None:
        _require(self.k >= 1, "model.method.k", self.k, ">= 1")
        enough = self.rerank == "none" or self.candidates >= self.k
        _require(enough, "model.method.candidates", self.candidates, f">= model.method.k ({self.k})")
        weight = self.rerank_weight
        _require(weight is None or 0 <= weight < math.inf, "model.method.rerank_weight", weight, ">= 0, or null")
        ok = len(self.delta_weights) == 4 and all(0 < w < math.inf for w in self.delta_weights)
        _require(ok, "model.method.delta_weights", self.delta_weights, "four weights > 0")
        _require(self.box_channels >= 1, "model.method.box_channels", self.box_channels, ">= 1")
        _require(self.warmup_steps >= 0, "model.method.warmup_steps", self.warmup_steps, ">= 0")
        _require(0 <= self.warmup_jitter < 0.5, "model.method.warmup_jitter", self.warmup_jitter, "in [0, 0.5)")
        priorless = self.reference == "prior" and self.box_expansion != "prior"
        _require(
            not priorless, "model.method.reference", self.reference, "visible or original where no prior has boxes"
        )
        needs = self.detects == "visible" and self.box_expansion == "none"
        _require(not needs, "model.method.box_expansion", self.box_expansion, "plain or prior where detects is visible")

    @property
    def uses_prior(self) -> bool:
        return self.box_expansion == "prior" or self.mask_expansion != "plain"


METHOD_CONFIGS: dict[str, type[MethodConfig]] = {"mask_rcnn": MaskRCNNConfig, "pgexp": PGExpConfig}


@dataclass
class ModelConfig:
    """A detector: its parts and the system's own settings.

    Attributes:
        system: name of the system, see ``amodal methods``.
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
        _require(len(sizes) == levels, "model.rpn.anchor_sizes", sizes, f"{levels} sizes, one for each pyramid level")


@dataclass
class DataConfig:
    """Annotation files and image folders.

    Attributes:
        train: annotation file to train on.
        train_images: folder its file names are relative to.
        val: annotation file evaluated during training; null: no evaluation.
        val_images: folder its file names are relative to.
        flip: probability of a horizontal flip in training.
        workers: loader processes.
    """

    train: str = ""
    train_images: str = ""
    val: str | None = None
    val_images: str | None = None
    flip: float = 0.5
    workers: int = 2

    def __post_init__(self) -> None:
        _require(0.0 <= self.flip <= 1.0, "data.flip", self.flip, "in [0, 1]")
        _require(self.workers >= 0, "data.workers", self.workers, ">= 0")


@dataclass
class PriorConfig:
    """Fitting of an expansion prior (Sec. 3.1): encoder E, flow solver S^f and memory bank, from masks alone.

    Attributes:
        slots: K_s, slots of a class.
        encoder: length of E's code; 392 (KINS) or 128 (D2SA, COCOA cls).
        fit_on: masks that E learns to reconstruct; "amodal" alone as earlier work has it.
        encoder_steps: optimiser steps of E.
        flow: S^f; "network", or "nearest": the closed-form offset to the nearest visible pixel.
        flow_steps: optimiser steps of S^f.
        neighbour_share: share of S^f's training pairs whose amodal mask is a retrieved neighbour's, as in use.
        key_frame: frame of the masks that are compared: the amodal box (paper) or the visible mask's own box.
        key_aspect: weight of the visible box's log aspect ratio in the key; 0: not part of it.
        min_occlusion: objects with a smaller hidden share stay out of the bank alone, not of the fits.
        rotate: augment classes short of ``slots`` by any rotation (objects seen from above).
        seed: of fitting, clustering and augmentation.
    """

    slots: int = 1000
    encoder: Literal[392, 128] = 392
    fit_on: Literal["both", "amodal"] = "both"
    encoder_steps: int = 2000
    flow: Literal["network", "nearest"] = "network"
    flow_steps: int = 150
    neighbour_share: float = 0.25
    key_frame: Literal["amodal", "visible"] = "amodal"
    key_aspect: float = 0.0
    min_occlusion: float = 0.0
    rotate: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        _require(self.slots >= 1, "slots", self.slots, ">= 1")
        _require(self.encoder_steps >= 1, "encoder_steps", self.encoder_steps, ">= 1")
        _require(self.flow_steps >= 1, "flow_steps", self.flow_steps, ">= 1")
        _require(0 <= self.neighbour_share <= 1, "neighbour_share", self.neighbour_share, "in [0, 1]")
        _require(0 <= self.key_aspect < math.inf, "key_aspect", self.key_aspect, ">= 0")
        _require(0 <= self.min_occlusion < 1, "min_occlusion", self.min_occlusion, "in [0, 1)")
        _require(0 <= self.seed < 2**31, "seed", self.seed, "in [0, 2^31)")


@dataclass
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
        _require(0.0 < self.lr < math.inf, "optim.lr", self.lr, "> 0")
        _require(0.0 <= self.momentum < 1.0, "optim.momentum", self.momentum, "in [0, 1)")
        _require(0.0 <= self.weight_decay < math.inf, "optim.weight_decay", self.weight_decay, ">= 0")
        ok = self.clip_norm is None or 0.0 < self.clip_norm < math.inf
        _require(ok, "optim.clip_norm", self.clip_norm, "> 0, or null for no clipping")
        _require(self.warmup_steps >= 0, "optim.warmup_steps", self.warmup_steps, ">= 0")
        _require(0.0 < self.warmup_factor <= 1.0, "optim.warmup_factor", self.warmup_factor, "in (0, 1]")
        _require(all(0 < m < math.inf for m in self.milestones), "optim.milestones", self.milestones, "steps > 0")
        _require(0.0 < self.gamma <= 1.0, "optim.gamma", self.gamma, "in (0, 1]")


@dataclass
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
        prior: folder of an expansion prior (``amodal prior fit``); null: a system that needs one fits it first. A run
            that is resumed goes on with its checkpoint's.
        prior_fit: how it is fitted then.
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
    prior_fit: PriorConfig = field(default_factory=PriorConfig)
    freeze: list[str] = field(default_factory=list)
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)

    def __post_init__(self) -> None:
        _require(self.steps >= 1, "steps", self.steps, ">= 1")
        _require(self.batch_size >= 1, "batch_size", self.batch_size, ">= 1")
        _require(self.accumulate >= 1, "accumulate", self.accumulate, ">= 1")
        _require(0 <= self.seed < 2**31, "seed", self.seed, "in [0, 2^31)")
        _require(self.eval_every >= 0, "eval_every", self.eval_every, ">= 0")
        _require(self.save_every >= 1, "save_every", self.save_every, ">= 1")
        _require(self.log_every >= 1, "log_every", self.log_every, ">= 1")
        _require(
            self.batch_size % self.accumulate == 0, "accumulate", self.accumulate, f"a divisor of {self.batch_size}"
        )
