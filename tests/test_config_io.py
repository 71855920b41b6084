from __future__ import annotations

import os
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from amodal.cli import main
from amodal.config import ModelConfig, TrainConfig
from amodal.config_io import flatten, load_config, read_layers, setting_keys, structure, to_dict, to_yaml
from amodal.errors import ConfigError
from amodal.plain_yaml import read_yaml
from amodal.settings import MethodConfig, PGExpConfig, PriorConfig, VRSPConfig
from amodal.systems import SYSTEMS
from amodal.train.engine import milestones

CONFIGS = Path(__file__).parents[1] / "configs"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "c.yaml"


def load(path: Path, text: str = "", **overrides: Any) -> TrainConfig:
    path.write_text(text)
    return load_config(path, {key.replace("__", "."): value for key, value in overrides.items()})


def test_an_empty_file_is_the_defaults(path: Path) -> None:
    config = load(path)
    assert config.model.method == MethodConfig()
    assert config.prior_fit == PriorConfig()
    assert replace(config, prior_fit=None, model=replace(config.model, method=None)) == TrainConfig()


@pytest.mark.parametrize("name", sorted(str(p.relative_to(CONFIGS)) for p in CONFIGS.glob("*/*.yaml")))
def test_shipped_configurations(name: str, path: Path) -> None:
    config = load_config(CONFIGS / name)
    assert config.model.system == Path(name).parent.name
    assert isinstance(config.model.method, SYSTEMS[config.model.system].settings)
    path.write_text(to_yaml(config))
    assert load_config(path) == config


@pytest.mark.parametrize("name", sorted(p.name for p in CONFIGS.glob("*.yaml")))
def test_a_shared_base_is_a_configuration_of_any_system(name: str) -> None:
    """``amodal train configs/kins.yaml`` is a run, too: of the default system, or of ``--model.system``."""
    assert load_config(CONFIGS / name).model.system == "mask_rcnn"
    assert load_config(CONFIGS / name, {"model.system": "bcnet"}) == load_config(CONFIGS / "bcnet" / name)
    assert {"system", "method"}.isdisjoint(read_yaml(CONFIGS / name)["model"])
    for system in SYSTEMS:
        assert load_config(CONFIGS / name, {"model.system": system}).model.system == system


def test_a_system_s_file_says_only_what_differs() -> None:
    """No setting of a file equals that of its base, but for the system it names."""
    for file in CONFIGS.glob("*/*.yaml"):
        own = read_yaml(file)
        below = flatten(to_dict(load_config(file.parent / own.pop("base"))))
        repeated = [key for key, value in flatten(own).items() if key != "model.system" and below.get(key) == value]
        assert not repeated, file


def test_every_system_has_every_configuration() -> None:
    for system in SYSTEMS:
        names = sorted(path.stem for path in (CONFIGS / system).glob("*.yaml"))
        assert {"cocoa_cls", "d2sa", "kins", "nano"} <= set(names), system


ROWS = {"kins": (1, 0.0025, 48000), "d2sa": (2, 0.005, 70000), "cocoa_cls": (2, 0.0005, 10000)}
OWN_ROWS = {
    ("mask_rcnn", "d2sa"): (3, 0.01, 70000),
    ("mask_rcnn8", "d2sa"): (3, 0.01, 70000),
    ("asn", "kins"): (8, 0.02, 24000),
    ("aisformer", "cocoa_cls"): (2, 0.0005, 20000),
}
FALLS = {"kins": [30000, 40000], "d2sa": [40000, 60000], "cocoa_cls": [8000]}
OWN_FALLS = {
    ("orcnn", "kins"): [40000, 44000],
    ("orcnn", "cocoa_cls"): [5000, 8000],
    ("asn", "kins"): [20000, 22000],
    ("aisformer", "cocoa_cls"): [5000, 8000],
}


