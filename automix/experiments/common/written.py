"""Values of the files of a run: how large, how long, and which of them belong together."""

from typing import Annotated

from pydantic import ConfigDict, Field

from automix.configuration.base import Config

# What lies beyond was measured by nobody, and pictures of it overflow.
Number = Annotated[float, Field(ge=-1e9, le=1e9)]
Positive = Annotated[float, Field(gt=1e-9, le=1e12)]
NotNegative = Annotated[float, Field(ge=0, le=1e12)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0, le=10**12)]
Text = Annotated[str, Field(max_length=2000)]
Names = Annotated[tuple[Text, ...], Field(max_length=1000)]
Fractions = Annotated[tuple[Fraction, ...], Field(min_length=1, max_length=100_000)]


class Written(Config):
    """A part of a file that a run wrote; other keys may be there."""

    model_config = ConfigDict(extra="ignore")


def check_lengths(*parts: tuple[object, ...]) -> None:
    """Raise ValueError unless all parts are of the same length."""
    lengths = [len(part) for part in parts]
    if len(set(lengths)) > 1:
        raise ValueError(f"expected lists of equal length, got {lengths}"[:200])
