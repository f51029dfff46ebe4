"""Files of a run, compared with the SHA-256 that it noted when it wrote them."""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import Field

from automix.configuration.base import Config
from automix.errors import CheckpointError, ConfigError
from automix.files import sha256_of, sha256_of_file, write_bytes, write_json

SUMS_NAME = "sums.json"
"""The sums of the files of a run, and one of all of them."""

# Stands for a file that is not there yet.
_ABSENT = ""
_LOG_SUFFIX = ".jsonl"
# About 2 s. The sums of a folder from others may name what takes minutes; larger files of ours,
# weights of 500 million parameters, have no sum.
_MAX_VERIFIED = 2_000_000_000


class _SumsFile(Config):
    """The file of sums."""

    files: dict[str, list[str]] = Field(default_factory=dict)
    again: list[str] = Field(default_factory=list)
    sum: str = ""


@dataclass(frozen=True, slots=True)
class _Sums:
    """Sums that each file may have, by name, and the files that can be written again."""

    files: dict[str, list[str]] = field(default_factory=dict)
    again: frozenset[str] = frozenset()

    @property
    def sum(self) -> str:
        content = [self.files, sorted(self.again)] if self.again else self.files
        return sha256_of(json.dumps(content, sort_keys=True).encode())


def keep(folder: Path, name: str, content: bytes, *, again: bool = False) -> None:
    """Write a file of the run in ``folder`` atomically, and note its sum.

    One process at a time may keep files in a folder: the one that holds its lock. ``again``: the
    run can write it again, where it is damaged.
    """
    sums = _read(folder)
    path = folder / name
    before = _sum_of(path) if name in sums.files else _ABSENT
    kinds = sums.again | {name} if again else sums.again - {name}
    # Both are right in between: a process that is killed there leaves the old file or the new one.
    _write(folder, _Sums(sums.files | {name: [before, sha256_of(content)]}, kinds))
    write_bytes(path, content)
    _write(folder, _Sums(sums.files | {name: [sha256_of(content)]}, kinds))


def keep_json(folder: Path, name: str, content: Any, *, again: bool = False) -> None:
    """Write ``content`` as indented JSON, see `keep`."""
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    keep(folder, name, text.encode(), again=again)


def note_outputs(folder: Path, names: Iterable[str]) -> None:
    """Note the sums of the logs of a finished run, and of those of its outputs that are there."""
    logs = (path.name for path in folder.glob(f"*{_LOG_SUFFIX}"))
    outputs = {name: [_sum_of(folder / name)] for name in (*logs, *names)}
    outputs = {name: sums for name, sums in outputs.items() if sums != [_ABSENT]}
    sums = _read(folder)
    _write(folder, _Sums(sums.files | outputs, sums.again | outputs.keys()))


def damaged_output(folder: Path) -> str | None:
    """Return which file that can be written again is not as the run left it, if any.

    A file without a sum, such as a log that still grows, is taken as it is.
    """
    sums = _read(folder)
    return next(
        (name for name in sums.files if name in sums.again and _differs(folder, name, sums)), None
    )


def check_kept(folder: Path) -> None:
    """Compare the files that cannot be written again with their sums.

    A folder without sums, such as one that was copied in part, is taken as it is.

    Raises:
        CheckpointError: a file is missing or not as it was written.
    """
    sums = _read(folder)
    _check(folder, sums, sums.files.keys() - sums.again, "or begin anew in an empty folder")


def check_whole(folder: Path) -> None:
    """Compare all files of a run that are there with their sums, before its results are used.

    A copy may lack some: who needs them says so.

    Raises:
        CheckpointError: a file is not as it was written.
    """
    sums = _read(folder)
    names = [name for name in sums.files if _is_there(folder / name)]
    _check(folder, sums, names, f"or remove {SUMS_NAME} to use it unverified")


def with_sum(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a JSON file, with a sum of them."""
    return {**content, "sum": sha256_of(json.dumps(content).encode())}


def without_sum(content: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what `with_sum` took, or None where it was changed; files may lack a sum."""
    values = {key: value for key, value in content.items() if key != "sum"}
    return values if content in (values, with_sum(values)) else None


def _check(folder: Path, sums: _Sums, names: Iterable[str], otherwise: str) -> None:
    for name in sorted(names):
        if _differs(folder, name, sums):
            content = "another or a damaged one" if _sum_of(folder / name) else "nothing there"
            raise CheckpointError(
                f"{folder / name}: expected the file that this run wrote, got {content}; put it "
                f"back, {otherwise}"
            )


def _differs(folder: Path, name: str, sums: _Sums) -> bool:
    return _sum_of(folder / name) not in sums.files[name]


def _sum_of(path: Path) -> str:
    try:
        return sha256_of_file(path, limit=_MAX_VERIFIED)
    except CheckpointError:
        return _ABSENT


def _read(folder: Path) -> _Sums:
    path = folder / SUMS_NAME
    if not path.exists():
        return _Sums()
    try:
        content = _SumsFile.from_json_file(path)
    except (CheckpointError, ConfigError):
        content = _SumsFile()
    sums = _Sums(content.files, frozenset(content.again))
    is_whole = content.sum == sums.sum and content.again == sorted(sums.again)
    if not is_whole or not all(map(_is_inside, sums.files)):
        raise CheckpointError(
            f"{path}: expected the sums of the files of this run, got a damaged file; without it, "
            "the run is used unverified"
        )
    return sums


def _is_there(path: Path) -> bool:
    """Return whether something of at most a few seconds of hashing is there."""
    return os.path.lexists(path) and (not path.exists() or path.stat().st_size <= _MAX_VERIFIED)


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts


def _write(folder: Path, sums: _Sums) -> None:
    write_json(
        folder / SUMS_NAME,
        {"files": sums.files, "again": sorted(sums.again), "sum": sums.sum},
    )
