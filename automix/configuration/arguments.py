"""Parsing of the command line into one validated configuration, and its help."""

import difflib
import textwrap
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar, get_args, get_origin

import tyro
from pydantic import BaseModel, ValidationError, create_model

from automix.configuration.base import (
    Config,
    alternatives,
    first_problem,
    read_section,
    read_values,
    scalar_of,
    sections_of,
)
from automix.errors import ConfigError

KeyPath = tuple[str, ...]
_NULLS = ("none", "null")


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """What was typed after a command.

    Attributes:
        files: words that belong to no flag, in order.
        values: what the flags say, nested by their dots.
        sections: files that flags name for sections, by path.
        given: paths of the flags.
    """

    files: tuple[str, ...]
    values: dict[str, Any]
    sections: dict[KeyPath, str]
    given: frozenset[KeyPath]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Flag:
    path: KeyPath
    annotation: Any
    is_section: bool = False

    @property
    def name(self) -> str:
        return flag_name(self.path)


def flag_name(path: Sequence[str | int]) -> str:
    """Return the flag of a field, such as ``--task.trainer.batch-size``."""
    return "--" + ".".join(part for part in path if isinstance(part, str)).replace("_", "-")


def read_words(words: Sequence[str], model: type[BaseModel], *, command: str) -> Words:
    """Tell files from flags, and give each flag its values.

    Args:
        words: what was typed.
        model: its fields are the flags.
        command: named in messages.

    Raises:
        ConfigError: a flag is unknown, given twice or without a value.
    """
    flags = {flag.name: flag for flag in _flags(model)}
    files: list[str] = []
    values: dict[str, Any] = {}
    sections: dict[KeyPath, str] = {}
    given: set[KeyPath] = set()
    queue = deque(words)
    while queue:
        word = queue.popleft()
        if not word.startswith("-"):
            files.append(word)
            continue
        name, equals, text = word.partition("=")
        flag, is_negated = _find(name, flags, command)
        if flag.path in given:
            raise ConfigError(f"{flag.name}: expected once, got twice")
        given.add(flag.path)
        if equals and is_negated:
            raise ConfigError(f"{name}: expected no value, got {text!r}")
        if not equals and bool in alternatives(flag.annotation):
            value: object = not is_negated
        else:
            value = _value(flag, [text] if equals else _taken(flag, queue))
        if flag.is_section:
            sections[flag.path] = str(value)
        else:
            _put(values, flag.path, value)
    return Words(files=tuple(files), values=values, sections=sections, given=frozenset(given))


def _flags(model: type[BaseModel], prefix: KeyPath = ()) -> Iterator[_Flag]:
    for name, info in model.model_fields.items():
        annotation = info.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield _Flag(path=(*prefix, name), annotation=Path, is_section=True)
            yield from _flags(annotation, (*prefix, name))
        else:
            yield _Flag(path=(*prefix, name), annotation=annotation)


def _find(name: str, flags: dict[str, _Flag], command: str) -> tuple[_Flag, bool]:
    """Return the flag of that name, and whether it says no, as ``--task.data.no-download``."""
    wanted = name.replace("_", "-")
    if wanted in flags:
        return flags[wanted], False
    section, _, last = wanted.removeprefix("--").rpartition(".")
    positive = flags.get(f"--{section}.{last.removeprefix('no-')}".replace("--.", "--"))
    if last.startswith("no-") and positive and bool in alternatives(positive.annotation):
        return positive, True
    close = _closest(wanted, flags)
    hint = f" (did you mean {close}?)" if close else "; --help lists them"
    raise ConfigError(f"{command}: expected a known flag, got {name}{hint}")


def _closest(wanted: str, known: Iterable[str]) -> str | None:
    """Return the flag whose last part is most like that of ``wanted``, its own section first.

    Whole names would not do: a long section makes all of its flags alike.
    """
    section, _, last = wanted.removeprefix("--").rpartition(".")
    by_section: dict[str, dict[str, str]] = {}
    for flag in known:
        other, _, name = flag.removeprefix("--").rpartition(".")
        by_section.setdefault(other, {})[name] = flag
    everywhere = {name: flag for names in by_section.values() for name, flag in names.items()}
    for names in (by_section.get(section, {}), everywhere):
        if close := difflib.get_close_matches(last, names, n=1, cutoff=0.7):
            return names[close[0]]
    return None


