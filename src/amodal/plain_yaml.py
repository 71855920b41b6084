"""YAML of plain values alone: read strictly, written so that it can be read."""

from __future__ import annotations

import stat
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from amodal.errors import ConfigError, is_text, shown

MAX_BYTES = 1 << 20
_DIGITS = 300  # of an integer; a float holds 308


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML of plain values alone.

    No aliases (no bombs), no tags and merges, no keys given twice (no silent loss), no numbers and characters that
    other parts of the program could not write down.
    """

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            raise _problem("aliases (*name) are not allowed", event.start_mark)
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise _problem(f"tags ({shown(tag)}) are not allowed", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                raise _problem("a key is no plain word", key.start_mark)
            if key.value in seen:
                raise _problem(f"key {shown(key.value)} is given twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if node.tag == "tag:yaml.org,2002:int" and len(node.value) > _DIGITS:
            raise _problem(f"{shown(node.value)} is an integer of too many digits", node.start_mark)
        try:
            value = super().construct_object(node, deep)
        except (ValueError, OverflowError, IndexError, KeyError, AttributeError) as error:  # 2020-13-01
            raise _problem(f"{shown(node.value)} is no value ({error})", node.start_mark) from None
        if isinstance(value, str) and not is_text(value):
            raise _problem(f"{shown(value)} holds a character that no text can have", node.start_mark)
        return value


def _problem(what: str, mark: Any) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, what, mark)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file (at most 1 MiB; no tags beyond YAML's own types, no aliases, no repeated keys).

    Raises:
        ConfigError: the file is missing, too large, no YAML, or no mapping.
    """
    path = Path(path)
    try:
        status = path.stat()
        # A pipe or a device may never end, and opening one may never return.
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
            raise ConfigError(f"{path}: no regular file")
        if status.st_size > MAX_BYTES:
            raise ConfigError(f"{path}: larger than {MAX_BYTES} bytes, no configuration")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or 'cannot be read'}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8 text") from None
    try:
        data = read_text(text)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: holds a {type(data).__name__}, must be a mapping of settings")
    return data


def read_text(text: str) -> Any:
    """The value of a YAML text.

    Raises:
        ConfigError: it is no YAML of plain values; says where, in one line.
    """
    try:
        return yaml.load(text, Loader=_StrictLoader)
    except RecursionError:
        raise ConfigError("nested too deeply") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(_yaml_problem(error)) from None


def dump_yaml(data: dict[str, Any]) -> str:
    """YAML text that :func:`read_yaml` reads back, keys in the order given."""
    text: str = yaml.dump(data, Dumper=_PlainDumper, sort_keys=False, allow_unicode=True, default_flow_style=None)
    return text


class _PlainDumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _yaml_problem(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or " ".join(str(error).split())
    return problem if mark is None else f"line {mark.line + 1}: {problem}"
