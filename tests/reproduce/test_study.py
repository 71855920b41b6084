"""Grids, trunks, figures and pictures with a stand-in for ``amodal`` that finds more objects the larger the rate is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from amodal.cli import main
from amodal.data.scenes.dataset import write_dataset
from amodal.reproduce import runner

PROGRAM = """
import json, sys, yaml
from pathlib import Path
verb, words = sys.argv[1], sys.argv[2:]
with Path(JOURNAL).open('a') as file: file.write(' '.join(sys.argv[1:]) + '\\n')
if verb == 'train':
    text = Path(words[0]).read_text()
    settings = yaml.safe_load(text)
    if FAIL in text: sys.exit('bad luck')
    last = Path(settings['out']) / 'last'
    last.mkdir(parents=True)
    (last / 'rate').write_text(str(settings['optim']['lr']))
if verb == 'test':
    rate, out = float((Path(words[0]) / 'rate').read_text()), Path(words[4])
    truth = json.loads(Path(words[1]).read_text())['annotations']
    found = [dict(image_id=a['image_id'], category_id=a['category_id'], score=0.9 - 0.001 * i,
                  segmentation=a['segmentation'], **({} if BLIND else {'visible_mask': a['visible_mask']}))
             for i, a in enumerate(truth) if i < rate * len(truth)]
    out.mkdir(parents=True)
    (out / 'predictions.json').write_text(json.dumps(found))
