"""Help of one command: the fields that matter first, or all of them."""

import inspect
import textwrap
from collections.abc import Iterator, Sequence
from enum import Enum
from pkgutil import resolve_name
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from automix.configuration.base import alternatives, shown
from automix.configuration.command import CONFIG_WORD, FOLDER_WORD, Command

_CONFIG_HELP = (
    "YAML with any of the fields below, nested by their dots: `--task.trainer.epochs 10` is "
    "`task: {trainer: {epochs: 10}}`, and `--task.trainer FILE.yaml` takes a section from a file; "
    "flags come first, then the files of sections, then this file, then the defaults. Or the name "
    "of a file that ships, see `automix config list`"
)
_FOLDER_HELP = (
    "your own images, one folder per class, or train/ and test/ with these inside. Without a file "
    "its defaults are those of --preset quick: small images, a small network, short training runs, "
    "and 10 minutes for a search"
)
_WIDTH = 80
_INDENT = " " * 8
_TYPES = {int: "INT", float: "FLOAT", str: "STR", bool: "True|False", type(None): "null"}


def help_text(command: Command, model: type[BaseModel], default: BaseModel) -> str:
    """Return the fields that matter first, with the values of ``default``."""
    lines = [f"usage: {command.usage} [OPTIONS]", "", _introduction(command), "", "options:"]
    for name in command.first_flags:
        info, value = _field(model, default, name)
        flag = "--" + name.replace("_", "-")
        lines.append(f"  {flag} {_kind(info.annotation)}")
        text = f"{info.description} (default: {_spelled(value)})"
        lines.append(textwrap.fill(text, _WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT))
    rest = sum(1 for _ in _leaves(model)) - len(command.first_flags)
    lines += ["", f"{rest} more options: automix {command.name} --help all"]
    return "\n".join(lines)


def print_all(command: Command, model: type[BaseModel], default: BaseModel) -> None:
    """Print every field, and leave with code 0."""
    # Takes 0.2 CPU seconds, which a command that runs has no use for.
    import tyro  # noqa: PLC0415

    tyro.cli(
        model,
        args=["--help"],
        default=default,
        prog=command.usage,
        description=_introduction(command),
        config=(tyro.conf.EnumChoicesFromValues,),
    )


def _introduction(command: Command) -> str:
    """Return what the command does, and its words."""
    explained = dict(command.positionals)
    if command.preset:
        explained[FOLDER_WORD] = _FOLDER_HELP
    if command.takes_file:
        explained[CONFIG_WORD] = _CONFIG_HELP
    description = command.description or inspect.cleandoc(resolve_name(command.config).__doc__)
    paragraphs = [textwrap.fill(text, width=_WIDTH) for text in description.split("\n\n")]
    paragraphs += [
        textwrap.fill(f"{word}: {text}.", width=_WIDTH, subsequent_indent="    ")
        for word, text in explained.items()
    ]
    return "\n\n".join(paragraphs)


def _field(model: type[BaseModel], default: BaseModel, name: str) -> tuple[FieldInfo, object]:
    """Return a field by its dotted name, and its value."""
    *sections, last = name.split(".")
    value: Any = default
    for section in sections:
        value = getattr(value, section)
        model = type(value)
    return model.model_fields[last], getattr(value, last)


def _leaves(model: type[BaseModel]) -> Iterator[str]:
    for name, info in model.model_fields.items():
        kind = info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _leaves(kind)
        else:
            yield name


def _kind(annotation: Any) -> str:
    """Return the type of a field as a placeholder, such as ``INT|null``."""
    kinds = [_kind_of_one(kind) for kind in alternatives(annotation)]
    return "|".join(dict.fromkeys(kinds))


def _kind_of_one(kind: Any) -> str:
    if get_origin(kind) is tuple:
        return f"[{_kind(get_args(kind)[0])} ...]"
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "|".join(str(member.value) for member in kind)
    if choices := get_args(kind):
        return "|".join(map(str, choices))
    return _TYPES.get(kind, str(getattr(kind, "__name__", kind)).upper())


def _spelled(value: object) -> str:
    """Return a value as it is typed."""
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " ".join(map(_spelled, value)) or "none"
    return shown(value) if value is None or isinstance(value, bool) else str(value)