def test_earlier_work() -> None:
    """Reference, section 5: VRSP's rows, and where a system's own published file differs."""
    for system in SYSTEMS:
        for name, row in ROWS.items():
            config = load_config(CONFIGS / system / f"{name}.yaml")
            own = OWN_ROWS.get((system, name), row)
            assert (config.batch_size, config.optim.lr, config.steps) == own
            assert milestones(config.optim, config.steps) == OWN_FALLS.get((system, name), FALLS[name])
            sizes, boxes = config.model.transform, config.model.box_head
            assert (sizes.test_min_size, sizes.max_size) == (800, 3000 if name == "kins" else 1333)
            assert (min(sizes.min_size), max(sizes.min_size)) == (800 if name == "kins" else 640, 800)
            assert boxes.batch_per_image == (256 if system == "orcnn" else 512)


def test_vrsp_of_the_data_sets() -> None:
    """The final model's files (reference, section 5; systems, section 5)."""
    found = {name: load_config(CONFIGS / "vrsp" / f"{name}.yaml") for name in ROWS}
    methods = {name: config.model.method for name, config in found.items()}
    assert methods == {
        "kins": VRSPConfig(alpha=3.0, rescore_class=False),
        "d2sa": VRSPConfig(reclass_weight=0.1),
        "cocoa_cls": VRSPConfig(),
    }
    encoders = {name: config.prior_fit.encoder for name, config in found.items()}
    assert encoders == {"kins": 392, "d2sa": 128, "cocoa_cls": 128}


def test_priors_of_the_data_sets() -> None:
    """The encoder of the earlier work (reference, section 3); groceries on conveyors have no upright."""
    fits = {name: load_config(CONFIGS / "pgexp" / f"{name}.yaml").prior_fit for name in ("kins", "d2sa", "cocoa_cls")}
    assert {name: fit.encoder for name, fit in fits.items()} == {"kins": 392, "d2sa": 128, "cocoa_cls": 128}
    assert [name for name, fit in fits.items() if fit.rotate] == ["d2sa"]
    assert load_config(CONFIGS / "pgexp" / "kins.yaml").model.method == PGExpConfig()


