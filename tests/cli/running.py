"""Running a command in this process, and seeing what it did."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a command did."""

    code: int
    out: str
    err: str


RunCommand = Callable[..., Outcome]


def listing(folder: Path) -> dict[str, bytes | None]:
    """Return every path below ``folder`` with its content."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }
