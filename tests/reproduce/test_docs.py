"""What docs/experiments.md shows is what the program reads."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from amodal.arguments import Verb
from amodal.reproduce.plan import find_experiment, read_experiment
from amodal.reproduce.runs import Plan
from amodal.verbs.reproduce import reproduce

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "experiments.md").read_text()


def _block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.S)
    return str(found)


def test_the_commands_are_understood() -> None:
    for line in _block("sh").splitlines():
        _, verb, *words = shlex.split(line)
        assert verb == "reproduce"
        read_experiment(ROOT / find_experiment(Verb(verb, reproduce).parse(words)["experiment"]))


def test_the_file_is_an_experiment(tmp_path: Path) -> None:
    folder = tmp_path / "experiments"
    folder.mkdir()
    (folder / "page.yaml").write_text(_block("yaml"))
    experiment = read_experiment(folder / "page.yaml")
    plan = Plan(experiment, "data")
    assert experiment.tune is not None
    runs = [plan.run(row, 1, point) for row in experiment.rows for point in experiment.tune.points()]
    assert len({run.id for run in runs}) == 4
    assert len({run.start.id for run in runs if run.start is not None}) == 1
