"""Configuration files: YAML and ``--key value`` overrides onto :class:`~amodal.config.TrainConfig`, and back to YAML.

A file holds differences from the defaults, or from the file that its ``base:`` names. Everything a file can do wrong
ends in a one-line :class:`~amodal.errors.ConfigError` that names the file and the key. Imports no torch.
"""

from __future__ import annotations

import os
import re
import types
from argparse import ArgumentError
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from jsonargparse import ArgumentParser

from amodal.bounds import CLASSES, MAX_ID
from amodal.config import ModelConfig, TrainConfig
from amodal.errors import ConfigError, is_text, nearest, printable, refuse_address, shown
from amodal.files import NAME_BYTES, shipped_files
from amodal.plain_yaml import dump_yaml, read_text, read_yaml
from amodal.settings import EXPANSION_PRIOR
from amodal.systems import SYSTEMS, find

VERSION = 1
"""Version of the configuration format. Files of a higher version are refused."""

OWN_SETTINGS = ("model.method.", "prior_fit.")
"""Sections whose keys hang on the system, which may be in a file of the user's own."""

_LONG = 300  # characters of a message of jsonargparse that is shown as it is
_READ = {
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "list": "a list in [ ]",
    "dict": "a mapping",
}
_T = TypeVar("_T")


def load_config(path: str | Path, overrides: Mapping[str, Any] | None = None) -> TrainConfig:
    """Settings of a training run.

    Args:
        path: YAML file with differences from the defaults, or the name of one that comes with the package
            ("mask_rcnn/nano").
        overrides: dotted key -> value (``{"optim.lr": 0.01}``); strings are read as on the command line. Another
            ``model.system`` than the file's leaves the file's ``model.method`` behind, as it does in a file on top.

    Returns:
        The settings, complete and checked; ``model.method`` is always an instance of the system's own class.

    Raises:
        ConfigError: an unknown key, a wrong type or a value out of range, named with its key.
    """
    data, source = _merged(path)
    overrides = overrides or {}
    if "model.system" in overrides and isinstance(data.get("model"), dict):
        data["model"] = merge(data["model"], {"system": overrides["model.system"]})
    for key, value in overrides.items():
        if key == "base":
            raise ConfigError("--base: a base is named in the file, relative to it, and not on the command line")
        _insert(data, key, value)
    try:
        return structure(TrainConfig, data, source)
    except ConfigError as error:
        raise ConfigError(_of_flag(str(error).removeprefix(f"{source}: "), overrides) or str(error)) from None


def _of_flag(said: str, given: Mapping[str, Any]) -> str | None:
    """What is said of a setting, as of the flag that gave it: then no file is to blame. None: no flag did."""
    if said.split(maxsplit=1)[0] in given:
        return f"--{said}"
    unknown = re.match(r"unknown key '(?P<key>[^']+)'", said)
    return f"--{unknown['key']}: unknown key{said[unknown.end() :]}" if unknown and unknown["key"] in given else None


def read_layers(path: str | Path) -> dict[str, Any]:
    """The settings of a file on top of those of the file that its ``base:`` names (relative to it), and so on.

    A base may also be the name of a configuration that comes with the package ("mask_rcnn/nano").
    Sections are merged key by key; lists and values replace the base's. A base leaves the system's own settings
    (``model.method``) behind where the file names another system.

    Raises:
        ConfigError: a file cannot be read, is of a newer release, or is its own base; names the file that asked for it.
    """
    return _merged(path)[0]


