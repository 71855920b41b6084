from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest

import amodal
from amodal import cli
from amodal.arguments import Verb
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

    Example:
        amodal toy pictures --images 3

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
    by_name = {**plain, "inputs": ["a", "b"], "trust_box": True}
    assert values("--trust-box", "--inputs", "a", "b", "--source", "s") == by_name
    assert values("a", "b", "--trust-box", "--source=s") == by_name


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["s", "a", "--image", "3"], "amodal toy: unknown flag --image; nearest is '--images'"),
        (["s", "a", "--images", "x"], "amodal toy: --images is 'x', must be an integer"),
        (["s", "a", "--images=2.5"], "amodal toy: --images is '2.5', must be an integer"),
        (["s", "a", "--images", "!!bool x"], "amodal toy: '!!bool x': must be a plain value, no YAML tag"),
        (["s", "a", "--images=!!int x"], "amodal toy: '--images=!!int x': must be a plain value, no YAML tag"),
        (["s", "a", "--mode", "quick"], "amodal toy: --mode is 'quick', must be one of 'fast', 'slow'"),
        (["s", "a", "--foo", "3"], "amodal toy: unknown flag --foo; known: {KNOWN}"),
        (["s"], "amodal toy: INPUTS missing; amodal toy --help says what is needed"),
        (["s", "a", "--images"], "amodal toy: --images needs a value"),
        (["--inputs", "--images", "2"], "amodal toy: --inputs needs a value"),
        (["s", "a", "-x"], "amodal toy: unrecognized arguments: -x"),
    ],
)
def test_wrong_usage_is_one_line(capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    assert run(capsys, "toy", *words) == (2, "", message.format(KNOWN=KNOWN) + "\n")


KNOWN = "--device, --help, --images, --inputs, --mode, --size, --source, --trust-box"


@pytest.mark.parametrize("word", ["no", "yes", "5"])
def test_a_word_that_yaml_reads_as_another_value_is_told_as_written(
    capsys: pytest.CaptureFixture[str], word: str
) -> None:
    told = f"amodal train: --resume is '{word}', must be 'auto'\n"
    assert run(capsys, "train", "mask_rcnn/nano", "--resume", word) == (2, "", told)


def test_unknown_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "evalaute") == (2, "", "amodal evalaute: unknown verb 'evalaute'; nearest is 'evaluate'\n")
    assert run(capsys, "--hepl") == (2, "", "amodal --hepl: unknown flag --hepl; nearest is '--help'\n")
    assert run(capsys, "-v") == (2, "", "amodal -v: unknown flag -v; known: --help, --version\n")


