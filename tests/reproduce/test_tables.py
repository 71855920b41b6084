"""Tables, pages and figures of runs that are made up here."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from amodal.errors import ConfigError, DataError
from amodal.reproduce.collect import Library, _table, seconds, thin
from amodal.reproduce.figures import line_figure
from amodal.reproduce.pages import fill_page, rewrite
from amodal.reproduce.plan import read_experiment
from amodal.reproduce.reproduce import tables
from amodal.reproduce.sources import Given, Split, find_sources
from amodal.reproduce.tables import Entry, cell, table_csv, table_json

LEVELS = [{"low": 0.0, "high": 0.05, "objects": 3, "AP": 50.0}, {"low": 0.05, "high": 0.15, "objects": 0, "AP": None}]


def _record(ap: float, seed: int = 0) -> dict[str, Any]:
    metrics = {"mask": {"AP": ap, "AP-occ-gt": None}, "box": {"AP": ap / 2}, "visible": None}
    result = {"digest": "1", "metrics": metrics, "levels": LEVELS, "per_image": None, "hull": None}
    cost = {"parameters": 6_400_000, "flops": 13_000_000_000}
    return {"seed": seed, "splits": {"val": result}, "cost": cost, "seconds": {"step": 1.5}}


def _entries() -> list[Entry]:
    first = Entry("a", "#1", {0: _record(20.0), 1: _record(22.0, 1)})
    return [first, Entry("b", "#6", {0: _record(24.0), 1: _record(25.0, 1), 2: _record(90.0, 2)}), Entry("c", "c", {})]


def _experiment(folder: Path, **more: Any) -> Any:
    content = {
        "rows": {"a": {"title": "#1"}, "b": {"steps": 1}, "c": {"steps": 2}},
        "columns": ["mask.AP", "mask.AP-occ-gt", "box.AP", "hull.mask.AP", "parameters", "flops"],
        "data": {"train": "t", "test": ["val"], "digests": {"t": "0", "val": "1"}},
        "compare": {"with": "a"},
    }
    path = folder / "test.yaml"
    path.write_text(yaml.safe_dump({**content, **more}))
    return read_experiment(path)


def test_cells_say_mean_deviation_and_seeds() -> None:
    assert cell([]) == "-"
    assert cell([3.14]) == "3.1 (1)"
    assert cell([1.0, 3.0]) == "2.0 ± 1.4 (2)"


def test_the_page_of_an_experiment(tmp_path: Path) -> None:
    experiment = _experiment(tmp_path)
    text, content = tables(experiment, find_sources(experiment.data, Given()), _entries())
    lines = text.splitlines()
    assert "| #1 | 21.0 ± 1.4 (2) | - | 10.5 ± 0.7 (2) | - | 6.4 ± 0.0 (2) | 13.0 ± 0.0 (2) |" in lines
    assert "| c | - | - | - | - | - | - |" in lines
    assert "| #6 - #1 | **+3.5** (+3.0 to +4.0) | - | **+1.8** (+1.5 to +2.0) | - |" in lines
    assert "not available" in text
    assert "| val, mask AP at | 0-5 % hidden (3) | 5-15 % hidden (0) |" in lines
    assert content["data"] == "val"
    assert content["rows"]["a"]["mask"]["AP"] == {"mean": 21.0, "std": pytest.approx(2**0.5), "runs": 2}
    assert content["rows"]["c"]["box"]["AP"] == {"mean": None, "std": None, "runs": 0}
    assert content["splits"]["val"]["rows"] == content["rows"]
    found = content["splits"]["val"]["compare"]["rows"]["b"]["mask.AP"]
    assert (found["mean"], found["seeds"], found["interval"]) == (3.5, 2, "not available")


def test_csv_has_a_line_for_each_cell() -> None:
    rows = list(csv.DictReader(io.StringIO(table_csv(_entries(), {"val": "1"}, ["mask.AP", "parameters"]))))
    assert len(rows) == 6
    assert rows[0]["mean"] == "21.0"
    assert (rows[4]["row"], rows[4]["std"], rows[4]["seeds"]) == ("c", "", "0")


def test_a_split_is_told_by_its_annotations_not_its_name() -> None:
    entry = Entry("a", "a", {0: _record(20.0)})
    assert entry.values("mask.AP", "1") == {0: 20.0}
    assert entry.values("mask.AP", "2") == {}
    assert table_json([entry], {"other": "1"}, [], {})["rows"]["a"]["mask"]["AP"]["mean"] == 20.0


PAGE = "Before.\n<!-- table: test val -->\nold\n<!-- end -->\nBetween.\n<!-- levels: else val -->\nkept\n<!-- end -->\n"


def test_pages_change_between_their_markers_only(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    assert fill_page(page, _experiment(tmp_path), {"val": "1"}, _entries()) == 1
    text = page.read_text()
    assert text.startswith("Before.\n<!-- table: test val -->\n| val | mask AP |")
    assert text.endswith("|\n<!-- end -->\nBetween.\n<!-- levels: else val -->\nkept\n<!-- end -->\n")
    fill_page(page, _experiment(tmp_path), {"val": "1"}, _entries())
    assert page.read_text() == text


def test_faults_of_a_page_are_told(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    with pytest.raises(DataError, match="No such file"):
        rewrite(page, {})
    page.write_text("<!-- table: a -->\n<!-- table: b -->\n<!-- end -->\n")
    with pytest.raises(DataError, match="'table: a' has no <!-- end -->"):
        rewrite(page, {})
    page.write_text("<!-- table: test vla -->\n<!-- end -->\n")
    with pytest.raises(ConfigError, match="no split 'vla' in test; nearest is 'val'"):
        fill_page(page, _experiment(tmp_path), {"val": "1"}, _entries())


def test_a_figure_has_a_panel_for_each_setting_and_column(tmp_path: Path) -> None:
    vary = {"model.method.k": [{"as": 0, "steps": 3}, 4], "prior_fit.slots": [10, 20, 30]}
    experiment = _experiment(
        tmp_path, rows={"a": {"title": "A"}}, vary=vary, columns=["mask.AP", "box.AP"], compare=None
    )
    names = [f"a {key}={point.label}" for key, points in experiment.vary.items() for point in points]
    entries = [Entry(name, name, {0: _record(20.0 + i), 1: _record(21.0 + i)}) for i, name in enumerate(names[:-1])]
    entries.append(Entry(names[-1], names[-1], {}))
    sources = find_sources(experiment.data, Given())
    (path,) = line_figure(experiment, sources, entries, tmp_path)
    with Image.open(path) as picture:
        assert path.name == "test.png"
        assert picture.size == (1800, 1280)
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 3


def test_a_damaged_file_among_the_runs_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(DataError, match=r"a\.json: is not valid JSON"):
        Library([tmp_path])
    (tmp_path / "a.json").write_text('{"version": 99}')
    with pytest.raises(DataError, match="newer release"):
        Library([tmp_path])


def test_new_splits_of_a_run_join_the_old_ones(tmp_path: Path) -> None:
    library = Library([tmp_path])
    for name, digest in (("val", "1"), ("other", "2")):
        library.add({"id": "x", "what": None, "splits": {name: {"digest": digest}}})
    assert library.complete("x", [Split("val", "1"), Split("renamed", "2")])
    assert not library.complete("x", [Split("val", "3")])


def test_an_infinite_gradient_norm_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("step,seconds,grad_norm\n1,2.0,inf\n2,1.0,3.5\n")
    rows = _table(tmp_path / "log.csv")
    assert rows == [{"step": 1, "seconds": 2.0}, {"step": 2, "seconds": 1.0, "grad_norm": 3.5}]
    assert thin(rows, most=1) == [{"step": 2, "seconds": 1.5, "grad_norm": 3.5}]


@pytest.mark.parametrize("text", ["step,seconds\n1,x\n", "step,seconds\n1,2,3\n", "step,loss\n1,2\n", "a\n1\n"])
def test_a_damaged_log_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "log.csv").write_text(text)
    with pytest.raises(DataError, match=r"log\.csv: is no log of a training"):
        _table(tmp_path / "log.csv")


def test_curves_are_means_and_seconds_are_weighted_by_steps() -> None:
    log = [{"step": step, "loss": loss, "seconds": used} for step, loss, used in
           [(20, 4.0, 1.0), (40, 2.0, 1.0), (60, 3.0, 4.0), (70, 1.0, 2.0)]]  # fmt: skip
    assert thin(log, most=2) == [
        {"step": 40, "loss": 3.0, "seconds": 1.0},
        {"step": 70, "loss": 2.0, "seconds": 3.0},
    ]
    log[1]["grad_norm"] = 4.0  # Of a step whose norm was not finite there is none.
    assert thin(log, most=2)[0] == {"step": 40, "loss": 3.0, "seconds": 1.0, "grad_norm": 4.0}
    assert seconds(log) == {"total": 20 + 20 + 80 + 20, "step": 2.0}
    assert seconds([]) == {}
