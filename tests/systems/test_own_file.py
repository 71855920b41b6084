"""A system of a user's own file, by the same commands as those of the package: the example of docs/extending.md."""

from __future__ import annotations

import re
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
    """What the page says to write down: my_module.py and my.yaml, beside scenes."""
    place = tmp_path_factory.mktemp("mine")
    (place / "my_module.py").write_text(re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)[0])
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
        capsys, "train", "mask_rcnn/nano", *DATA, "--model.system", "my_module:MyORCNN",
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


FAULTY = {
    "broken": "def (:\n",
    "leaves": "raise SystemExit(3)\n",
    "fails": "raise ValueError('of two\\nlines')\n",
    "ends": "class End(BaseException): pass\nraise End\n",
    "lazy": "def __getattr__(name): raise AttributeError\n",
    "parts": """
from dataclasses import dataclass
import torch
from amodal.models.branch import Branch
from amodal.settings import MethodConfig, PriorKind
from amodal.systems import System

class Open(Branch):
    def loss(self, output, rois, features): return {}

class Whole(Open):
    def forward(self, features, rois): return None

@dataclass(frozen=True)
class Needy(MethodConfig):
    width: int

class Kindly(MethodConfig):
    prior_kind = 5

class NoFit(MethodConfig):
    prior_kind = PriorKind("codebook", int, None)

class Unknown(MethodConfig):
    width: "nowhere"

Plain = torch.nn.Identity
side = System("S", "-", "-", Whole, box_head=Whole)
text = System("S", "-", "-", "parts:Gone")
number = System("S", "-", "-", 3)
titled = System(5, "-", "-", Whole)
held, needy, kindly, nofit, unknown = (
    System("S", "-", "-", Whole, settings) for settings in (3, Needy, Kindly, NoFit, Unknown)
)

class Takes(Whole):
    def __init__(self, config): pass

class Silent(Whole):
    def __init__(self, config, num_classes, prior): pass
""",
}


@pytest.fixture
def faulty(here: Path) -> Iterator[None]:
    for name, text in FAULTY.items():
        (here / f"{name}.py").write_text(text)
    yield
    for name in FAULTY:
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("system", "told"),
    [
        ("my_modul:MyORCNN", "no such module, here or installed"),
        ("my_module:MyORCN", "my_module has no 'MyORCN'; nearest is 'MyORCNN'"),
        ("my_module:", "my_module has no ''"),
        ("lazy:X", "lazy has no 'X'"),
        (":X", "ValueError: Empty module name"),
        ("leaves:X", "SystemExit: 3"),
        ("broken:X", "SyntaxError: "),
        ("fails:X", "ValueError: of two lines"),
        ("ends:X", "End"),
        ("json:dumps", "is a function, must be a System or a branch class"),
        ("my_module:MyConfig", "MyConfig is no Branch"),
        ("parts:Plain", "Identity is no Branch"),
        ("parts:number", "an object of type int is no Branch"),
        ("parts:side", "Whole is no BoxSide"),
        ("parts:text", "parts:Gone: parts has no 'Gone'"),
        ("parts:Open", "Open is abstract, it lacks forward"),
        ("amodal.models.branch:Branch", "Branch is abstract, it lacks forward, loss"),
        ("parts:titled", "its title is 5, must be text"),
        ("parts:held", "its settings are 3, must be a subclass of MethodConfig"),
        ("parts:needy", "its settings Needy have no usable defaults (TypeError: "),
        ("parts:unknown", "its settings Unknown have no usable defaults (NameError: "),
        ("parts:kindly", "prior_kind of Kindly is 5, must be a PriorKind or None"),
        ("parts:nofit", "the settings of its codebook are <class 'int'>, must be a subclass of FitConfig"),
    ],
)
@pytest.mark.usefixtures("faulty")
def test_what_is_no_system_is_one_line_that_says_where_it_was_named(system: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("my.yaml", {"model.system": system})
    assert str(caught.value).startswith(f"--model.system {system}: {told}")
    assert "\n" not in str(caught.value)


def test_wrong_names_are_one_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for system, told in (
        ("json:dumps", "model.system json:dumps: is a function"),
        ("pgexq", "model.system is 'pgexq'"),
    ):
        code, _, error = amodal_says(capsys, "train", "my.yaml", *DATA, "--model.system", system, "--out", "wrong")
        assert (code, error.count("\n")) == (2, 1)
        assert told in error


@pytest.mark.usefixtures("faulty")
def test_a_module_that_is_interrupted_is_named(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "stops.py").write_text("raise KeyboardInterrupt\n")
    code, _, error = amodal_says(capsys, "train", "my.yaml", *DATA, "--model.system", "stops:X", "--out", "wrong")
    assert (code, error) == (130, "amodal train: stops:X: interrupted while it was imported\n")


@pytest.mark.parametrize(
    ("system", "told"),
    [
        ("parts:Takes", r"Takes cannot be made \(TypeError: .*\)"),
        ("parts:Silent", r"Silent does not call Branch\.__init__"),
    ],
)
@pytest.mark.usefixtures("faulty")
def test_a_branch_that_cannot_be_made_is_told(system: str, told: str) -> None:
    with pytest.raises(ConfigError, match=rf"^system {system}: {told}$"):
        amodal.build(system, num_classes=3, config=load_config("my.yaml", {"model.system": system}).model)


def test_modules_are_looked_for_here_only_where_one_is_named(here: Path) -> None:
    load_config("mask_rcnn/nano")
    amodal.build("mask_rcnn", 2, config=load_config("mask_rcnn/nano").model)
    assert str(here) not in sys.path


def test_settings_of_its_own_are_checked(here: Path) -> None:
    with pytest.raises(ConfigError, match=r"--model\.method\.hiden_weight: unknown key; nearest is 'hidden_weight'"):
        load_config("my.yaml", {"model.method.hiden_weight": 1})


def test_a_checkpoint_whose_module_is_gone_names_it(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    amodal.build("my_module:MyORCNN", num_classes=3, config=load_config("my.yaml").model).save_pretrained(tmp_path)
    sys.modules.pop("my_module")
    sys.path[:] = [entry for entry in sys.path if entry != str(here)]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"config\.yaml: system my_module:MyORCNN: no such module, here or installed"):
        amodal.load(tmp_path, "cpu")
