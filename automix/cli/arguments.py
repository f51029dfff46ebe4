"""From a YAML file and flags to one validated configuration.

tyro reads the flags and writes the help from the configuration models. What it cannot read is
explained by validating the same flags as if they had stood in the file, so that a mistake reads
the same wherever it is made: ``path: expected ..., got ...``.
"""

import contextlib
import difflib
import io
import re
import types
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import tyro
from pydantic import BaseModel

from automix.config import Config
from automix.errors import ConfigError

Arguments = TypeVar("Arguments", bound=Config)
_HELP_FLAGS = ("-h", "--help")
_NULLS = ("none", "null")


def parse_arguments(
    model: type[Arguments], argv: Sequence[str], *, prog: str, defaults: dict[str, Any]
) -> Arguments:
    """Return a ``model`` with ``defaults`` overridden by the flags in ``argv``.

    Args:
        model: configuration model; nested fields are flags such as ``--task.trainer.epochs``.
        argv: flags and their values.
        prog: what the help calls the command.
        defaults: values from a file; validated first.

    Raises:
        ConfigError: the defaults or the flags do not fit the model.
        SystemExit: help was asked for; code 0.
    """
    default = model.from_mapping(defaults, source=prog) if defaults else model()
    complaints = io.StringIO()
    try:
        # tyro draws boxes on standard error; one line is what we promise.
        with contextlib.redirect_stderr(complaints):
            return tyro.cli(
                model,
                args=[*argv],
                default=default,
                prog=prog,
                config=(tyro.conf.EnumChoicesFromValues,),
            )
    except SystemExit as error:
        if not error.code or any(flag in argv for flag in _HELP_FLAGS):
            raise
    overrides = _overrides(model, argv)
    model.from_mapping(_merged(default.model_dump(mode="json"), overrides), source="command line")
    raise ConfigError(f"command line: {_flattened(complaints.getvalue())}")


def _overrides(model: type[BaseModel], argv: Sequence[str]) -> dict[str, Any]:
    """Return the flags as the nested mapping that a file would hold.

    Raises:
        ConfigError: a flag is unknown, or a word belongs to none.
    """
    names = dict(_flags(model))
    result: dict[str, Any] = {}
    for flag, values in _grouped(argv):
        path = _path_of(flag, names)
        target = result
        for part in path[:-1]:
            target = target.setdefault(part, {})
        target[path[-1]] = _value(names[path], flag, values)
    return result


def _grouped(argv: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    flag, values = None, list[str]()
    for word in argv:
        if word.startswith("--"):
            if flag is not None:
                yield flag, values
            flag, _, value = word.removeprefix("--").partition("=")
            values = [value] if value else []
        elif flag is None:
            raise ConfigError(f"command line: expected a flag such as --seed, got {word!r}")
        else:
            values.append(word)
    if flag is not None:
        yield flag, values


def _flags(
    model: type[BaseModel], prefix: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, field in model.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from _flags(annotation, (*prefix, name))
        else:
            yield (*prefix, name), annotation


def _path_of(flag: str, names: dict[tuple[str, ...], Any]) -> tuple[str, ...]:
    known = {".".join(path).replace("_", "-"): path for path in names}
    wanted = flag.replace("_", "-")
    for candidate in (wanted, _without_no(wanted)):
        if candidate in known:
            return known[candidate]
    close = difflib.get_close_matches(wanted, known, n=1)
    if not close:
        # A nested field given without its section.
        close = [name for name in known if name.rpartition(".")[2] == wanted][:1]
    hint = f" (did you mean --{close[0]}?)" if close else "; --help lists them"
    raise ConfigError(f"command line: expected a known flag, got --{flag}{hint}")


def _without_no(flag: str) -> str:
    section, _, name = flag.rpartition(".")
    return f"{section}.{name.removeprefix('no-')}".removeprefix(".")


def _value(annotation: Any, flag: str, values: list[str]) -> Any:
    nullable = type(None) in _alternatives(annotation)
    if nullable and len(values) == 1 and values[0].lower() in _NULLS:
        return None
    takes_many = any(get_origin(kind) is tuple for kind in _alternatives(annotation))
    if takes_many and (len(values) != 1 or not nullable):
        return values
    if bool in _alternatives(annotation) and not values:
        return not flag.rpartition(".")[2].startswith("no-")
    if len(values) != 1:
        raise ConfigError(f"--{flag}: expected one value, got {len(values)}")
    return values[0]


def _alternatives(annotation: Any) -> list[Any]:
    """Return the members of a union, without `Annotated`."""
    if get_origin(annotation) is Annotated:
        return _alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [kind for member in get_args(annotation) for kind in _alternatives(member)]
    return [annotation]


def _merged(values: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    result = dict(values)
    for key, value in overrides.items():
        if isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = _merged(result[key], value)
        else:
            result[key] = value
    return result


def _flattened(text: str) -> str:
    """Return the first paragraph of tyro's box as one line."""
    lines = [line.strip(" \u2502\u256d\u256e\u2570\u256f\u2500") for line in text.splitlines()]
    sentence = " ".join(line for line in lines[1:3] if line)
    return re.sub(r"\s+", " ", sentence) or "expected flags that fit, got others; see --help"