"""


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    for seed, name in enumerate(("train", "dev", "val")):
        write_dataset(folder / name, images=4, size=96, seed=seed)
    return folder


DRIVER = """
import sys
from amodal.cli import main
from amodal.reproduce import runner
runner._PROGRAM, runner._POLL_S = ('-c', sys.argv[1]), 0.02
sys.exit(main(sys.argv[2:]))
"""


class World:
    """Writes an experiment and does it with the stand-in."""

    def __init__(self, folder: Path, scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.scenes, self.monkeypatch = folder, scenes, monkeypatch
        self.path = folder / "journal"
        monkeypatch.setattr(runner, "_POLL_S", 0.02)

    def program(self, fail: str = "nowhere", blind: bool = False) -> str:
        values = {"JOURNAL": str(self.path), "FAIL": fail, "BLIND": blind}
        return "\n".join([*(f"{name} = {value!r}" for name, value in values.items()), PROGRAM])

    def words(self, content: dict[str, Any], *more: str) -> list[str]:
        (self.folder / "x.yaml").write_text(yaml.safe_dump(content))
        data = []
        for part, name in (("train", "train"), ("tune", "dev"), ("test", "val")):
            data += [f"--data.{part}", str(self.scenes / name / "annotations.json")]
            data += [f"--data.{part}_images", str(self.scenes / name / "images")]
        return ["reproduce", str(self.folder / "x.yaml"), "--out", str(self.folder / "out"), *data, *more]

    def journal(self) -> list[list[str]]:
        return [line.split() for line in self.path.read_text().splitlines()] if self.path.exists() else []

    def __call__(
        self, content: dict[str, Any], *more: str, fail: str = "nowhere", blind: bool = False
    ) -> tuple[int, list[list[str]]]:
        """(exit code, what the stand-in was asked to do); trainings whose settings hold ``fail`` end badly, a
        ``blind`` stand-in predicts no visible masks."""
        self.path.unlink(missing_ok=True)
        self.monkeypatch.setattr(runner, "_PROGRAM", ("-c", self.program(fail, blind)))
        code = main(self.words(content, *more))
        return code, self.journal()

    def start(self, words: list[str]) -> subprocess.Popen[str]:
        """The same in a process of its own."""
        command = [sys.executable, "-c", DRIVER, self.program(), *words]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def world(tmp_path: Path, scenes: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, scenes, monkeypatch)


def _of(lines: list[list[str]], verb: str) -> list[list[str]]:
    return [line for line in lines if line[0] == verb]


def test_the_grid_is_chosen_on_the_tune_split_and_val_is_touched_once_a_row(world: World, tmp_path: Path) -> None:
    tune = {"optim.lr": [0.3, 0.9, 0.6], "by": "mask.AP"}
    content = {"rows": {"mask_rcnn": {}}, "tune": tune, "seeds": [4, 5], "columns": ["mask.AP", "hull.mask.AP"]}
    code, lines = world(content)
    assert code == 0
    assert len(_of(lines, "train")) == 4  # Three points with the first seed, the best one with the second.
    on = [Path(line[2]).parent.name for line in _of(lines, "test")]
    assert on == ["dev"] * 3 + ["val"] * 2
    table = json.loads((tmp_path / "out" / "x.json").read_text())["rows"]["mask_rcnn"]
    assert table["mask"]["AP"]["runs"] == 2
    assert table["mask"]["AP"]["mean"] > 50
    assert table["hull.mask.AP"]["mean"] is not None
    chosen = {json.loads(path.read_text())["what"]["settings"]["optim.lr"]
              for path in (tmp_path / "out" / "runs").glob("*.json")
              if "val" in json.loads(path.read_text())["splits"]}  # fmt: skip
    assert chosen == {0.9}
    assert world(content) == (0, [])


def test_rows_start_from_one_trunk_a_seed(world: World) -> None:
    content = {
        "settings": {"optim.lr": 0.5},
        "budget": {"shared-trunk": {"trunk": "mask_rcnn", "freeze": ["rpn"]}},
        "rows": {"mask_rcnn": {}, "longer": {"system": "mask_rcnn", "optim.warmup_steps": 3}},
        "seeds": [0, 1],
    }
    code, lines = world(content, "--jobs", "2")
    assert code == 0
    train = _of(lines, "train")
    starts = [line[line.index("--init") + 1] for line in train if "--init" in line]
    assert (len(train), len(starts), len(set(starts))) == (6, 4, 2)
    content["rows"]["more"] = {"system": "mask_rcnn", "optim.warmup_steps": 4}
    _, lines = world(content)
    assert len(_of(lines, "train")) == 2  # The trunks are there.


def test_a_figure_and_pictures(world: World, tmp_path: Path) -> None:
    rows = {"mask_rcnn": {"optim.lr": 0.5}, "all": {"system": "mask_rcnn", "optim.lr": 1}}
    assert world({"rows": rows, "vary": {"optim.lr": [0.25, 0.75]}, "columns": ["mask.AP"]})[0] == 0
    with Image.open(tmp_path / "out" / "x.png") as picture:
        assert picture.size == (900, 640)
    code, lines = world({"rows": rows, "pictures": {"count": 2}})
    assert (code, lines) == (0, [])
    with Image.open(tmp_path / "out" / "x.png") as picture:
        assert picture.width > 4 * 250  # Photograph, truth, two rows.
        assert picture.height > 2 * 250


def test_new_columns_are_added_without_training(world: World, tmp_path: Path) -> None:
    rows = {"mask_rcnn": {"optim.lr": 0.5}}
    world({"rows": rows, "columns": ["mask.AP"]})
    assert world({"rows": rows, "columns": ["mask.AP", "clipped.mask.AP"]}) == (0, [])
    table = json.loads((tmp_path / "out" / "x.json").read_text())["rows"]["mask_rcnn"]
    assert table["clipped.mask.AP"]["mean"] == pytest.approx(table["mask"]["AP"]["mean"], abs=30)


def test_rows_that_train_the_same_are_refused(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    rows = {"mask_rcnn": {}, "orcmn": {"title": "ORCNN"}}
    assert world({"rows": rows}) == (2, [])
    assert "rows.orcmn: trains the same as rows.mask_rcnn; a row must change something" in capsys.readouterr().err


def test_points_win_over_the_command_line_and_rows_do_not(world: World, tmp_path: Path) -> None:
    rows = {"mask_rcnn": {}, "b": {"system": "mask_rcnn", "optim.lr": 0.4}}
    assert world({"rows": rows}, "--optim.lr", "0.5")[0] == 2
    del rows["b"]
    tune = {"optim.lr": [0.3, 0.9]}
    code, lines = world({"rows": rows, "tune": tune}, "--optim.lr", "0.5")
    assert (code, len(_of(lines, "train"))) == (0, 2)
    rates = {json.loads(path.read_text())["what"]["settings"]["optim.lr"]
             for path in (tmp_path / "out" / "runs").glob("*.json")}  # fmt: skip
    assert rates == {0.3, 0.9}


def test_a_point_that_fails_holds_up_its_own_row_alone(world: World, tmp_path: Path) -> None:
    rows = {"mask_rcnn": {}, "b": {"system": "mask_rcnn", "optim.warmup_steps": 13}}
    content = {"rows": rows, "tune": {"optim.lr": [0.3, 0.9]}, "columns": ["mask.AP"]}
    code, lines = world(content, "--jobs", "2", fail="warmup_steps: 13")
    assert code == 1
    on = [Path(line[2]).parent.name for line in _of(lines, "test")]
    assert on.count("val") == 1
    table = json.loads((tmp_path / "out" / "x.json").read_text())["rows"]
    assert table["mask_rcnn"]["mask"]["AP"]["runs"] == 1
    assert table["b"]["mask"]["AP"]["runs"] == 0
    code, lines = world(content)
    assert code == 0
    assert [Path(line[2]).parent.name for line in _of(lines, "test")] == ["dev", "dev", "val"]


def test_a_grid_without_a_measure_is_told(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    content = {"rows": {"mask_rcnn": {}}, "tune": {"optim.lr": [0.3, 0.9], "by": "visible.AP"}}
    assert world(content, blind=True)[0] == 2
    assert "tune.by is visible.AP, which is undefined on" in capsys.readouterr().err


def test_two_at_once_share_the_work_and_both_have_all_of_it(world: World, tmp_path: Path) -> None:
    """Every step is done once, by either; both choose the same point and show the same numbers."""
    rows = {"mask_rcnn": {}, "b": {"system": "mask_rcnn", "optim.warmup_steps": 13}}
    tune = {"optim.lr": [0.3, 0.9, 0.6], "by": "mask.AP"}
    content = {"rows": rows, "tune": tune, "seeds": [4, 5], "columns": ["mask.AP"]}
    words = world.words(content)
    both = [world.start(words) for _ in range(2)]
    said = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    rows = [[line for line in out.splitlines() if line.startswith("|")] for out, _ in said]
    assert rows[0] == rows[1]
    assert all("(2)" in line for line in rows[0][2:4]), rows[0]
    lines = world.journal()
    assert len(_of(lines, "train")) == len({line[1] for line in _of(lines, "train")}) == 8
    assert len(_of(lines, "test")) == 10
    chosen = {json.loads(path.read_text())["what"]["settings"]["optim.lr"]
              for path in (tmp_path / "out" / "runs").glob("*.json")
              if "val" in json.loads(path.read_text())["splits"]}  # fmt: skip
    assert chosen == {0.9}


def test_faults_are_told(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert world({"rows": {"mask_rcnn": {}}, "pictures": {"images": [99]}})[0] == 2
    assert "pictures.images has 99" in capsys.readouterr().err
    assert world({"rows": {"x": {"run": "nosuch"}}})[0] == 2
    assert "no run is called 'nosuch'" in capsys.readouterr().err


def test_the_schema_of_the_data_reaches_every_step(world: World, tmp_path: Path) -> None:
    code, lines = world({"rows": {"mask_rcnn": {"optim.lr": 0.5}}}, "--data.schema", "canonical")
    assert code == 0
    assert "--schema canonical" in " ".join(_of(lines, "test")[0])
    (settings,) = (tmp_path / "out" / "runs").glob("*/settings.yaml")
    assert yaml.safe_load(settings.read_text())["data"]["schema"] == "canonical"
    assert world({"rows": {"mask_rcnn": {"optim.lr": 0.5}}}) == (
        0,
        [],
    )  # The annotations are the same, and so is the run.
