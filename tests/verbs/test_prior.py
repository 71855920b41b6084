"""``amodal prior``: two-word verbs, and ``prior fit`` from an annotation file to a folder and a report."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest

from amodal import cli
from amodal.arguments import Verb
from amodal.checkpoint import save_model
from amodal.data.scenes.dataset import write_dataset
from amodal.model import build
from amodal.priors.prior_io import load_prior
from amodal.settings import PriorConfig
from amodal.verbs.prior import fit

QUICK = ["--encoder-steps", "3", "--flow-steps", "2", "--neighbour-share", "0"]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve drawn scenes of 64 pixels, two classes."""
    folder = tmp_path_factory.mktemp("data") / "scenes"
    write_dataset(folder, 12, 64, 3, 2)
    return folder


def amodal(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = cli.main([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


def test_every_setting_is_a_flag_with_the_same_default(capsys: pytest.CaptureFixture[str]) -> None:
    code, told, _ = amodal(capsys, "prior", "fit", "--help")
    assert code == 0
    parsed = Verb("prior fit", fit).parse(["ann.json", "out"])
    for field in fields(PriorConfig):
        assert parsed[field.name] == field.default, field.name
        assert "--" + field.name.replace("_", "-") in told
    assert PriorConfig(**{field.name: parsed[field.name] for field in fields(PriorConfig)}) == PriorConfig()
    changed = Verb("prior fit", fit).parse(["a", "b", "--encoder", "128", "--rotate", "--key-aspect", "2.5"])
    assert (changed["encoder"], changed["rotate"], changed["key_aspect"]) == (128, True, 2.5)
    assert "weight of the visible box's log aspect ratio in the key" in " ".join(told.split())


def test_fit_writes_a_prior_and_tells_what_it_is_worth(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "prior"
    words = ["--slots", "6", "--encoder", "128", "--key-frame", "visible", "--key-aspect", "3", "--rotate", *QUICK]
    code, text, err = amodal(capsys, "prior", "fit", scenes / "annotations.json", out, *words)
    assert code == 0, err
    prior = load_prior(out)
    assert prior.config == PriorConfig(
        slots=6, encoder=128, key_frame="visible", key_aspect=3.0, rotate=True,
        encoder_steps=3, flow_steps=2, neighbour_share=0.0,
    )  # fmt: skip
    report = json.loads((out / "report.json").read_text())
    assert report["judged"]["own_image_excluded"]
    assert [entry["slots"] for entry in report["classes"]] == [6, 6]
    for line in (
        "encoder E, 128 numbers",
        "flow S^f, own amodal mask",
        "coverage",
        "amodal frame, true B^o (the paper's)",
    ):
        assert line in text
    assert f"wrote {out}" in text
    # Once more into the same folder, judged on another file.
    val = ["--val", scenes / "annotations.json"]
    code, text, err = amodal(capsys, "prior", "fit", scenes / "annotations.json", out, "--slots", 6, *QUICK, *val)
    assert code == 0, err
    assert load_prior(out).config.encoder == 392
    assert not json.loads((out / "report.json").read_text())["judged"]["own_image_excluded"]


def test_a_detectors_boxes_are_a_row(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], tiny_config: object
) -> None:
    names = [entry["name"] for entry in json.loads((scenes / "annotations.json").read_text())["categories"]]
    save_model(build("mask_rcnn", 2, config=tiny_config(), class_names=names), tmp_path / "ckpt")  # type: ignore[operator]
    words = ["--checkpoint", tmp_path / "ckpt", "--slots", 6, "--flow", "nearest", *QUICK]
    start = ["prior", "fit", scenes / "annotations.json", tmp_path / "prior"]
    code, _, err = amodal(capsys, *start, *words)
    assert (code, "--checkpoint needs --images" in err) == (2, True)
    code, text, err = amodal(capsys, *start, *words, "--images", scenes / "images")
    assert code == 0, err
    assert "detector's own B^o, objects it finds" in text


LOST = "which is no part of a prior and would be lost; choose another folder"


def test_other_folders_are_not_replaced(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    code, _, err = amodal(capsys, "prior", "fit", scenes / "annotations.json", tmp_path, *QUICK)
    assert (code, err) == (2, f"amodal prior fit: {tmp_path}: holds letter.txt, {LOST}\n")
    assert (tmp_path / "letter.txt").read_text() == "dear"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["prior"], "amodal prior: a second word is missing; there are 'prior fit', 'prior show'"),
        (["prior", "fitt", "x"], "amodal prior fitt: unknown verb 'prior fitt'; nearest is 'prior fit'"),
        (["prior", "fit", "a", "b", "--slot", "3"], "amodal prior fit: unknown flag --slot; nearest is '--slots'"),
        (
            ["prior", "fit", "a", "b", "--encoder-steps", "0"],
            "amodal prior fit: --encoder-steps is 0, must be 1 to 1000000000",
        ),
        (["prior", "fit", "a", "b", "--slots", "0"], "amodal prior fit: --slots is 0, must be 1 to 1000000"),
        (
            ["prior", "fit", "a", "b", "--encoder", "200"],
            "amodal prior fit: --encoder is '200', must be one of 392, 128",
        ),
        (["prior", "fit", "none.json", "b"], "amodal prior fit: none.json: cannot be read (No such file or directory)"),
    ],
)
def test_mistakes_are_one_line(capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    assert amodal(capsys, *words) == (2, "", message + "\n")


def test_help_of_the_family_lists_its_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    code, text, _ = amodal(capsys, "prior", "--help")
    assert code == 0
    assert "prior fit" in text
    assert "prior show" in text
    assert "train" not in text
