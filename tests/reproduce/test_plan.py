"""Experiment files: what they may say, how each mistake is told, and which runs they stand for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from amodal.config import TrainConfig
from amodal.data.scenes.dataset import write_dataset
from amodal.errors import ConfigError
from amodal.reproduce.identity import What, weights_digest
from amodal.reproduce.plan import find_experiment, read_experiment
from amodal.reproduce.runs import Plan, Run
from amodal.reproduce.sources import Given, find_sources

ROOT = Path(__file__).resolve().parents[2]
SET1 = {"model.method.box_expansion": "none", "model.method.mask_expansion": "plain"}


def _write(folder: Path, content: Any) -> Path:
    path = folder / "test.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def _run(folder: Path, row: Any, *, seed: int = 0, data: str = "d", **more: Any) -> Run:
    more["settings"] = {"model.system": "pgexp", **more.get("settings", {})}
    experiment = read_experiment(_write(folder, {"rows": {"pgexp": row}, **more}))
    return Plan(experiment, data).run(experiment.rows[0], seed)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("rows: {a: {}}\nrwos: {}", "unknown key 'rwos'; nearest is 'rows'"),
        ({"title": "x"}, "rows is missing"),
        ({"rows": {"mask_rcnn": {}}, "base": "mask_rcnn/nan"}, "base: mask_rcnn/nan: no such file, nor"),
        ({"rows": [1]}, "rows is [1], must be a mapping"),
        ({"rows": {"pgxep": {}}}, "that trains the base as it is needs a title; nearest is 'pgexp'"),
        ({"rows": {"pgxep": {"seeds": [1]}}}, "rows.pgxep: 'pgxep' is no system"),
        ({"rows": {"a": {"sytem": "pgexp"}}}, "rows.a: unknown key 'sytem'; nearest is 'system'"),
        ({"rows": {"a": {"modle.method.k": 4}}}, "rows.a: unknown key 'modle'; nearest is 'model'"),
        ({"rows": {"a": {"seed": 3}}}, "rows.a: 'seed' is no setting of a row; it is decided by 'seeds'"),
        ({"rows": {"a": {"data": {"train": "x"}}}}, "'data.train' is no setting of a row"),
        ({"rows": {"a": {"steps": 3, "run": "b"}}}, "'run' names numbers"),
        ({"rows": {"a": {"optim.lr": 1, "optim": {"lr": 2}}}}, "'optim.lr' is given twice"),
        ({"rows": {"mask_rcnn": {}}, "seeds": [0, 0]}, "a seed is given twice"),
        ({"rows": {"mask_rcnn": {}}, "seeds": ["x"]}, "seeds has 'x'"),
        ({"rows": {"mask_rcnn": {}}, "budget": "half"}, "budget is 'half', must be 'full' or shared-trunk"),
        ({"rows": {"mask_rcnn": {}}, "budget": {"shared-trunk": {"trunk": "b"}}}, "trunk is 'b', no row"),
        ({"rows": {"mask_rcnn": {}}, "budget": {"shared-trunk": {"trunk": "mask_rcnn"}}}, "freeze is None"),
        ({"rows": {"mask_rcnn": {}}, "columns": ["mask.ap"]}, "unknown column 'mask.ap'; nearest is 'mask.AP'"),
        ({"rows": {"mask_rcnn": {}}, "columns": ["ms"]}, "unknown column 'ms'"),
        ({"rows": {"mask_rcnn": {}}, "compare": {"with": "b"}}, "compare.with is 'b', no row; known: mask_rcnn"),
        ({"rows": {"mask_rcnn": {}}, "compare": {"with": "mask_rcnn", "by": "t"}}, "must be 'paired bootstrap"),
        ({"rows": {"mask_rcnn": {}}, "tune": {"by": "mask.AP"}}, "tune names no setting"),
        ({"rows": {"mask_rcnn": {}}, "tune": {"optim.lr": 1}}, "tune.optim.lr is 1, must be a list"),
        ({"rows": {"mask_rcnn": {}}, "vary": {"steps": [{"steps": 3}]}}, "needs a label, 'as'"),
        ({"rows": {"mask_rcnn": {}}, "data": {"digests": {"x": "y"}}}, "unknown key 'data.digests.x'"),
        ({"rows": {"mask_rcnn": {}}, "pictures": {"count": 0}}, "pictures.count is 0"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line_that_names_file_and_key(tmp_path: Path, content: Any, message: str) -> None:
    path = _write(tmp_path, content)
    with pytest.raises(ConfigError) as caught:
        read_experiment(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_wrong_setting_names_file_row_and_nearest_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"test\.yaml: rows\.pgexp: unknown key 'optim\.lrs'; nearest is 'lr'"):
        _run(tmp_path, {"optim.lrs": 1})
    with pytest.raises(ConfigError, match=r"rows\.pgexp: model\.method\.k is 0, must be 1 to 4096"):
        _run(tmp_path, {"model.method.k": 0})
    with pytest.raises(ConfigError, match=r"rows\.pgexp: model\.method\.k: method is 3 and a section at once"):
        _run(tmp_path, {"model.method": 3, "model.method.k": 1})


def test_a_row_is_found_by_name_and_an_experiment_too(tmp_path: Path) -> None:
    experiment = read_experiment(
        _write(tmp_path, {"rows": {"mask_rcnn": {}, "pgexp": {}}, "compare": {"with": "pgexp"}})
    )
    assert experiment.only(["mask_rcnn"]).compare is None
    with pytest.raises(ConfigError, match="no row 'pgxp'; nearest is 'pgexp'"):
        experiment.only(["pgxp"])
    assert find_experiment("table1") == ROOT / "experiments" / "table1.yaml"
    with pytest.raises(ConfigError, match="no experiment 'table11'; nearest is 'table1'"):
        find_experiment("table11")


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_experiments_that_come_with_the_project_are_whole(path: Path) -> None:
    experiment = read_experiment(path)
    plan = Plan(experiment, "data")
    points = [{}, *([] if experiment.tune is None else experiment.tune.points())]
    points += [point.settings for panel in experiment.vary.values() for point in panel]
    runs = [plan.run(row, 0, point) for row in experiment.rows if row.run is None for point in points]
    # One point of a grid or panel may be what the row is anyway.
    equal = len(experiment.rows) * (len(experiment.vary) + (experiment.tune is not None))
    assert len({run.id for run in runs}) >= len(runs) - equal


SAME: list[tuple[Any, Any]] = [
    ({}, {"model.method.k": 8}),
    ({"model.method.k": 4}, {"model": {"method": {"k": 4}}}),
    ({"optim.lr": 1}, {"optim.lr": 1.0}),
    ({"optim": {"lr": 0.5}}, {"optim.lr": 0.5}),
    ({"model.method.delta_weights": [1, 1, 1, 1]}, {}),
    ({}, {"data.workers": 0, "eval_every": 7, "save_every": 7, "log_every": 7}),
    ({}, {"model.system": "pgexp"}),
    (SET1, {**SET1, "prior_fit.slots": 10}),
]
OTHER: list[Any] = [
    {"steps": 3}, {"model.method.k": 4}, {"optim.lr": 0.1}, {"prior_fit.slots": 10}, {"freeze": ["rpn"]},
    {"precision": "bf16"}, {"data.flip": 0.0}, {"system": "mask_rcnn"}, SET1,
]  # fmt: skip


@pytest.mark.parametrize(("first", "second"), SAME)
def test_equal_settings_are_one_run_however_they_are_written(tmp_path: Path, first: Any, second: Any) -> None:
    assert _run(tmp_path, first).id == _run(tmp_path, second).id
    assert _run(tmp_path, first).id == _run(tmp_path, {}, settings=second).id


def test_a_changed_setting_seed_or_data_set_is_another_run(tmp_path: Path) -> None:
    ids = [_run(tmp_path, row).id for row in ({}, *OTHER)]
    ids += [_run(tmp_path, {}, seed=1).id, _run(tmp_path, {}, data="e").id]
    ids += [_run(tmp_path, {}, init="nano-scenes-v1").id]
    assert len(set(ids)) == len(ids)


def test_what_a_run_starts_from_is_part_of_it(tmp_path: Path) -> None:
    def start(steps: int, seed: int | None = None) -> Run:
        shared = {"trunk": {**SET1, "steps": steps}, "freeze": ["rpn"], **({} if seed is None else {"seed": seed})}
        return _run(tmp_path, {}, seed=1, budget={"shared-trunk": shared}, init="nano-scenes-v1")

    run = start(5)
    assert run.start is not None
    assert (run.start.config.steps, run.start.config.freeze, run.start.seed) == (5, [], 1)
    assert run.config.freeze == ["rpn"]
    assert run.init is None
    assert run.start.init is not None
    assert run.start.what.starts_from == weights_digest(run.start.init)
    assert len({run.id, start(6).id, start(5, seed=0).id}) == 3
    assert start(5, seed=1).id == run.id


def test_a_prior_is_shared_by_runs_of_the_same_settings_and_data(tmp_path: Path) -> None:
    run = _run(tmp_path, {})
    assert run.what.prior == _run(tmp_path, {"model.method.rerank": "occluder"}, seed=1).what.prior
    assert run.what.prior != _run(tmp_path, {"prior_fit.slots": 10}).what.prior
    assert run.what.prior != _run(tmp_path, {}, data="e").what.prior
    assert _run(tmp_path, SET1).what.prior is None


def test_runs_of_an_earlier_release_are_known_by_todays_settings(tmp_path: Path) -> None:
    what = _run(tmp_path, {}, init="nano-scenes-v1").what
    described = what.describe()
    assert What.parse(described) == what
    del described["settings"]["model.method.dropout"]  # Not known then; today's default does what was done.
    assert What.parse(described) == what
    described["settings"]["model.method.gone"] = 3
    assert What.parse(described) is None


def test_settings_of_one_system_are_not_handed_to_another(tmp_path: Path) -> None:
    content = {
        "settings": {"model": {"system": "pgexp", "method": {"k": 4}}},
        "rows": {"mask_rcnn": {}, "p": {"title": "P"}},
    }
    experiment = read_experiment(_write(tmp_path, content))
    plan = Plan(experiment, "d", {"steps": "7"})
    mask_rcnn, pgexp = (plan.run(row, 0).config for row in experiment.rows)
    assert (mask_rcnn.model.system, mask_rcnn.steps) == ("mask_rcnn", 7)
    assert pgexp.model.method.k == 4  # type: ignore[union-attr]


def test_a_base_is_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("steps: 5\n")
    assert _run(tmp_path, {}, base="base.yaml").config.steps == 5
    assert _run(tmp_path, {}).config.steps == TrainConfig.steps


def test_the_committed_runs_are_those_of_todays_experiments() -> None:
    for name, count in (("pgexp", 15), ("eth80", 2)):
        experiment = read_experiment(ROOT / "experiments" / f"{name}.yaml")
        sources = find_sources(experiment.data, Given())
        plan = Plan(experiment, sources.train.digest)
        ids = [plan.run(row, seed).id for row in experiment.rows if row.run is None for seed in plan.seeds(row)]
        assert len(ids) == count
        assert all((ROOT / "experiments" / "runs" / f"{run_id}.json").is_file() for run_id in ids)


def test_data_that_are_not_there_or_not_the_same_are_told(tmp_path: Path) -> None:
    content = {"rows": {"pgexp": {}}, "data": {"train": "a", "test": ["b"]}}
    names = read_experiment(_write(tmp_path, content)).data
    with pytest.raises(ConfigError, match=r"--data\.train or --data\.root is missing: .* names none for a \(data\."):
        find_sources(names, Given())
    wrong = Given(root=tmp_path / "wrong")
    with pytest.raises(
        ConfigError, match=r"--data\.root .*wrong: a\.json is not there; runs, .* name it in data\.digests\.a"
    ):
        find_sources(names, wrong)
    content["data"]["digests"] = {"a": "1", "b": "2"}  # type: ignore[index]
    sources = find_sources(read_experiment(_write(tmp_path, content)).data, Given())
    assert [split.digest for split in (sources.train, *sources.test)] == ["1", "2"]
    with pytest.raises(ConfigError, match=r"wrong: a\.json is not there; .* alone leave --data\.root out"):
        find_sources(read_experiment(_write(tmp_path, content)).data, wrong)
    write_dataset(tmp_path / "drawn", images=1, size=64, seed=1)
    (tmp_path / "drawn" / "annotations.json").rename(tmp_path / "a.json")
    with pytest.raises(ConfigError, match=r"a\.json: not the annotations .* digest is \w{16}, data\.digests\.a is 1"):
        find_sources(read_experiment(_write(tmp_path, content)).data, Given(root=tmp_path))
    with pytest.raises(ConfigError, match=r"a is needed for runs that are missing; give --data\.root"):
        sources.train.paths()
