"""AutoMix learns how to mix training images.

`Schedule`, `ScheduledMix`, `search` and `recommend` are here, imported when they are first used;
importing this package alone imports nothing heavy. The rest is in its modules, for example
``from automix.operators import mix``.

Example:
    >>> import automix
    >>> automix.recommend().mixture_at(1.0).label()
    'none'
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from automix.experiments.functions import recommend, search
    from automix.integrations import ScheduledMix
    from automix.schedule import Schedule

__version__ = "0.1.0"
__all__ = ["Schedule", "ScheduledMix", "recommend", "search"]

_MODULES = {
    "Schedule": "automix.schedule",
    "ScheduledMix": "automix.integrations",
    "recommend": "automix.experiments.functions",
    "search": "automix.experiments.functions",
}


# Hidden from type checkers, for which a name that is not above is an error.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Import a public name when it is first used (PEP 562)."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        # Here: `automix --help` has no use for it.
        import importlib  # noqa: PLC0415

        value: object = getattr(importlib.import_module(_MODULES[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
