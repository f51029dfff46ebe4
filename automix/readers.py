"""Bytes, text and JSON of files that may come from anybody; every reader begins here.

What is no regular file, is too large, too deep or holds too many values is refused before it is
read or parsed, and whatever a parser raises becomes one line: ``where: expected ..., got ...``.
"""

import contextlib
import io
import json
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from automix.errors import AutoMixError, CheckpointError

MAX_JSON_BYTES = 32_000_000
# An empty list takes 2 bytes of text and 64 of memory: without this limit, a file of the limit
# above would become a gigabyte.
MAX_VALUES = 1_000_000
# Files of ours have at most 8 levels. Python's reader ends at about 1000, with RecursionError.
MAX_LEVELS = 50

_OTHER_KINDS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISDIR, "is a directory"),
    (stat.S_ISFIFO, "is a pipe"),
    (stat.S_ISSOCK, "is a socket"),
)
# Text in quotes, which may hold brackets that nest nothing, or a bracket.
_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)
# What a number of text needs to be infinity as a double: 1e999, or 309 digits and more.
_PERHAPS_INFINITE = re.compile(r"[eE]\+?[0-9]{3}|[0-9]{300}")


@contextlib.contextmanager
def open_regular(
    path: Path, *, limit: int, error: type[AutoMixError] = CheckpointError
) -> Iterator[io.BufferedReader]:
    """Open a regular file of at most ``limit`` bytes for reading, for a block.

    Raises:
        AutoMixError: of the class ``error``; the file is missing, larger, cannot be read, or is a
            folder, a pipe, a socket or a device.
    """
    try:
        # To open a pipe waits for somebody who writes to it, for ever. Windows has no such flag.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(path, flags), "rb") as stream:
            facts = os.fstat(stream.fileno())
            if not stat.S_ISREG(facts.st_mode):
                kinds = (name for is_kind, name in _OTHER_KINDS if is_kind(facts.st_mode))
                raise error(f"{path}: expected a readable file, got: {next(kinds, 'is a device')}")
            if facts.st_size > limit:
                raise error(f"{path}: expected at most {limit} bytes, got {facts.st_size}")
            yield stream
    except OSError as cause:
        reason = (cause.strerror or str(cause)).lower()
        raise error(f"{path}: expected a readable file, got: {reason}") from None
    except ValueError as cause:
        if "null" not in str(cause):
            raise
        raise error(f"{str(path)!r}: expected the name of a file, got: {cause}") from None


def read_bytes(path: Path, *, limit: int, error: type[AutoMixError] = CheckpointError) -> bytes:
    """Return the content of a regular file of at most ``limit`` bytes; see `open_regular`."""
    with open_regular(path, limit=limit, error=error) as stream:
        # Not to the end: others may be writing to it, faster than we read.
        return stream.read(os.fstat(stream.fileno()).st_size)


def read_text(path: Path, *, limit: int, error: type[AutoMixError] = CheckpointError) -> str:
    """Return the content of a UTF-8 file, without a byte order mark; see `open_regular`."""
    content = read_bytes(path, limit=limit, error=error)
    try:
        # Editors on Windows write a byte order mark.
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as cause:
        raise error(
            f"{path}: expected UTF-8 text, got the byte {content[cause.start]:#04x} "
            f"at position {cause.start}"
        ) from None


def read_json(
    path: Path,
    *,
    limit: int = MAX_JSON_BYTES,
    error: type[AutoMixError] = CheckpointError,
) -> dict[str, Any]:
    """Return the object in a JSON file, as every reader would read it; see `parse_json`."""
    text = read_text(path, limit=limit, error=error)
    content = parse_json(text, source=str(path), error=error)
    if not isinstance(content, dict):
        raise error(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content


def parse_json(text: str, *, source: str, error: type[AutoMixError], expected: str = "JSON") -> Any:
    """Return what JSON text says, where every reader would read the same.

    Raises:
        AutoMixError: of the class ``error``: it is not JSON, is nested more than `MAX_LEVELS` deep,
            or holds more than `MAX_VALUES` values, a key twice, NaN or infinity.
    """
    with parsing(source, expected, error=error):
        _check_size(text)
        # Python's reader keeps the last of equal keys and accepts NaN and Infinity; other readers
        # do not, so both are refused.
        return json.loads(
            text,
            object_pairs_hook=_refuse_duplicates,
            parse_constant=_refuse_constant,
            # A function per number would take most of the time.
            parse_float=_finite if _PERHAPS_INFINITE.search(text) else None,
        )


@contextlib.contextmanager
def parsing(
    source: str, expected: str, *, error: type[AutoMixError] = CheckpointError
) -> Iterator[None]:
    """Turn whatever a parser raises in the block into "source: expected ..., got: ..."."""
    try:
        yield
    except AutoMixError:
        raise
    # Parsers raise what their parts raise (OverflowError, struct.error, MemoryError, ...): a list
    # of kinds was never complete.
    except Exception as cause:
        reason = next(iter(str(cause).splitlines()), "") or type(cause).__name__
        raise error(f"{source}: expected {expected}, got: {reason}") from None


def _check_size(text: str) -> None:
    """Refuse too many values and too many levels, by counting: nothing is parsed."""
    # At least as many as there are: some of the commas may be text.
    num_opened = text.count("[") + text.count("{")
    if (num_values := num_opened + text.count(",")) > MAX_VALUES:
        raise ValueError(f"{num_values} values, more than {MAX_VALUES}")
    if num_opened <= MAX_LEVELS:
        return
    level = 0
    for match in _BRACKET.finditer(text):
        bracket = match[0]
        level += (bracket in "[{") - (bracket in "]}")
        if level > MAX_LEVELS:
            raise ValueError(f"more than {MAX_LEVELS} levels of nesting")


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        [(key, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {key!r} is given twice")
    return result


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name}, which is not a number")


def _finite(digits: str) -> float:
    # 1e999 is a number to JSON, and infinity to Python.
    if (value := float(digits)) in (float("inf"), float("-inf")):
        raise ValueError(f"{digits}, which is too large")
    return value
