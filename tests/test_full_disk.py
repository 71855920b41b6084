"""A disk that fills up anywhere in a verb: one line that names the file, exit 2, nothing old lost, nothing left behind.

A limit on the size of files stands for the full disk: the system refuses to write beyond it, whoever writes.
"""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from torch.utils.tensorboard import SummaryWriter

from amodal.cli import main
from amodal.data.scenes.dataset import write_dataset
from amodal.train.log import quiet_tensorboard

resource = pytest.importorskip("resource", reason="a system without limits")

SHIPPED = "nano-scenes-v1"
REASONS = tuple(f"({os.strerror(number)})" for number in (errno.EFBIG, errno.ENOSPC))


@contextmanager
def limited(size: int) -> Iterator[None]:
    """No file of this process grows beyond ``size`` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two drawn scenes."""
    return write_dataset(tmp_path_factory.mktemp("few") / "data", 2, 96, 3, 4).parent


@pytest.fixture(scope="module")
def results(few: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished test of the shipped weights."""
    out = tmp_path_factory.mktemp("results") / "out"
    assert main(["test", SHIPPED, str(few / "annotations.json"), str(few / "images"), "--out", str(out)]) == 0
    return out


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(".*")]


def words(verb: str, data: Path, results: Path, prior: Path, out: Path) -> list[str]:
    ann, images = data / "annotations.json", data / "images"
    command = {
        "demo": ("--images", "3", "--out", out),
        "scenes": (out, "--images", "3", "--size", "64"),
        "convert": (ann, out / "out.json"),
        "show": (ann, images, out, "--limit", "2"),
        "prior fit": (ann, out, "--slots", "4", "--encoder-steps", "3", "--flow-steps", "3"),
        "prior show": (prior, ann, out, "--limit", "1"),
        "test": (SHIPPED, ann, images, "--out", out),
        "predict": (SHIPPED, images / "000001.png", images / "000002.png", "--out", out),
        "evaluate": (ann, results / "predictions.json", "--out", out / "metrics.json"),
    }[verb]
    return [*verb.split(), *map(str, command)]


@pytest.mark.parametrize(
    ("verb", "limits"),
    [
        ("demo", (0, 20_000)),
        ("scenes", (0, 1000)),
        ("convert", (0, 500)),
        ("show", (0, 5000)),
        ("prior fit", (0, 800, 10_000)),
        ("prior show", (0, 5000)),
        ("test", (0, 1500)),
        ("predict", (0, 10_000)),
        ("evaluate", (0, 100)),
    ],
)
def test_no_verb_leaves_half_a_file(
    verb: str,
    limits: tuple[int, ...],
    few: Path,
    results: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    prior = Path(__file__).resolve().parents[1] / "src" / "amodal" / "weights" / SHIPPED / "prior"
    out = tmp_path / "out"
    command = words(verb, few, results, prior, out)
    again = [*command, "--overwrite"] if verb == "scenes" else command
    assert main(command) == 0
    old = content(out)
    capsys.readouterr()
    for limit in limits:
        with limited(limit):
            code = main(again)
        error = capsys.readouterr().err
        assert code == 2, (limit, error)
        line = error.splitlines()[-1]
        assert line.startswith(f"amodal {verb}: {tmp_path}"), line
        assert line.endswith(REASONS), line
        assert "Traceback" not in error
        new = content(out)
        unfinished = {name for name in new if name.startswith("parts/")}
        assert set(new) - unfinished == set(old)
        assert all(new[name] == old[name] for name in old if name != "report.html"), limit
        assert leftovers(tmp_path) == []
    assert main(again) == 0
    assert set(content(out)) == set(old)


@pytest.mark.parametrize(
    ("limit", "name"), [(0, ""), (100, ""), (70_000, "/prior/flow.safetensors"), (3_000_000, "/best/model.safetensors")]
)
def test_no_training_ends_by_a_traceback(
    limit: int, name: str, settings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prior = ("--model.system", "pgexp", "--prior_fit.encoder_steps", "3", "--prior_fit.flow_steps", "3")
    out = tmp_path / "run"
    command = ["train", str(settings), "--out", str(out), "--steps", "1", *(prior if "prior" in name else ())]
    with limited(limit):
        assert main(command) == 2
    error = capsys.readouterr().err
    line = error.splitlines()[-1]
    assert line.startswith(f"amodal train: {out}{name}: cannot be written")
    assert line.endswith(REASONS)
    assert "Traceback" not in error
    assert leftovers(tmp_path) == []


def test_tensorboard_tells_the_run_and_nobody_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    writer = SummaryWriter(str(tmp_path))
    fault = None
    with quiet_tensorboard(), limited(100):
        try:
            for step in range(20):
                writer.add_scalar("loss", 1.0, step)
                writer.flush()
        except OSError as error:
            fault = error.errno
    assert fault == errno.EFBIG
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(
    shutil.which("unshare") is None
    or subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True).returncode != 0,
    reason="no disk can be made here",
)
@pytest.mark.parametrize(("verb", "filler"), [("scenes", "56K"), ("convert", "64K"), ("evaluate", "64K")])
def test_a_disk_that_is_really_full(verb: str, filler: str, few: Path, results: Path, tmp_path: Path) -> None:
    program = shlex.join([sys.executable, "-m", "amodal", *words(verb, few, results, few, tmp_path / "out")])
    fill = f"mount -t tmpfs -o size=64k tmpfs {tmp_path} && head -c {filler} /dev/zero > {tmp_path}/filler"
    script = ["unshare", "-rm", "sh", "-c", f"{fill} && {program}"]
    done = subprocess.run(script, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    line = done.stderr.splitlines()[-1]
    assert line.startswith(f"amodal {verb}: {tmp_path}/out")
    assert line.endswith(f"({os.strerror(errno.ENOSPC)})")
