"""PGExp and this project's own Mask R-CNN with the same weights where they share parts, and a drawn prior for the one.

R-50-FPN, 90 classes. Encoder and flow network have their random weights and the bank holds drawn masks: neither changes
how long anything takes.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from amodal.model import build
from amodal.models.rcnn import AmodalRCNN
from amodal.priors.bank import Bank
from amodal.priors.encoder import MaskEncoder
from amodal.priors.flow import FlowNet
from amodal.priors.prior import Prior
from amodal.priors.types import GRID, PriorInstances
from amodal.settings import PGExpConfig, PriorConfig
from benchmarks.detectors import CLASSES, our_detector, torchvision_detector

SLOTS = 1000


def drawn_instances(classes: int, each: int, seed: int = 0) -> PriorInstances:
    """``each`` ellipses a class in amodal boxes of 40 to 300 px, cut by a straight line that hides up to 60 %."""
    generator = torch.Generator().manual_seed(seed)
    count = classes * each
    sides = 40 + 260 * torch.rand(count, 2, generator=generator)
    corner = 500 * torch.rand(count, 2, generator=generator)
    boxes = torch.cat([corner, corner + sides], dim=1)
    centre = (torch.arange(GRID) + 0.5) / GRID
    y, x = torch.meshgrid(centre, centre, indexing="ij")
    power = 1.5 + 2 * torch.rand(count, 1, 1, generator=generator)
    amodal = ((2 * x - 1).abs() ** power + (2 * y - 1).abs() ** power) <= 1
    edge = 0.4 + 0.6 * torch.rand(count, 1, 1, generator=generator)
    visible = amodal & (x < edge)
    right = torch.where(visible.any(dim=1), torch.arange(1, GRID + 1), 0).amax(dim=1)
    visible_boxes = boxes.clone()
    visible_boxes[:, 2] = boxes[:, 0] + sides[:, 0] * right / GRID
    column = ((torch.arange(GRID) + 0.5) / GRID * right[:, None]).long().clamp(max=GRID - 1)
    return PriorInstances(
        amodal=amodal,
        visible=visible,
        own=visible.gather(2, column[:, None].expand(-1, GRID, -1)),
        boxes=boxes,
        visible_boxes=visible_boxes,
        labels=torch.arange(classes).repeat_interleave(each),
        occlude_rate=1 - visible.flatten(1).sum(1) / amodal.flatten(1).sum(1),
        annotation_ids=torch.arange(count),
        image_ids=torch.arange(count) // 10,
    )


def drawn_prior(classes: int = CLASSES, slots: int = SLOTS) -> Prior:
    """A prior over drawn instances, as many as slots, so that neither K-Means nor augmentation is needed."""
    torch.manual_seed(0)
    config = PriorConfig(slots=slots)
    encoder, flow = MaskEncoder(config.encoder), FlowNet()

    def encode(masks: Tensor, sizes: Tensor) -> Tensor:
        with torch.no_grad():
            codes: Tensor = encoder(masks.float())
        return codes

    bank = Bank.build(drawn_instances(classes, slots), classes, encode, slots, rotate=False, seed=0)
    names, ids = [f"class {i}" for i in range(1, classes + 1)], list(range(1, classes + 1))
    return Prior(config, names, ids, encoder, flow, bank, rerank_weight=1.0)


def mask_rcnn(size: tuple[int, int], detections: int, threshold: float) -> AmodalRCNN:
    """This project's Mask R-CNN with seeded weights, for pictures of ``size`` (height, width)."""
    return our_detector(torchvision_detector(size, detections, threshold), size, detections, threshold)


def pgexp(base: AmodalRCNN, prior: Prior | None, method: PGExpConfig) -> AmodalRCNN:
    """PGExp with the tensors of ``base``; both its mask heads get those of Mask R-CNN's."""
    config = replace(base.config, system="pgexp", method=method)
    model = build("pgexp", CLASSES, config=config, prior=prior)
    own = base.state_dict()
    head = {key: value for key, value in own.items() if key.startswith("branch.amodal_head.")}
    shared = {**own, **{key.replace("amodal_head", "visible_head"): value for key, value in head.items()}}
    missing, surplus = model.load_state_dict(shared, strict=False)
    if surplus or any(not name.startswith(("branch.box_head.", "branch.mask_head.")) for name in missing):
        raise RuntimeError(f"not the same weights: {[*surplus, *missing][:5]}")
    trained = {name for name, p in base.named_parameters() if p.requires_grad}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained or name.startswith("branch."))
    return model
