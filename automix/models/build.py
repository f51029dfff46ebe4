"""Classifiers by name, initialized in place from a generator or from a weights file.

Building comes first, then weights of files and downloads, then initialization.
"""

import copy
import difflib
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Generator, Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.module import register_module_parameter_registration_hook

from automix.configuration.base import shown
from automix.configuration.task import (
    LIBRARY,
    PREACT_RESNET,
    RESNET,
    RESNEXT,
    WIDE_RESNET,
    ModelConfig,
)
from automix.errors import CheckpointError, ConfigError, MissingExtraError
from automix.models.dropout import refused_drop_rate, set_drop_rates_, timm_drop_rates
from automix.models.factory import network_of_factory
from automix.models.networks import preact_resnet, resnet, resnext, small_cnn, wide_resnet
from automix.random_streams import restored_generators
from automix.tensor_files import read_any_weights

_LOG = logging.getLogger(__name__)
# These two return a tuple in train mode unless told not to.
_WITH_AUXILIARY_HEADS = ("googlenet", "inception_v3")
# Where training scripts put the network among other things.
_NESTED_UNDER = ("model", "state_dict")
# The heads that GoogLeNet and Inception have for training from scratch.
_PARTS_LEFT_OUT = ("aux1.", "aux2.", "AuxLogits.")
_WITHOUT_DRAWS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


def build_model(
    config: ModelConfig,
    *,
    num_classes: int,
    channels: int,
    generator: Generator,
    image_size: tuple[int, int] | None = None,
) -> nn.Module:
    """Return a newly initialized classifier on the CPU: (B, channels, H, W) to (B, num_classes).

    Its weights are random, those of a file, or the library's pretrained ones; with the latter
    two, a head of another number of classes is random still.

    The networks of this package take any H and W; those of torchvision and timm take what
    their libraries allow (vision transformers: one size only) and are initialized by them, as the
    networks of a factory are by it.

    Args:
        config: the name, and the width where the family has one.
        num_classes: length of the logits, at least 1.
        channels: of the images, at least 1.
        generator: gives the initial values and is advanced; the global generators are neither
            read nor advanced.
        image_size: rows and columns, for networks that are built for one size.

    Raises:
        ConfigError: the library has no classifier of this name, or the factory gives no network.
        CheckpointError: the weights cannot be read or downloaded, or belong to another network.
        MissingExtraError: a timm name, and timm is not installed.
        ValueError: ``num_classes`` or ``channels`` is below 1.
    """
    if num_classes < 1 or channels < 1:
        raise ValueError(
            f"expected at least 1 class and 1 channel, got {num_classes} and {channels}"
        )
    shape = _Shape(num_classes, channels, image_size)
    if _is_foreign(config):
        # Libraries, and networks of the user, draw from the global generator.
        with global_generator_seeded(drawn_seed(generator)), torch.device("cpu"):
            model = _foreign_model(config, shape, config.weights == "pretrained")
    else:
        # Modules draw while they are built; those values are replaced by `initialize_`.
        with global_generator_seeded(0), torch.device("cpu"):
            model = _own_model(config, {"channels": channels, "num_classes": num_classes})
        initialize_(model, generator)
    if isinstance(config.weights, Path):
        copy_weights_(model, _read(config.weights), source=str(config.weights))
    return model


class _Shape(NamedTuple):
    num_classes: int
    channels: int
    image_size: tuple[int, int] | None


def _is_foreign(config: ModelConfig) -> bool:
    """Whether a network is built and initialized by other code than that of this package."""
    return config.factory is not None or LIBRARY.fullmatch(config.name) is not None


def _foreign_model(config: ModelConfig, shape: _Shape, is_pretrained: bool) -> nn.Module:
    if config.factory is not None:
        return network_of_factory(
            config.factory,
            num_classes=shape.num_classes,
            channels=shape.channels,
            image_size=shape.image_size,
        )
    library = LIBRARY.fullmatch(config.name)
    assert library is not None
    build = _torchvision_model if library[1] == "torchvision" else _timm_model
    return build(library[2], shape, is_pretrained, config)


