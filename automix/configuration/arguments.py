"""Parsing of the command line into one validated configuration.

tyro 1.0 writes the help of all fields and does not parse. Tried on the mistakes in ``tests/cli``,
it takes the last of ``--seed 1 --seed=2`` in silence, answers ``--seed x`` with a framed page
instead of one line, refuses ``null``, ``--dry-run=false`` and ``--task.trainer FILE.yaml``, and
validates each section on its own, before the file with the rest of it is read.
"""

import difflib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError, create_model

from automix.configuration.base import (
    Config,
    alternatives,
    first_problem,
    outdated,
    read_section,
    read_values,
    scalar_of,
    sections_of,
)
from automix.configuration.command import Command
from automix.configuration.help import help_text, print_all
from automix.errors import AutoMixError, ConfigError
from automix.shipped_configs import KINDS_OF_SECTIONS, config_file

KeyPath = tuple[str, ...]
ConfigType = TypeVar("ConfigType", bound=Config)

_HELP = ("-h", "--help")
# After it.
_EVERYTHING = "all"
_NULLS = ("none", "null")
# Where a folder of images is, in every configuration that has a task.
_IMAGES = ("task", "data")


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """The parsed arguments of a command."""

    positionals: tuple[str, ...]  # the required positional arguments
    folder: Path | None  # of images, where one may come before the file
    config: Any  # of ``command.config``: folder, file, flags and defaults together
    flags: Any  # of ``command.flags``
    flag_names: tuple[str, ...]  # names of the flags that were typed, sorted


def read_arguments(command: Command, argv: Sequence[str]) -> Arguments:
    """Parse and validate the arguments of a command.

    Raises:
        ConfigError: arguments are missing or too many, or a value of the file or a flag is wrong.
        SystemExit: help was asked for; its code is the text, or 0 where it is printed already.
    """
    if (place := next((at for at, word in enumerate(argv) if word in _HELP), None)) is not None:
        everything = list(argv[place + 1 : place + 2]) == [_EVERYTHING]
        rest = [*argv[:place], *argv[place + 1 + everything :]]
        _leave_with_help(
            command, [word for word in rest if word not in _HELP], everything=everything
        )
    flags = resolve_name(command.flags)
    typed = read_words(argv, every_field(command), command=f"automix {command.name}")
    operands = _split(typed, command)
    return Arguments(
        positionals=operands.positionals,
        folder=operands.folder,
        config=_config(command, typed, operands),
        flags=_validated(flags, _fields(typed.values, flags), typed, file=None),
        flag_names=tuple(sorted(map(flag_name, typed.paths))),
    )


def every_field(command: Command) -> type[BaseModel]:
    """Return a model of all that flags may set."""
    # A command without fields of either kind has `Config` for both.
    bases = dict.fromkeys((resolve_name(command.flags), resolve_name(command.config)))
    if len(bases) > 1:
        bases.pop(Config, None)
    return create_model("Arguments", __base__=tuple(bases))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Operands:
    """Words that belong to no flag, by what they are."""

    positionals: tuple[str, ...]
    folder: Path | None  # of images
    file: Path | None  # of the configuration


def _split(typed: "TypedWords", command: Command) -> _Operands:
    """Return the positional arguments, and the folder and the configuration file, if any."""
    flag = next((name for name in command.instead if typed.values.get(name) is not None), None)
    num_words = 0 if flag else len(command.positionals)
    takes_file = command.instead[flag] if flag else command.takes_file
    rest = list(typed.files[num_words:])
    folder = None
    if takes_file and command.preset and rest and _is_folder(rest[0]):
        folder = Path(rest.pop(0))
    if len(typed.files) < num_words or len(rest) > takes_file:
        expected = command.usage.removeprefix(f"automix {command.name} ")
        if flag:
            optional = " ".join(word for word in command.usage.split() if word.startswith("["))
            expected = f"{optional if takes_file else 'no word'} with {flag_name([flag])}"
        elif command.instead:
            others = " or ".join(flag_name([name]) for name in command.instead)
            expected += f" (or {others} and no {', '.join(command.positionals)})"
        got = " ".join(typed.files) or "nothing"
        raise ConfigError(f"automix {command.name}: expected {expected}, got {got}")
    expected = "a folder of images, a YAML file" if command.preset else "a YAML file"
    file = config_file(rest[0], command.configs, expected=expected) if rest else None
    return _Operands(positionals=typed.files[:num_words], folder=folder, file=file)


def _is_folder(word: str) -> bool:
    return word.endswith("/") or (not _ends_as_file(word) and Path(word).is_dir())


def _ends_as_file(word: str) -> bool:
    return word.endswith((".yaml", ".yml"))


