"""torchvision's own Mask R-CNN on a set with amodal masks: the yardstick of ``docs/benchmarks/eth80.md``.

The backbone is ours (``amodal.models.backbone``), everything behind it is ``torchvision.models.detection.MaskRCNN`` as
it comes: proposals, RoI sampling, pooling, mask targets, pasting. It is trained on the amodal boxes and masks. Settings
are those of an experiment file, so both sides get the same sizes, anchors, RoI counts and schedule.

    python -m benchmarks.eth80_torchvision experiments/eth80.yaml --data ../shared/data/eth80_amodal --out runs/tv

It ends with ``OUT/eth80-torchvision.json``, to be put among the runs of ``experiments/eth80.yaml``. A run that was
stopped continues where its last saved state was.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torchvision.io import ImageReadMode, read_image
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import MultiScaleRoIAlign

from amodal.config import ModelConfig, TrainConfig
from amodal.data.reader import load
from amodal.files import write_json
from amodal.models.backbone import build_backbone
from amodal.reproduce.collect import foreign
from amodal.reproduce.sources import Split, split_name
from amodal.train.data import annotation_digest
from amodal.train.engine import learning_rate
from benchmarks.settings import read_config

RECORD = "eth80-torchvision"


def build_torchvision(config: ModelConfig, num_classes: int) -> MaskRCNN:
    """torchvision's Mask R-CNN with our backbone and the sizes of ``config``; ``num_classes`` without background."""
    transform, rpn, box, mask = config.transform, config.rpn, config.box_head, config.mask_head
    backbone = build_backbone(config.backbone)
    channels = config.backbone.channels
    backbone.out_channels = channels  # type: ignore[assignment]  # torchvision reads it there
    levels = ["0", "1", "2", "3"]
    return MaskRCNN(
        backbone,
        min_size=tuple(transform.min_size),
        max_size=transform.max_size,
        image_mean=transform.mean,
        image_std=transform.std,
        rpn_anchor_generator=AnchorGenerator(
            tuple((size,) for size in rpn.anchor_sizes), (tuple(rpn.aspect_ratios),) * len(rpn.anchor_sizes)
        ),
        rpn_pre_nms_top_n_train=rpn.pre_nms_train,
        rpn_pre_nms_top_n_test=rpn.pre_nms_test,
        rpn_post_nms_top_n_train=rpn.post_nms_train,
        rpn_post_nms_top_n_test=rpn.post_nms_test,
        rpn_nms_thresh=rpn.nms,
        rpn_fg_iou_thresh=rpn.fg_iou,
        rpn_bg_iou_thresh=rpn.bg_iou,
        rpn_batch_size_per_image=rpn.batch_per_image,
        rpn_positive_fraction=rpn.positive_fraction,
        box_roi_pool=MultiScaleRoIAlign(levels, output_size=box.pool_size, sampling_ratio=2),
        box_head=TwoMLPHead(channels * box.pool_size**2, box.channels),
        box_predictor=FastRCNNPredictor(box.channels, num_classes + 1),
        box_score_thresh=box.score_threshold,
        box_nms_thresh=box.nms,
        box_detections_per_img=box.detections,
        box_fg_iou_thresh=box.fg_iou,
        box_bg_iou_thresh=box.fg_iou,
        box_batch_size_per_image=box.batch_per_image,
        box_positive_fraction=box.positive_fraction,
        bbox_reg_weights=tuple(box.box_weights),
        mask_roi_pool=MultiScaleRoIAlign(levels, output_size=mask.pool_size, sampling_ratio=2),
        mask_head=MaskRCNNHeads(channels, (mask.channels,) * mask.convs, 1),
        mask_predictor=MaskRCNNPredictor(mask.channels, mask.channels, num_classes + 1),
    )