def test_overrides_win_and_read_as_on_the_command_line(path: Path) -> None:
    config = load(
        path,
        "steps: 10\nmodel: {system: pgexp, box_head: {nms: 0.4}}\ndata:",
        steps="20",
        model__box_head__nms="0.6",
        model__rpn__anchor_sizes="[8, 16, 32, 64, 128]",
        model__method__box_expansion="none",
        data__val="null",
        data__train="007",
        optim__lr="1e-3",
        optim__clip_norm="null",
        model__backbone__extra_level="true",
    )
    assert (config.steps, config.model.box_head.nms, config.optim.lr) == (20, 0.6, 0.001)
    assert config.model.rpn.anchor_sizes == [8, 16, 32, 64, 128]
    assert (config.data.val, config.data.train, config.optim.clip_norm) == (None, "007", None)
    assert config.model.method == PGExpConfig(box_expansion="none")
    assert config.model.backbone.extra_level is True


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stesp: 3", "unknown key 'stesp'; nearest is 'steps'"),
        ("model: {box_head: {nmss: 3}}", "unknown key 'model.box_head.nmss'; nearest is 'nms'"),
        (
            "model: {system: pgexp, method: {box_expand: 3}}",
            "unknown key 'model.method.box_expand'; nearest is 'box_expansion'",
        ),
        ("model: {method: {box_expansion: none}}", "unknown key 'model.method.box_expansion'"),
        ("model: {system: orcn}", "model.system is 'orcn', no known system"),
        (
            "model: {system: pgexp, method: {box_expansion: prior2}}",
            "model.method.box_expansion is 'prior2', must be one of",
        ),
        ("steps: many", "steps is 'many', must be an integer"),
        ("steps: 2.5", "steps is '2.5', must be an integer"),
        ("steps: true", "steps is 'True', must be an integer"),
        ("optim: {lr: x}", "optim.lr is 'x', must be a number"),
        ("model: {transform: {min_size: 192}}", "model.transform.min_size is '192', must be a list in [ ]"),
        ("steps: 0", "steps is 0, must be 1 to 1000000000"),
        ("steps:", "steps is null, must be a value"),
        ("data: 3", "data is 3, must be a mapping"),
        ("model: []", "model is [], must be a mapping"),
        ("optim: {lr: .nan}", "optim.lr is nan, must be in (0, 1000]"),
        ("optim: {lr: .inf}", "optim.lr is inf, must be in (0, 1000]"),
        ("optim: {lr: -1}", "optim.lr is -1"),
        ("optim: {name: adam}", "optim.name is 'adam', must be one of 'sgd', 'adamw'"),
        ("model: {rpn: {anchor_sizes: [16, 32]}}", "model.rpn.anchor_sizes is [16, 32], must be 5 sizes"),
        ("model: {rpn: {anchor_sizes: 16}}", "model.rpn.anchor_sizes is '16', must be "),
        ("model: {box_head: {nms: 1.5}}", "box_head.nms is 1.5, must be in (0, 1]"),
        ("batch_size: 3\naccumulate: 2", "accumulate is 2, must be a divisor of batch_size (3)"),
        ("version: 2", "version 2 is newer"),
        ("a: &x [1]\nb: *x", "line 2: aliases (*name) are not allowed"),
        ("steps: 1\nsteps: 2", "line 2: key 'steps' is given twice"),
        (
            "steps: !!python/object/apply:os.system [ls]",
            "line 1: tags ('tag:yaml.org,2002:python/object/apply:os.system') are not allowed",
        ),
        ("1: 2", "unknown key '1'"),
        ("{a: 1}: 2", "line 1: a key is no plain word"),
        ("<<: {steps: 3}\nsteps: 4", "line 1: a key is no plain word"),
        ("steps: !!bool x", "line 1: tags ('tag:yaml.org,2002:bool') are not allowed"),
        ("steps: 2020-13-41", "line 1: '2020-13-41' is no value (month must be in 1..12)"),
        ("seed: " + "9" * 5000, "is an integer of too many digits"),
        ("seed: 0x" + "f" * 5000, "is an integer of too many digits"),
        ('data: {train: "\\ud800"}', "line 1: '\\ud800' holds a character that no text can have"),
        ("seed: 99999999999999999999", "seed is 99999999999999999999, must be in [0, 2^31)"),
    ],
)
def test_faults_are_one_line_that_names_the_key(path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(path, text)
    found = str(caught.value)
    assert found.startswith(f"{path}: ")
    assert message in found
    assert "\n" not in found


def write(folder: Path, **texts: str) -> Path:
    """Files of a configuration in layers; a name with ``__`` lies in a folder. The first is the one to load."""
    paths = [folder / f"{name.replace('__', '/')}.yaml" for name in texts]
    for file, text in zip(paths, texts.values(), strict=True):
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    return paths[0]


def test_a_base_is_relative_to_the_file_and_merged_key_by_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(
        tmp_path,
        pgexp__small="base: ../small.yaml\nmodel: {system: pgexp, box_head: {nms: 0.4}}\noptim: {milestones: [0.5]}",
        small="steps: 7\nmodel: {box_head: {channels: 64}}\noptim: {lr: 0.5, milestones: [0.1, 0.2]}",
    )
    monkeypatch.chdir("/")  # A path relative to where the command runs would find nothing.
    config = load_config(file)
    assert (config.steps, config.optim.lr) == (7, 0.5)
    assert (config.model.system, config.model.box_head.nms, config.model.box_head.channels) == ("pgexp", 0.4, 64)
    assert config.optim.milestones == [0.5], "a list replaces the base's"
    small = write(tmp_path / "pgexp", again="base: small.yaml\nmodel: {backbone: {weights: null}}")
    assert load_config(small) == config, "a base has a base, each relative to its own file"


def test_the_upper_layer_wins_and_null_is_a_value(tmp_path: Path) -> None:
    text = "base: b.yaml\nseed: 3\nmodel: {backbone: {weights: null}}\nprior_fit: null"
    file = write(tmp_path, a=text, b="base: c.yaml\nseed: 2\nsteps: 2", c="steps: 1\nbatch_size: 9\naccumulate: 3")
    write(tmp_path, c="steps: 1\nbatch_size: 9\nmodel: {backbone: {weights: x}}\nprior_fit: {slots: 3}")
    config = load_config(file)
    assert (config.seed, config.steps, config.batch_size, config.model.backbone.weights) == (3, 2, 9, None)
    assert config.prior_fit == PriorConfig()


def test_the_command_line_wins_over_every_layer(tmp_path: Path) -> None:
    file = write(tmp_path, a="base: b.yaml\nsteps: 2\ndata: {flip: 0.1}", b="steps: 1\ndata: {workers: 5}")
    config = load_config(file, {"steps": "3", "data.val": "v.json", "data.flip": "0.2"})
    assert (config.steps, config.data.val, config.data.flip, config.data.workers) == (3, "v.json", 0.2, 5)


OWN = "model: {system: pgexp, method: {k: 3}, mask_head: {channels: 8}}\nprior_fit: {slots: 5}"


def test_another_system_does_not_inherit_the_system_s_own_settings(tmp_path: Path) -> None:
    other = load_config(write(tmp_path, a="base: b.yaml\nmodel: {system: mask_rcnn}", b=OWN))
    assert other.model.method == MethodConfig()
    assert (other.prior_fit, other.model.mask_head.channels) == (PriorConfig(slots=5), 8), "all else is inherited"
    # Neither does the first system again, on the other side of the other one.
    back = write(
        tmp_path, a="base: b.yaml\nmodel: {system: pgexp}", b="base: c.yaml\nmodel: {system: mask_rcnn}", c=OWN
    )
    assert load_config(back).model.method == PGExpConfig()


def test_another_system_on_the_command_line_does_not_either(tmp_path: Path) -> None:
    file = write(tmp_path, a=OWN)
    assert load_config(file, {"model.system": "mask_rcnn"}).model.method == MethodConfig()
    assert load_config(file, {"model.system": "pgexp"}).model.method == PGExpConfig(k=3)
    # What the command line itself says of it stays, in whatever order.
    free = write(tmp_path, b="model: {system: mask_rcnn}")
    for given in ({"model.method.k": 4, "model.system": "pgexp"}, {"model.system": "pgexp", "model.method.k": 4}):
        assert load_config(free, given).model.method == PGExpConfig(k=4)
        assert load_config(file, given).model.method == PGExpConfig(k=4)
    with pytest.raises(ConfigError, match=r"^--model\.method\.k: unknown key"):
        load_config(file, {"model.system": "mask_rcnn", "model.method.k": 4})


@pytest.mark.parametrize("above", ["", "model: {system: pgexp}", "model: {method: {candidates: 40}}"])
def test_the_same_system_inherits_them(tmp_path: Path, above: str) -> None:
    config = load_config(write(tmp_path, a=f"base: b.yaml\n{above}", b=OWN))
    assert isinstance(config.model.method, PGExpConfig)
    assert (config.model.method.k, config.prior_fit) == (3, PriorConfig(slots=5))


def test_a_base_without_a_system_may_hold_settings_for_the_file_s(tmp_path: Path) -> None:
    file = write(tmp_path, a="base: b.yaml\nmodel: {system: pgexp}", b="model: {method: {k: 3}}")
    assert load_config(file).model.method == PGExpConfig(k=3)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"a": "base: a.yaml"}, "{a}: base {a} leads back to itself"),
        ({"a": "base: b.yaml", "b": "base: x/../a.yaml", "x__y": ""}, "{b}: base {x}/../a.yaml leads back to itself"),
        ({"a": "base: b.yaml"}, "{a}: base {b}: No such file or directory"),
        ({"a": "base: b.yaml", "b": "base: x.yaml"}, "{b}: base {x}.yaml: No such file or directory"),
        ({"a": "base: x", "x__y": ""}, "{a}: base {x}: "),
        ({"a": "base: b.yaml", "b": "[1]"}, "{a}: base {b}: holds a list, must be a mapping"),
        ({"a": "base: b.yaml", "b": "steps: 1\nsteps: 1"}, "{a}: base {b}: line 2: key 'steps' is given twice"),
        ({"a": "base: b.yaml", "b": "version: 2"}, "{a}: base {b}: version 2 is newer"),
        ({"a": "base: b.yaml\nversion: 2", "b": ""}, "{a}: version 2 is newer"),
        ({"a": "base: b.yaml", "b": "stesp: 1"}, "{a} (base {b}): unknown key 'stesp'; nearest is 'steps'"),
        ({"a": "base: b.yaml", "b": "model: 3"}, "{a} (base {b}): model is 3, must be a mapping"),
        ({"a": "base: b.yaml", "b": "base: 3"}, "{a}: base {b}: base is 3, must be the path of a file"),
        ({"a": "base: [b.yaml]"}, "{a}: base is ['b.yaml'], must be the path of a file"),
        ({"a": "base:"}, "{a}: base is None, must be the path of a file"),
        ({"a": "base: ''"}, "{a}: base is '', must be the path of a file"),
        ({"a": 'base: "b\\0.yaml"'}, "{a}: base is 'b\\x00.yaml', must be the path of a file"),
        ({"a": "model: {base: b.yaml}"}, "{a}: unknown key 'model.base'"),
    ],
)
def test_faults_of_layers_name_the_files(tmp_path: Path, texts: dict[str, str], message: str) -> None:
    file = write(tmp_path, **texts)
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    names = {"a": tmp_path / "a.yaml", "b": tmp_path / "b.yaml", "x": tmp_path / "x"}
    assert message.format(**names) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_links_that_lead_in_circles_end(tmp_path: Path) -> None:
    (tmp_path / "loop.yaml").symlink_to(tmp_path / "loop.yaml")
    (tmp_path / "again.yaml").symlink_to(tmp_path / "a.yaml")
    for base, message in (("loop.yaml", "loop.yaml: "), ("again.yaml", "leads back to itself")):
        with pytest.raises(ConfigError, match=message):
            load_config(write(tmp_path, a=f"base: {base}"))


