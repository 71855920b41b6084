"""What reaches a terminal: no control character of a name, no character without a code, no word after a closed pipe."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tqdm import tqdm

from amodal.terminal import SafeStream

ESCAPES = "\x1b[31mred\x1b]0;pwn\x07\x9b1m\x7f\u202e\r"


def written(text: str, encoding: str = "utf-8") -> str:
    raw = io.BytesIO()
    stream = SafeStream(io.TextIOWrapper(raw, encoding=encoding, newline=""))
    assert stream.write(text) == len(text)
    stream.flush()
    return raw.getvalue().decode(encoding)


def test_control_characters_become_escapes() -> None:
    assert written(f"name {ESCAPES}!\n") == ("name \\x1b[31mred\\x1b]0;pwn\\x07\\x9b1m\\x7f\\u202e\\r!\n")
    assert written("a\tb\nc\n") == "a\tb\nc\n"
    assert written("\x1b[Aup") == "\\x1b[Aup"
    assert written("\rover") == "\\rover"


def test_what_an_encoding_lacks_becomes_an_escape() -> None:
    assert written("\u00e9 \u6f22 \ud800", "ascii") == "\\xe9 \\u6f22 \\ud800"
    assert written("\u00e9 \u6f22 \ud800") == "\u00e9 \u6f22 \\ud800"


def test_progress_bars_still_move() -> None:
    raw = io.StringIO()
    with tqdm(total=2, file=SafeStream(raw, bars=True), desc="outer", position=0) as outer:  # type: ignore[arg-type]
        with tqdm(total=1, file=SafeStream(raw, bars=True), desc="inner", position=1, leave=False) as inner:  # type: ignore[arg-type]
            inner.update()
        outer.update(2)
    assert "\r" in raw.getvalue()
    assert "\x1b[A" in raw.getvalue()
    assert "\\" not in raw.getvalue()


@pytest.fixture
def evil(tmp_path: Path) -> Path:
    """An annotation file whose names hold control characters and letters beyond ASCII."""
    square = [[2, 2, 12, 2, 12, 12, 2, 12]]
    content = {
        "images": [{"id": 7, "file_name": f"{ESCAPES}.png", "height": 60, "width": 100}],
        "categories": [{"id": 1, "name": f"{ESCAPES} \u6f22"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 1, "segmentation": square, "visible_mask": square, "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 1, "segmentation": [[1, 2]], "visible_mask": square, "iscrowd": 0},
        ],
    }
    (tmp_path / "ann.json").write_text(json.dumps(content))
    return tmp_path / "ann.json"


def shell(line: str, encoding: str = "utf-8") -> subprocess.CompletedProcess[bytes]:
    command = line.replace("amodal ", f"{sys.executable} -m amodal ")
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    return subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, env=environment)


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_no_verb_lets_names_reach_the_terminal(evil: Path, encoding: str) -> None:
    folder = evil.parent
    for words in (f"check {evil}", f"check {evil} --images {folder}", f"show {evil} {folder} {folder}/o"):
        done = shell(f"amodal {words}", encoding)
        text = (done.stdout + done.stderr).decode(encoding)
        assert done.returncode in (0, 1, 2), text
        assert "Traceback" not in text
        assert "unexpected" not in text
        assert not set(text) & set("\x1b\x07\x9b\x7f\u202e"), words


@pytest.mark.parametrize(
    "rest", ["methods >&-", "methods 2>&-", "methods >&- 2>&-", "methods | head -n 1", "info | true"]
)
def test_closed_streams_end_quietly(rest: str) -> None:
    done = shell(f"amodal {rest}")
    assert done.returncode == 0
    assert done.stderr == b""


@pytest.mark.parametrize("rest", ["| head -n 1", ">&- 2>&-"])
def test_verbs_do_their_work_whether_or_not_somebody_reads(evil: Path, tmp_path: Path, rest: str) -> None:
    for words, made in {
        f"convert {evil} {tmp_path}/out.json": "out.json",
        f"scenes {tmp_path}/drawn --images 1 --size 64": "drawn/annotations.json",
        f"check {evil}": "ann.json",
    }.items():
        done = shell(f"amodal {words} {rest}")
        assert (done.returncode, b"Traceback" in done.stderr) == (0, False), words
        assert (tmp_path / made).is_file()


def test_an_error_with_a_closed_stderr_keeps_its_exit_code() -> None:
    assert shell("amodal check nowhere.json 2>&-").returncode == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no such device here")
def test_a_full_disk_is_said() -> None:
    done = shell("amodal methods > /dev/full")
    assert done.returncode == 2
    assert done.stderr.decode() == "amodal methods: No space left on device\n"