def shapes_of_model(
    config: ModelConfig,
    *,
    num_classes: int,
    channels: int,
    image_size: tuple[int, int] | None = None,
) -> Mapping[str, Tensor]:
    """Return the state of the network that `build_model` would build, without its memory.

    Parameters are on the meta device. Whether weights from elsewhere fit is known from them before
    a network is built, whose size somebody else may have chosen.

    Raises:
        ConfigError: the library has no classifier of this name, or the factory gives no network.
        MissingExtraError: a timm name, and timm is not installed.
    """
    if _is_foreign(config):
        # Libraries compute with small tensors while they build, which the meta device cannot.
        # What a parameter is created as has no values yet, and so takes no memory either.
        hook = register_module_parameter_registration_hook(_to_meta)  # type: ignore[arg-type]
        try:
            with global_generator_seeded(0), torch.device("cpu"):
                shape = _Shape(num_classes, channels, image_size)
                return _foreign_model(config, shape, False).state_dict()
        finally:
            hook.remove()
    with torch.device("meta"):
        own_shape = {"channels": channels, "num_classes": num_classes}
        return _own_model(config, own_shape).state_dict()


def _to_meta(module: nn.Module, name: str, parameter: nn.Parameter) -> nn.Parameter:
    return nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad)


def reinitialize_(
    model: nn.Module,
    config: ModelConfig,
    *,
    num_classes: int,
    channels: int,
    generator: Generator,
    image_size: tuple[int, int] | None = None,
) -> None:
    """Give ``model`` the values that `build_model` would give it, in place, on its device.

    The arguments are those that ``model`` was built with; it may have been moved since. The same
    state of the generator gives the same values, bit for bit.
    """
    # Foreign networks initialize themselves while they are built: build another and copy.
    if _is_foreign(config):
        fresh = build_model(
            config,
            num_classes=num_classes,
            channels=channels,
            generator=generator,
            image_size=image_size,
        )
        copy_values_(model, fresh)
        return
    initialize_(model, generator)
    if isinstance(config.weights, Path):
        copy_weights_(model, _read(config.weights), source=str(config.weights))


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
    name: str, shape: _Shape, is_pretrained: bool, config: ModelConfig
) -> nn.Module:
    # Importing it loads torch's compiler: 2 of the 5 seconds that every command would take.
    import torchvision  # noqa: PLC0415

    names = torchvision.models.list_models(module=torchvision.models)
    if name not in names:
        raise _unknown("torchvision", name, names)
    options: dict[str, Any] = {"weights": None, "num_classes": shape.num_classes}
    if name in _WITH_AUXILIARY_HEADS:
        options |= {"aux_logits": False, "init_weights": True}
    model: nn.Module = torchvision.models.get_model(name, **options)
    if shape.channels != 3:
        _replace_first_convolution(model, shape.channels)
    if is_pretrained:
        # Not by `get_model`, which insists on the 1000 classes of the weights.
        best = torchvision.models.get_model_weights(name).DEFAULT
        with _download_errors(f"torchvision/{name}"):
            state = best.get_state_dict(progress=False, check_hash=True)
        weights = {
            key: value for key, value in state.items() if not key.startswith(_PARTS_LEFT_OUT)
        }
        copy_weights_(model, weights, source=f"the pretrained torchvision/{name}")
    set_drop_rates_(model, config)
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
            # As torchvision initializes its first convolutions.
            nn.init.kaiming_normal_(fresh.weight, mode="fan_out", nonlinearity="relu")
            setattr(model.get_submodule(parent), name, fresh)
            return