def _taken(flag: _Flag, queue: deque[str]) -> list[str]:
    """Remove the values of a flag from the front of ``queue`` and return them."""
    taken = list[str]()
    while queue and not queue[0].startswith("--") and (_takes_many(flag) or not taken):
        taken.append(queue.popleft())
    return taken


def _takes_many(flag: _Flag) -> bool:
    return any(get_origin(kind) is tuple for kind in alternatives(flag.annotation))


def _value(flag: _Flag, texts: Sequence[str]) -> object:
    kinds = alternatives(flag.annotation)
    if len(texts) == 1 and type(None) in kinds and texts[0].lower() in _NULLS:
        return None
    read = scalar_of if _is_numeric(flag.annotation) else str
    is_list = all(get_origin(kind) is tuple for kind in kinds)
    if is_list or (_takes_many(flag) and len(texts) > 1):
        return [read(text) for text in texts]
    if not texts:
        raise ConfigError(f"{flag.name}: expected a value, got nothing")
    return read(texts[0])


def _is_numeric(annotation: Any) -> bool:
    """Return whether numbers or truth values are among the leaves of a type."""
    return any(
        any(_is_numeric(part) for part in get_args(kind) if part is not ...)
        if get_origin(kind) is tuple
        else kind in (int, float, bool)
        for kind in alternatives(annotation)
    )


def _put(values: dict[str, Any], path: KeyPath, value: object) -> None:
    for part in path[:-1]:
        values = values.setdefault(part, {})
    values[path[-1]] = value


ConfigType = TypeVar("ConfigType", bound=Config)
FlagsType = TypeVar("FlagsType", bound=Config)

CONFIG_WORD = "CONFIG.yaml"
_CONFIG_HELP = (
    "YAML with any of the fields below, nested by their dots: `--task.trainer.epochs 10` is "
    "`task: {trainer: {epochs: 10}}`, and `--task.trainer FILE.yaml` takes a section from a file; "
    "flags come first, then the files of sections, then this file, then the defaults"
)


