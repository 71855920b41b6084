"""A system of a user's own file, by the same commands as those of the package: the example of docs/extending.md."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

import amodal
from amodal import cli
from amodal.config_io import load_config
from amodal.data.scenes.dataset import write_dataset
from amodal.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "extending.md").read_text()
MODEL = {
    "transform": {"min_size": [64], "max_size": 64, "test_min_size": 64, "test_max_size": 64},
    "backbone": {"channels": 16},
    "rpn": {"pre_nms_train": 50, "post_nms_train": 20, "pre_nms_test": 50, "post_nms_test": 20},
    "box_head": {"channels": 16, "batch_per_image": 16, "score_threshold": 0.0, "detections": 5},
    "mask_head": {"channels": 8, "convs": 1},
}


def amodal_says(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = cli.main([str(word) for word in words])
    told = capsys.readouterr()
    return code, told.out, told.err


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the page says to write down: my_module.py and my.yaml, beside scenes and the configurations."""
    place = tmp_path_factory.mktemp("mine")
    (place / "my_module.py").write_text(re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)[0])
    shutil.copytree(ROOT / "configs", place / "configs")
    settings = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.S)[0])
    settings["model"] |= MODEL
    (place / "my.yaml").write_text(yaml.safe_dump({**settings, "batch_size": 2, "data": {"workers": 0}}))
    write_dataset(place / "scenes", images=4, size=64, seed=3)
    return place


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(folder)
    yield folder
    sys.modules.pop("my_module", None)
    sys.path[:] = [entry for entry in sys.path if entry != str(folder)]


DATA = ("--data.train", "scenes/annotations.json", "--data.train_images", "scenes/images")


def test_it_trains_resumes_tests_predicts_and_loads(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = ("train", "my.yaml", *DATA, "--steps", 3, "--save_every", 1, "--optim.warmup_steps", 0)
    whole += ("--model.method.hidden_weight", 0.25)  # wins over the file
    assert amodal_says(capsys, *whole, "--out", "whole")[0] == 0

    # Killed after its first checkpoint, in a process of its own: nothing is known there but the folder.
    script = (
        "import sys\nfrom amodal import cli\nfrom amodal.train import run\n"
        "save = run._save_last\n"
        "def dies(state):\n    save(state)\n    raise KeyboardInterrupt\n"
        "run._save_last = dies\nsys.exit(cli.main(sys.argv[1:]))\n"
    )
    words = [str(word) for word in (*whole, "--out", "killed")]
    died = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, check=False)
    assert died.returncode == 130, died.stderr
    assert amodal_says(capsys, *whole, "--out", "killed", "--resume", "auto")[0] == 0
    model, again = (amodal.load(f"{run}/last", "cpu") for run in ("whole", "killed"))
    assert type(model.branch).__name__ == "MyORCNN"
    assert model.config.system == "my_module:MyORCNN"
    assert model.config.method.hidden_weight == 0.25  # type: ignore[union-attr]
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())

    log = (here / "whole" / "log.csv").read_text().splitlines()[0]
    assert "loss_mask_hidden" in log
    code, out, _ = amodal_says(
        capsys, "test", "whole/last", "scenes/annotations.json", "scenes/images", "--out", "tested"
    )
    assert code == 0
    assert "visible mask" in out
    code, out, _ = amodal_says(capsys, "predict", "whole/last", "scenes/images", "--out", "found", "--threshold", 0.0)
    assert code == 0
    assert "in 4 images" in out
    code, out, _ = amodal_says(
        capsys, "train", "configs/mask_rcnn/nano.yaml", *DATA, "--model.system", "my_module:MyORCNN",
        *[word for key, section in MODEL.items() for name, value in section.items()
          for word in (f"--model.{key}.{name}", str(value))],
        "--batch_size", 2, "--steps", 1, "--data.workers", 0, "--out", "other", "--init", "whole/last",
    )  # fmt: skip
    assert code == 0
    assert f"init: {len(model.state_dict())} tensors from whole/last" in out


def test_a_saved_one_is_equal_to_the_last_bit(here: Path, tmp_path: Path) -> None:
    settings = load_config("my.yaml").model
    model = amodal.build("my_module:MyORCNN", num_classes=3, config=settings).eval()
    model.save_pretrained(tmp_path / "saved")
    image = (torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0)) * 255).to(torch.uint8)
    one, two = (found.detect([image])[0] for found in (model, amodal.load(tmp_path / "saved", "cpu")))
    assert len(one) > 0
    for name in ("boxes", "scores", "labels", "amodal_probs", "visible_probs"):
        assert torch.equal(getattr(one, name), getattr(two, name)), name


@pytest.mark.parametrize(
    ("system", "told"),
    [
        ("my_modul:MyORCNN", "model.system my_modul:MyORCNN: no such module, here or installed"),
        ("my_module:MyORCN", "model.system my_module:MyORCN: my_module has no 'MyORCN'; nearest is 'MyORCNN'"),
        ("my_module:MyConfig", "model.system my_module:MyConfig: is no branch class"),
        ("leaves:X", "model.system leaves:X: SystemExit: 3"),
        ("broken:X", "model.system broken:X: SyntaxError: "),
        ("fails:X", "model.system fails:X: ZeroDivisionError: division by zero"),
        ("json:dumps", "model.system json:dumps: is a function, must be a System or a branch class"),
        ("pgexq", "model.system is 'pgexq', no known system; nearest is 'pgexp'"),
    ],
)
def test_wrong_names_are_one_line(system: str, told: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "broken.py").write_text("def (:\n")
    (here / "leaves.py").write_text("raise SystemExit(3)\n")
    (here / "fails.py").write_text("1 / 0\n")
    code, _, error = amodal_says(capsys, "train", "my.yaml", *DATA, "--model.system", system, "--out", "wrong")
    assert code == 2
    assert error.count("\n") == 1
    assert told in error


def test_a_class_that_is_no_branch_is_refused_before_any_data_are_read(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("train", "configs/mask_rcnn/nano.yaml", "--data.train", "none.json", "--model.system", "torch.nn:Identity")
    assert amodal_says(capsys, *words) == (2, "", "amodal train: system torch.nn:Identity: Identity is no Branch\n")


def test_settings_of_its_own_are_checked(here: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown key 'model\.method\.hiden_weight'; nearest is 'hidden_weight'"):
        load_config("my.yaml", {"model.method.hiden_weight": 1})


def test_a_checkpoint_whose_module_is_gone_names_it(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    amodal.build("my_module:MyORCNN", num_classes=3, config=load_config("my.yaml").model).save_pretrained(tmp_path)
    sys.modules.pop("my_module")
    sys.path[:] = [entry for entry in sys.path if entry != str(here)]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"config\.yaml: system my_module:MyORCNN: no such module"):
        amodal.load(tmp_path, "cpu")