class Photographs:
    """A split in memory: decoded pictures and RLE masks, as torchvision's training script would hand them over."""

    def __init__(self, annotations: Path, images: Path) -> None:
        self.coco = COCO(str(annotations))
        self.image_ids = sorted(self.coco.getImgIds())
        self.category_ids = sorted(self.coco.getCatIds())
        self.class_index = {category: i + 1 for i, category in enumerate(self.category_ids)}
        records = self.coco.loadImgs(self.image_ids)
        self.pictures = [read_image(str(images / r["file_name"]), ImageReadMode.RGB) for r in records]

    def __len__(self) -> int:
        return len(self.image_ids)

    def sample(self, index: int, flip: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """Image float [3, H, W] in 0..1 and torchvision's target, mirrored if ``flip``."""
        annotations = self.coco.imgToAnns[self.image_ids[index]]
        masks = coco_mask.decode([a["segmentation"] for a in annotations])
        boxes = torch.tensor([a["bbox"] for a in annotations], dtype=torch.float32)
        boxes[:, 2:] += boxes[:, :2]
        image = self.pictures[index].float() / 255
        target = {
            "boxes": boxes,
            "labels": torch.tensor([self.class_index[a["category_id"]] for a in annotations]),
            "masks": torch.from_numpy(masks.transpose(2, 0, 1).copy()),
        }
        if flip:
            width = image.shape[-1]
            image = image.flip(-1)
            target["boxes"] = torch.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], dim=1)
            target["masks"] = target["masks"].flip(-1)
        return image, target


def batch_indices(length: int, batch_size: int, seed: int, step: int) -> list[int]:
    """Which images step ``step`` sees: a fresh order an epoch, a function of seed and position alone."""
    indices = []
    for position in range(step * batch_size, (step + 1) * batch_size):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + position // length)
        indices.append(int(torch.randperm(length, generator=generator)[position % length]))
    return indices


def _save_state(folder: Path, step: int, seconds: float, model: MaskRCNN, optimizer: torch.optim.Optimizer) -> None:
    tensors = {f"model.{k}": v.contiguous() for k, v in model.state_dict().items()}
    for i, parameter in enumerate(optimizer.param_groups[0]["params"]):
        state = optimizer.state.get(parameter, {})
        if state.get("momentum_buffer") is not None:
            tensors[f"momentum.{i}"] = state["momentum_buffer"].contiguous()
    scratch = folder / "state.tmp"
    save_file(tensors, scratch, {"step": str(step), "seconds": str(seconds)})
    scratch.replace(folder / "state.safetensors")


def _load_state(path: Path, model: MaskRCNN, optimizer: torch.optim.Optimizer, device: str) -> tuple[int, float]:
    with safe_open(path, "pt") as file:
        header = file.metadata()
    tensors = load_file(path, device=device)
    model.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
    for i, parameter in enumerate(optimizer.param_groups[0]["params"]):
        if f"momentum.{i}" in tensors:
            optimizer.state[parameter]["momentum_buffer"] = tensors[f"momentum.{i}"]
    return int(header["step"]), float(header["seconds"])


def train(config: TrainConfig, data: Photographs, out: Path, device: str, stop_at: int | None = None) -> MaskRCNN:
    """Train for ``config.steps``, or until ``stop_at`` for the next call to go on; the state is saved in ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    model = build_torchvision(config.model, len(data.category_ids)).to(device)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optim = config.optim
    optimizer = torch.optim.SGD(parameters, lr=optim.lr, momentum=optim.momentum, weight_decay=optim.weight_decay)
    step, spent = 0, 0.0
    if (out / "state.safetensors").exists():
        step, spent = _load_state(out / "state.safetensors", model, optimizer, device)
    if step == 0:
        (out / "log.csv").write_text(
            "step,lr,loss,loss_objectness,loss_rpn_box_reg,loss_classifier,loss_box_reg,loss_mask\n"
        )
    model.train()
    start = time.perf_counter()
    last = config.steps if stop_at is None else min(stop_at, config.steps)
    while step < last:
        torch.manual_seed(config.seed * 7_368_787 + step)
        flips = torch.rand(config.batch_size) < config.data.flip
        indices = batch_indices(len(data), config.batch_size, config.seed, step)
        samples = [data.sample(i, bool(flip)) for i, flip in zip(indices, flips, strict=True)]
        images = [image.to(device) for image, _ in samples]
        targets = [{k: v.to(device) for k, v in target.items()} for _, target in samples]
        losses = model(images, targets)
        loss = sum(losses.values())
        if not torch.isfinite(loss):
            raise RuntimeError(f"step {step}: loss is {loss.item()}")
        optimizer.zero_grad()
        loss.backward()
        if optim.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(parameters, optim.clip_norm)
        rate = learning_rate(step, optim, config.steps)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        step += 1
        if step % config.log_every == 0 or step == last:
            _log(out / "log.csv", step, rate, losses, time.perf_counter() - start + spent)
        if step % config.save_every == 0 or step == last:
            _save_state(out, step, spent + time.perf_counter() - start, model, optimizer)
    (out / "time.json").write_text(json.dumps({"step": step, "train_seconds": spent + time.perf_counter() - start}))
    return model


def _log(path: Path, step: int, rate: float, losses: dict[str, Tensor], seconds: float) -> None:
    order = ["loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg", "loss_mask"]
    values = [float(losses[name].detach()) for name in order]
    with path.open("a") as file:
        file.write(",".join([str(step), f"{rate:.6g}", *(f"{v:.5f}" for v in [sum(values), *values])]) + "\n")
    print(f"step {step} lr {rate:.5f} loss {sum(values):.3f} {seconds:.0f} s", flush=True)


@torch.inference_mode()
def predict(model: MaskRCNN, data: Photographs, device: str) -> list[dict[str, Any]]:
    """Results in COCO's format, amodal boxes and masks at the size of the photographs."""
    model.eval()
    results = []
    for image_id, picture in zip(data.image_ids, data.pictures, strict=True):
        found: OrderedDict[str, Tensor] = model([picture.to(device).float() / 255])[0]
        masks = (found["masks"][:, 0] >= 0.5).cpu().numpy()
        rles = coco_mask.encode(np.asfortranarray(masks.transpose(1, 2, 0).astype(np.uint8))) if len(masks) else []
        for rle, box, label, score in zip(rles, found["boxes"].cpu(), found["labels"], found["scores"], strict=True):
            x0, y0, x1, y1 = box.tolist()
            results.append(
                {
                    "image_id": image_id,
                    "category_id": data.category_ids[int(label) - 1],
                    "score": float(score),
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()},
                }
            )
    return results


