"""Words of a command line: files, and flags as the nested mapping a file would hold.

A flag is the path of a key: ``--task.trainer.epochs 10`` is ``task: {trainer: {epochs: 10}}``, and
a value reads as it would in the file. A mistake is then the same wherever it is made. A section
may come from a file of its own: ``--task.trainer FILE.yaml``.
"""

import difflib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from automix.errors import ConfigError
from automix.messages import alternatives
from automix.plain_yaml import scalar_of

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
    for name, field in model.model_fields.items():
        annotation = field.annotation
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
