"""What decides a run: the content of what its settings name, and nothing of anybody's is opened to compare two runs."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from amodal.cli import main
from amodal.config import TrainConfig
from amodal.config_io import structure
from amodal.errors import ConfigError, DataError
from amodal.reproduce.collect import Library, collect
from amodal.reproduce.identity import What
from amodal.reproduce.plan import read_experiment
from amodal.reproduce.runs import Plan, Run
from amodal.reproduce.steps import Folders

ROOT = Path(__file__).resolve().parents[2]
RUNS = sorted((ROOT / "experiments" / "runs").glob("*.json"))
OWN = """
from dataclasses import dataclass
from amodal.methods.mask_rcnn import MaskRCNN
from amodal.settings import MethodConfig, PriorKind, PriorConfig

@dataclass(frozen=True)
class Settings(MethodConfig):
    weight: float = 1.0
    codebook: str = "none"
    tables: list[str] | None = None

    @property
    def prior_kind(self):
        return PriorKind("codebook", PriorConfig, "amodal.priors.maker:MAKER")

class System(MaskRCNN):
    settings = Settings
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_system.py").write_text(OWN)
    yield tmp_path
    sys.modules.pop("own_system", None)
    sys.path[:] = [entry for entry in sys.path if entry != str(tmp_path)]


def _what(method: Any = None, start: str | None = None, **model: Any) -> What:
    config = structure(TrainConfig, {"model": {**model, **({} if method is None else {"method": method})}}, "test")
    return What.of(config, "d", start)


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_every_committed_run_keeps_its_name(path: Path) -> None:
    record = json.loads(path.read_text())
    what = None if record["what"] is None else What.parse(record["what"])
    assert path.stem == record["id"] == (record["id"] if what is None else what.id)
    assert what is None or What.parse(json.loads(json.dumps(what.describe()))) == what


def test_changed_code_of_an_own_system_is_another_run(here: Path) -> None:
    first = _what(system="own_system:System")
    assert _what(system="own_system:System") == first
    (here / "own_system.py").write_text(OWN + "# changed\n")
    second = _what(system="own_system:System")
    assert second.id != first.id
    (here / "own_system.py").write_text(OWN)
    assert _what(system="own_system:System").id == first.id


def test_a_finished_run_is_found_while_its_code_is_what_it_was(here: Path) -> None:
    (here / "x.yaml").write_text("rows: {own: {system: 'own_system:System', model.method.weight: 2}}\n")
    experiment = read_experiment(here / "x.yaml")

    def found() -> bool:
        return Library([here / "runs"]).get(Plan(experiment, "d").run(experiment.rows[0], 0).id) is not None

    run = Plan(experiment, "d").run(experiment.rows[0], 0)
    record = {**json.loads(RUNS[0].read_text()), "id": run.id, "what": run.what.describe()}
    Folders(here).record(run.id).parent.mkdir()
    Folders(here).record(run.id).write_text(json.dumps(record))
    assert found()
    (here / "own_system.py").write_text(OWN + "# changed\n")
    assert not found()
    (here / "own_system.py").write_text(OWN)
    assert found()


def test_code_that_changes_while_a_run_is_made_gives_no_numbers(here: Path) -> None:
    config = structure(TrainConfig, {"model": {"system": "own_system:System"}}, "test")
    run = Run(What.of(config, "d"), config, "row", "title", 0)
    (here / "own_system.py").write_text(OWN + "# changed\n")
    with pytest.raises(ConfigError, match="row, seed 0: the file of its system or initial weights changed"):
        collect(run, [], Folders(here), [])
    assert not Folders(here).record(run.id).exists()


def test_other_content_of_local_weights_is_another_run_and_their_place_is_none(here: Path) -> None:
    (here / "a.safetensors").write_bytes(b"one")
    (here / "b.safetensors").write_bytes(b"one")
    first = _what(backbone={"weights": "a.safetensors"})
    assert _what(backbone={"weights": str(here / "b.safetensors")}).id == first.id
    (here / "a.safetensors").write_bytes(b"two")
    assert _what(backbone={"weights": "a.safetensors"}).id != first.id
    assert _what(backbone={"weights": "a.safetensors"}).id != _what().id
    with pytest.raises(ConfigError, match=r"model\.backbone\.weights is 'c\.safetensors', no such file"):
        _what(backbone={"weights": "c.safetensors"})
    # A run that starts from a checkpoint does not read them.
    gone = _what(backbone={"weights": "c.safetensors"}, start="w")
    assert gone.id == _what(backbone={"weights": "a.safetensors"}, start="w").id == _what(start="w").id


def test_names_of_torchvision_weights_stay_names() -> None:
    name = "ResNet50_Weights.IMAGENET1K_V1"
    assert _what(backbone={"weights": name}).settings["model"]["backbone"]["weights"] == name


def test_files_that_an_own_system_s_settings_name_count_by_their_content(here: Path) -> None:
    def ids() -> set[str]:
        return {
            _what({"codebook": "book"}, system="own_system:System").id,
            _what({"tables": ["x", "book"]}, system="own_system:System").id,
        }

    (here / "book").write_text("one")
    before = ids()
    assert ids() == before
    (here / "book").write_text("two")
    assert not ids() & before
    # A word that is a setting of the package's own systems is no file, whatever lies here.
    settings = {"box_expansion": "none", "mask_expansion": "plain"}
    named = _what(settings, system="pgexp")
    (here / "plain").write_text("three")
    assert _what(settings, system="pgexp") == named


def test_a_run_of_an_own_system_is_read_back_without_its_module(here: Path) -> None:
    what = _what({"weight": 2.0}, system="own_system:System")
    assert what.prior is not None
    described = json.loads(json.dumps(what.describe()))
    (here / "own_system.py").unlink()
    del sys.modules["own_system"]
    assert What.parse(described) == what
    assert "own_system" not in sys.modules
    del described["settings"]["data.flip"]  # Not known to an earlier release.
    assert What.parse(described) == what


@pytest.mark.parametrize("settings", [
    {"model.system": "evil:Class"},
    {"model.system": "evil:Class@0123"},
    {"model": {"system": "evil:Class"}},
    {"model.system": "evil"},
    {"model.backbone.weights": "evil.safetensors"},
])  # fmt: skip
def test_reading_a_run_imports_and_opens_nothing_that_it_names(here: Path, settings: dict[str, Any]) -> None:
    (here / "evil.py").write_text(f"open({str(here / 'harm')!r}, 'w')\n")
    parsed = What.parse({"settings": settings, "train": "d", "starts_from": None})
    assert not (here / "harm").exists()
    assert "evil" not in sys.modules
    assert parsed is None or parsed.id != _what().id
    record = json.loads(RUNS[0].read_text())
    record["what"]["settings"] |= settings
    record["id"] = What.as_written(record["what"]).id
    folder = here / "runs"
    folder.mkdir()
    (folder / "x.json").write_text(json.dumps(record))
    with contextlib.suppress(DataError):  # A section as a whole is no setting.
        Library([folder])
    assert not (here / "harm").exists()


@pytest.mark.parametrize("words", [["info"], ["configs"], ["methods"], ["train", "--help"], ["reproduce", "--help"]])
def test_verbs_that_only_tell_import_no_module_from_here(
    here: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "config.yaml").write_text("system: own_system:System\n")
    assert main(words) == 0
    assert "own_system" not in sys.modules
    assert str(here) not in sys.path
