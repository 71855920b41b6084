"""torchvision's ``maskrcnn_resnet50_fpn`` and ours with the same weights and sizes, and one input for both."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d

from amodal.config import BackboneConfig, BoxHeadConfig, ModelConfig, RPNConfig, TransformConfig
from amodal.data.masks import InstanceMasks
from amodal.model import build
from amodal.models.initial_weights import load_torchvision_detector
from amodal.models.rcnn import AmodalRCNN
from amodal.structures import Targets

CLASSES = 90  # as torchvision's COCO detectors


def torchvision_detector(size: tuple[int, int], detections: int, threshold: float) -> MaskRCNN:
    """ResNet-50-FPN as torchvision builds it when it has weights (frozen batch norm), seeded random weights."""
    torch.manual_seed(0)
    backbone = resnet_fpn_backbone(
        backbone_name="resnet50", weights=None, norm_layer=FrozenBatchNorm2d, trainable_layers=3
    )
    model = MaskRCNN(
        backbone,
        CLASSES + 1,
        min_size=size[0],
        max_size=size[1],
        rpn_post_nms_top_n_train=1000,
        rpn_post_nms_top_n_test=1000,
        box_score_thresh=threshold,
        box_detections_per_img=detections,
    )
    _calibrate(model)
    return model


def _calibrate(model: MaskRCNN) -> None:
    """Frozen batch norms of random weights let the activations of 16 residual blocks explode: damp them."""
    for name, module in model.named_modules():
        if isinstance(module, FrozenBatchNorm2d) and name.endswith(("bn3", "downsample.1")):
            module.weight.fill_(0.5)


def our_detector(theirs: MaskRCNN, size: tuple[int, int], detections: int, threshold: float) -> AmodalRCNN:
    """Our Mask R-CNN with the tensors of torchvision's."""
    config = ModelConfig(
        transform=TransformConfig(min_size=[size[0]], max_size=size[1], test_min_size=size[0], test_max_size=size[1]),
        backbone=BackboneConfig(trainable_layers=3),
        rpn=replace(RPNConfig(), post_nms_train=1000, post_nms_test=1000),
        box_head=BoxHeadConfig(score_threshold=threshold, detections=detections),
    )
    model = build("mask_rcnn", CLASSES, config=config)
    fresh = load_torchvision_detector(model, theirs.state_dict())
    if fresh:
        raise RuntimeError(f"not the same weights: {fresh[:3]} were not loaded")
    trained = {name for name, p in theirs.named_parameters() if p.requires_grad and name.startswith("backbone.body")}
    for name, parameter in model.named_parameters():
        if name.startswith("backbone.body"):
            parameter.requires_grad_(name in trained)
    return model


def picture(size: tuple[int, int], seed: int = 0) -> Tensor:
    """float32 [3, H, W] in 0..1: smooth noise, so that proposals differ in score."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, size[0] // 16 + 2, size[1] // 16 + 2, generator=generator)
    return torch.nn.functional.interpolate(coarse, size=size, mode="bilinear")[0].contiguous()


def ellipses(size: tuple[int, int], objects: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes float32 [G, 4], labels int64 [G] (0-based), masks bool [G, H, W] of ellipses of 40 to 300 px."""
    rng = np.random.default_rng(seed)
    height, width = size
    extents = rng.uniform(0.05, 0.35, (objects, 2)) * height
    corners = rng.uniform(0, 1, (objects, 2)) * (np.array([width, height]) - extents)
    y, x = np.mgrid[:height, :width] + 0.5
    centre, radius = corners + extents / 2, extents / 2
    masks = [
        ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 <= 1 for (cx, cy), (rx, ry) in zip(centre, radius, strict=True)
    ]
    boxes = np.concatenate([corners, corners + extents], axis=1)
    labels = rng.integers(0, CLASSES, objects)
    return torch.from_numpy(boxes).float(), torch.from_numpy(labels), torch.from_numpy(np.stack(masks))


def our_targets(boxes: Tensor, labels: Tensor, masks: Tensor) -> Targets:
    """Ground truth of one image for our detector; masks become run lengths, as a data set hands them over."""
    count = len(boxes)
    lengths = InstanceMasks.from_dense(masks)
    return Targets(
        image_id=1,
        boxes=boxes,
        visible_boxes=boxes,
        labels=labels,
        occlude_rate=torch.zeros(count),
        amodal_known=torch.ones(count, dtype=torch.bool),
        ignore=torch.zeros(count, dtype=torch.bool),
        annotation_ids=torch.arange(count),
        amodal=lengths,
        visible=lengths,
    )


def their_targets(boxes: Tensor, labels: Tensor, masks: Tensor) -> dict[str, Tensor]:
    """The same for torchvision's."""
    return {"boxes": boxes, "labels": labels + 1, "masks": masks.to(torch.uint8)}