def _config(command: Command, typed: "TypedWords", operands: _Operands) -> Config:
    """Put defaults, preset, file, files of sections, flags and folder together: the later wins."""
    model: type[Config] = resolve_name(command.config)
    file, folder = operands.file, operands.folder
    values: object = {} if file is None else read_values(file, model)
    if not isinstance(values, dict):
        # Says so in the same terms as everywhere.
        return model.from_mapping(values, source=str(file))
    # Defaults are not put in: validation adds them last, where nothing else says otherwise.
    # A section within a section comes after it.
    for path, name in sorted(typed.sections.items(), key=lambda item: len(item[0])):
        section: type[Config] = model
        for key in path:
            section = dict(sections_of(section))[key]
        file_of_section = config_file(name, KINDS_OF_SECTIONS.get(path[-1], path[-1:]))
        nested: Any = read_section(file_of_section, section)
        for key in reversed(path):
            nested = {key: nested}
        values = merged(values, nested)
    values = merged(values, _fields(typed.values, model))
    if folder is not None:
        values = _with_folder(command, typed, values, operands)
    elif typed.values.get("preset") is not None:
        raise ConfigError("--preset: expected a folder of images beside it, got none")
    return _validated(model, values, typed, file=file)


def _with_folder(
    command: Command, typed: "TypedWords", values: dict[str, Any], operands: _Operands
) -> dict[str, Any]:
    """Return ``values`` for the images of a folder, completed by a preset unless a file is.

    What is wrong with them is said first: a preset counts the images, which takes seconds.
    """
    for key in ("source", "path"):
        if (*_IMAGES, key) in typed.paths:
            flag = flag_name((*_IMAGES, key))
            raise ConfigError(f"{flag}: expected nothing beside {operands.folder}, got a value")
    preset = typed.values.get("preset")
    images: dict[str, Any] = {"source": "folder", "path": str(operands.folder)}
    for key in reversed(_IMAGES):
        images = {key: images}
    values = merged(values, images)
    if operands.file is not None:
        if preset is not None:
            raise ConfigError(f"--preset: expected no file beside it, got {operands.file}")
        return values
    flags = resolve_name(command.flags)
    _validated(flags, _fields(typed.values, flags), typed, file=None)
    _validated(resolve_name(command.config), values, typed, file=None)
    return merged(resolve_name(command.preset)(operands.folder, values, preset), values)


def _validated(
    model: type[ConfigType], values: dict[str, Any], typed: "TypedWords", *, file: Path | None
) -> ConfigType:
    """Validate file and flags together; a problem names the one it is in."""
    try:
        return model.from_plain(values)
    except ValidationError as error:
        problem = first_problem(error, model)
    # Positions in lists are no part of a flag's name.
    path = tuple(part for part in problem.path if isinstance(part, str))
    if file is None or path in typed.paths:
        where = flag_name(path) if path else "command line"
        raise ConfigError(f"{where}: {problem.expectation}")
    # A problem of a whole section, which file and flags have both written to, may be of either.
    is_shared = any(path == flag[: len(path)] for flag in typed.paths)
    raise ConfigError(f"{file}{' and flags' if is_shared else ''}: {problem}")