def _timm_model(name: str, shape: _Shape, is_pretrained: bool, config: ModelConfig) -> nn.Module:
    try:
        import timm  # noqa: PLC0415  # an extra
    except ImportError:
        raise MissingExtraError(
            f"model.name: expected the extra timm for 'timm/{name}' (pip install 'automix[timm]'), "
            "got an installation without it"
        ) from None
    # The tag behind the dot names weights of the architecture.
    architecture, tag = timm.models.split_model_name_tag(name)
    names = timm.list_models()
    if architecture not in names:
        raise _unknown("timm", architecture, names)
    tagged = [full for full in timm.models.get_arch_pretrained_cfgs(architecture) if "." in full]
    if tag and name not in tagged:
        listed = ", ".join(f"timm/{full}" for full in tagged) or f"timm/{architecture}"
        raise ConfigError(f"model.name: expected one of {listed}, got {shown(f'timm/{name}')}")
    options: dict[str, Any] = {"in_chans": shape.channels, **timm_drop_rates(config)}
    facts = timm.models.get_pretrained_cfg(name)
    if shape.image_size and facts is not None and facts.fixed_input_size:
        # Positions are embedded for one size; those of pretrained weights are interpolated.
        options["img_size"] = shape.image_size
    try:
        with _download_errors(f"timm/{name}"):
            model: nn.Module = timm.create_model(
                name, pretrained=is_pretrained, num_classes=shape.num_classes, **options
            )
    except TypeError as error:
        raise refused_drop_rate(config, error) from None
    return model


def _unknown(library: str, name: str, names: list[str]) -> ConfigError:
    close = difflib.get_close_matches(name, names, n=1)
    hint = f" (did you mean '{library}/{close[0]}'?)" if close else ""
    return ConfigError(
        f"model.name: expected one of the {len(names)} classifiers of {library}, "
        f"got {shown(f'{library}/{name}')}{hint}"
    )


@torch.no_grad()
def copy_weights_(model: nn.Module, weights: Mapping[str, Tensor], *, source: str) -> None:
    """Copy named tensors into ``model``; its last layer stays if it has another number of classes.

    Raises:
        CheckpointError: a tensor is missing, unknown or of another shape; nothing is copied.
    """
    state = model.state_dict()
    if missing := [name for name in state if name not in weights]:
        raise CheckpointError(f"{source}: expected a tensor {shown(missing[0])}, got none")
    if unknown := [name for name in weights if name not in state]:
        raise CheckpointError(
            f"{source}: expected only tensors of the model, got {shown(unknown[0])}"
        )
    # The head is the module of the last parameter. Of another number of classes it keeps its new
    # values: its first dimension may differ, the features that it takes may not.
    head = next(reversed(list(model.named_parameters())))[0].rpartition(".")[0] + "."
    kept = [name for name in state if weights[name].shape != state[name].shape]
    for name in kept:
        if not name.startswith(head) or weights[name].shape[1:] != state[name].shape[1:]:
            expected, got = tuple(state[name].shape), tuple(weights[name].shape)
            raise CheckpointError(f"{source}: expected {name} of shape {expected}, got {got}")
    for name, tensor in state.items():
        _check_dtype(name, weights[name], tensor, source=source)
        if name not in kept:
            tensor.copy_(weights[name])
    if changed := {str(weights[name].dtype) for name in state} - {
        str(tensor.dtype) for tensor in state.values()
    }:
        _LOG.info("%s: weights of %s, converted", source, " and ".join(sorted(changed)))


def _check_dtype(name: str, weights: Tensor, tensor: Tensor, *, source: str) -> None:
    """Refuse complex or integer weights for real ones; another precision is converted."""
    if weights.is_floating_point() != tensor.is_floating_point() or weights.is_complex():
        raise CheckpointError(f"{source}: expected {name} of {tensor.dtype}, got {weights.dtype}")


def _read(path: Path) -> Mapping[str, Tensor]:
    """Read a safetensors file, or one of `torch.save`, without running any code in it.

    Tensors are in a mapping by name, in the latter also under the key model or state_dict.
    """
    values = read_any_weights(path)
    for key in _NESTED_UNDER:
        if isinstance(values, Mapping) and isinstance(values.get(key), Mapping):
            values = values[key]
    if not isinstance(values, Mapping) or not all(
        isinstance(value, Tensor) for value in values.values()
    ):
        raise CheckpointError(f"{path}: expected names with tensors, got other values")
    return values


