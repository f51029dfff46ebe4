"""Checks of an installation, before a command runs."""

import importlib.util
from pathlib import Path

import automix
from automix.errors import AutoMixError


def check_siblings(names: tuple[str, ...] = ("agents", "envs")) -> None:
    """Check, without importing them, that ``envs`` and ``agents`` lie beside ``automix``.

    Other distributions install packages of these names too, such as openai-agents. Theirs would
    fail somewhere in their own imports, with a message that names neither them nor us.

    Raises:
        AutoMixError: one of them is somebody else's, or missing.
    """
    home = Path(automix.__file__).parents[1]
    for name in names:
        spec = importlib.util.find_spec(name)
        origin = spec.origin if spec else None
        if origin is None or Path(origin).parents[1] != home:
            raise AutoMixError(
                f"{name}: expected the package in {home}, got {origin or 'none'}; install AutoMix "
                "into a virtual environment of its own"
            )