class NoFlags(Config):
    """A command that has no flags of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature(Generic[ConfigType, FlagsType]):
    """What a command takes.

    Attributes:
        command: how it is called, such as ``automix replay``.
        summary: what it does, for the help.
        config: fields that a file or flags may set.
        flags: fields that only flags may set.
        words: what each required word is, by name.
        takes_file: whether a configuration file may follow them.
        instead: flags with which the words are left out, and whether a file may follow even so.
    """

    command: str
    summary: str
    config: type[ConfigType]
    flags: type[FlagsType]
    words: Mapping[str, str]
    takes_file: bool = False
    instead: Mapping[str, bool] = field(default_factory=dict)

    @property
    def usage(self) -> str:
        """Return the command and its words, such as ``automix search [CONFIG.yaml]``."""
        optional = [f"[{CONFIG_WORD}]"] if self.takes_file else []
        return " ".join([self.command, *self.words, *optional])

    @property
    def every_field(self) -> type[BaseModel]:
        """Return a model of all that flags may set."""
        # A command without a configuration has `NoFlags` for both.
        bases = tuple(dict.fromkeys((self.flags, self.config)))
        return create_model("Arguments", __base__=bases)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments(Generic[ConfigType, FlagsType]):
    """What a command was given.

    Attributes:
        words: the required words.
        config: file, flags and defaults together.
        flags: the other flags.
        given: names of the flags that were given.
    """

    words: tuple[str, ...]
    config: ConfigType
    flags: FlagsType
    given: tuple[str, ...]


def read_arguments(
    signature: Signature[ConfigType, FlagsType], argv: Sequence[str]
) -> Arguments[ConfigType, FlagsType]:
    """Return what ``argv`` gives to a command.

    Raises:
        ConfigError: words are missing or too many, or a value in the file or a flag does not fit.
        SystemExit: help was asked for and printed; code 0.
    """
    if any(word in ("-h", "--help") for word in argv):
        _print_help(signature, [word for word in argv if word not in ("-h", "--help")])
    words = read_words(argv, signature.every_field, command=signature.command)
    required, file = _split(words, signature)
    return Arguments(
        words=required,
        config=_config(signature, words, file),
        flags=_validated(signature.flags, _only(words.values, signature.flags), words, file=None),
        given=tuple(sorted(map(flag_name, words.given))),
    )


def _split(words: Words, signature: Signature[Any, Any]) -> tuple[tuple[str, ...], Path | None]:
    """Return the required words and the configuration file, if any."""
    given = words.files
    flag = next((name for name in signature.instead if words.values.get(name) is not None), None)
    least = 0 if flag else len(signature.words)
    takes_file = signature.instead[flag] if flag else signature.takes_file
    if not least <= len(given) <= least + takes_file:
        wanted = signature.usage.removeprefix(f"{signature.command} ")
        if flag:
            wanted = f"{f'[{CONFIG_WORD}]' if takes_file else 'no word'} with {flag_name([flag])}"
        elif signature.instead:
            others = " or ".join(flag_name([name]) for name in signature.instead)
            wanted += f" (or {others} and no {', '.join(signature.words)})"
        got = " ".join(given) or "nothing"
        raise ConfigError(f"{signature.command}: expected {wanted}, got {got}")
    return given[:least], Path(given[least]) if len(given) > least else None


def _config(
    signature: Signature[ConfigType, FlagsType], words: Words, file: Path | None
) -> ConfigType:
    values: object = {} if file is None else read_values(file, signature.config)
    if not isinstance(values, dict):
        # Says so in the same words as everywhere.
        return signature.config.from_mapping(values, source=str(file))
    for path, name in sorted(words.sections.items(), key=lambda item: len(item[0])):
        values = _merged(values, _section_from(name, path, signature.config))
    overrides = _only(words.values, signature.config)
    return _validated(signature.config, _merged(values, overrides), words, file=file)


def _section_from(name: str, path: KeyPath, model: type[Config]) -> dict[str, Any]:
    """Return the values of a section's file, nested where they belong."""
    for part in path:
        model = dict(sections_of(model))[part]
    values: Any = read_section(Path(name), model)
    for part in reversed(path):
        values = {part: values}
    found: dict[str, Any] = values
    return found


def _validated(
    model: type[ConfigType], values: dict[str, Any], words: Words, *, file: Path | None
) -> ConfigType:
    """Return the model of file and flags together; a problem names the one it is in."""
    try:
        return model.from_plain(values)
    except ValidationError as error:
        problem = first_problem(error, model)
    keys = tuple(part for part in problem.path if isinstance(part, str))
    if file is None or keys in words.given:
        where = flag_name(keys) if keys else "command line"
        raise ConfigError(f"{where}: {problem.expectation}")
    is_shared = any(keys == path[: len(keys)] for path in words.given)
    raise ConfigError(f"{file}{' and flags' if is_shared else ''}: {problem}")


def _only(values: Mapping[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key in model.model_fields}


def _merged(values: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    result = dict(values)
    for key, value in overrides.items():
        if not isinstance(value, dict) or key not in result:
            result[key] = value
        elif isinstance(result[key], dict):
            result[key] = _merged(result[key], value)
        # Else the file has no section where there should be one, which validation says.
    return result


def _hanging(text: str) -> str:
    return textwrap.fill(text, width=80, subsequent_indent="    ")


def _print_help(signature: Signature[Any, Any], argv: Sequence[str]) -> None:
    """Print the fields with the values that a file gives them, and leave with code 0."""
    model = signature.every_field
    try:
        words = read_words(argv, model, command=signature.command)
        config = _config(signature, words, _split(words, signature)[1])
        default = model.model_validate(config.model_dump())
    except ConfigError:
        # Help is most needed by those who do not have it right yet.
        default = model()
    explained = dict(signature.words)
    if signature.takes_file:
        explained[CONFIG_WORD] = _CONFIG_HELP
    lines = [_hanging(f"{word}: {text}.") for word, text in explained.items()]
    tyro.cli(
        model,
        args=["--help"],
        default=default,
        prog=signature.usage,
        description="\n\n".join([signature.summary, *lines]),
        config=(tyro.conf.EnumChoicesFromValues,),
    )