def score(coco: COCO, results: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """AP, AP50, AP75 and AR100 of amodal masks and boxes in percent, from pycocotools itself."""
    metrics: dict[str, dict[str, float]] = {}
    for part, kind in (("mask", "segm"), ("box", "bbox")):
        evaluation = COCOeval(coco, coco.loadRes([dict(r) for r in results]), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        s = evaluation.stats
        metrics[part] = {
            name: round(100 * float(s[i]), 3) for name, i in (("AP", 0), ("AP50", 1), ("AP75", 2), ("AR100", 8))
        }
    return metrics


def test(model: MaskRCNN, annotations: Path, images: Path, out: Path, device: str) -> dict[str, dict[str, float]]:
    """Predict a split, write ``predictions.json`` and ``pycocotools.json`` into ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    data = Photographs(annotations, images)
    start = time.perf_counter()
    results = predict(model, data, device)
    seconds = time.perf_counter() - start
    (out / "predictions.json").write_text(json.dumps(results))
    metrics = score(data.coco, results) if results else {}
    (out / "pycocotools.json").write_text(json.dumps({**metrics, "seconds": seconds, "images": len(data)}, indent=1))
    return metrics


def main() -> None:
    """Command line; options that ``amodal train`` has too bear its names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path, help="experiment file to take sizes and schedule from")
    parser.add_argument("--data", type=Path, required=True, help="folder with train.json, train/, dev.json, ...")
    parser.add_argument("--out", type=Path, required=True, help="run folder")
    parser.add_argument("--test", nargs="*", default=["dev"], help="splits to test on, DATA/SPLIT.json or a path")
    parser.add_argument("--stop-at", type=int, default=None, help="stop (resumable) at this step")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments, overrides = parser.parse_known_args()
    config = read_config(arguments.config, overrides)
    model = train(
        config,
        Photographs(arguments.data / "train.json", arguments.data / "train"),
        arguments.out,
        arguments.device,
        arguments.stop_at,
    )
    predictions = {}
    for split in arguments.test:
        folder = Path(split) if "/" in split else arguments.data / split
        annotations = folder.with_suffix(".json")
        name = f"{folder.parent.name}_{folder.name}"
        metrics = test(model, annotations, folder, arguments.out / name, arguments.device)
        print(json.dumps({"split": name, **metrics}))
        found = Split(split_name(annotations), annotation_digest(load(annotations)), annotations, folder)
        predictions[found] = arguments.out / name / "predictions.json"
    time_used = json.loads((arguments.out / "time.json").read_text())
    seconds = {"total": time_used["train_seconds"], "step": time_used["train_seconds"] / max(time_used["step"], 1)}
    record = foreign(RECORD, "torchvision Mask R-CNN", config.seed, predictions, seconds)
    write_json(arguments.out / f"{RECORD}.json", record)


if __name__ == "__main__":
    main()
