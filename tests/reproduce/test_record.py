"""A damaged file of a run is one line that names the file and the key; what passes gives tables."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.evaluation.conftest import draw_scene

from amodal.data.reader import load
from amodal.errors import DataError
from amodal.evaluation import prepare
from amodal.reproduce.collect import Library
from amodal.reproduce.experiment import COSTS, Compare, DataNames, Experiment
from amodal.reproduce.per_image import PerImage
from amodal.reproduce.record import read_record
from amodal.reproduce.reproduce import tables
from amodal.reproduce.sources import Sources, Split
from amodal.reproduce.tables import Entry, time_table

ROOT = Path(__file__).resolve().parents[2]
RUNS = sorted((ROOT / "experiments" / "runs").glob("*.json"))
RUN = json.loads(RUNS[0].read_text())
VAL = "eth80_amodal/val"

pytestmark = pytest.mark.filterwarnings("ignore:no result scores below", "ignore:__array__:DeprecationWarning")


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A run that amodal did not train, on one split, with its detections image by image."""
    data, results = draw_scene(3, images=6)
    path = tmp_path_factory.mktemp("truth") / "truth.json"
    path.write_text(json.dumps(data))
    kept = PerImage.of(prepare(load(str(path)), results)).pack()
    split = copy.deepcopy(RUN["splits"][VAL])
    split["metrics"]["images"] = kept["images"]
    split |= {"per_image": kept, "hull": None, "clipped": copy.deepcopy(split["metrics"])}
    cost = {"parameters": 5, "flops": 7}
    return {**RUN, "id": "theirs", "what": None, "splits": {"val": split}, "cost": cost, "curve": RUN["curve"][:2]}


def _set(record: dict[str, Any], where: str, value: Any) -> str:
    """JSON of the record with a value at a place, its keys joined by slashes; for ``...`` the place is taken out."""
    record = copy.deepcopy(record)
    *inner, leaf = where.split("//")
    place: Any = record
    for key in inner:
        place = place[int(key) if isinstance(place, list) else key]
    key: Any = int(leaf) if isinstance(place, list) else leaf
    if value is ...:
        del place[key]
    else:
        place[key] = value
    return json.dumps(record)


MISTAKES: list[tuple[str, Any, str]] = [
    ("what", {}, "what.settings is missing"),
    ("what", 5, "what is 5, must be an object"),
    ("id", [], "id is a list, must be text on one line"),
    ("id", "0123456789ab", "id is '0123456789ab', but settings, train and starts_from of what give"),
    ("what", None, "as of a run that amodal trained, but what is null"),
    ("what//settings", 5, "what.settings is 5, must be an object"),
    ("what//settings//steps", float("nan"), "what.settings.steps is nan, must be a finite number"),
    ("what//settings//steps", 401, "settings, train and starts_from of what give"),
    ("what//settings//model.rpn.anchor_sizes", [[1]], "anchor_sizes[0] is a list, must be text, a number, true, false"),
    ("what//settings//steps.x", 1, "is 400 and a section at once"),
    ("what//starts_from", {"weights": 3}, "what.starts_from.weights is 3, must be text"),
    ("splits", {"x": 5}, "splits.x is 5, must be an object"),
    ("splits", ..., "splits is missing"),
    ("cost", [], "cost is a list, must be an object"),
    ("cost", {"flop": 3}, "unknown key 'cost.flop'; nearest is 'flops'"),
    ("cost", {"flops": 1.5}, "cost.flops is 1.5, must be a whole number >= 0"),
    ("seconds", {"step": "1"}, "seconds.step is '1', must be a number >= 0"),
    ("seconds//step", float("inf"), "seconds.step is inf, must be a number >= 0"),
    ("seconds//total", True, "seconds.total is True, must be a number >= 0"),
    ("seed", "0", "seed is '0', must be a whole number >= 0"),
    ("version", "1", "version is '1', must be a whole number from 1 to 1"),
    ("version", 2, "of a newer release; update amodal"),
    ("title", "two\nlines", "must be text on one line"),
    ("commits", [1], "commits[0] is 1, must be text"),
    ("machine", {"cpu": []}, "machine.cpu is a list, must be text, a number"),
    ("curve//0//loss", None, "curve[0].loss is null, must be a finite number"),
    (f"splits//{VAL}//metrics//mask//AP", 101, f"splits.{VAL}.metrics.mask.AP is 101, must be a number from 0 to 100"),
    (f"splits//{VAL}//metrics//mask//APP", 1, f"unknown key 'splits.{VAL}.metrics.mask.APP'; nearest is 'AP'"),
    (f"splits//{VAL}//metrics//images", -1, f"splits.{VAL}.metrics.images is -1, must be a whole number >= 0"),
    (f"splits//{VAL}//levels//0", ..., f"splits.{VAL}.levels is a list, must be the 5 levels of occlusion"),
    (f"splits//{VAL}//levels//0//AP", [], "levels[0].AP is a list, must be a number from 0 to 100, or null"),
    (f"splits//{VAL}//hull", 3, f"splits.{VAL}.hull is 3, must be an object or null"),
    (f"splits//{VAL}//per_image", {}, f"splits.{VAL}.per_image.version is missing"),
]  # fmt: skip


