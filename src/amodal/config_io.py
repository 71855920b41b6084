"""Configuration files: YAML and ``--key value`` overrides onto :class:`~amodal.config.TrainConfig`, and back to YAML.

A file holds differences from the defaults, or from the file that its ``base:`` names. Everything a file can do wrong
ends in a one-line :class:`~amodal.errors.ConfigError` that names the file and the key. Imports no torch.
"""

from __future__ import annotations

import re
import types
from argparse import ArgumentError
from collections.abc import Hashable, Mapping
from dataclasses import asdict, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml
from jsonargparse import ArgumentParser

from amodal.config import ModelConfig, TrainConfig
from amodal.errors import ConfigError, nearest, refuse_address
from amodal.files import shipped_files
from amodal.settings import EXPANSION_PRIOR
from amodal.systems import SYSTEMS, find

VERSION = 1
"""Version of the configuration format. Files of a higher version are refused."""

OWN_SETTINGS = ("model.method.", "prior_fit.")
"""Sections whose keys hang on the system, which may be in a file of the user's own."""

MAX_BYTES = 1 << 20
_T = TypeVar("_T")


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML without aliases (no bombs) and without keys given twice (no silent loss)."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.constructor.ConstructorError(None, None, "aliases (*name) are not allowed", self.get_mark())
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key is no plain word", key.start_mark)
            if key.value in seen:
                problem = f"key {key.value!r} is given twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file (at most 1 MiB; no tags beyond YAML's own types, no aliases, no repeated keys).

    Raises:
        ConfigError: the file is missing, too large, no YAML, or no mapping.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path}: larger than {MAX_BYTES} bytes, no configuration")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or 'cannot be read'}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8 text") from None
    try:
        data = yaml.load(text, Loader=_StrictLoader)
    except RecursionError:
        raise ConfigError(f"{path}: nested too deeply") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{path}: {_yaml_problem(error)}") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: holds a {type(data).__name__}, must be a mapping of settings")
    return data


def load_config(path: str | Path, overrides: Mapping[str, Any] | None = None) -> TrainConfig:
    """Settings of a training run.

    Args:
        path: YAML file with differences from the defaults, or the name of one that comes with the package
            ("mask_rcnn/nano").
        overrides: dotted key -> value (``{"optim.lr": 0.01}``); strings are read as on the command line.

    Returns:
        The settings, complete and checked; ``model.method`` is always an instance of the system's own class.

    Raises:
        ConfigError: an unknown key, a wrong type or a value out of range, named with its key.
    """
    data, source = _merged(path)
    for key, value in (overrides or {}).items():
        if key == "base":
            raise ConfigError("--base: a base is named in the file, relative to it, and not on the command line")
        _insert(data, key, value)
    return structure(TrainConfig, data, source)


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
    # A path with a NUL is refused here: every call of the system would raise ValueError.
    if not isinstance(base, str) or not base or "\0" in base:
        raise ConfigError(f"{path}: base is {base!r}, must be the path of a file")
    return data, find_config(base, path.parent)


def find_config(name: str, folder: Path) -> Path:
    """The configuration of that name: a file, relative to ``folder``, else one that comes with the package.

    Raises:
        ConfigError: ``name`` looks like neither a file's nor one of a configuration that comes with the package.
    """
    refuse_address(name)
    path = folder / name
    if path.suffix or path.exists() or "\0" in name:  # What is wrong with a file is said when it is read.
        return path
    known = shipped_files("configs")
    if name not in known:
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
        raise ConfigError(f"{path}: version is {version!r}, must be an integer from 1 to {VERSION}")
    if version > VERSION:
        raise ConfigError(
            f"{path}: version {version} is newer than this release reads (up to {VERSION}); update amodal"
        )


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
        raise ConfigError(f"{source}: model is {model!r}, must be a mapping of settings")
    method = _structure_model(model, source, "model.")
    kind = (method.method and method.method.prior_kind) or EXPANSION_PRIOR  # Unused settings are checked, too.
    _check_keys(TrainConfig, data, source, "", {"prior_fit": kind.settings, "method": type(method.method)})
    config: TrainConfig = _instantiate(TrainConfig, _without(data, "prior_fit", "model"), source, "")
    fit = _instantiate(kind.settings, data.get("prior_fit") or {}, source, "prior_fit.")
    return replace(config, model=method, prior_fit=fit)


