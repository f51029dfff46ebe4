"""YAML in and out, restricted to plain values: no tags, no anchors, no key twice.

Scalars follow the core schema of YAML 1.2 (https://yaml.org/spec/1.2.2/#103-core-schema), without
octal and hexadecimal integers: ``1e-3`` is a number, ``no`` and ``12:30`` are text. PyYAML's own
rules are those of YAML 1.1, by which they are text, a boolean and 750.
"""

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from automix.errors import ConfigError

MAX_CONFIG_BYTES = 100_000
_MAX_LEVELS = 20

_INTEGER = re.compile(r"[-+]?[0-9]+")
_NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_TRUE = re.compile(r"true|True|TRUE")
_FALSE = re.compile(r"false|False|FALSE")
_NULL = re.compile(r"~|null|Null|NULL|")


def read_text(path: Path, *, limit: int = MAX_CONFIG_BYTES) -> str:
    """Read a small UTF-8 text file.

    Raises:
        ConfigError: the file is missing, larger than ``limit`` bytes, or not UTF-8.
    """
    try:
        with path.open("rb") as stream:
            # Not the size of the file: a device or a pipe has none, and may never end.
            content = stream.read(limit + 1)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigError(f"{path}: expected a readable file, got: {reason}") from None
    except ValueError as error:
        # What no file can be called: a name with a NUL in it.
        raise ConfigError(f"{str(path)!r}: expected the name of a file, got: {error}") from None
    if len(content) > limit:
        raise ConfigError(f"{path}: expected at most {limit} bytes, got more")
    try:
        # Editors on Windows write a byte order mark.
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: expected UTF-8 text, got the byte {content[error.start]:#04x} "
            f"at position {error.start}"
        ) from None


def read_yaml(path: Path) -> object:
    """Parse a YAML file without constructing anything but plain values; None if it is empty.

    Raises:
        ConfigError: the file cannot be read or is not plain YAML.
    """
    text = read_text(path)
    try:
        return yaml.load(text, Loader=_PlainLoader)  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{path}, line {mark.line + 1}" if mark else str(path)
        problem = str(error.problem).removeprefix("but ")
        raise ConfigError(f"{where}: expected plain YAML, got: {problem}") from None
    except (yaml.YAMLError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{path}: expected plain YAML, got: {reason}") from None


def to_yaml(values: object) -> str:
    """Return plain values as YAML that `read_yaml` reads back as they were."""
    return yaml.dump(values, Dumper=_PlainDumper, sort_keys=False)


def scalar_of(text: str) -> int | float | bool | str | None:
    """Return what ``text`` would be as a scalar of a YAML file."""
    if _INTEGER.fullmatch(text):
        try:
            return int(text)
        except ValueError:
            # Thousands of digits, which Python does not read: for validation to refuse.
            return text
    if _NUMBER.fullmatch(text):
        return float(text)
    if _TRUE.fullmatch(text) or _FALSE.fullmatch(text):
        return bool(_TRUE.fullmatch(text))
    return None if _NULL.fullmatch(text) else text


class _PlainLoader(yaml.SafeLoader):
    """Refuses what a configuration has no need of, and what an attack is made of.

    Aliases let a short file stand for a huge value, tags name types, nesting uses up the stack,
    and of a key given twice one value would be ignored.
    """

    yaml_implicit_resolvers = {}  # noqa: RUF012 - PyYAML's own registry, filled in below

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._level = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            self._refuse("an anchor or alias; write the value out", event.start_mark)
        if event.tag is not None:
            self._refuse(f"the tag {event.tag!r}; write a plain value", event.start_mark)
        if self._level == _MAX_LEVELS:
            self._refuse(f"more than {_MAX_LEVELS} levels of nesting", event.start_mark)
        self._level += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._level -= 1

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._refuse("a list or a mapping as a key", key.start_mark)
            if key.value in seen:
                self._refuse(f"the key {key.value!r} twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    @staticmethod
    def _refuse(problem: str, mark: yaml.Mark) -> None:
        raise yaml.constructor.ConstructorError(None, None, problem, mark)


class _PlainDumper(yaml.SafeDumper):
    """Quotes the texts that `_PlainLoader` would read as something else."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - PyYAML's own registry, filled in below


def _construct_integer(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    # PyYAML's own reads a leading zero as octal.
    return int(loader.construct_scalar(node))


def _fill_in_resolvers() -> None:
    kinds = (
        ("null", _NULL, ["~", "n", "N", ""]),
        ("bool", re.compile(f"{_TRUE.pattern}|{_FALSE.pattern}"), list("tTfF")),
        ("int", _INTEGER, list("-+0123456789")),
        ("float", re.compile(f"{_NUMBER.pattern}|{_NOT_FINITE.pattern}"), list("-+.0123456789")),
    )
    for name, pattern, first in kinds:
        whole = re.compile(f"(?:{pattern.pattern})$")
        for kind in (_PlainLoader, _PlainDumper):
            kind.add_implicit_resolver(f"tag:yaml.org,2002:{name}", whole, first)


_fill_in_resolvers()
_PlainLoader.add_constructor("tag:yaml.org,2002:int", _construct_integer)
