from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import torch

from amodal import cli
from amodal.config_io import setting_keys
from amodal.data.schemas import SCHEMAS
from amodal.errors import DataError, counted, is_memory, nearest, refuse_address, shown
from amodal.files import shipped_files
from amodal.reproduce.tables import METRICS
from amodal.systems import SYSTEMS

SOURCE = Path(__file__).resolve().parents[1] / "src"


def test_nearest() -> None:
    assert nearest("steps", ["stepss", "x"]) == "; nearest is 'stepss'"
    assert nearest("qqqq", ["b", "a"]) == "; known: a, b"
    assert nearest("qqqq", []) == ""
    assert nearest("qqqq", ["b", "a"], listed=1) == ""
    assert nearest("step", ["steps"], listed=0) == "; nearest is 'steps'"


NAMES = {
    "verbs": list(cli.VERBS),
    "flags": [f"--{key}" for key in setting_keys()],
    "systems": [*SYSTEMS, "orcnn", "aisformer"],
    "schemas": ["auto", *SCHEMAS],
    "metrics": list(METRICS),
    "configurations": list(shipped_files("configs")),
}


@pytest.mark.parametrize(
    ("kind", "given", "meant"),
    [
        ("verbs", "tain", "train"),
        ("verbs", "tets", "test"),
        ("verbs", "shwo", "show"),
        ("verbs", "Evaluate", "evaluate"),
        ("verbs", "eval", "evaluate"),
        ("verbs", "predictions", "predict"),
        ("verbs", "config", "configs"),
        ("verbs", "priorfit", "prior fit"),
        ("flags", "--step", "--steps"),
        ("flags", "--batchsize", "--batch_size"),
        ("flags", "--lr", "--optim.lr"),
        ("flags", "--optim.rl", "--optim.lr"),
        ("flags", "--optim.batch_size", "--batch_size"),
        ("flags", "--backbone.norm", "--model.backbone.norm"),
        ("flags", "--model.box_head.score_treshold", "--model.box_head.score_threshold"),
        ("flags", "--data.trian_images", "--data.train_images"),
        ("flags", "--output", "--out"),
        ("systems", "maskrcnn", "mask_rcnn"),
        ("systems", "pgex", "pgexp"),
        ("systems", "PGExp", "pgexp"),
        ("systems", "ais-former", "aisformer"),
        ("schemas", "kins_2020", "kins2020"),
        ("schemas", "canonic", "canonical"),
        ("metrics", "mask.ap", "mask.AP"),
        ("metrics", "mask.APoccgt", "mask.AP-occ-gt"),
        ("configurations", "pgexp/nona", "pgexp/nano"),
        ("configurations", "maskrcnn/nano", "mask_rcnn/nano"),
    ],
)
def test_what_is_near(kind: str, given: str, meant: str) -> None:
    assert nearest(given, NAMES[kind], listed=0) == f"; nearest is {meant!r}"


@pytest.mark.parametrize(
    ("kind", "names"),
    {
        "verbs": [
            "version",
            "download",
            "list",
            "serve",
            "status",
            "results",
            "infer",
            "help",
            "upload",
            "install",
            "information",
            "c",
        ],
        "flags": [
            "--epochs",
            "--gpu",
            "--learning_rate",
            "--foo",
            "--data.test_images",
            "--name",
            "--model.backbone.foo",
            "--x",
            "--",
        ],
        "systems": ["yolo", "sam", "detr", "fast", "rcnn8"],
        "schemas": ["voc", "yolo", "labelme", "mask", "lvis", "kins2021", "!"],
        "metrics": ["F1", "accuracy", "loss", "AP33"],
        "configurations": ["resnet50", "default.yaml", "big"],
    }.items(),
)
def test_what_is_not_near_is_not_suggested(kind: str, names: list[str]) -> None:
    assert {name: nearest(name, NAMES[kind], listed=0) for name in names} == dict.fromkeys(names, "")


def test_names_of_data_are_near_by_slips_alone() -> None:
    """Neither by a number nor by a beginning."""
    for given, there in (("0001.png", "0002.png"), ("car", "carrot"), ("class 1", "class 2"), ("a.png", "a.json")):
        assert nearest(given, [there], listed=0, slips_only=True) == ""
    assert nearest("tree", ["Tree", "street"], listed=0, slips_only=True) == "; nearest is 'Tree'"
    assert nearest("pedestrain", ["pedestrian", "car"], listed=0, slips_only=True) == "; nearest is 'pedestrian'"


def test_counted() -> None:
    words = {"image": "images", "class": "classes", "category": "categories", "box": "boxes", "key": "keys"}
    for one, many in words.items():
        assert [counted(n, one) for n in (0, 1, 2)] == [f"no {many}", f"1 {one}", f"2 {many}"]


def test_an_address_is_no_path() -> None:
    for given in ("http://x/y.png", Path("http://x/y.png")):
        with pytest.raises(DataError, match=r"^http://x/y\.png: addresses are not read; download it"):
            refuse_address(given)
    for given in ("a/b.png", Path("C:/x"), "C:/x", "http:", "me/street", "my_module:MySystem"):
        refuse_address(given)


def test_unknown_names_are_answered_in_one_place() -> None:
    """So that every message about one reads alike."""
    modules = {path: ast.walk(ast.parse(path.read_text())) for path in SOURCE.rglob("*.py")}
    imports = {
        path.name
        for path, nodes in modules.items()
        for node in nodes
        if isinstance(node, ast.Import) and any(alias.name == "difflib" for alias in node.names)
    }
    assert imports == {"errors.py"}


def test_values_in_messages_are_short_and_on_one_line() -> None:
    nested: list[object] = []
    for _ in range(100_000):
        nested = [nested]
    for value, told in (
        ("a\nb", "'a\\nb'"),
        (16**5000, "a int too long"),
        (nested, "a list too long"),
        ([1] * 99, "[1, 1,"),
    ):
        assert shown(value).startswith(told)
        assert len(shown(value)) <= 103


@pytest.mark.parametrize(
    "fault",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried to"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    ],
)
def test_no_memory_is_told_from_faults_of_the_program(fault: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    def verb() -> None:
        raise fault

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(cli.VERBS, "info", "x:x")
        patch.setattr(cli, "_load", lambda _: verb)
        assert cli.main(["info"]) == 1
    assert capsys.readouterr().err.startswith("amodal info: not enough memory for what is asked (")
    assert not is_memory(RuntimeError("shape mismatch"))


COUNTED = re.compile(
    r" (more |held-out )?(objects|images|pictures|scenes|annotations|instances|classes|slots|threads|tensors|errors|"
    r"warnings|labels|entries|folders|files|priors|steps|runs)\b(?! of)"
)


def test_what_is_counted_has_its_singular() -> None:
    """ "1 images" is written nowhere: such words follow a number by ``counted`` alone."""
    found = []
    always_many = {"dataset.py"}  # Scenes have two classes at least, and their files stay as they are.
    for path in (path for path in SOURCE.rglob("*.py") if path.name not in always_many):
        for node in ast.walk(ast.parse(path.read_text())):
            parts = node.values if isinstance(node, ast.JoinedStr) else []
            for before, number, after in zip([ast.Constant(""), *parts], parts, parts[1:], strict=False):
                of = isinstance(before, ast.Constant) and str(before.value).endswith(" of ")  # "1 of 3 images"
                whole = isinstance(number, ast.FormattedValue) and number.format_spec is None and not of
                if whole and isinstance(after, ast.Constant) and COUNTED.match(str(after.value)):
                    found.append(f"{path.relative_to(SOURCE)}:{after.lineno}: {after.value}")
    assert found == []
