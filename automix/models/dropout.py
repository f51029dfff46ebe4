"""Rates of dropout and stochastic depth of the networks of torchvision and timm."""

from torch import nn

from automix.configuration.task import ModelConfig
from automix.errors import ConfigError

_TIMM = {"dropout": "drop_rate", "drop_path": "drop_path_rate"}


def set_drop_rates_(model: nn.Module, config: ModelConfig) -> None:
    """Set the rates that ``config`` gives, in place, in a network of torchvision.

    Its builders have no common option, and some ignore one that they do not know.

    Raises:
        ConfigError: the network has nothing of the kind.
    """
    # Imported by whoever built the model.
    from torchvision.ops import StochasticDepth  # noqa: PLC0415

    if config.dropout is not None:
        layers = [part for part in model.modules() if isinstance(part, nn.Dropout)]
        if not layers:
            raise _without(config, "dropout")
        for layer in layers:
            layer.p = config.dropout
    if config.drop_path is not None:
        depths = [part for part in model.modules() if isinstance(part, StochasticDepth)]
        if not depths:
            raise _without(config, "drop_path")
        # Block l of L is left out with probability p l / L (https://arxiv.org/abs/1603.09382),
        # counted from 0 as in timm.
        for number, depth in enumerate(depths):
            depth.p = config.drop_path * (number / max(len(depths) - 1, 1))


def timm_drop_rates(config: ModelConfig) -> dict[str, float]:
    """Return the rates that ``config`` gives, as arguments of `timm.create_model`."""
    rates = {option: getattr(config, field) for field, option in _TIMM.items()}
    return {option: rate for option, rate in rates.items() if rate is not None}


def refused_drop_rate(config: ModelConfig, error: TypeError) -> Exception:
    """Return the error of a rate that timm's network does not take, or another error itself."""
    refused = [field for field, option in _TIMM.items() if f"'{option}'" in str(error)]
    return _without(config, refused[0]) if refused else error


def _without(config: ModelConfig, field: str) -> ConfigError:
    return ConfigError(
        f"task.model.{field}: expected nothing with {config.name!r}, which has none, "
        f"got {getattr(config, field):g}"
    )
