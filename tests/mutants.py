"""Settings and tensor files with faults put in at random places, the same ones for the same seed."""

from __future__ import annotations

import copy
import json
import re
import struct
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import torch
import yaml
from safetensors import safe_open
from safetensors.torch import save_file

ODD: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 3, 7, 17, 1000, -5, 2**31, 2**63, -(2**63), 10**30, 10**400, 0.5, -0.5),
    *(1e-300, 1e300, float("nan"), float("inf"), -float("inf")),
    *(
        "",
        " ",
        "null",
        "none",
        "nan",
        "1e400",
        "5",
        "-3",
        "0.5",
        "true",
        "a b",
        "é𝄞",
        "\x07\x1b[31m",
        "a\nb",
        "x" * 5000,
    ),
    *("[1, 2]", "{a: 1}", "&a [1]", "*a", "!!int 3", "[[&a [x], *a], *a]", "%", "{}", "9" * 5000, ":", "/", ".", ".."),
    *("amodal.models.branch:Branch", "nowhere:Cls", "os:system", "json:dumps", "a:b:c"),
    *(
        [],
        [1],
        [0.5, 0.5, 0.5],
        [1, 2, 3, 4],
        [[1]],
        [None],
        ["a"],
        [1] * 200,
        [float("nan")] * 3,
        [10**30] * 3,
        [-1] * 3,
    ),
    *({}, {"a": 1}, {"a": {"b": [1]}}, {1: 2}, [{"a": 1}]),
]
"""Values of every kind that a number, a name, a list or a section may meet."""

TOKENS = [
    *(
        "",
        "~",
        "-",
        "yes",
        "1:30",
        "0x7fffffffffffffff",
        "0x" + "f" * 5000,
        "9" * 5000,
        "1e400",
        ".nan",
        "-.inf",
        "1e5",
    ),
    *(
        "2020-01-01",
        "2020-13-41",
        "!!int x",
        "!!float x",
        "!!bool x",
        "!!binary x",
        "!!set {a}",
        "!!timestamp x",
        "!x y",
    ),
    *("!!python/name:os.system", "&a [1, 2]", "*a", "&a [*a]", "<<", "=", "|", ">", "'", '"', "@", "`", "%", "[", "]"),
    *('"\\ud800"', '"\\0"', '"\\x07"', "{", "}", "{a: 1, a: 2}", "{<<: {a: 1}}", "? [a]", "- 1", "# x", "---", "..."),
    *("[1, [2, [3]]]", "[" * 400, "\t", "\x00", "\ufeff", "'é\u202e'", "[" + "1, " * 300 + "1]", "{? {a: 1} : 2}"),
    *("1_000", "1e5", "!x y", "+5", "0o17", "1.", ".5", "on", "Null"),
]
"""Pieces of YAML that a value may be replaced with in the text."""

BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))


def one_line(message: str, place: object = "") -> None:
    """Holds a message to what a person may read: one line that names ``place`` and is no surprise of the program."""
    assert message.strip(), "says nothing"
    assert "\n" not in message
    assert not re.search(r"unexpected \w+(Error|Exception)", message), message
    assert len(message) < 1000
    assert str(place) in message


def mutate_data(random: Random, data: Any) -> Any:
    """A copy of nested plain data with one to three faults."""
    data = copy.deepcopy(data)
    for _ in range(random.choice([1, 1, 1, 1, 2, 3])):
        places = list(_places(data))
        if not places:
            return random.choice(ODD)
        holder, key = random.choice(places)
        random.choice([_put_odd, _put_odd, _put_odd, _scale, _remove, _wrap, _copy_from, _rename])(
            random, holder, key, places
        )
    return data


def _places(data: Any) -> Any:
    keys = data if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else []
    for key in list(keys):
        yield data, key
        yield from _places(data[key])


def _put_odd(random: Random, holder: Any, key: Any, places: Any) -> None:
    holder[key] = copy.deepcopy(random.choice(ODD))


def _scale(random: Random, holder: Any, key: Any, places: Any) -> None:
    value = holder[key]
    number = isinstance(value, (int, float))
    holder[key] = value * random.choice([-1, 0, 2, 0.5, 10, 1e6, 10**12, 0.9, 3]) if number else [value, value]


def _remove(random: Random, holder: Any, key: Any, places: Any) -> None:
    del holder[key]


def _wrap(random: Random, holder: Any, key: Any, places: Any) -> None:
    holder[key] = random.choice([[holder[key]], {"a": holder[key]}, [[holder[key]] * 2] * 2, str(holder[key])])


def _copy_from(random: Random, holder: Any, key: Any, places: Any) -> None:
    other, its = random.choice(places)
    if (isinstance(other, dict) and its not in other) or (isinstance(other, list) and its >= len(other)):
        return
    holder[key] = copy.deepcopy(other[its])


def _rename(random: Random, holder: Any, key: Any, places: Any) -> None:
    if isinstance(holder, dict):
        holder[random.choice(["", "x", str(key) + "s", str(key).upper(), 3, None, "é"])] = holder.pop(key)


CHANGES = [_put_odd, _put_odd, _put_odd, _scale, _remove, _wrap, _copy_from, _rename]