def test_each_layer_may_give_its_version(tmp_path: Path) -> None:
    assert read_layers(write(tmp_path, a="version: 1\nbase: b.yaml", b="version: 1\nsteps: 3")) == {"steps": 3}


def test_no_base_on_the_command_line(path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^--base: a base is named in the file"):
        load(path, base="x.yaml")
    assert "base" not in setting_keys()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("steps", "abc", "--steps is 'abc', must be an integer"),
        ("optim.lr", "-1", "--optim.lr is -1.0, must be in (0, 1000]"),
        ("model.system", "pgex", "--model.system is 'pgex', no known system; nearest is 'pgexp'"),
        ("model.method.x", "1", "--model.method.x: unknown key"),
    ],
)
def test_a_fault_of_a_flag_names_the_flag_and_no_file(path: Path, key: str, value: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(path, "seed: 3", **{key: value})
    assert str(caught.value).startswith(message)


def test_setting_keys_are_all_leaves() -> None:
    keys = setting_keys()
    flat = flatten(to_dict(load_default()))
    assert set(flat) - {"model.method"} <= set(keys)
    assert {"model.system", "data.train_images", "optim.lr", "model.method.box_expansion"} <= set(keys)
    assert len(keys) == len(set(keys))


def load_default() -> TrainConfig:
    return structure(TrainConfig, {}, "defaults")


def test_every_setting_is_documented() -> None:
    """The help is made of these lines."""

    def check(cls: Any) -> None:
        for field in fields(cls):
            inner = field.default_factory
            if isinstance(inner, type) and is_dataclass(inner):
                check(inner)
            elif field.name != "method":
                assert f"\n        {field.name}: " in cls.__doc__, (cls.__name__, field.name)

    check(TrainConfig)
    for cls in [system.settings for system in SYSTEMS.values()]:
        check(cls)


def test_model_config_alone() -> None:
    config = structure(ModelConfig, {"system": "pgexp", "method": {"mask_expansion": "plain"}}, "x")
    assert isinstance(config.method, PGExpConfig)
    assert structure(ModelConfig, to_dict(config), "x") == config
    with pytest.raises(ConfigError, match=r"x: unknown key 'method\.mask'"):
        structure(ModelConfig, {"system": "pgexp", "method": {"mask": "plain"}}, "x")


def test_configurations_that_come_with_the_package_have_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_config("pgexp/nano") == load_config(CONFIGS / "pgexp" / "nano.yaml")
    (tmp_path / "mine.yaml").write_text("base: mask_rcnn/nano\nsteps: 7\n")
    assert load_config("mine.yaml") == replace(load_config(CONFIGS / "mask_rcnn" / "nano.yaml"), steps=7)
    (tmp_path / "mask_rcnn").mkdir()
    (tmp_path / "mask_rcnn" / "nano").write_text("steps: 9\n")
    assert load_config("mine.yaml").model.backbone.name == "resnet50", "a file that is there comes first"
    with pytest.raises(ConfigError, match=r"^pgexp/nona: no such file, nor a .* package; nearest is 'pgexp/nano'$"):
        load_config("pgexp/nona")
    assert main(["configs"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in told] == sorted(
        path.relative_to(CONFIGS).with_suffix("").as_posix() for path in CONFIGS.rglob("*.yaml")
    )


def test_a_wheel_carries_configurations_and_experiments() -> None:
    tomllib = pytest.importorskip("tomllib")  # from Python 3.11 on
    project = tomllib.loads((CONFIGS.parent / "pyproject.toml").read_text())
    carried = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert carried.pop("configs") == "amodal/configs"
    general = {"fig4", "fig5", "fig6", "table1", "table2"}  # the others are studies of photographs that outsiders lack
    assert carried == {f"experiments/{name}.yaml": f"amodal/experiments/{name}.yaml" for name in general}


BOUNDS: list[tuple[str, object, str]] = [
    ("model.transform.mean", [0.5] * 4, "3 numbers, each 0 to 1"),
    ("model.transform.mean", [123.7, 116.3, 103.5], "3 numbers, each 0 to 1"),
    ("model.transform.std", [0.5, 0.0, 0.5], "3 numbers, each 0.001 to 1"),
    ("model.transform.min_size", [], "1 to 100 numbers, each 16 to 65536"),
    ("model.transform.min_size", [800] * 101, "1 to 100 numbers"),
    ("model.transform.test_max_size", 10**6, "16 to 65536"),
    ("model.transform.max_size", 100, ">= model.transform.min_size (800)"),
    ("model.backbone.channels", 4096 * 8, "a multiple of 8, at most 16384"),
    ("model.backbone.channels", 8192, "less: its layers would have 2.4 billion weights, the most is 1.1"),
    ("model.backbone.weights", "", "a name, or left out"),
    ("model.rpn.aspect_ratios", [1e-300], "1 to 100 numbers, each 0.01 to 100"),
    ("model.rpn.anchor_sizes", [0, 1, 2, 3, 4], "numbers, each 1 to 65536"),
    ("model.rpn.nms", float("nan"), "in (0, 1]"),
    ("model.box_head.channels", 2**33, "1 to 16384"),
    ("model.box_head.pool_size", 256, "less: its layers would have 17.2 billion weights"),
    ("model.box_head.box_weights", [1e300] * 4, "4 numbers, each 0.001 to 1000"),
    ("model.mask_head.pool_size", 7, "14 for a system with a prior"),
    ("model.mask_head.convs", 10**6, "0 to 64"),
    ("model.mask_head.channels", 8192, "less: its layers would have"),
    ("data.workers", 2**31, "0 to 1024"),
    ("data.val", "", "a name, or left out"),
    ("out", "", "a name, or left out"),
    ("steps", 10**18, "1 to 1000000000"),
    ("batch_size", 2**40, "1 to 1000000"),
    ("optim.lr", 1e300, "in (0, 1000]"),
    ("optim.weight_decay", float("inf"), "0 to 1000"),
    ("optim.clip_norm", 1e300, "> 0 and at most 1000000, or null"),
    ("optim.milestones", [0.5] * 101, "steps > 0 and at most 1000000000"),
    ("optim.milestones", [1e300], "steps > 0 and at most 1000000000, no more than 100 of them"),
    ("model.method.k", 5000, "1 to 4096"),
    ("model.method.rerank_weight", 1e300, "0 to 1000000, or null"),
    ("model.method.delta_weights", [1.0] * 3, "4 numbers"),
    ("model.method.box_channels", 10**9, "1 to 16384"),
    ("prior_fit.slots", 10**9, "1 to 1000000"),
    ("prior_fit.key_aspect", 1e300, "0 to 1000"),
    ("prior_fit.encoder_steps", 0, "1 to 1000000000"),
    ("seed", 10**400, "in [0, 2^31)"),
]


@pytest.mark.parametrize(("key", "value", "rule"), BOUNDS)
def test_every_number_has_bounds(path: Path, key: str, value: object, rule: str) -> None:
    path.write_text("model: {system: pgexp}")
    with pytest.raises(ConfigError) as caught:
        load_config(path, {key: value})
    told = str(caught.value)
    told_key = key.replace("box_head.pool_size", "box_head.channels")
    assert told.startswith(f"--{key} is " if told_key == key else f"{path}: {told_key} is ")
    assert rule in told
    assert len(told) < 400


@pytest.mark.parametrize("wrong", [-1e300, float("nan"), 10**30])
def test_no_number_is_without_bounds(wrong: float) -> None:
    whole = load_config("pgexp/nano")
    sections = [whole, *vars(whole).values(), *vars(whole.model).values()]
    for section in filter(is_dataclass, sections):
        for name, value in vars(section).items():
            number = isinstance(value, int | float | list) and not isinstance(value, bool)
            if number and name not in ("freeze", "encoder"):  # Names; one of two numbers.
                with pytest.raises(ConfigError, match=name):
                    replace(section, **{name: [wrong] if isinstance(value, list) else wrong})


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("optim.momentum", "!!timestamp x", "optim.momentum is '!!timestamp x': line 1: tags"),
        ("optim.milestones", "[[&a [1], *a], *a]", "aliases (*name) are not allowed"),
        ("freeze", '"[&a [1], *a]"', "aliases (*name) are not allowed"),
        ("model.rpn.anchor_sizes", "[" * 3000, "nested too deeply"),
        ("data.train", "a\0b", "data.train is 'a\\x00b', which holds a character that no text can have"),
        ("out", "a\ud800", "out is 'a\\ud800', which holds a character that no text can have"),
        ("out", "x" * 5000 + "\0", "..., which holds"),
        ("steps", "9" * 5000, "steps is '9999"),
        ("model.system", "x" * 5000, "..., no known system"),
        ("model.system", 7, "model.system is 7, must be the name of a system"),
    ],
)
def test_texts_of_the_command_line_are_as_strict_as_files(path: Path, key: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(path, **{key.replace(".", "__"): value})
    assert message in str(caught.value)
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    for name in (tmp_path / "pipe.yaml", Path("/dev/zero")):
        with pytest.raises(ConfigError, match="no regular file"):
            read_yaml(name)
    for name, told in (("x" * 5000, r"x\.\.\.: no such file"), ("a\nb", r"^a\\nb: no such file, nor a configuration")):
        with pytest.raises(ConfigError, match=told):
            load_config(name)


def test_tags_in_texts_that_may_be_null_are_one_line() -> None:
    with pytest.raises(
        ConfigError, match=r"^--data\.val_images is '!!timestamp x', must be a plain value, no YAML tag$"
    ):
        load_config("pgexp/nano", {"data.val_images": "!!timestamp x"})
