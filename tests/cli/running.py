"""Running a command in this process, and seeing what it did."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel
from pydantic.fields import FieldInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Exit code and output of a command."""

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


def leaves(
    model: type[BaseModel], prefix: Sequence[str] = ()
) -> Iterator[tuple[Sequence[str], FieldInfo]]:
    """Yield every field that holds no other fields, with its path."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from leaves(field.annotation, (*prefix, name))
        else:
            yield (*prefix, name), field
