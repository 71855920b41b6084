"""Predicting many files: shared between processes, resumed after a kill, one results list in the end.

Every process writes what it has found to ``OUT/parts/NUMBER-RANK.json`` every few seconds, each part at once (written
beside, then renamed). A later run with the same weights and settings takes finished images from the parts; an image
whose file has changed since is predicted anew. Its parts have higher numbers than all that it found there, and of an
image in several parts that of the highest number counts: no clock decides. When all are done, the main process merges
the parts.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from amodal.data.images import read_image
from amodal.errors import DataError, DiskError, one_line
from amodal.files import write_picture, write_rows, write_text
from amodal.models.rcnn import AmodalRCNN
from amodal.pictures import Pixels, groups, predict_batch
from amodal.predict.team import Team
from amodal.prediction import Prediction
from amodal.tiles import Tiling

FLUSH_SECONDS = 10.0
PARTS = "parts"
OVERLAYS = "overlays"
JOB = "job.txt"
_PART = re.compile(r"\d{6,}-\d+\.json|\.[0-9a-f-]+\.part")


@dataclass(frozen=True)
class Item:
    """One file to predict.

    Attributes:
        image_id: its id in the results.
        path: where it lies.
        file_name: its name in the results.
        size: (height, width) that annotations say, None where there are none.
        overlay: file name of its picture in OUT/overlays, None for no picture.
    """

    image_id: int
    path: Path
    file_name: str
    size: tuple[int, int] | None = None
    overlay: str | None = None


@dataclass
class Outcome:
    """What became of a job, in the order of its items.

    Attributes:
        results: results of all images, in the results format with ``file_name`` added.
        images: ``{"id", "file_name", "height", "width", "objects"}`` of each image, with ``"overlay_error"`` where its
            picture could not be drawn; ``{"id", "file_name", "error"}`` of one without results.
    """

    results: list[dict[str, Any]] = field(default_factory=list)
    images: list[dict[str, Any]] = field(default_factory=list)

    @property
    def failed(self) -> list[dict[str, Any]]:
        """Images without results: they could not be read, or what was found could not be encoded."""
        return [image for image in self.images if "error" in image]

    @property
    def undrawn(self) -> list[dict[str, Any]]:
        """Images whose results are there, and whose picture is not."""
        return [image for image in self.images if "overlay_error" in image]


def run(
    model: AmodalRCNN,
    items: Sequence[Item],
    out: Path,
    *,
    threshold: float,
    batch: int = 1,
    team: Team | None = None,
    overlay_size: int = 2000,
    tiling: Tiling | None = None,
    flush_seconds: float = FLUSH_SECONDS,
) -> Outcome | None:
    """Predict all items and merge what every process has found.

    Args:
        model: the detector.
        items: the same list in every process.
        out: folder for parts and overlays, shared by all processes.
        threshold: lowest score that is kept.
        batch: pictures of equal size that go through the network together.
        team: the processes; None: this one alone.
        overlay_size: pixels of a drawn picture's longer side at most; 0: its own size.
        tiling: how large pictures are cut; None: they are not.
        flush_seconds: how long results are held before they are written.

    Returns:
        Everything, in the main process; None in the others.
    """
    team = team or Team("cpu")
    parts = out / PARTS
    if team.is_main:
        _prepare(parts, _fingerprint(model, threshold, items, overlay_size, tiling))
    team.wait()
    done, number = _finished(parts, items), _next_number(parts)
    team.wait()  # Nobody writes a part before all have read the list of finished images.
    pending = [item for item in items if item.image_id not in done]
    with tqdm(total=len(items), initial=len(done), desc="predict", unit="image", disable=not team.is_main) as bar:
        shard = _Shard(model, out, threshold, batch, overlay_size, tiling, flush_seconds, team.rank, number)
        for written in shard.work(pending[team.rank :: team.size]):
            # The main process alone has a bar, and takes the others to be as fast as itself.
            bar.update(min(written * team.size, len(items) - bar.n))
    team.wait()
    if not team.is_main:
        return None
    return _merge(parts, items)


def clear(out: Path) -> None:
    """Removes the parts of a finished job, and nothing else that may lie beside them."""
    _remove(out / PARTS)


def check_out(out: Path, writes: Sequence[str]) -> None:
    """Refuses a folder in which files would be replaced that no job wrote.

    Args:
        out: folder for results; need not be there.
        writes: names of the files that will be written into it.

    Raises:
        DataError: one of them is there, and no sign of an earlier job; names it.
    """
    beside = any((out / name).is_file() for name in ("images.json", "metrics.json"))
    if (out / PARTS / JOB).is_file() or ((out / "predictions.json").is_file() and beside):
        return
    for name in writes:
        if (out / name).exists():
            reason = "is there already, and no prediction or test wrote it; choose another --out"
            raise DataError(reason, file=out / name)


def _fingerprint(
    model: AmodalRCNN, threshold: float, items: Sequence[Item], overlay_size: int, tiling: Tiling | None
) -> str:
    """What parts depend on beside the files themselves."""
    digest = hashlib.blake2b(digest_size=16)
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        # As bytes, since NumPy knows no bfloat16.
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    cut = None if tiling is None else [tiling.size, tiling.overlap]
    listed = [(item.image_id, item.file_name, item.overlay) for item in items]
    digest.update(json.dumps([threshold, repr(model.config), listed, overlay_size, cut]).encode())
    return digest.hexdigest()


def _prepare(parts: Path, fingerprint: str) -> None:
    """An existing folder of the same job stays, that of any other job is replaced by an empty one.

    Raises:
        DataError: there is a folder of this name that no job made.
    """
    mark = parts / JOB
    if mark.is_file():
        if mark.read_text(encoding="utf-8", errors="replace") == fingerprint:
            return
        _remove(parts)
    elif parts.exists() and not (parts.is_dir() and all(path.name.startswith(".") for path in parts.iterdir())):
        raise DataError("unfinished work is kept there, but it holds something else; choose another --out", file=parts)
    write_text(mark, fingerprint)


def _remove(parts: Path) -> None:
    """Removes parts and mark; the folder, too, where nothing else lies in it."""
    with contextlib.suppress(OSError):
        for path in parts.iterdir():
            if path.name == JOB or _PART.fullmatch(path.name):
                path.unlink()
        parts.rmdir()


def _stamp(path: Path) -> list[int]:
    """Size and time of a file, to notice that it has changed; zeros where it is gone."""
    try:
        status = path.stat()
    except OSError:
        return [0, 0]
    return [status.st_size, status.st_mtime_ns]


def _numbered(parts: Path) -> list[tuple[int, Path]]:
    """The parts by their numbers, oldest first."""
    heads = ((path.name.partition("-")[0], path) for path in parts.glob("*-*.json"))
    return sorted((int(head), path) for head, path in heads if head.isdecimal())


def _next_number(parts: Path) -> int:
    """A number that is higher than those of all parts."""
    there = _numbered(parts)
    return there[-1][0] + 1 if there else 0


def _entries(parts: Path) -> Iterator[dict[str, Any]]:
    for _, path in _numbered(parts):
        try:
            entries = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:  # What a power cut left of it; its images are predicted anew.
            continue
        yield from entries


def _finished(parts: Path, items: Sequence[Item]) -> set[int]:
    """Ids of images that are done and whose files have not changed since; ones with a fault are tried again."""
    stamps = {item.image_id: _stamp(item.path) for item in items}
    last = {entry["image"]["id"]: entry for entry in _entries(parts)}
    return {
        number
        for number, entry in last.items()
        if not {"error", "overlay_error"} & entry["image"].keys() and entry["stamp"] == stamps.get(number)
    }


def _merge(parts: Path, items: Sequence[Item]) -> Outcome:
    last = {entry["image"]["id"]: entry for entry in _entries(parts)}
    outcome = Outcome()
    for item in items:
        entry = last[item.image_id]
        outcome.images.append(entry["image"])
        outcome.results.extend(entry["results"])
    return outcome


@dataclass(frozen=True)
class _Read:
    """A file that was read, or why it could not be."""

    item: Item
    pixels: Pixels | None = None
    error: str | None = None


@dataclass
class _Shard:
    """The share of one process: what it needs to know, and what it has found and not written yet."""

    model: AmodalRCNN
    out: Path
    threshold: float
    batch: int
    overlay_size: int
    tiling: Tiling | None
    flush_seconds: float
    rank: int
    number: int
    held: list[dict[str, Any]] = field(default_factory=list)

    def work(self, items: Sequence[Item]) -> Iterator[int]:
        """Predicts the items and writes the parts; yields how many images each step has finished."""
        since = time.monotonic()
        for group in groups(_read_ahead(items, ahead=2 * self.batch), self.batch, _size):
            pictures = [read.pixels for read in group if read.pixels is not None]
            found = iter(predict_batch(self.model, pictures, self.threshold, self.tiling))
            self.held += [self._entry(read, None if read.pixels is None else next(found)) for read in group]
            if time.monotonic() - since >= self.flush_seconds:
                self._write_part()
                since = time.monotonic()
            yield len(group)
        self._write_part()

    def _entry(self, read: _Read, prediction: Prediction | None) -> dict[str, Any]:
        """What the parts keep of one file; draws its picture. What is wrong with it ends no job: it is kept, too."""
        item = read.item
        image: dict[str, Any] = {"id": item.image_id, "file_name": item.file_name}
        entry: dict[str, Any] = {"image": image, "results": [], "stamp": _stamp(item.path)}
        if prediction is None:
            image["error"] = read.error
            return entry
        try:
            entry["results"] = [{**result, "file_name": item.file_name} for result in prediction.to_coco(item.image_id)]
        except Exception as fault:
            image["error"] = f"cannot be encoded: {one_line(fault)}"
            return entry
        height, width = prediction.image_size
        image.update(height=height, width=width, objects=len(prediction))
        if item.overlay is not None:
            try:
                picture = prediction.draw(size=self.overlay_size)
                write_picture(self.out / OVERLAYS / item.overlay, picture, drawn=True)
            except DiskError:
                raise
            except Exception as fault:
                image["overlay_error"] = one_line(fault)
        return entry

    def _write_part(self) -> None:
        if self.held:
            write_rows(self.out / PARTS / f"{self.number:06d}-{self.rank}.json", self.held)
            self.held, self.number = [], self.number + 1


def _read_ahead(items: Sequence[Item], ahead: int) -> Iterator[_Read]:
    """Decoded pictures in order; threads decode the next ones while the network works."""
    # Two hide the decoding behind the network, and hold few pictures in memory.
    with ThreadPoolExecutor(max_workers=2) as pool:
        waiting: deque[Future[_Read]] = deque()
        for item in items:
            waiting.append(pool.submit(_read, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _size(read: _Read) -> tuple[int, ...] | None:
    return None if read.pixels is None else read.pixels.shape


def _read(item: Item) -> _Read:
    try:
        return _Read(item, read_image(item.path, size=item.size))
    except DataError as error:
        return _Read(item, error=error.reason)
