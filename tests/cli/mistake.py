"""A mistake of a user: what lies in the folder, what is typed, and what is said about it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from automix.operator_info import Operator

# Messages name the last operator of the table.
LAST_OPERATOR = tuple(Operator)[-1].value


@dataclass(frozen=True, slots=True, kw_only=True)
class BadInput:
    """One mistake.

    Attributes:
        name: of the test.
        words: what is typed after ``automix``.
        message: the whole of the one line, or a part of it that starts or ends with "...".
        files: what lies in the folder, by path; None for an empty folder.
        prepare: what else has to be done there.
    """

    name: str
    argv: str
    message: str
    files: Mapping[str, str | bytes | None] = field(default_factory=dict)
    prepare: Callable[[Path], None] | None = None


def bad_words(name: str, argv: str, message: str) -> BadInput:
    return BadInput(name=f"words: {name}", argv=argv, message=message)