def _merged(path: str | Path) -> tuple[dict[str, Any], str]:
    """The settings as :func:`read_layers` gives them, and the files they come from, for messages."""
    layers: dict[Path, dict[str, Any]] = {}
    asking, file = None, find_config(str(path), Path())
    while True:
        try:
            data, base = _read_layer(file)
        except ConfigError as error:
            raise error if asking is None else ConfigError(f"{asking}: base {error}") from None
        layers[file] = data
        if base is None:
            break
        asking, file = file, base
        if any(_same(file, other) for other in layers):
            raise ConfigError(f"{asking}: base {file} leads back to itself")
    merged: dict[str, Any] = {}
    for data in reversed(layers.values()):
        merged = merge(merged, data)
    first, *bases = map(str, layers)
    return merged, f"{first} (base {', '.join(bases)})" if bases else first


def _read_layer(path: Path) -> tuple[dict[str, Any], Path | None]:
    """What one file says itself, and where its base is."""
    data = read_yaml(path)
    check_version(data.pop("version", None), path)
    if "base" not in data:
        return data, None
    base = data.pop("base")
    if not isinstance(base, str) or not base or "\0" in base:
        raise ConfigError(f"{path}: base is {shown(base)}, must be the path of a file")
    return data, find_config(base, path.parent)


def find_config(name: str, folder: Path) -> Path:
    """The configuration of that name: a file, relative to ``folder``, else one that comes with the package.

    Raises:
        ConfigError: ``name`` looks like neither a file's nor one of a configuration that comes with the package.
    """
    refuse_address(name)
    path = folder / name
    if path.suffix or os.path.exists(path):  # What is wrong with a file is said when it is read.
        return path
    known = shipped_files("configs")
    if name not in known:
        name = printable(name) if len(name) <= NAME_BYTES else shown(name)
        raise ConfigError(
            f"{name}: no such file, nor a configuration that comes with the package{nearest(name, known)}"
        )
    return known[name]


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:  # Reading it says what is wrong with it.
        return False


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Settings ``above`` on top of those ``below``; another system does not inherit ``method``."""
    # A base that names no system is written for any, and its ``method`` for the file's.
    other = "system" in above and below.get("system", above["system"]) != above["system"]
    merged = {key: value for key, value in below.items() if not (other and key == "method")}
    for key, value in above.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if nested else value
    return merged


def check_version(version: object, path: str | Path) -> None:
    """Refuses files written by a newer release."""
    if version is None:
        return
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ConfigError(f"{path}: version is {shown(version)}, must be an integer from 1 to {VERSION}")
    if version > VERSION:
        raise ConfigError(
            f"{path}: version {version} is newer than this release reads (up to {VERSION}); update amodal"
        )


def check_classes(names: Any, ids: Any, path: str | Path) -> None:
    """Refuses what are no classes of a model or a prior: a list of names, and ids as annotation files have them."""
    texts = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if not texts or not 1 <= len(names) <= CLASSES:
        raise ConfigError(f"{path}: class_names must be a list of names, 1 to {CLASSES}")
    whole = isinstance(ids, list) and all(type(number) is int and 0 <= number <= MAX_ID for number in ids)
    if not whole or len(set(ids)) != len(ids) or len(ids) != len(names):
        rule = f"{len(names)} different integers from 0 to {MAX_ID}, one for each class name"
        raise ConfigError(f"{path}: category_ids must be {rule}")


def structure(cls: type[_T], data: dict[str, Any], source: str, prefix: str = "") -> _T:
    """A checked settings object of any class from nested plain data.

    ``source`` names the file in errors, ``prefix`` the section of it ("fit.").

    Whose class hangs on the system (``model.method`` and ``prior_fit``) is always filled, with defaults where nothing
    is said.
    """
    if cls is TrainConfig:
        return _structure_train(data, source)  # type: ignore[return-value]
    if cls is ModelConfig:
        return _structure_model(data, source, "")  # type: ignore[return-value]
    _check_keys(cls, data, source, prefix, {})
    built: _T = _instantiate(cls, data, source, prefix)
    return built


def _structure_train(data: dict[str, Any], source: str) -> TrainConfig:
    model = data.get("model", {})
    if not isinstance(model, dict):
        raise ConfigError(f"{source}: model is {shown(model)}, must be a mapping of settings")
    method = _structure_model(model, source, "model.")
    kind = (method.method and method.method.prior_kind) or EXPANSION_PRIOR  # Unused settings are checked, too.
    _check_keys(TrainConfig, data, source, "", {"prior_fit": kind.settings, "method": type(method.method)})
    config: TrainConfig = _instantiate(TrainConfig, _without(data, "prior_fit", "model"), source, "")
    fit = _instantiate(kind.settings, data.get("prior_fit") or {}, source, "prior_fit.")
    return replace(config, model=method, prior_fit=fit)


def _structure_model(data: dict[str, Any], source: str, prefix: str) -> ModelConfig:
    name = data.get("system", ModelConfig.system)
    if not isinstance(name, str):
        raise ConfigError(f"{source}: {prefix}system is {shown(name)}, must be the name of a system")
    try:
        settings = find(name).settings
    except ConfigError as error:
        raise ConfigError(f"{source}: {prefix}{error}") from None
    _check_keys(ModelConfig, data, source, prefix, {"method": settings})
    config: ModelConfig = _instantiate(ModelConfig, _without(data, "method"), source, prefix)
    method = _instantiate(settings, data.get("method") or {}, source, f"{prefix}method.")
    try:
        return replace(config, method=method)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None


def to_dict(config: TrainConfig | ModelConfig) -> dict[str, Any]:
    """Nested plain data that :func:`structure` turns back into an equal object."""
    return asdict(config)


def to_yaml(config: TrainConfig) -> str:
    """The YAML text of all settings, with the format's version."""
    return dump_yaml({"version": VERSION, **to_dict(config)})


