"""Each system as a published configuration has it, at full width, takes a step on data in that data set's schema.

The three data sets in turn, since a step takes half a minute. Nothing is made smaller but the pictures (shorter side
192), the batch (one) and the fit of priors; weights are random.
"""

from __future__ import annotations

import json
import math
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image

from amodal.config_io import load_config
from amodal.data import rle
from amodal.model import build
from amodal.systems import SYSTEMS
from amodal.train.data import annotation_digest, load_data, train_loader
from amodal.train.engine import make_optimizer, train_step
from amodal.train.prior import run_prior

pytestmark = pytest.mark.slow
CONFIGS = Path(__file__).parents[2] / "configs"
HEIGHT, WIDTH = 120, 160
CLASSES = {"kins": 7, "d2sa": 60, "cocoa_cls": 80}
SMALLER = {
    "batch_size": 1,
    "data.workers": 0,
    "model.backbone.weights": None,
    "model.transform.min_size": "[192]",
    "prior_fit.slots": 20,
    "prior_fit.encoder_steps": 20,
}
BOXES = ((20, 30, 90, 100), (70, 20, 150, 80))  # The second one lies in front of the first.


def annotation(schema: str, box: tuple[int, ...], whole: Any, seen: Any) -> dict[str, Any]:
    x1, y1, x2, y2 = box
    outline = [[x1, y1, x2, y1, x2, y2, x1, y2]]
    visible, hidden = rle.encode(seen), rle.encode(whole & ~seen)
    return {
        "kins": {"segmentation": outline, "inmodal_seg": visible},
        "d2sa": {"segmentation": rle.encode(whole), "visible_mask": visible, "occl_depth": 1},
        "cocoa_cls": {"segmentation": outline, "visible_mask": visible, "invisible_mask": hidden},
    }[schema]


def draw(folder: Path, schema: str) -> None:
    """Two pictures, and annotations in the schema."""
    masks = np.zeros((2, HEIGHT, WIDTH), bool)
    for mask, (x1, y1, x2, y2) in zip(masks, BOXES, strict=True):
        mask[y1:y2, x1:x2] = True
    picture = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
    picture[masks[0]], picture[masks[1]] = (200, 80, 80), (80, 200, 80)
    for number in (0, 1):
        Image.fromarray(picture).save(folder / f"{number}.png")
    content = {
        "images": [{"id": n, "file_name": f"{n}.png", "height": HEIGHT, "width": WIDTH} for n in (0, 1)],
        "categories": [{"id": n, "name": f"class {n}"} for n in range(1, CLASSES[schema] + 1)],
        "annotations": [
            {"id": 2 * image + n + 1, "image_id": image, "category_id": n + 1, "iscrowd": 0}
            | annotation(schema, box, masks[n], masks[0] & ~masks[1] if n == 0 else masks[1])
            for image in (0, 1)
            for n, box in enumerate(BOXES)
        ],
    }
    (folder / "annotations.json").write_text(json.dumps(content))


@pytest.mark.parametrize(("system", "name"), list(zip(SYSTEMS, cycle(CLASSES), strict=False)))
def test_a_step_at_full_width(system: str, name: str, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    draw(folder, name)
    paths = {
        "out": str(tmp_path / "run"),
        "data.train": str(folder / "annotations.json"),
        "data.train_images": str(folder),
    }
    more = {"prior_fit.flow_steps": 20} if system == "pgexp" else {}
    config = load_config(CONFIGS / system / f"{name}.yaml", {**SMALLER, **more, **paths})
    images, _ = load_data(config)
    annotations, accelerator = images.data.annotations, Accelerator(cpu=True)
    assert (annotations.schema, len(annotations.class_names)) == (name, CLASSES[name])
    assert annotations.occlude_rate.max() > 0.1
    prior = run_prior(config, annotations, annotation_digest(annotations), accelerator, None)
    names = {"class_names": annotations.class_names, "category_ids": annotations.category_ids}
    model = build(system, CLASSES[name], config=config.model, prior=prior, **names).train()
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    before = {name: value.detach()[:1].clone() for name, value in trained.items()}
    model.set_step(config.seed, 0)
    optimizer = make_optimizer(model, config.optim)
    result = train_step(
        accelerator, model, optimizer, [next(iter(train_loader(images, config, 0, 0, 1)))], config.optim.clip_norm
    )
    assert all(math.isfinite(value) for value in result.losses.values()), result.losses
    assert {"loss_class", "loss_box", "loss_mask_amodal"} <= set(result.losses)
    parts = {name.split(".")[0] for name, value in trained.items() if not torch.equal(value[:1], before[name])}
    assert parts == {"backbone", "rpn", "box_head", "branch"}
