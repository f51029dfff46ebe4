"""Networks of the user: built by a function that the configuration names."""

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from automix.configuration.base import shown
from automix.errors import ConfigError

_FIELD = "task.model.factory"


def network_of_factory(
    factory: str,
    *,
    num_classes: int,
    channels: int,
    image_size: tuple[int, int] | None,
) -> nn.Module:
    """Import the function that ``factory`` names, ``package.module:function``, and call it.

    It is called with ``num_classes=``, and with ``in_channels=`` and ``image_size=``, (rows,
    columns), where its signature takes them. Modules in the current folder are found last.

    Raises:
        ConfigError: there is no such function, it raises, or what it returns is no network.
    """
    function = _imported(factory)
    offered = {"num_classes": num_classes, "in_channels": channels, "image_size": image_size}
    arguments = _taken(factory, function, offered)
    try:
        network = function(**arguments)
    # Whatever the code of the user raises.
    except Exception as error:
        call = ", ".join(f"{name}={value}" for name, value in arguments.items())
        raise ConfigError(
            f"{_FIELD}: expected {factory}({call}) to return a network, got {_in_words(error)}"
        ) from error
    if not isinstance(network, nn.Module):
        raise ConfigError(
            f"{_FIELD}: expected {factory} to return a torch.nn.Module, got a "
            f"{type(network).__name__}"
        )
    if next(network.parameters(), None) is None:
        raise ConfigError(f"{_FIELD}: expected a network with parameters, got one without")
    return network


def _imported(factory: str) -> Callable[..., object]:
    module_name, _, path = factory.partition(":")
    # As `python -m` would find it; last, so that a file here replaces no installed package. It
    # stays there: a network may import its parts when it is built.
    if (here := str(Path.cwd())) not in sys.path and "" not in sys.path:
        sys.path.append(here)
    try:
        value: Any = importlib.import_module(module_name)
    except Exception as error:
        raise ConfigError(
            f"{_FIELD}: expected a module {module_name!r} that can be imported, got "
            f"{_in_words(error)}"
        ) from error
    for name in path.split("."):
        if not hasattr(value, name):
            raise ConfigError(
                f"{_FIELD}: expected a function {path!r} in the module {module_name!r}, got none"
            )
        value = getattr(value, name)
    if not callable(value):
        raise ConfigError(
            f"{_FIELD}: expected {factory} to be a function, got a {type(value).__name__}"
        )
    function: Callable[..., object] = value
    return function


def _taken(
    factory: str, function: Callable[..., object], offered: Mapping[str, object]
) -> dict[str, object]:
    """Return the arguments that the function has names for."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        # Some callables of C have no signature.
        return {"num_classes": offered["num_classes"]}
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    names = {parameter.name for parameter in parameters if parameter.kind in by_name}
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
    if "num_classes" not in names and not takes_any:
        raise ConfigError(
            f"{_FIELD}: expected a function that takes num_classes, got {factory} with "
            f"{shown(', '.join(parameter.name for parameter in parameters) or 'no parameters')}"
        )
    # Of a function that takes anything, only what every classifier needs to know.
    return {key: value for key, value in offered.items() if key in names | {"num_classes"}}


def _in_words(error: Exception) -> str:
    line = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__}: {line}" if line else type(error).__name__