def _structure_model(data: dict[str, Any], source: str, prefix: str) -> ModelConfig:
    name = data.get("system", ModelConfig.system)
    if not isinstance(name, str):
        raise ConfigError(f"{source}: {prefix}system is {name!r}, no known system{nearest(str(name), SYSTEMS)}")
    try:
        settings = find(name).settings
    except ConfigError as error:
        raise ConfigError(f"{source}: {prefix}{error}") from None
    _check_keys(ModelConfig, data, source, prefix, {"method": settings})
    config: ModelConfig = _instantiate(ModelConfig, _without(data, "method"), source, prefix)
    return replace(config, method=_instantiate(settings, data.get("method") or {}, source, f"{prefix}method."))


def to_dict(config: TrainConfig | ModelConfig) -> dict[str, Any]:
    """Nested plain data that :func:`structure` turns back into an equal object."""
    return asdict(config)


def to_yaml(config: TrainConfig) -> str:
    """The YAML text of all settings, with the format's version."""
    return dump_yaml({"version": VERSION, **to_dict(config)})


def dump_yaml(data: dict[str, Any]) -> str:
    """YAML text that :func:`read_yaml` reads back, keys in the order given."""
    text: str = yaml.dump(data, Dumper=_PlainDumper, sort_keys=False, allow_unicode=True, default_flow_style=None)
    return text


class _PlainDumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


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
    """jsonargparse's two-line message as the key and ``is 'abc', must be int``; no key where it has another form."""
    message = " ".join(message.split())
    found = re.match(r'Parser key "(?P<key>[^"]+)": (?P<rule>.*?)\.? (?:Got|Given) value: (?P<value>.*)$', message)
    if found is None:
        return None, message
    wanted = re.findall(r"Expected an? (<class '[^']+'>|[\w.]*Literal\[[^\]]*\]|[\w.\[\], |]+)", found["rule"])
    plain = [re.sub(r"<class '([^']+)'>|typing\.", r"\1", part).strip(" .-") for part in wanted]
    names = [re.sub(r"Literal\[(.*)\]", r"one of \1", part) for part in plain if part != "NoneType"]
    return found["key"], f"is {found['value']!r}, must be {' or '.join(dict.fromkeys(names)) or 'another type'}"


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
            raise ConfigError(f"{source}: unknown key {prefix + str(key)!r}{known}")
        hint = own.get(key, hints[key])
        if is_dataclass(hint) and isinstance(hint, type):
            if isinstance(value, dict):
                _check_keys(hint, value, source, f"{prefix}{key}.", own)
            elif value is not None or key not in own:
                raise ConfigError(f"{source}: {prefix}{key} is {value!r}, must be a mapping of settings")
        elif _is_null(value) and not _optional(hint):
            raise ConfigError(f"{source}: {prefix}{key} is null, must be a value")


def _is_null(value: Any) -> bool:
    return value is None or value == "null"


def _optional(hint: Any) -> bool:
    return get_origin(hint) in (Union, types.UnionType) and type(None) in get_args(hint)


def _instantiate(cls: type, data: dict[str, Any], source: str, prefix: str) -> Any:
    parser = ArgumentParser(exit_on_error=False, add_help=False)
    parser.add_class_arguments(cls)
    try:
        return cls(**vars(parser.instantiate(parser.parse_object(data))))
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None
    except (ArgumentError, TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"{source}: {_parse_problem(str(error), prefix)}") from None


def _parse_problem(message: str, prefix: str) -> str:
    key, rest = parse_problem(message)
    return rest if key is None else f"{prefix}{key} {rest}"


def _yaml_problem(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or " ".join(str(error).split())
    return problem if mark is None else f"line {mark.line + 1}: {problem}"