@contextmanager
def _download_errors(name: str) -> Iterator[None]:
    """Turn what goes wrong while weights are downloaded into one line."""
    try:
        yield
    # No network or no space; no such weights or a wrong hash.
    except (OSError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(
            f"model.weights: expected to download those of {name}, got: {reason}"
        ) from None


@runtime_checkable
class _Resettable(Protocol):
    def reset_parameters(self) -> None: ...


@torch.no_grad()
def initialize_(module: nn.Module, generator: Generator) -> None:
    """Give every parameter and every batch-norm buffer of ``module`` a new value, in place.

    Convolutions: Kaiming normal, fan out, zero bias (https://arxiv.org/abs/1502.01852). Linear:
    uniform within 1 / sqrt(inputs), weight and bias. Normalization: scale 1, shift 0, running
    statistics reset. Any other module: its own ``reset_parameters``.
    Storage, dtype, device and memory format of the tensors stay. Only ``generator`` is advanced.

    Raises:
        TypeError: a parameter belongs to a module without ``reset_parameters``, such as the
            class token of a vision transformer; `automix.models.build.reinitialize_` can
            initialize those.
    """
    done: set[int] = set()
    for part in module.modules():
        if isinstance(part, _ConvNd):
            _initialize_convolution(part, generator)
        elif isinstance(part, nn.Linear):
            _initialize_linear(part, generator)
        elif isinstance(part, _WITHOUT_DRAWS):
            part.reset_parameters()
        elif isinstance(part, _Resettable):
            # `reset_parameters` takes no generator. A twin on the CPU needs only the CPU's global
            # generator to be put back, and draws the same values for every device.
            twin = copy.deepcopy(part).cpu()
            with global_generator_seeded(drawn_seed(generator)):
                twin.reset_parameters()
            copy_values_(part, twin)
        else:
            continue
        done.update(id(parameter) for parameter in part.parameters())
    for name, parameter in module.named_parameters():
        if id(parameter) not in done:
            raise TypeError(
                f"expected modules with reset_parameters, got the bare parameter {name}"
            )


def _initialize_convolution(convolution: _ConvNd, generator: Generator) -> None:
    drawn = _empty_for(convolution.weight, generator)
    nn.init.kaiming_normal_(drawn, mode="fan_out", nonlinearity="relu", generator=generator)
    convolution.weight.copy_(drawn)
    if convolution.bias is not None:
        convolution.bias.zero_()


def _initialize_linear(linear: nn.Linear, generator: Generator) -> None:
    bound = max(linear.in_features, 1) ** -0.5
    for parameter in (linear.weight, linear.bias):
        if parameter is not None:
            drawn = _empty_for(parameter, generator)
            parameter.copy_(drawn.uniform_(-bound, bound, generator=generator))


def _empty_for(parameter: Tensor, generator: Generator) -> Tensor:
    # On the generator's device and in float32: the same values for every device and type of model.
    return torch.empty(parameter.shape, dtype=torch.float32, device=generator.device)


@torch.no_grad()
def copy_values_(target: nn.Module, source: nn.Module) -> None:
    """Copy every parameter and buffer of ``source`` into the same-named tensor of ``target``."""
    # Not through state_dict, which leaves out buffers that are not persistent.
    for to, values in (
        (dict(target.named_parameters()), dict(source.named_parameters())),
        (dict(target.named_buffers()), dict(source.named_buffers())),
    ):
        assert to.keys() == values.keys()
        for name, tensor in to.items():
            tensor.copy_(values[name])


@contextmanager
def global_generator_seeded(seed: int) -> Iterator[None]:
    """Seed torch's global CPU generator for a block of code, and restore it afterwards."""
    # Not torch.manual_seed, which would also reseed every accelerator and not restore it.
    with restored_generators(torch.device("cpu")):
        torch.default_generator.manual_seed(seed)
        yield


def drawn_seed(generator: Generator) -> int:
    """Draw a 63-bit seed."""
    high = torch.iinfo(torch.int64).max
    return int(torch.randint(high, (), generator=generator, device=generator.device))