def setting_keys() -> list[str]:
    """Every dotted key that ``amodal train`` takes as ``--key value``, those of :data:`SYSTEMS` included."""
    method = {f"model.method.{name}" for system in SYSTEMS.values() for name in get_type_hints(system.settings)}
    prior = [f"prior_fit.{name}" for name in get_type_hints(EXPANSION_PRIOR.settings)]
    return [*_leaves(TrainConfig, ""), *prior, *sorted(method)]


def flatten(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one mapping with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in data.items():
        nested = isinstance(value, Mapping)
        flat.update(flatten(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value})
    return flat


def parse_problem(message: str) -> tuple[str | None, str]:
    """jsonargparse's two-line message as the key and ``is 'abc', must be an integer``; no key for other forms."""
    message = " ".join(message.split())
    # Of a value that YAML reads as another one ("yes"), both are there; the last is what was written.
    found = re.match(r'Parser key "(?P<key>[^"]+)": (?P<rule>.*)\.? (?:Got|Given) value: (?P<value>.*)$', message)
    if found is None:
        return None, message if len(message) <= _LONG else f"{message[:_LONG]}..."
    wanted = re.findall(r"Expected an? (<class '[^']+'>|[\w.]*Literal\[[^\]]*\]|[\w.\[\], |]+)", found["rule"])
    plain = [re.sub(r"<class '([^']+)'>|typing\.", r"\1", part).strip(" .-") for part in wanted]
    names = [_wanted(part) for part in plain if part != "NoneType"]
    return found["key"], f"is {shown(found['value'])}, must be {' or '.join(dict.fromkeys(names)) or 'another type'}"


def _wanted(kind: str) -> str:
    """A type as a person reads it; of several words those that there are."""
    words = re.fullmatch(r"Literal\[(.*)\]", kind)
    if words is None:
        return _READ.get(kind, kind)
    return f"one of {words[1]}" if "," in words[1] else words[1]


def _leaves(cls: type, prefix: str) -> list[str]:
    keys: list[str] = []
    for name, hint in get_type_hints(cls).items():
        if name in ("method", "prior_fit"):
            continue
        section = isinstance(hint, type) and is_dataclass(hint)
        keys += _leaves(hint, f"{prefix}{name}.") if section else [f"{prefix}{name}"]
    return keys


def _insert(data: dict[str, Any], key: str, value: Any) -> None:
    *sections, leaf = key.split(".")
    for depth, section in enumerate(sections):
        inner = data.setdefault(section, {})
        if inner is None:
            inner = data[section] = {}
        if not isinstance(inner, dict):
            raise ConfigError(f"--{key}: {'.'.join(sections[: depth + 1])} is no section")
        data = inner
    data[leaf] = value


def _without(data: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in data.items() if key not in names}


def _check_keys(cls: type, data: dict[str, Any], source: str, prefix: str, own: Mapping[str, type]) -> None:
    """Unknown keys, sections that are no mapping, nulls where a value must be; ``own`` are classes by key."""
    hints = get_type_hints(cls)
    for key, value in data.items():
        if key not in hints:
            known = nearest(str(key), list(hints))
            raise ConfigError(f"{source}: unknown key {shown(prefix + str(key))}{known}")
        hint = own.get(key, hints[key])
        if is_dataclass(hint) and isinstance(hint, type):
            if isinstance(value, dict):
                _check_keys(hint, value, source, f"{prefix}{key}.", own)
            elif value is not None or key not in own:
                raise ConfigError(f"{source}: {prefix}{key} is {shown(value)}, must be a mapping of settings")
        elif _is_null(value) and not _optional(hint):
            raise ConfigError(f"{source}: {prefix}{key} is null, must be a value")
        elif isinstance(value, str) and ("\0" in value or not is_text(value)):
            raise ConfigError(
                f"{source}: {prefix}{key} is {shown(value)}, which holds a character that no text can have"
            )
        elif not _takes_text(hint):
            _check_texts(value, f"{source}: {prefix}{key}")


def _check_texts(value: Any, where: str) -> None:
    """Refuses texts that stand for other values, as the command line has them, with YAML that no file may have."""
    if isinstance(value, str):
        try:
            read = read_text(value)
        except ConfigError as error:
            raise ConfigError(f"{where} is {shown(value)}: {error}") from None
        value = None if read == value else read
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
    for part in parts:
        if isinstance(part, str | list | dict):
            _check_texts(part, where)


def _takes_text(hint: Any) -> bool:
    """Whether a setting takes text as it is: a name, a path, one of several words."""
    if get_origin(hint) is list:
        return False
    return hint is str or any(isinstance(part, str) or _takes_text(part) for part in get_args(hint))


def _is_null(value: Any) -> bool:
    return value is None or value == "null"


def _optional(hint: Any) -> bool:
    return get_origin(hint) in (Union, types.UnionType) and type(None) in get_args(hint)


@cache
def _parser(cls: type) -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False, add_help=False)
    parser.add_class_arguments(cls)
    return parser


def _instantiate(cls: type, data: dict[str, Any], source: str, prefix: str) -> Any:
    parser = _parser(cls)
    try:
        return cls(**vars(parser.instantiate(parser.parse_object(data))))
    except ConfigError as error:
        own = str(error).split(maxsplit=1)[0] in get_type_hints(cls)  # A class that does not know its section.
        raise ConfigError(f"{source}: {prefix if own else ''}{error}") from None
    except (ArgumentError, TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"{source}: {_parse_problem(str(error), prefix)}") from None
    except (AttributeError, LookupError):
        # jsonargparse reads texts that may be null as YAML, and stumbles on its tags in many ways.
        tagged = [key for key, value in flatten(data).items() if isinstance(value, str) and "!!" in value]
        if not tagged:
            raise
        value = shown(flatten(data)[tagged[0]])
        raise ConfigError(f"{source}: {prefix}{tagged[0]} is {value}, must be a plain value, no YAML tag") from None


def _parse_problem(message: str, prefix: str) -> str:
    key, rest = parse_problem(message)
    return rest if key is None else f"{prefix}{key} {rest}"
