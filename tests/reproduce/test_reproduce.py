"""``amodal reproduce`` from drawn scenes to a table, killed and continued; nothing is done twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from amodal.cli import main

TINY = [
    "--drawn", "--scenes", "8", "--scene-size", "96", "--seeds", "0", "--steps", "2", "--batch_size", "2",
    "--data.workers", "0", "--log_every", "1", "--model.transform.min_size", "[64]",
    "--model.transform.test_min_size", "64", "--prior_fit.slots", "20", "--prior_fit.encoder_steps", "5",
    "--prior_fit.flow_steps", "2",
]  # fmt: skip


def _logs(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in (out / "logs").iterdir()}


def test_table1_on_drawn_scenes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    words = ["reproduce", "table1", "--out", str(out), "--rows", "s1", "s6", *TINY]
    process = subprocess.Popen(
        [sys.executable, "-m", "amodal", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while not list((out / "logs").glob("*-train.log")):  # Stopped in the first training.
        assert process.poll() is None
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(30) == 130

    assert main(words) == 0
    content = json.loads((out / "table1.json").read_text())
    assert list(content["rows"]) == ["s1", "s6"]
    assert content["rows"]["s6"]["mask"]["AP"]["runs"] == 1
    assert content["rows"]["s6"]["parameters"]["mean"] > content["rows"]["s1"]["parameters"]["mean"]
    assert content["steps"] == 2
    interval = content["splits"][content["data"]]["compare"]["rows"]["s6"]["mask.AP"]["interval"]
    assert set(interval) == {"low", "high", "p"}
    assert "| #6 PGExp |" in (out / "table1.md").read_text()
    runs = sorted(path.name for path in (out / "runs").glob("*.json"))
    assert len(runs) == 2

    before = _logs(out)
    (out / "runs" / runs[0]).unlink()  # As if killed between the last test and the numbers.
    capsys.readouterr()
    assert main(words) == 0
    assert _logs(out) == before
    assert sorted(path.name for path in (out / "runs").glob("*.json")) == runs
    assert main(words) == 0
    assert "2 runs found and not repeated" in capsys.readouterr().out

    assert main([*words, "--rows", "s1", "--optim.lr", "0.001"]) == 0
    more = set(_logs(out)) - set(before)
    assert len(more) == 2
    assert len(list((out / "runs").glob("*.json"))) == 3
    assert "train" in "".join(more)


def test_a_failed_step_names_its_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.yaml").write_text("rows: {mask_rcnn: {model.backbone.name: nosuch}}\n")
    words: list[Any] = ["reproduce", str(tmp_path / "x.yaml"), "--out", str(tmp_path), *TINY]
    assert main([*words[:-6]]) == 1
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("amodal reproduce: train mask_rcnn, seed 0 failed, see ")
    log = Path(message.partition(" see ")[2]).read_text()
    assert "nosuch" in log
    assert "| mask_rcnn | - |" in (tmp_path / "x.md").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tabel1"], "no experiment 'tabel1'; nearest is 'table1'"),
        (["table1"], "--data.train is missing"),
        (["table1", "--data.train", "a.json"], "--data.train and --data.train_images go together"),
        (["table1", "--drawn", "--data.test", "a.json", "--data.test_images", "a"], "--drawn draws all data"),
        (["table1", "--rows", "s7"], "has no row 's7'"),
        (["table1", "--optim.rl", "1"], "unknown flag --optim.rl; nearest is '--optim.lr'"),
        (["table1", "--jobs", "0", "--drawn"], "--jobs is 0"),
        (["pgexp", "--steps", "3"], "give --data.root"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["reproduce", words[0], "--out", str(tmp_path / "out"), *words[1:]]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_kept_runs_are_found_without_their_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "pgexp", "--out", str(tmp_path), "--rows", "s1", "s6"]) == 0
    assert "6 runs found and not repeated" in capsys.readouterr().out
    assert "| #6 PGExp - #1 | **+0.4**" in (tmp_path / "pgexp.md").read_text()