def test_help_may_be_asked_for_as_a_verb(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ([], ["toy"], ["prior"], ["prior", "fit"]):
        assert run(capsys, "help", *verb) == run(capsys, *verb, "--help")


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
    rows = [" ".join(line.split()) for line in out.splitlines()]
    for row in (
        "usage: amodal toy SOURCE INPUTS ... [--flag VALUE ...]",
        "SOURCE where from",
        "--images N how many, 50 % more on Sundays (integer, default: 100)",
        "--size X pixels (number, default: 1.5)",
        "--mode {fast,slow} which (default: fast)",
        "--device TEXT where",
        "--trust-box take boxes as they are",
        "amodal toy pictures --images 3",
    ):
        assert row in rows, row


def test_overview_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert all(f"  {verb} " in out for verb in cli.VERBS)
    assert run(capsys)[0] == 2
    assert run(capsys, "--version") == (0, f"amodal {amodal.__version__}\n", "")


def test_the_short_help_of_train_is_a_page_and_the_long_one_names_every_setting(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from amodal.config_io import setting_keys

    code, short, _ = run(capsys, "train", "--help")
    assert code == 0
    assert len(short.splitlines()) <= 60
    assert all(f"  --{key} " in short for key in ("data.train", "data.val_images", "out", "steps", "resume", "init"))
    assert "--help-all" in short
    code, long, _ = run(capsys, "train", "--help_all")
    assert code == 0
    assert [key for key in setting_keys() if f"  --{key}" not in long] == []


TYPES = re.compile(r"<class|Union|Optional|NoneType|Literal|Path\b|jsonargparse|Annotated|\bstr\b|\bfloat\b|list\[|``")


@pytest.mark.parametrize("verb", [verb for verb in cli.VERBS if verb != "toy"])
def test_help_is_for_people(capsys: pytest.CaptureFixture[str], verb: str) -> None:
    """No types of the program, no line over 100 columns, and an example that the verb itself accepts."""
    code, out, _ = run(capsys, *verb.split(), "--help-all")
    assert code == 0
    assert TYPES.findall(out) == []
    assert [line for line in out.splitlines() if len(line) > 100] == []
    arguments = Verb(verb, cli._load(verb))
    assert "\nexample:\n" in out
    for line in arguments.doc.examples:
        program, *words = shlex.split(line)
        assert program == "amodal"
        assert words[: len(verb.split())] == verb.split()
        arguments.parse(words[len(verb.split()) :])


def test_folders_and_files_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    """OUT and --images are one thing in every verb, and help says what."""
    flags = {"--images": {"DIR", "N"}, "--out": {"DIR", "FILE"}}
    for verb in cli.VERBS:
        _, out, _ = run(capsys, *verb.split(), "--help")
        for flag, kinds in flags.items():
            assert set(re.findall(rf"^  {flag} (\S+)", out, flags=re.M)) <= kinds, verb
        assert ("OUT may be given by name" in out) == bool(re.search(r"^  OUT ", out, flags=re.M)), verb


@pytest.mark.parametrize(
    "words",
    [
        ["check", "a.json", "--images", "pictures"],
        ["show", "a.json", "--images", "pictures", "--out", "o"],
        ["prior fit", "a.json", "--images", "pictures", "--out", "o"],
        ["prior show", "p", "a.json", "--images", "pictures", "--out", "o"],
        ["test", "m", "a.json", "--images", "pictures", "--out", "o"],
    ],
)
def test_images_and_out_may_be_given_by_name_everywhere(words: list[str]) -> None:
    given = Verb(words[0], cli._load(words[0])).parse(words[1:])
    assert given["images"] == Path("pictures")
    assert given.get("out", Path("o")) == Path("o")


def test_dashes_and_underscores_are_the_same() -> None:
    def parsed(verb: str, *words: str) -> dict[str, Any]:
        return Verb(verb, cli._load(verb)).parse(words)

    for flag in ("--draw-size", "--draw_size"):
        assert parsed("predict", "m", "a.png", flag, "5")["draw_size"] == 5
    for flag in ("--fit-on", "--fit_on"):
        assert parsed("prior fit", "a.json", "o", f"{flag}=amodal")["fit_on"] == "amodal"
    for flag in ("--model.box-head.score-threshold", "--model.box_head.score_threshold"):
        assert parsed("train", "c", flag, "0.1")["model.box_head.score_threshold"] == "0.1"
    for flag in ("--prior-fit.flow-steps", "--prior_fit.flow_steps"):
        assert parsed("reproduce", "table1", flag, "3")["prior_fit.flow_steps"] == "3"
    for flag in ("--data.train-images", "--data.train_images"):
        assert parsed("reproduce", "table1", flag, "d")["data__train_images"] == Path("d")
        assert parsed("train", "c", flag, "d")["data.train_images"] == "d"
    assert parsed("train", "c", "--model.method.hidden-weight", "1")["model.method.hidden_weight"] == "1"


@pytest.mark.parametrize(
    "words",
    [
        ["scenes", "http://x/y"],
        ["convert", "http://x/y", "o.json"],
        ["check", "http://x/y"],
        ["check", "a.json", "--images", "http://x/y"],
        ["predict", "nano-scenes-v1", "a.png", "http://x/y"],
        ["evaluate", "a.json", "http://x/y"],
        ["train", "http://x/y"],
        ["reproduce", "http://x/y"],
    ],
)
def test_addresses_are_refused_in_one_line(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    code, _, err = run(capsys, *words)
    assert code == 2
    assert err.startswith(f"amodal {words[0]}: http://x/y: addresses are not read; ")
    assert err.count("\n") == 1


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
    for words, most in ((["--help"], 0.2), (["train", "--help"], 1.0)):
        before = os.times()
        subprocess.run([sys.executable, "-c", check, *words], check=True, stdout=subprocess.DEVNULL)
        after = os.times()
        used = after.children_user - before.children_user + after.children_system - before.children_system
        assert 0.0 < used < most, (words, used)
