"""Files that a run is resumed from, compared with the SHA-256 that it noted when it wrote them."""

import json
from pathlib import Path
from typing import Any

from automix.errors import CheckpointError
from automix.files import sha256_of, write_bytes, write_json
from automix.readers import read_bytes, read_json
from automix.tensor_files import MAX_TENSOR_BYTES

SUMS_NAME = "sums.json"
"""The sums of the files of a run, and one of all of them."""

# Stands for a file that is not there yet.
_ABSENT = ""
_LOG_SUFFIX = ".jsonl"


def keep(folder: Path, name: str, content: bytes) -> None:
    """Write a file of the run in ``folder`` atomically, and note its sum.

    One process at a time may keep files in a folder: the one that holds its lock.
    """
    sums = _read(folder)
    path = folder / name
    before = _sum_of(path) if name in sums else _ABSENT
    # Both are right in between: a process that is killed there leaves the old file or the new one.
    _write(folder, sums | {name: [before, sha256_of(content)]})
    write_bytes(path, content)
    _write(folder, sums | {name: [sha256_of(content)]})


def keep_json(folder: Path, name: str, content: Any) -> None:
    """Write ``content`` as indented JSON, see `keep`."""
    keep(folder, name, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def note_logs(folder: Path) -> None:
    """Note the sums of the logs of a finished run."""
    logs = {path.name: [_sum_of(path)] for path in folder.glob(f"*{_LOG_SUFFIX}")}
    if logs:
        _write(folder, _read(folder) | logs)


def damaged_end(folder: Path, result: str) -> str | None:
    """Return which of ``result`` and the logs is not as a finished run left it, if any.

    A file without a sum, such as a log that still grows, is taken as it is.
    """
    for name, sums in _read(folder).items():
        is_of_end = name == result or name.endswith(_LOG_SUFFIX)
        if is_of_end and _sum_of(folder / name) not in sums:
            return name
    return None


def check_kept(folder: Path, *, besides: str) -> None:
    """Compare all files but ``besides`` and the logs, which can be written again, with their sums.

    A folder without sums, such as one that was copied in part, is taken as it is.

    Raises:
        CheckpointError: a file is missing or not as it was written.
    """
    for name, sums in _read(folder).items():
        actual = _sum_of(folder / name)
        is_checked = name != besides and not name.endswith(_LOG_SUFFIX)
        if is_checked and actual not in sums:
            content = "another or a damaged one" if actual else "nothing there"
            raise CheckpointError(
                f"{folder / name}: expected the file that this run wrote, got {content}; put it "
                "back, or begin anew in an empty folder"
            )


def _sum_of(path: Path) -> str:
    try:
        return sha256_of(read_bytes(path, limit=MAX_TENSOR_BYTES))
    except CheckpointError:
        return _ABSENT


def _read(folder: Path) -> dict[str, list[str]]:
    path = folder / SUMS_NAME
    if not path.exists():
        return {}
    try:
        content = read_json(path)
    except CheckpointError:
        content = {}
    sums: dict[str, list[str]] = content.get("files", {})
    if content.get("sum") != _sum(sums):
        raise CheckpointError(
            f"{path}: expected the sums of the files of this run, got a damaged file; without it, "
            "the run is resumed unverified"
        )
    return sums


def _write(folder: Path, sums: dict[str, list[str]]) -> None:
    write_json(folder / SUMS_NAME, {"files": sums, "sum": _sum(sums)})


def _sum(sums: dict[str, list[str]]) -> str:
    return sha256_of(json.dumps(sums, sort_keys=True).encode())
