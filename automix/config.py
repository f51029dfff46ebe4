"""The base of every configuration model, and YAML in and out of it.

A model is frozen and closed to unknown keys. Whatever is wrong with a file becomes one
`ConfigError` of the form ``path.to.key: expected ..., got ...``.
"""

import difflib
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from automix.errors import ConfigError
from automix.files import sha256_of

MAX_CONFIG_BYTES = 1_000_000
_MAX_SHOWN = 80


class Config(BaseModel):
    """A frozen set of named values; unknown keys, NaN and infinity are refused.

    The docstring under each field is its help text on the command line.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )

    def to_yaml(self) -> str:
        """Return the complete configuration, defaults included, as YAML."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)

    def content_hash(self) -> str:
        """Return a hash of every value: equal configurations have equal hashes."""
        return sha256_of(self.model_dump_json().encode())[:16]

    @classmethod
    def from_mapping(cls, values: object, *, source: str) -> Self:
        """Validate ``values`` (what YAML or JSON gave).

        Raises:
            ConfigError: a key is unknown or a value does not fit; the text names ``source``.
        """
        if not isinstance(values, dict):
            raise ConfigError(
                f"{source}: expected a mapping of keys to values, got {shown(values)}"
            )
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(f"{source}: {first_problem(error, cls)}") from None

    @classmethod
    def from_yaml(cls, path: Path) -> Self:
        """Read and validate a YAML file.

        Raises:
            ConfigError: the file is missing, not YAML, or does not fit the model.
        """
        return cls.from_mapping(read_yaml(path), source=str(path))


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML's safe loader, except that a key given twice is an error, not the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if key_node.value in seen and isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key_node.value!r} is given twice", key_node.start_mark
                )
            seen.add(str(key_node.value))
        return super().construct_mapping(node, deep)


def read_text(path: Path, *, limit: int = MAX_CONFIG_BYTES) -> str:
    """Read a small UTF-8 text file.

    Raises:
        ConfigError: the file is missing, larger than ``limit`` bytes, or not UTF-8.
    """
    try:
        if path.is_file() and path.stat().st_size > limit:
            size = path.stat().st_size
            raise ConfigError(f"{path}: expected at most {limit} bytes, got {size}")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigError(f"{path}: expected a readable file, got: {reason}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: expected UTF-8 text, got other bytes") from None


def read_yaml(path: Path) -> object:
    """Parse a YAML file without constructing anything but plain values.

    Raises:
        ConfigError: the file cannot be read or is not YAML.
    """
    text = read_text(path)
    try:
        return yaml.load(text, Loader=_UniqueKeyLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{path}, line {mark.line + 1}" if mark else str(path)
        raise ConfigError(f"{where}: expected valid YAML, got: {error.problem}") from None
    except (yaml.YAMLError, RecursionError):
        raise ConfigError(f"{path}: expected valid YAML, got text that does not parse") from None


def shown(value: object) -> str:
    """Return ``value`` for an error message: its repr, shortened."""
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 3] + "..."


def first_problem(error: ValidationError, model: type[BaseModel]) -> str:
    """Return the first problem of a validation as ``path: expected ..., got ...``."""
    problems = error.errors()
    first = problems[0]
    location = ".".join(str(part) for part in first["loc"]) or model.__name__
    text = f"{location}: {_expectation(first, model)}"
    if len(problems) > 1:
        text += f" (and {len(problems) - 1} more)"
    return text


def _expectation(problem: Any, model: type[BaseModel]) -> str:
    kind, message = problem["type"], problem["msg"]
    if kind == "extra_forbidden":
        return _unknown_key(str(problem["loc"][-1]), _model_at(model, problem["loc"][:-1]))
    if kind == "missing":
        return "expected a value, got nothing"
    if kind == "value_error":
        # Our own validators already speak in "expected ..., got ...".
        return str(message).removeprefix("Value error, ")
    wanted = re.sub(r"^(Input|Value|String|List|Tuple) should (be|have) ", "", message)
    wanted = re.sub(r", unable to .*", "", wanted)
    return f"expected {wanted}, got {shown(problem['input'])}"


def _unknown_key(key: str, model: type[BaseModel] | None) -> str:
    names = list(model.model_fields) if model else []
    close = difflib.get_close_matches(key, names, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return f"expected one of {', '.join(names)}, got the unknown key {key!r}{hint}"


def _model_at(model: type[BaseModel], location: tuple[int | str, ...]) -> type[BaseModel] | None:
    """Follow field names from ``model`` down to the model that holds the last of them."""
    current: type[BaseModel] | None = model
    for part in location:
        if current is None or not isinstance(part, str):
            continue
        field = current.model_fields.get(part)
        current = _model_in(field.annotation) if field else None
    return current


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        if found := _model_in(argument):
            return found
    return None
