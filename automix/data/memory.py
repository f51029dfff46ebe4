"""How much main memory there is, and sizes for people."""

import os
from pathlib import Path

# Where Linux says what a container may use: control groups, version 2 and 1.
_MEMORY_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
_UNITS = ("KiB", "MiB", "GiB", "TiB")


def main_memory() -> int | None:
    """Return the main memory that this process may use, in bytes; None where nobody tells."""
    if not hasattr(os, "sysconf"):
        return None
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for file in _MEMORY_LIMITS:
        try:
            limit = file.read_text(encoding="ascii").strip()
        except OSError:
            continue
        if limit.isdecimal():
            available = min(available, int(limit))
    return available


def format_bytes(count: int) -> str:
    """Return a size in the largest binary unit that it has one of: ``44.0 MiB``, ``22 B``."""
    if count < 1024:
        return f"{count} B"
    power = min((count.bit_length() - 1) // 10, len(_UNITS))
    return f"{count / 1024**power:.1f} {_UNITS[power - 1]}"
