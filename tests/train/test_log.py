from __future__ import annotations

from pathlib import Path

from amodal.train.log import CsvLog


def test_rows_after_the_checkpoint_are_removed(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    log = CsvLog(path, 0)
    for step in (10, 20, 30):
        log.write(step, {"loss": step / 3, "ap": None})
    whole = path.read_text()
    with path.open("a") as file:
        file.write("40,1")  # a kill in the middle of a row
    log = CsvLog(path, 20)
    assert path.read_text() == "step,loss,ap\n10,3.33333,\n20,6.66667,\n"
    log.write(30, {"loss": 10.0, "ap": None})
    assert path.read_text() == whole


def test_a_new_run_starts_afresh(tmp_path: Path) -> None:
    CsvLog(tmp_path / "log.csv", 0).write(1, {"a": 1.0})
    CsvLog(tmp_path / "log.csv", 0).write(2, {"b": 1.0})
    assert (tmp_path / "log.csv").read_text().split() == ["step,b", "2,1"]


def test_half_a_row_is_removed_even_if_its_step_is_early(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("step,a,b\n1,2,3\n2,4\n")
    CsvLog(path, 5)
    assert path.read_text().split() == ["step,a,b", "1,2,3"]
