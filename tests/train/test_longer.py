"""A resumed run may have other ``steps`` than it was begun with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from amodal.config_io import load_config
from amodal.errors import ConfigError
from amodal.train.run import train_run
from amodal.train.state import FREE_KEYS

CONSTANT = {"optim.milestones": [1.0], "optim.gamma": 1.0, "log_every": 1}


@pytest.fixture
def train(settings: Path, scenes: Path) -> Any:
    places = {"data.val": str(scenes / "annotations.json"), "data.val_images": str(scenes / "images")}

    def run(out: Path, steps: int, resume: bool = True, **changes: Any) -> None:
        more = {key.replace("__", "."): value for key, value in changes.items()}
        train_run(load_config(settings, {**places, "out": str(out), "steps": steps, **more}), resume=resume)

    return run


def _state(out: Path) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((out / "last/state.json").read_text())
    del state["config"]["out"], state["best"]  # The former end was evaluated, too.
    return state


def _log(out: Path) -> list[str]:
    return [line.rpartition(",")[0] for line in (out / "log.csv").read_text().splitlines()]


def test_a_finished_run_made_longer_is_the_run_that_was_planned_so_long(
    train: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path / "short", 1, **CONSTANT)
    capsys.readouterr()
    train(tmp_path / "short", 2, **CONSTANT)
    told = capsys.readouterr().out
    assert "goes on from step 1\n2 steps instead of the 1 planned before, 1 are done; the rate never falls" in told
    train(tmp_path / "long", 2, **CONSTANT)
    assert "planned before" not in capsys.readouterr().out
    for name in ("model.safetensors", "optimizer.safetensors"):
        one, two = ((tmp_path / out / "last" / name).read_bytes() for out in ("short", "long"))
        assert one == two, name
    assert _state(tmp_path / "short") == _state(tmp_path / "long")
    assert _log(tmp_path / "short") == _log(tmp_path / "long")
    assert load_config(tmp_path / "short/config.yaml").steps == 2


def test_fewer_steps_end_a_run_earlier_but_not_before_what_is_done(
    train: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path, 2, eval_every=0)
    with pytest.raises(ConfigError, match=r"last: steps is 1, but 2 are done; give as many or more$"):
        train(tmp_path, 1, eval_every=0)
    before = (tmp_path / "last/model.safetensors").read_bytes()
    state = tmp_path / "last/state.json"
    content = json.loads(state.read_text())
    content["config"]["steps"], content["best"] = 9, None
    state.write_text(json.dumps(content))
    (tmp_path / "eval.csv").unlink()
    capsys.readouterr()
    train(tmp_path, 2, eval_every=0)
    said = capsys.readouterr().out
    assert "all 2 are done; more --steps make the run longer\n2 steps instead of the 9 planned before" in said
    assert "done: mask AP " in said
    assert (tmp_path / "eval.csv").read_text().splitlines()[1].startswith("2,")
    assert (tmp_path / "last/model.safetensors").read_bytes() == before


def test_a_finished_run_has_its_score_when_it_is_resumed(
    train: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path, 1)
    first = [line for line in capsys.readouterr().out.splitlines() if line.startswith("done: mask AP ")]
    train(tmp_path, 1)
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("done: ")] == first
    train(tmp_path, 1, data__val=None, data__val_images=None)
    assert f"done: no validation data; checkpoint: {tmp_path}/best\n" in capsys.readouterr().out


def test_the_page_lists_what_may_change() -> None:
    page = (Path(__file__).parents[2] / "docs/training.md").read_text()
    assert {key for key in FREE_KEYS if f"`{key}`" in page} == FREE_KEYS