@pytest.mark.parametrize(("where", "value", "message"), MISTAKES)
def test_a_mistake_is_one_line_with_file_and_key(tmp_path: Path, where: str, value: Any, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(_set(RUN, where, value))
    with pytest.raises(DataError) as caught:
        Library([tmp_path])
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


ARRAYS = "splits//val//per_image//arrays"
PACKED: list[tuple[str, Any, str]] = [
    (f"{ARRAYS}//scores", ..., "per_image.arrays.scores is missing"),
    (f"{ARRAYS}//scores//data", "%", "per_image.arrays.scores.data is no base64 of zlib"),
    (f"{ARRAYS}//scores//shape", [1 << 62], "per_image.arrays.scores.data does not hold"),
    (f"{ARRAYS}//scores//shape", [3], "per_image.arrays.scores.data does not hold the 3 values"),
    (f"{ARRAYS}//scores//dtype", "object", "per_image.arrays.scores is object ["),
    ("splits//val//per_image//classes", 1, "per_image.arrays.label has numbers outside of 0 to 0"),
    ("splits//val//per_image//images", 7, "per_image.images is 7, but metrics.images is 6"),
    ("splits//val//per_image//version", 2, "per_image.version is 2, this release reads 1"),
]


@pytest.mark.parametrize(("where", "value", "message"), PACKED)
def test_detections_that_do_not_fit_are_told(
    tmp_path: Path, named: dict[str, Any], where: str, value: Any, message: str
) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(named))
    assert read_record(path) == named
    path.write_text(_set(named, where, value))
    with pytest.raises(DataError, match=r"a\.json: .*damaged: splits\.val\.") as caught:
        read_record(path)
    assert message in str(caught.value)


def test_keys_given_twice_and_lists_are_told(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for text, message in (
        (json.dumps(RUN)[:-1] + ', "seed": 1}', "the key 'seed' occurs twice in one object"),
        (json.dumps(RUN).replace('"total":', '"step":'), "seconds: the key 'step' occurs twice in one object"),
        ("[]", "holds a list, must be an object"),
        ("", "is empty"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=message):
            read_record(path)


def test_runs_must_agree_on_the_images_of_a_split(tmp_path: Path, named: dict[str, Any]) -> None:
    (tmp_path / "a.json").write_text(json.dumps(named))
    (tmp_path / "b.json").write_text(
        _set({**RUN, "splits": {"v": RUN["splits"][VAL]}}, "splits//v//metrics//images", 9)
    )
    with pytest.raises(DataError, match=r"b\.json: splits\.v has 9 images, .*a\.json has 6 of the same digest"):
        Library([tmp_path])


JUNK = [None, True, 0, -1, 1, 2.5, 1e308, -0.0, 10**40, float("nan"), float("inf"), "", "x", "\ud800", "a\nb", [], [[]],
        {}, {"": 1}, [None], "0123456789ab", {"weights": "w"}, 99]  # fmt: skip


def _places(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*way, key)
        yield from _places(inner, (*way, key))


def _mutant(record: dict[str, Any], draw: random.Random) -> str:
    """The record as text, changed in one to three places."""
    changed = copy.deepcopy(record)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        # First how deep, so that the many metrics are not nearly all of it.
        places = list(_places(changed))
        depth = draw.choice(sorted({len(place) for place in places}))
        *way, key = draw.choice([place for place in places if len(place) == depth])
        inner: Any = changed
        for step in way:
            inner = inner[step]
        kind = draw.randrange(4)
        if kind == 0:
            del inner[key]
        elif kind == 1 and isinstance(inner, dict):
            inner[draw.choice(["AP", "steps", "x", f"{key}x"])] = inner.pop(key)
        else:
            inner[key] = copy.deepcopy(draw.choice(JUNK))
    text = json.dumps(changed)
    if draw.random() < 0.1:
        place = draw.randrange(len(text))
        text = text[:place] + draw.choice(["", "}", '"x": 1, ', "0"]) + text[place + draw.randrange(3) :]
    return text


def _shown(record: dict[str, Any], other: dict[str, Any]) -> str:
    digest = RUN["splits"][VAL]["digest"]
    sources = Sources(Split("t", "0"), None, (Split("val", digest),))
    columns = ("mask.AP", "box.AP-occ-gt", "visible.AP", "clipped.mask.AP", "hull.box.AP", *COSTS)
    experiment = Experiment("x", Path("x.yaml"), "x", None, {}, None, None, DataNames(), (0,), None, (), {}, columns,
                            Compare("b", 3), None)  # fmt: skip
    entries = [Entry("a", record["title"], {0: record, 1: other}), Entry("b", "b", {0: other, 1: record})]
    text, content = tables(experiment, sources, entries)
    json.dumps(content, allow_nan=False)
    return text + time_table(entries)


@pytest.mark.parametrize("part", ["all", "what"])
def test_whatever_is_done_to_a_file_it_is_refused_in_one_line_or_gives_tables(
    tmp_path: Path, named: dict[str, Any], part: str
) -> None:
    draw, path, accepted, told = random.Random(5), tmp_path / "a.json", 0, []
    trained = {**RUN, "splits": {}, "curve": []}
    for _ in range(200 if part == "all" else 60):
        path.write_text(_mutant(named if part == "all" else trained, draw))
        try:
            library = Library([tmp_path])
        except DataError as error:
            told.append(str(error))
            continue
        accepted += 1
        (record,) = library._records.values()
        _shown(record, named).encode()
    assert accepted > 0
    for message in told:
        assert message.startswith(f"{path}: ")
        assert "\n" not in message
        assert len(message) < len(str(path)) + 300
