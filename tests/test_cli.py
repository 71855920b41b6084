from __future__ import annotations

import os
import subprocess
import sys
from typing import Any, Literal

import pytest

import amodal
from amodal import cli
from amodal.errors import DataError


def toy(
    source: str,
    inputs: list[str],
    *,
    images: int = 100,
    size: float = 1.5,
    mode: Literal["fast", "slow"] = "fast",
    device: str | None = None,
    trust_box: bool = False,
) -> int:
    """Does a toy thing.

    Args:
        source: where from.
        inputs: pictures.
        images: how many, 50 % more on Sundays.
        size: pixels.
        mode: which.
        device: where.
        trust_box: take boxes as they are.
    """
    toy.seen = locals() | {}  # type: ignore[attr-defined]
    if source == "bad":
        raise DataError("broken\n  badly", file="x.json", image_id=7)
    if source == "bug":
        raise RuntimeError("oh\nno")
    if source == "disk":
        raise PermissionError(13, "Permission denied", "/root/x")
    if source == "stop":
        raise KeyboardInterrupt
    return 1 if source == "found" else 0


@pytest.fixture(autouse=True)
def _toy_verb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cli.VERBS, "toy", "toy:toy")
    monkeypatch.setitem(cli.SUMMARIES, "toy", "a toy")
    monkeypatch.delenv("AMODAL_DEBUG", raising=False)
    real = cli._load
    monkeypatch.setattr(cli, "_load", lambda verb: toy if verb == "toy" else real(verb))


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = cli.main(words)
    out, err = capsys.readouterr()
    return code, out, err


def values(*words: str) -> dict[str, Any]:
    assert cli.main(["toy", *words]) == 0
    return dict(toy.seen)  # type: ignore[attr-defined]


def test_arguments_reach_the_function() -> None:
    plain = {"source": "s", "images": 100, "size": 1.5, "mode": "fast", "device": None, "trust_box": False}
    assert values("s", "a") == {**plain, "inputs": ["a"]}
    words = ["s", "a", "b", "c", "--images", "-5", "--size=1e2", "--mode", "slow", "--device", "cpu", "--trust-box"]
    given = {"images": -5, "size": 100.0, "mode": "slow", "device": "cpu", "trust_box": True}
    assert values(*words) == {**plain, **given, "inputs": ["a", "b", "c"]}
    assert values("--trust_box", "s", "--images", "3", "a")["trust_box"] is True


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["s", "a", "--image", "3"], "amodal toy: unknown flag --image; nearest is '--images'"),
        (["s", "a", "--images", "x"], "amodal toy: --images is 'x', must be int"),
        (["s", "a", "--images=2.5"], "amodal toy: --images is '2.5', must be int"),
        (["s", "a", "--mode", "quick"], "amodal toy: --mode is 'quick', must be one of 'fast', 'slow'"),
        (["s"], "amodal toy: the following arguments are required: inputs"),
        (["s", "a", "--images"], "amodal toy: argument --images: expected one argument"),
        (["s", "a", "-x"], "amodal toy: unrecognized arguments: -x"),
    ],
)
def test_wrong_usage_is_one_line(capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    assert run(capsys, "toy", *words) == (2, "", message + "\n")


def test_unknown_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "evalaute") == (2, "", "amodal evalaute: unknown verb 'evalaute'; nearest is 'evaluate'\n")
    assert run(capsys, "--hepl")[0] == 2


@pytest.mark.parametrize(
    ("source", "code", "message"),
    [
        ("bad", 2, "amodal toy: x.json: image 7: broken badly"),
        ("disk", 2, "amodal toy: /root/x: Permission denied"),
        ("stop", 130, "amodal toy: interrupted"),
        ("bug", 1, "amodal toy: unexpected RuntimeError: oh no (set AMODAL_DEBUG=1 for the traceback)"),
    ],
)
def test_faults_are_one_line(capsys: pytest.CaptureFixture[str], source: str, code: int, message: str) -> None:
    assert run(capsys, "toy", source, "a") == (code, "", message + "\n")


def test_findings_are_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "toy", "found", "a") == (1, "", "")


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMODAL_DEBUG", "1")
    with pytest.raises(DataError):
        cli.main(["toy", "bad", "a"])


def test_help_names_arguments_units_and_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "toy", "--help")
    assert (code, err) == (0, "")
    for part in ("Does a toy thing.", "SOURCE", "50 % more on Sundays", "--trust-box", "default: 1.5", "{fast,slow}"):
        assert part in " ".join(out.split()), part


def test_overview_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert all(f"  {verb} " in out for verb in cli.VERBS)
    assert run(capsys)[0] == 2
    assert run(capsys, "--version") == (0, f"amodal {amodal.__version__}\n", "")


def test_train_help_names_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    from amodal.config_io import setting_keys

    code, out, _ = run(capsys, "train", "--help")
    assert code == 0
    missing = [key for key in setting_keys() if f"--{key}" not in out]
    assert missing == []


def test_train_refuses_unknown_settings(capsys: pytest.CaptureFixture[str]) -> None:
    wanted = "amodal train: unknown flag --model.box_head.nmss; nearest is '--model.box_head.nms'\n"
    assert run(capsys, "train", "c.yaml", "--model.box_head.nmss", "0.6") == (2, "", wanted)
    assert run(capsys, "train", "c.yaml", "--steps") == (2, "", "amodal train: --steps needs a value\n")
    assert run(capsys, "train", "none.yaml") == (2, "", "amodal train: none.yaml: No such file or directory\n")


def test_closed_pipe_is_no_error() -> None:
    command = f"{sys.executable} -m amodal train --help"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command} | head -n 1"], capture_output=True, check=False)
    assert done.stderr == b""


def test_help_imports_no_torch_and_is_quick() -> None:
    """Seconds of processor time, in processes of their own: other work on the machine does not count."""
    check = "import sys, amodal.cli as c; c.main(sys.argv[1:]); sys.exit(bool({'torch', 'numpy'} & set(sys.modules)))"
    for words in (["--help"], ["train", "--help"]):
        before = os.times()
        subprocess.run([sys.executable, "-c", check, *words], check=True, stdout=subprocess.DEVNULL)
        after = os.times()
        used = after.children_user - before.children_user + after.children_system - before.children_system
        assert 0.0 < used < 1.0, (words, used)
