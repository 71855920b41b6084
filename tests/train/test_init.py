"""What a checkpoint of other classes or other settings gives to a new model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from amodal.checkpoint import save_model
from amodal.config import ModelConfig
from amodal.errors import DataError, WeightsError
from amodal.model import build
from amodal.models.rcnn import AmodalRCNN
from amodal.priors.prior import Prior
from amodal.settings import PGExpConfig
from amodal.train.init import start_from

Tiny = Callable[..., ModelConfig]
PLAIN = PGExpConfig(box_expansion="plain", mask_expansion="plain", box_channels=8)
HEADS = ("branch.visible_head.predictor", "branch.amodal_head.predictor")


def make(tiny: Tiny, names: list[str], seed: int = 0, method: PGExpConfig = PLAIN) -> AmodalRCNN:
    """A model whose class rows all differ, biases too."""
    config = replace(tiny("pgexp"), method=method)
    model = build("pgexp", len(names), config=config, class_names=names, category_ids=None, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "bias" in name or "predictor" in name:
                value.copy_(torch.randn(value.shape, generator=generator))
    return model


def rows(model: AmodalRCNN, name: str) -> list[torch.Tensor]:
    """Everything that belongs to a class, as written out by hand."""
    row, state = model.class_names.index(name), model.state_dict()
    found = []
    for kind in ("weight", "bias"):
        found.append(state[f"box_head.cls_score.{kind}"][1 + row])
        found += [state[f"box_head.bbox_pred.{kind}"][4 * row + number] for number in range(4)]
        found += [state[f"{head}.{kind}"][row] for head in HEADS]
    return found


def equal(one: list[torch.Tensor], two: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def values(model: AmodalRCNN) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def background(model: AmodalRCNN) -> list[torch.Tensor]:
    return [model.state_dict()[f"box_head.cls_score.{kind}"][0] for kind in ("weight", "bias")]


@pytest.mark.parametrize("names", [["dog", "cat"], ["dog", "cup"], ["cup", "fox", "dog"], ["dog"], ["cup", "fox"]])
def test_rows_of_classes_follow_their_names(tiny_config: Tiny, tmp_path: Path, names: list[str]) -> None:
    old, new, fresh = make(tiny_config, ["cat", "dog"]), make(tiny_config, names, 1), make(tiny_config, names, 1)
    save_model(old, tmp_path)
    line = start_from(new, tmp_path)
    shared = [name for name in names if name in old.class_names]
    others = [name for name in names if name not in shared]
    for name in names:
        assert equal(rows(new, name), rows(old if name in shared else fresh, name)), name
    assert equal(background(new), background(old))
    assert f"classes carried over: {', '.join(shared) or 'none'}; " in line
    lost = [name for name in old.class_names if name not in names]
    left = f"; classes of it that are left out: {', '.join(lost)}" if lost else ""
    assert line.endswith(f"classes that start afresh: {', '.join(others) or 'none'}{left}")
    by_class = ("cls_score", "bbox_pred", *HEADS)
    rest = [name for name in values(new) if not any(part in name for part in by_class)]
    assert all(torch.equal(values(new)[name], values(old)[name]) for name in rest)


def test_ids_tell_classes_of_one_name_apart(tiny_config: Tiny, tmp_path: Path) -> None:
    old = make(tiny_config, ["car", "car", "dog"])
    old.category_ids = [1, 5, 7]
    save_model(old, tmp_path)
    new = make(tiny_config, ["dog", "car", "car"], 1)
    new.category_ids = [1, 5, 2]
    with pytest.raises(DataError, match="class name 'car' stands for categories 5, 2 of this run and 1, 5 of the chec"):
        start_from(new, tmp_path)
    new.category_ids = [3, 5, 1]
    line = start_from(new, tmp_path)
    assert line.endswith("classes carried over: dog, car, car; classes that start afresh: none")
    weights = [model.state_dict()["branch.amodal_head.predictor.weight"] for model in (new, old)]
    assert torch.equal(weights[0], weights[1][[2, 1, 0]])


def test_equal_classes_are_not_told(tiny_config: Tiny, tmp_path: Path) -> None:
    old, new = make(tiny_config, ["cat", "dog"]), make(tiny_config, ["cat", "dog"], 1)
    save_model(old, tmp_path)
    assert start_from(new, tmp_path) == f"init: {len(values(old))} tensors from {tmp_path}"
    assert all(torch.equal(value, values(new)[name]) for name, value in values(old).items())


def test_many_classes_are_counted(tiny_config: Tiny, tmp_path: Path) -> None:
    names = [f"n{number}" for number in range(12)]
    save_model(make(tiny_config, names), tmp_path)
    line = start_from(make(tiny_config, names[::-1], 1), tmp_path)
    assert "carried over: n11, n10, n9, n8, n7, n6, n5, n4, n3, n2 and 2 more; classes that start afresh: none" in line


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"reference": "original"}, "reference is 'visible', here 'original'"),
        ({"delta_weights": [10.0, 10.0, 5.0, 5.0]}, "delta_weights is [1.0, 1.0, 1.0, 1.0], here [10.0, 10.0"),
        ({"reference": "mixed"}, "reference is 'visible', here 'mixed'"),
    ],
)
def test_a_box_expansion_of_another_meaning_starts_afresh(
    tiny_config: Tiny, tmp_path: Path, changes: dict[str, object], told: str
) -> None:
    old = make(tiny_config, ["cat", "dog"])
    save_model(old, tmp_path)
    new = make(tiny_config, ["cat", "dog"], 1, replace(PLAIN, **changes))  # type: ignore[arg-type]
    before = values(new)
    line = start_from(new, tmp_path)
    assert f"; branch.box_head starts afresh, its numbers mean something else there ({told}" in line
    assert "not in it" not in line
    for name, value in values(new).items():
        source = before if name.startswith("branch.box_head.") else values(old)
        assert torch.equal(value, source[name]), name


def test_with_a_prior_there_is_one_box_more_to_mix(tiny_config: Tiny, tmp_path: Path, tiny_prior: Prior) -> None:
    names = tiny_prior.class_names
    for reference, told in (("mixed", "(box_expansion is 'plain', here 'prior')"), ("visible", "")):
        plain = replace(PLAIN, reference=reference)  # type: ignore[arg-type]
        save_model(make(tiny_config, names, 0, plain), tmp_path / reference)
        config = replace(tiny_config("pgexp"), method=replace(plain, box_expansion="prior"))
        new = build("pgexp", len(names), config=config, prior=tiny_prior)
        line = start_from(new, tmp_path / reference)
        assert (f"branch.box_head starts afresh, its numbers mean something else there {told}" in line) == bool(told)


def test_a_checkpoint_of_another_system_gives_what_fits(tiny_config: Tiny, tmp_path: Path) -> None:
    save_model(build("mask_rcnn", 2, config=tiny_config("mask_rcnn"), class_names=["cat", "dog"], seed=5), tmp_path)
    new = make(tiny_config, ["cat", "dog"], 1)
    before = values(new)
    line = start_from(new, tmp_path)
    assert "it is a mask_rcnn, this run trains a pgexp" in line
    assert "start afresh, not in it: branch.visible_head" in line
    there = values(build("mask_rcnn", 2, config=tiny_config("mask_rcnn"), seed=5))
    for name, value in values(new).items():
        assert torch.equal(value, there.get(name, before[name])), name
    assert any(name.startswith("branch.amodal_head") for name in there)
    save_model(new, tmp_path / "back")
    other = build("mask_rcnn", 2, config=tiny_config("mask_rcnn"), class_names=["cat", "dog"], seed=6)
    line = start_from(other, tmp_path / "back")
    assert "it is a pgexp, this run trains a mask_rcnn" in line
    assert "of it are left out, not in this run's model: branch." in line
    assert all(torch.equal(value, values(new)[name]) for name, value in values(other).items())


def test_heads_of_another_shape_start_afresh_and_a_detector_of_another_is_refused(
    tiny_config: Tiny, tmp_path: Path
) -> None:
    config = tiny_config("mask_rcnn")
    wide = replace(config, mask_head=replace(config.mask_head, channels=2 * config.mask_head.channels))
    save_model(build("mask_rcnn", 2, config=wide), tmp_path / "wide")
    line = start_from(build("mask_rcnn", 2, config=config), tmp_path / "wide")
    assert "start afresh, of other shapes there: branch.amodal_head" in line
    wide = replace(config, box_head=replace(config.box_head, channels=2 * config.box_head.channels))
    save_model(build("mask_rcnn", 2, config=wide), tmp_path / "box")
    with pytest.raises(WeightsError, match=r"tensor 'box_head\.fc6\.\w+' has shape"):
        start_from(build("mask_rcnn", 2, config=config), tmp_path / "box")


def test_settings_without_a_box_expansion_there_are_no_matter(tiny_config: Tiny, tmp_path: Path) -> None:
    none = PGExpConfig(box_expansion="none", mask_expansion="plain", reference="original")
    save_model(make(tiny_config, ["cat"], 0, none), tmp_path)
    line = start_from(make(tiny_config, ["cat"], 1), tmp_path)
    assert "start afresh, not in it: branch.box_head" in line
    assert "numbers mean" not in line
