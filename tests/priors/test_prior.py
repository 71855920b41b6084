"""The prior as one object: what its questions are asked with, and its folder."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from amodal.errors import AmodalError, ConfigError, WeightsError
from amodal.plain_yaml import dump_yaml, read_yaml
from amodal.priors.flow import nearest_flow
from amodal.priors.prior import Prior
from amodal.priors.prior_io import load_prior, save_prior
from amodal.priors.quality import variant

LEFT = torch.zeros(1, 28, 28)
LEFT[:, :, :14] = 0.9
FULL = torch.ones(1, 28, 28, dtype=torch.bool)
BOX = torch.tensor([[10.0, 20.0, 66.0, 76.0]])  # the left half is 28 x 56 pixels


def _slots(prior: Prior, label: int) -> Tensor:
    return prior.bank.key_inputs(label, "amodal")[0]


def test_a_slot_finds_itself_and_distances_are_those_of_the_codes(tiny_prior: Prior) -> None:
    masks = _slots(tiny_prior, 1)
    boxes = torch.tensor([[0.0, 0.0, 28.0, 28.0]]).repeat(10, 1)
    found = tiny_prior.search(masks.float(), boxes, torch.ones(10, dtype=torch.long), 4)
    codes = tiny_prior.encoder(masks)
    expected = torch.stack([(codes - code).norm(dim=1) for code in codes])
    assert torch.allclose(found.distance, expected.sort(dim=1).values[:, :4], atol=1e-3)
    assert (found.distance[:, 0] < 1e-3).all()
    assert torch.allclose(expected.gather(1, found.slots), found.distance, atol=1e-3)
    assert torch.equal(found.deltas, tiny_prior.bank.deltas[1][found.slots])


def test_the_amodal_key_is_the_mask_as_it_stands(tiny_prior: Prior) -> None:
    code = tiny_prior.query_codes(LEFT, BOX)
    assert torch.equal(code, tiny_prior.encoder(LEFT >= 0.5))
    assert torch.equal(tiny_prior.query_codes(LEFT * 0.5, BOX), tiny_prior.encoder(FULL ^ FULL))  # cut at 0.5


def test_the_visible_key_is_the_mask_in_its_own_box_with_its_aspect(tiny_prior: Prior) -> None:
    code = variant(tiny_prior, "visible", 10.0).query_codes(LEFT, BOX)
    assert torch.equal(code[:, :-1], tiny_prior.encoder(FULL))
    assert code[0, -1].item() == pytest.approx(10 * math.log(28 / 56), rel=1e-5)
    nothing = variant(tiny_prior, "visible", 10.0).query_codes(torch.zeros(1, 28, 28), BOX)
    assert torch.equal(nothing[:, :-1], tiny_prior.encoder(FULL ^ FULL))
    assert nothing[0, -1].item() == 0  # of B^o, which is square


def test_keys_are_of_the_slots_in_the_same_frame(tiny_prior: Prior) -> None:
    visible = variant(tiny_prior, "visible", 2.0)
    masks, sizes = tiny_prior.bank.key_inputs(0, "visible")
    keys = visible.keys(0)
    assert torch.equal(keys[:, :-1], tiny_prior.encoder(masks))
    assert torch.allclose(keys[:, -1], 2 * (sizes[:, 0] / sizes[:, 1]).log())
    assert visible.keys(0) is keys
    assert torch.equal(tiny_prior.keys(0), tiny_prior.encoder(_slots(tiny_prior, 0)))


def test_own_objects_and_images_can_be_left_out(tiny_prior: Prior) -> None:
    mask, label = _slots(tiny_prior, 0)[3:4].float(), torch.zeros(1, dtype=torch.long)
    for name, ids in (("annotations", tiny_prior.bank.annotation_ids), ("images", tiny_prior.bank.image_ids)):
        own = ids[0, 3:4]
        found = tiny_prior.search(mask, BOX, label, 10, **{f"exclude_{name}": own})
        assert not (ids[0, found.slots[0]] == own)[found.distance[0].isfinite()].any()
        assert found.distance[0].isinf().sum() == (ids[0] == own).sum()


@pytest.mark.parametrize("solver", ["network", "nearest"])
def test_flows_are_solved_from_cut_masks_and_halved(tiny_prior: Prior, solver: str) -> None:
    prior = copy.copy(tiny_prior)
    if solver == "nearest":
        object.__setattr__(prior, "flow", None)
    visible = torch.cat([LEFT, LEFT * 0])
    amodal = FULL.float().expand(2, -1, -1)
    flow = prior.solve(visible, amodal)
    hard = (visible >= 0.5).float()
    whole = nearest_flow(hard, amodal) if prior.flow is None else prior.flow(hard, amodal)
    assert torch.allclose(flow, whole.view(2, 2, 14, 2, 14, 2).mean(dim=(3, 5)), atol=1e-6)
    assert torch.equal(prior.solve(visible, amodal, halved=False), whole)
    assert not flow[1].any()


def test_everything_is_float32_without_gradient_under_autocast(tiny_prior: Prior) -> None:
    mask = LEFT.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = tiny_prior.search(mask, BOX, torch.zeros(1, dtype=torch.long), 3)
        flow = tiny_prior.solve(mask, found.amodal[:, 0])
    plain = tiny_prior.search(LEFT, BOX, torch.zeros(1, dtype=torch.long), 3)
    assert torch.equal(found.distance, plain.distance)
    assert flow.dtype == torch.float32
    assert not flow.requires_grad
    assert torch.equal(flow, tiny_prior.solve(LEFT, plain.amodal[:, 0]))


def test_it_is_no_part_of_a_model_but_moves_with_it(tiny_prior: Prior) -> None:
    holder = torch.nn.Sequential(torch.nn.Linear(1, 1), copy.deepcopy(tiny_prior))
    assert set(holder.state_dict()) == {"0.weight", "0.bias"}
    assert len(list(holder.parameters())) == 2
    holder.double()
    moved = holder[1]
    assert isinstance(moved, Prior)
    assert {value.dtype for value in moved.encoder.parameters()} == {torch.float32}
    moved.keys(0)
    holder.to("meta")
    assert moved.device.type == moved.bank.device.type == "meta"
    assert moved.flow is not None
    assert {value.device.type for value in moved.flow.parameters()} == {"meta"}
    assert not moved._keys  # made again, there
    assert tiny_prior.device.type == "cpu"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_answers_as_the_cpu_does(tiny_prior: Prior, tmp_path: Path) -> None:
    save_prior(tiny_prior, tmp_path)
    moved = load_prior(tmp_path, "cuda")
    labels = torch.tensor([0, 1])
    there = moved.search(LEFT.expand(2, -1, -1).cuda(), BOX.expand(2, -1).cuda(), labels.cuda(), 5)
    here = tiny_prior.search(LEFT.expand(2, -1, -1), BOX.expand(2, -1), labels, 5)
    assert torch.allclose(there.distance.cpu(), here.distance, atol=1e-3)
    assert torch.allclose(
        moved.solve(LEFT.cuda(), FULL.float().cuda()).cpu(), tiny_prior.solve(LEFT, FULL.float()), atol=1e-4
    )


def test_saved_and_loaded_it_answers_bit_for_bit(tiny_prior: Prior, tmp_path: Path) -> None:
    save_prior(tiny_prior, tmp_path / "prior")
    again = load_prior(tmp_path / "prior")
    assert {path.name for path in (tmp_path / "prior").iterdir()} == {
        "prior.yaml", "encoder.safetensors", "flow.safetensors", "bank.safetensors",
    }  # fmt: skip
    assert (again.config, again.class_names, again.category_ids) == (tiny_prior.config, ["square", "disc"], [1, 2])
    assert (again.rerank_weight, again.data) == (tiny_prior.rerank_weight, tiny_prior.data)
    labels = torch.tensor([0, 1])
    results = [prior.search(LEFT.expand(2, -1, -1), BOX.expand(2, -1), labels, 5) for prior in (tiny_prior, again)]
    assert results[0].inconsistency is results[1].inconsistency is None  # set by re-ranking alone
    for name in set(vars(results[0])) - {"inconsistency"}:
        assert torch.equal(getattr(results[0], name), getattr(results[1], name)), name
    flows = [prior.solve(LEFT, FULL.float()) for prior in (tiny_prior, again)]
    assert torch.equal(*flows)
    nearest = copy.copy(tiny_prior)
    object.__setattr__(nearest, "flow", None)
    nearest.config = replace(tiny_prior.config, flow="nearest")
    save_prior(nearest, tmp_path / "prior")  # the solver's file of before is no part of it
    assert not (tmp_path / "prior" / "flow.safetensors").exists()
    assert load_prior(tmp_path / "prior").flow is None


def _set(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "prior.yaml"
        data = {**read_yaml(path), **changes}
        path.write_text(dump_yaml({key: value for key, value in data.items() if value is not ...}))

    return change


def _cut(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-9])  # type: ignore[func-returns-value]


def _unlink(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


@pytest.mark.parametrize(
    ("damage", "kind", "message"),
    [
        (_unlink("prior.yaml"), ConfigError, "prior.yaml: No such file"),
        (_set(version=99), ConfigError, "version 99 is newer than this release reads"),
        (_set(colour="red"), ConfigError, "unknown key 'colour'"),
        (_set(class_names=...), ConfigError, "class_names is missing"),
        (_set(class_names=["a", 3]), ConfigError, "class_names must be a list of names"),
        (_set(category_ids=[1, 1]), ConfigError, "category_ids must be 2 different integers"),
        (_set(rerank_weight=float("nan")), ConfigError, "rerank_weight is nan, must be 0 to 1000000"),
        (_set(rerank_weight="1"), ConfigError, "rerank_weight is '1', must be a float"),
        (_set(flow_widths=[1, 2]), ConfigError, r"flow_widths is \[1, 2\], must be three numbers"),
        (_set(flow_widths=[4096, 4096, 4096]), WeightsError, r"flow.safetensors: tensor .* has shape"),
        (_set(rerank_weight=True), ConfigError, "rerank_weight is True, must be a float"),
        (_set(rerank_weight=10**200), ConfigError, "rerank_weight is 1000000.*, must be 0 to 1000000"),
        (_set(category_ids=[1, -2]), ConfigError, "category_ids must be 2 different integers from 0"),
        (_set(class_names=[["a"], "b"]), ConfigError, "class_names must be a list of names"),
        (_set(fit={"slots": 0}), ConfigError, r"prior.yaml: fit\.slots is 0, must be 1 to 1000000"),
        (_set(fit={"slot": 4}), ConfigError, "unknown key 'fit.slot'; nearest is 'slots'"),
        (_set(fit={"slots": 11}), WeightsError, "the bank has 10 slots a class, prior.yaml says 11"),
        (_set(class_names=["a"], category_ids=[1]), WeightsError, "the bank has 2 classes, prior.yaml names 1"),
        (_set(fit={"slots": 10, "encoder": 128}), WeightsError, "encoder.safetensors: tensor .* is missing"),
        (_unlink("encoder.safetensors"), WeightsError, "encoder.safetensors: no such file"),
        (_unlink("flow.safetensors"), WeightsError, "flow.safetensors: no such file"),
        (_unlink("bank.safetensors"), WeightsError, "bank.safetensors: no such file"),
        (_cut("encoder.safetensors"), WeightsError, "encoder.safetensors: no whole safetensors file"),
        (_cut("flow.safetensors"), WeightsError, "flow.safetensors: no whole safetensors file"),
        (_cut("bank.safetensors"), WeightsError, "bank.safetensors: no whole safetensors file"),
    ],
)
def test_a_damaged_folder_is_refused(
    tiny_prior: Prior, tmp_path: Path, damage: Callable[[Path], None], kind: type[AmodalError], message: str
) -> None:
    folder = tmp_path / "prior"
    save_prior(tiny_prior, folder)
    damage(folder)
    with pytest.raises(kind, match=message) as caught:
        load_prior(folder)
    assert "\n" not in str(caught.value)


def test_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such folder of an expansion prior"):
        load_prior(tmp_path / "nothing")


def test_classes_must_be_the_models(tiny_prior: Prior) -> None:
    tiny_prior.check_classes(["square", "disc"], [1, 2])
    with pytest.raises(ConfigError, match="the prior has 2 classes, the model 3"):
        tiny_prior.check_classes(["square", "disc", "cup"], [1, 2, 3])
    with pytest.raises(ConfigError, match=r"class 1 is 'square' \(id 1\) in the prior, 'disc' \(id 1\) in the model"):
        tiny_prior.check_classes(["disc", "square"], [1, 2])
    with pytest.raises(ConfigError, match=r"class 2 is 'disc' \(id 2\) in the prior, 'disc' \(id 7\) in the model"):
        tiny_prior.check_classes(["square", "disc"], [1, 7])
