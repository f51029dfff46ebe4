"""How numbers are written, and which way they are better."""

import math
from enum import StrEnum


class Direction(StrEnum):
    """Which way a number is better."""

    LOWER = "lower"
    HIGHER = "higher"

    @property
    def sign(self) -> int:
        """Return what numbers are multiplied with so that more is better: 1 or -1."""
        return 1 if self is Direction.HIGHER else -1


def number_text(value: float, *, digits: int = 3) -> str:
    """Return ``value`` with ``digits`` significant digits, never in exponent form below 10^6."""
    if not math.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(value)))
    if not -5 < magnitude < 6:
        return f"{value:.{digits - 1}e}"
    return f"{value:.{max(0, digits - 1 - magnitude)}f}"


def duration_unit(seconds: float) -> tuple[str, float]:
    """Return the unit a reader would choose for a duration, and its length in seconds."""
    for unit, length in (("days", 86_400.0), ("h", 3600.0), ("min", 60.0)):
        # Below two units the smaller unit reads better: 90 min, not 1.5 h.
        if seconds >= 2 * length:
            return unit, length
    return ("s", 1.0) if seconds >= 1 or seconds == 0 else ("ms", 0.001)


def duration_text(seconds: float) -> str:
    """Return a duration such as ``850 ms``, ``12 s`` or ``6.9 min``."""
    if seconds < 0 or not math.isfinite(seconds):
        raise ValueError(f"expected a duration in seconds, at least 0, got {seconds}")
    unit, length = duration_unit(seconds)
    return f"{number_text(seconds / length, digits=2)} {unit}"
