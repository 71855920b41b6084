"""Grids, trunks, figures and pictures with a stand-in for ``amodal`` that finds more objects the larger the rate is."""

from __future__ import annotations

import json
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
journal = Path(JOURNAL)
with journal.open('a') as file: file.write(' '.join(sys.argv[1:]) + '\\n')
if verb == 'train':
    settings = yaml.safe_load(Path(words[0]).read_text())
    last = Path(settings['out']) / 'last'
    last.mkdir(parents=True)
    (last / 'rate').write_text(str(settings['optim']['lr']))
if verb == 'test':
    rate, out = float((Path(words[0]) / 'rate').read_text()), Path(words[4])
    truth = json.loads(Path(words[1]).read_text())['annotations']
    found = [dict(image_id=a['image_id'], category_id=a['category_id'], score=0.9 - 0.001 * i,
                  segmentation=a['segmentation'], visible_mask=a['visible_mask'])
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


@pytest.fixture
def world(tmp_path: Path, scenes: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes an experiment, does it, returns (exit code, what the stand-in was asked to do)."""
    journal = tmp_path / "journal"
    monkeypatch.setattr(runner, "_PROGRAM", ("-c", PROGRAM.replace("JOURNAL", repr(str(journal)))))
    monkeypatch.setattr(runner, "_POLL_S", 0.02)

    def do(content: dict[str, Any], *more: str) -> tuple[int, list[list[str]]]:
        (tmp_path / "x.yaml").write_text(yaml.safe_dump(content))
        journal.unlink(missing_ok=True)
        data = []
        for part, name in (("train", "train"), ("tune", "dev"), ("test", "val")):
            data += [f"--data.{part}", str(scenes / name / "annotations.json")]
            data += [f"--data.{part}_images", str(scenes / name / "images")]
        code = main(["reproduce", str(tmp_path / "x.yaml"), "--out", str(tmp_path / "out"), *data, *more])
        return code, [line.split() for line in journal.read_text().splitlines()] if journal.exists() else []

    return do


def _of(lines: list[list[str]], verb: str) -> list[list[str]]:
    return [line for line in lines if line[0] == verb]


def test_the_grid_is_chosen_on_the_tune_split_and_val_is_touched_once_a_row(world: Any, tmp_path: Path) -> None:
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


def test_rows_start_from_one_trunk_a_seed(world: Any) -> None:
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


def test_a_figure_and_pictures(world: Any, tmp_path: Path) -> None:
    rows = {"mask_rcnn": {"optim.lr": 0.5}, "all": {"system": "mask_rcnn", "optim.lr": 1}}
    assert world({"rows": rows, "vary": {"optim.lr": [0.25, 0.75]}, "columns": ["mask.AP"]})[0] == 0
    with Image.open(tmp_path / "out" / "x.png") as picture:
        assert picture.size == (900, 640)
    code, lines = world({"rows": rows, "pictures": {"count": 2}})
    assert (code, lines) == (0, [])
    with Image.open(tmp_path / "out" / "x.png") as picture:
        assert picture.width > 4 * 250  # Photograph, truth, two rows.
        assert picture.height > 2 * 250


def test_new_columns_are_added_without_training(world: Any, tmp_path: Path) -> None:
    rows = {"mask_rcnn": {"optim.lr": 0.5}}
    world({"rows": rows, "columns": ["mask.AP"]})
    assert world({"rows": rows, "columns": ["mask.AP", "clipped.mask.AP"]}) == (0, [])
    table = json.loads((tmp_path / "out" / "x.json").read_text())["rows"]["mask_rcnn"]
    assert table["clipped.mask.AP"]["mean"] == pytest.approx(table["mask"]["AP"]["mean"], abs=30)


def test_faults_are_told(world: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert world({"rows": {"mask_rcnn": {}}, "pictures": {"images": [99]}})[0] == 2
    assert "pictures.images has 99" in capsys.readouterr().err
    assert world({"rows": {"x": {"run": "nosuch"}}})[0] == 2
    assert "no run is called 'nosuch'" in capsys.readouterr().err
