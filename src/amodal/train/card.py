"""The model card, ``README.md`` of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from amodal import __version__

if TYPE_CHECKING:
    from amodal.models.rcnn import AmodalRCNN


def model_card(model: AmodalRCNN, facts: Mapping[str, Any]) -> str:
    """Markdown with the front matter that Hugging Face reads.

    Args:
        model: the detector.
        facts: "metrics" (as in metrics.json), "data" (training data, text), "steps", "notes"; each may be absent.
    """
    config = model.config
    classes = ", ".join(model.class_names)
    parts = [
        "---\nlibrary_name: amodal\npipeline_tag: image-segmentation\ntags: [amodal, instance-segmentation]\n---",
        f"# {config.system} for {len(model.class_names)} classes",
        "Amodal instance segmentation: for every object its whole shape, hidden parts included.",
        '```python\nimport amodal\n\nmodel = amodal.load("this folder or its Hugging Face id")\n'
        'prediction = model.predict("picture.png", threshold=0.5)\n```',
        "## Model",
        f"- system: {config.system}; backbone: {config.backbone.name}\n"
        f"- test images: shorter side {config.transform.test_min_size} pixels, longer side at most"
        f" {config.transform.test_max_size}\n"
        f"- classes: {classes}\n- written by amodal {__version__}",
    ]
    training = [f"- {key}: {facts[key]}" for key in ("data", "steps", "notes") if facts.get(key)]
    if training:
        parts += ["## Training", "\n".join(training)]
    if facts.get("metrics"):
        parts += ["## Metrics", _table(facts["metrics"])]
    return "\n\n".join(parts) + "\n"


def _table(metrics: Mapping[str, Any]) -> str:
    names = ("AP", "AP50", "AP75", "AR100", "AP-occ", "AP-occ-gt")
    rows = ["| part | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for part in ("mask", "box", "visible"):
        values = metrics.get(part) or {}
        rows.append(f"| {part} | " + " | ".join(_percent(values.get(name)) for name in names) + " |")
    counted = f"{metrics.get('images', '?')} images, {metrics.get('instances', '?')} instances"
    return f"Percent, on {counted}.\n\n" + "\n".join(rows)


def _percent(value: object) -> str:
    return f"{value:.1f}" if isinstance(value, (int, float)) else "-"
