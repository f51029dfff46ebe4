"""Classifiers by name."""

import difflib
from pathlib import Path
from typing import Any

import torch
from torch import Generator, nn

from automix.errors import ConfigError, MissingExtraError
from automix.messages import shown
from automix.models.config import (
    LIBRARY,
    PREACT_RESNET,
    RESNET,
    RESNEXT,
    WIDE_RESNET,
    ModelConfig,
)
from automix.models.initialisation import (
    copy_values_,
    drawn_seed,
    global_generator_seeded,
    initialise_,
)
from automix.models.resnet import preact_resnet, resnet
from automix.models.resnext import resnext
from automix.models.small_cnn import small_cnn
from automix.models.weights import (
    copy_weights_,
    download_errors,
    load_weights_,
    torchvision_weights,
)
from automix.models.wide_resnet import wide_resnet

# These two return a tuple in train mode unless told not to.
_WITH_AUXILIARY_HEADS = ("googlenet", "inception_v3")


def build_model(
    config: ModelConfig, *, num_classes: int, channels: int, generator: Generator
) -> nn.Module:
    """Return a newly initialised classifier on the CPU: (B, channels, H, W) to (B, num_classes).

    Its weights are random, those of a file, or the library's pretrained ones; with the latter
    two, a head of another number of classes is random still.

    The networks of this package take any H and W; those of torchvision and timm take what
    their libraries allow (vision transformers: one size only) and are initialised by them.

    Args:
        config: the name, and the width where the family has one.
        num_classes: length of the logits, at least 1.
        channels: of the images, at least 1.
        generator: gives the initial values and is advanced; the global generators are neither
            read nor advanced.

    Raises:
        ConfigError: the library has no classifier of this name.
        CheckpointError: the weights cannot be read or downloaded, or belong to another network.
        MissingExtraError: a timm name, and timm is not installed.
        ValueError: ``num_classes`` or ``channels`` is below 1.
    """
    if num_classes < 1 or channels < 1:
        raise ValueError(
            f"expected at least 1 class and 1 channel, got {num_classes} and {channels}"
        )
    if library := LIBRARY.fullmatch(config.name):
        build = _torchvision_model if library[1] == "torchvision" else _timm_model
        is_pretrained = config.weights == "pretrained"
        with global_generator_seeded(drawn_seed(generator)), torch.device("cpu"):
            model = build(library[2], num_classes, channels, is_pretrained)
    else:
        with global_generator_seeded(0), torch.device("cpu"):
            model = _own_model(config, {"channels": channels, "num_classes": num_classes})
        initialise_(model, generator)
    if isinstance(config.weights, Path):
        load_weights_(model, config.weights)
    return model


def reinitialise_(
    model: nn.Module,
    config: ModelConfig,
    *,
    num_classes: int,
    channels: int,
    generator: Generator,
) -> None:
    """Give ``model`` the values that `build_model` would give it, in place, on its device.

    Args:
        model: what `build_model` returned for the other arguments, wherever it is now.
        config: as it was built with.
        num_classes: as it was built with.
        channels: as it was built with.
        generator: as in `build_model`: the same state gives the same values, bit for bit.
    """
    if LIBRARY.fullmatch(config.name):
        fresh = build_model(config, num_classes=num_classes, channels=channels, generator=generator)
        copy_values_(model, fresh)
        return
    initialise_(model, generator)
    if isinstance(config.weights, Path):
        load_weights_(model, config.weights)


def _own_model(config: ModelConfig, shape: dict[str, int]) -> nn.Module:
    width = {} if config.width is None else {"width": config.width}
    name = config.name
    if match := RESNET.fullmatch(name):
        return resnet(int(match[1]), **shape, **width)
    if match := PREACT_RESNET.fullmatch(name):
        return preact_resnet(int(match[1]), **shape, **width)
    if match := WIDE_RESNET.fullmatch(name):
        return wide_resnet(int(match[1]), int(match[2]), **shape)
    if match := RESNEXT.fullmatch(name):
        return resnext(int(match[1]), int(match[2]), int(match[3]), **shape)
    return small_cnn(**shape, **width)


def _torchvision_model(
    name: str, num_classes: int, channels: int, is_pretrained: bool
) -> nn.Module:
    # Importing it loads torch's compiler: 2 of the 5 seconds that every command would take.
    import torchvision  # noqa: PLC0415

    names = torchvision.models.list_models(module=torchvision.models)
    if name not in names:
        raise _unknown("torchvision", name, names)
    options: dict[str, Any] = {}
    if name in _WITH_AUXILIARY_HEADS:
        options = {"aux_logits": False, "init_weights": True}
    model: nn.Module = torchvision.models.get_model(
        name, weights=None, num_classes=num_classes, **options
    )
    if channels != 3:
        _replace_first_convolution(model, channels)
    if is_pretrained:
        weights = torchvision_weights(name)
        copy_weights_(model, weights, source=f"the pretrained torchvision/{name}")
    return model


def _replace_first_convolution(model: nn.Module, channels: int) -> None:
    """Torchvision has no option for the image channels: put in a convolution with as many."""
    for path, part in model.named_modules():
        if isinstance(part, nn.Conv2d):
            parent, _, name = path.rpartition(".")
            fresh = nn.Conv2d(
                channels,
                part.out_channels,
                part.kernel_size,  # type: ignore[arg-type]  # a tuple of two, typed as any tuple
                stride=part.stride,  # type: ignore[arg-type]
                padding=part.padding,  # type: ignore[arg-type]
                bias=part.bias is not None,
            )
            # As torchvision initialises its first convolutions.
            nn.init.kaiming_normal_(fresh.weight, mode="fan_out", nonlinearity="relu")
            setattr(model.get_submodule(parent), name, fresh)
            return


def _timm_model(name: str, num_classes: int, channels: int, is_pretrained: bool) -> nn.Module:
    try:
        import timm  # noqa: PLC0415  # an extra
    except ImportError:
        raise MissingExtraError(
            f"model.name: expected the extra timm for 'timm/{name}' (pip install 'automix[timm]'), "
            "got an installation without it"
        ) from None
    names = timm.list_models()
    if name not in names:
        raise _unknown("timm", name, names)
    with download_errors(f"timm/{name}"):
        model: nn.Module = timm.create_model(
            name, pretrained=is_pretrained, num_classes=num_classes, in_chans=channels
        )
    return model


def _unknown(library: str, name: str, names: list[str]) -> ConfigError:
    close = difflib.get_close_matches(name, names, n=1)
    hint = f" (did you mean '{library}/{close[0]}'?)" if close else ""
    return ConfigError(
        f"model.name: expected one of the {len(names)} classifiers of {library}, "
        f"got {shown(f'{library}/{name}')}{hint}"
    )
