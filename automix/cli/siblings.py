"""Refuses foreign packages that are called as two of ours are."""

import importlib.util
from pathlib import Path

import automix
from automix.errors import AutoMixError

_NAMES = ("agents", "envs")


def check_siblings(names: tuple[str, ...] = _NAMES) -> None:
    """Check, without importing them, that ``envs`` and ``agents`` lie beside ``automix``.

    Other distributions install packages of these names too, such as openai-agents. Theirs would
    fail somewhere in their own imports, with a message that names neither them nor us.

    Raises:
        AutoMixError: one of them is somebody else's, or missing.
    """
    home = Path(automix.__file__).parents[1]
    for name in names:
        found = importlib.util.find_spec(name)
        origin = found.origin if found else None
        if origin is None or Path(origin).parents[1] != home:
            raise AutoMixError(
                f"{name}: expected the package in {home}, got {origin or 'none'}; install AutoMix "
                "into a virtual environment of its own"
            )