def _fields(values: Mapping[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key in model.model_fields}


def merged(values: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """Return ``values`` with ``overrides`` put in, section by section."""
    result = dict(values)
    for key, value in overrides.items():
        if not isinstance(value, dict) or key not in result:
            result[key] = value
        elif isinstance(result[key], dict):
            result[key] = merged(result[key], value)
        # Else the file has no section where there should be one, which validation says.
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class TypedWords:
    """The words that were typed after a command, sorted by kind and not yet validated."""

    files: tuple[str, ...]  # words that belong to no flag, in order
    values: dict[str, Any]  # values of flags, nested by their dots
    sections: dict[KeyPath, str]  # files that flags name for sections, by path
    paths: frozenset[KeyPath]  # paths of the flags


@dataclass(frozen=True, slots=True, kw_only=True)
class _Flag:
    path: KeyPath
    kinds: Sequence[Any]
    is_section: bool = False

    @property
    def takes_many(self) -> bool:
        return any(get_origin(kind) is tuple for kind in self.kinds)


def flag_name(path: Sequence[str | int]) -> str:
    """Return the flag of a field, such as ``--task.trainer.batch-size``."""
    return "--" + ".".join(part for part in path if isinstance(part, str)).replace("_", "-")


def read_words(argv: Sequence[str], model: type[BaseModel], *, command: str) -> TypedWords:
    """Sort the words after a command into files and flags, which are the fields of ``model``.

    Raises:
        ConfigError: a flag is unknown, given twice or without a value.
    """
    flags = dict(_flags(model))
    files: list[str] = []
    values: dict[str, Any] = {}
    sections: dict[KeyPath, str] = {}
    paths: set[KeyPath] = set()
    queue = deque(argv)
    while queue:
        word = queue.popleft()
        if not word.startswith("-"):
            files.append(word)
            continue
        name, equals, text = word.partition("=")
        flag, is_negated = _find(name, flags, command)
        if flag.path in paths:
            raise ConfigError(f"{flag_name(flag.path)}: expected once, got twice")
        paths.add(flag.path)
        if equals and is_negated:
            raise ConfigError(f"{name}: expected no value, got {text!r}")
        value: object = not is_negated
        if equals or bool not in flag.kinds:
            texts = [text] if equals else []
            # A list takes every word up to the next flag, and anything else one.
            # A single dash may begin a negative number.
            limit = 0 if equals else len(queue) if flag.takes_many else 1
            while queue and len(texts) < limit and not queue[0].startswith("--"):
                texts.append(queue.popleft())
            value = _value(flag, texts)
        if flag.is_section:
            sections[flag.path] = str(value)
            continue
        # Nested as a file would be: `--task.trainer.epochs` is a value in `trainer` in `task`.
        target = values
        for key in flag.path[:-1]:
            target = target.setdefault(key, {})
        target[flag.path[-1]] = value
    return TypedWords(files=tuple(files), values=values, sections=sections, paths=frozenset(paths))


def _flags(model: type[BaseModel], prefix: KeyPath = ()) -> Iterator[tuple[str, _Flag]]:
    """Yield the flag of every field and section by name."""
    for name, info in model.model_fields.items():
        path, kind = (*prefix, name), info.annotation
        is_section = isinstance(kind, type) and issubclass(kind, BaseModel)
        kinds = [Path] if is_section else alternatives(kind)
        yield flag_name(path), _Flag(path=path, kinds=kinds, is_section=is_section)
        # Tested again for mypy, which does not carry the test over from `is_section`.
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _flags(kind, path)


def _find(name: str, flags: Mapping[str, _Flag], command: str) -> tuple[_Flag, bool]:
    """Return the flag of that name, and whether it says no, as ``--task.data.no-download``."""
    # Underscores, as files have them, are as good as hyphens.
    spelled = name.replace("_", "-")
    if spelled in flags:
        return flags[spelled], False
    section, _, last = spelled.removeprefix("--").rpartition(".")
    positive = flags.get(f"--{section}.{last.removeprefix('no-')}".replace("--.", "--"))
    if last.startswith("no-") and positive and bool in positive.kinds:
        return positive, True
    everywhere = {flag.removeprefix("--").rpartition(".")[2]: flag for flag in flags}
    beside = [flag for flag in flags if flag.removeprefix("--").rpartition(".")[0] == section]
    here = {flag.removeprefix("--").rpartition(".")[2]: flag for flag in beside}
    if message := outdated(last.replace("-", "_"), [end.replace("-", "_") for end in here]):
        raise ConfigError(f"{spelled}: {message.replace('_', '-')}")
    # By the last part, its own section first: a long section makes all of its flags alike.
    for flag_of in (here, everywhere):
        if close := difflib.get_close_matches(last, flag_of, n=1, cutoff=0.7):
            hint = f" (did you mean {flag_of[close[0]]}?)"
            break
    else:
        hint = "; --help all lists them"
    raise ConfigError(f"{command}: expected a known flag, got {name}{hint}")


def _value(flag: _Flag, texts: Sequence[str]) -> object:
    """Read the texts of a flag as a YAML file would, where its type has numbers."""
    if len(texts) == 1 and type(None) in flag.kinds and texts[0].lower() in _NULLS:
        return None
    read = scalar_of if _is_numeric(flag.kinds) else str
    is_list = all(get_origin(kind) is tuple for kind in flag.kinds)
    if is_list or (flag.takes_many and len(texts) > 1):
        return [read(text) for text in texts]
    if not texts:
        raise ConfigError(f"{flag_name(flag.path)}: expected a value, got nothing")
    return read(texts[0])


def _is_numeric(kinds: Iterable[Any]) -> bool:
    """Return whether numbers or truth values are among the leaves of a type."""
    return any(
        any(_is_numeric(alternatives(part)) for part in get_args(kind) if part is not ...)
        if get_origin(kind) is tuple
        else kind in (int, float, bool)
        for kind in kinds
    )


def _leave_with_help(command: Command, argv: Sequence[str], *, everything: bool) -> None:
    """Leave with the help, in which fields have the values that a file gives them."""
    model = every_field(command)
    try:
        typed = read_words(argv, model, command=command.name)
        operands = _split(typed, command)
        # Without the preset of a folder, which counts its images.
        config = _config(command, typed, replace(operands, folder=None))
        default = model.model_validate(config.model_dump())
    except AutoMixError:
        # Help is most needed by those who do not have it right yet.
        default = model()
    if command.first_flags and not everything:
        raise SystemExit(help_text(command, model, default))
    print_all(command, model, default)