def mutate_text(random: Random, text: str) -> bytes:
    """YAML text with one to three faults of syntax, structure or encoding."""
    for _ in range(random.choice([1, 1, 2, 3])):
        lines = text.split("\n")
        place = random.randrange(len(lines))
        line = lines[place]
        kind = random.randrange(8)
        if kind <= 2:
            head, colon, _ = line.partition(": ")
            lines[place] = head + (colon or ": ") + random.choice(TOKENS)
        elif kind == 3:
            del lines[place]
        elif kind == 4:
            lines.insert(random.randrange(len(lines) + 1), line)
        elif kind == 5:
            lines[place] = (
                line[: random.randrange(len(line) + 1)]
                + random.choice(TOKENS)
                + line[random.randrange(len(line) + 1) :]
            )
        elif kind == 6:
            lines[place] = random.choice(["", " ", "   "]) + line.strip()
        elif random.random() < 0.2:
            lines.insert(0, BOMB)
        text = "\n".join(lines)
    data = text.encode("utf-8", "surrogatepass")
    kind = random.randrange(12)
    if kind == 0:
        data = data[: random.randrange(len(data) + 1)]
    elif kind == 1 and data:
        place = random.randrange(len(data))
        data = data[:place] + bytes([random.randrange(256)]) + data[place + 1 :]
    return data


def mutate_yaml(random: Random, text: str) -> bytes:
    """YAML text with faults of its values or of its syntax."""
    if random.random() < 0.6:
        try:
            return yaml.safe_dump(mutate_data(random, yaml.safe_load(text)), allow_unicode=True).encode()
        except ValueError:  # An integer of thousands of digits.
            pass
    return mutate_text(random, text)


def mutate_json(random: Random, text: str) -> bytes:
    """JSON text with faults of its values, or cut, with a key doubled, or a byte changed."""
    if random.random() < 0.8:
        try:
            return json.dumps(mutate_data(random, json.loads(text))).encode()
        except (ValueError, TypeError):
            pass
    data = text.encode()
    kind, place = random.randrange(4), random.randrange(len(data))
    if kind == 0:
        return data[:place]
    if kind == 1:
        return data[:place] + bytes([random.randrange(256)]) + data[place + 1 :]
    if kind == 2:
        return data.replace(b"{", b'{"step": 1, "step": 2, ', 1)
    return random.choice([b"", b"[]", b"null", b"[" * 5000, b"\xff\xfe", b"9" * 6000, b'{"version": 1}'])


DTYPES = [
    *(torch.float16, torch.bfloat16, torch.float64, torch.int32, torch.int64, torch.uint8, torch.bool, torch.complex64),
    *(torch.float8_e4m3fn, torch.float8_e5m2, torch.uint16),
]
BROKEN = [float("nan"), float("inf"), -float("inf")]
KINDS = [b"F64", b"I32", b"F16", b"U8", b"F4", b"X", b"F8_E8M0"]
"""Dtypes, and their names in the header of a file."""


def mutate_tensors(random: Random, path: Path) -> None:
    """Changes a safetensors file in place: bytes, header, or tensors."""
    random.choice([_change_bytes, _change_header, _change_tensor, _change_tensor, _change_tensor])(random, path)


def _change_bytes(random: Random, path: Path) -> None:
    data = bytearray(path.read_bytes())
    kind = random.randrange(4)
    if kind == 0:
        del data[random.randrange(len(data)) :]
    elif kind == 1:
        data += b"x" * random.randrange(1, 9)
    elif kind == 2:
        for _ in range(random.choice([1, 8, 64])):
            data[random.randrange(len(data))] = random.randrange(256)
    else:
        for _ in range(random.choice([1, 8])):
            data[random.randrange(min(4000, len(data)))] = random.randrange(256)
    path.write_bytes(data)


def _change_header(random: Random, path: Path) -> None:
    data = path.read_bytes()
    end = 8 + struct.unpack("<Q", data[:8])[0]
    if random.random() < 0.3:
        header = data[8:end].replace(
            b"F32", random.choice([b"F64", b"I32", b"F16", b"U8", b"F4", b"X", b"F8_E8M0"]), random.choice([1, -1])
        )
    else:
        try:
            header = json.dumps(mutate_data(random, json.loads(data[8:end]))).encode()
        except (ValueError, TypeError):
            header = b"{}"
    path.write_bytes(struct.pack("<Q", len(header)) + header + data[end:])


def _change_tensor(random: Random, path: Path) -> None:
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        metadata = dict(file.metadata() or {"format": "pt"})
    name = random.choice(sorted(tensors))
    value = tensors[name]

    def fill(number: float) -> None:
        if value.numel():
            flat = value.view(-1)
            flat[random.randrange(len(flat))] = number if value.is_floating_point() else int(min(max(number, -1), 1))

    changes: list[Callable[[], Any]] = [
        lambda: tensors.pop(name),
        lambda: tensors.update({random.choice([name + "x", "x", name.partition("/")[0] + "/exp_avg"]): value.clone()}),
        lambda: tensors.update({name: value.to(random.choice(DTYPES))}),
        lambda: tensors.update({name: value.to(random.choice(DTYPES))}),
        lambda: tensors.update({name: value.reshape(-1).clone()}),
        lambda: tensors.update({name: value[None].clone()}),
        lambda: tensors.update({name: torch.zeros(random.choice([(), (0,), (1,), (3, 3), (2, 0)]), dtype=value.dtype)}),
        lambda: tensors.update({name: tensors[random.choice(sorted(tensors))].clone()}),
        lambda: fill(random.choice([1e30, 3e38, -3e38, -1.0])),
        lambda: (
            fill(random.choice([float("nan"), float("inf"), -float("inf")])) if value.is_floating_point() else fill(-1)
        ),
        lambda: value.zero_(),
        lambda: metadata.update({random.choice(sorted(metadata)): random.choice(["", "x", "0", "99999", "é"])}),
        lambda: metadata.clear(),
        lambda: tensors.update({name: (value.double() * 1e200)}),
    ]
    random.choice(changes)()
    save_file({key: item.contiguous() for key, item in tensors.items()}, path, metadata or None)
