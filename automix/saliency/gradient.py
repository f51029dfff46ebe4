"""Saliency maps from gradients of the loss, computed without a trace in the model.

The map of an image x with label y is the root mean square over channels of d L(f(x), y) / dx, one
number per pixel, with the cross-entropy as L or the user's own loss (Simonyan et al. took the
maximum, https://arxiv.org/abs/1312.6034; PuzzleMix the root mean square,
https://arxiv.org/abs/2009.06962).

Shape suffixes: B batch, C channels, H rows, W columns, K classes.
"""

import difflib
import itertools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from automix.operator_info import Statistics
from automix.random_streams import restored_generators
from automix.saliency.losses import Loss, loss_gradient
from automix.saliency.tokens import patch_map


def input_gradient(
    model: nn.Module,
    images_BCHW: Tensor,
    targets: Tensor,
    *,
    statistics: Statistics = Statistics.BATCH,
    loss: Loss | None = None,
) -> Tensor:
    """Return the root mean square over channels of d loss / d image, per pixel.

    One forward pass and the half of a backward pass that does not concern the weights: about
    two thirds of a training step. In float32 whatever autocast says, because bfloat16 changes
    which cells are the most salient; a model whose weights are of another type gets images of it.

    Args:
        model: a classifier, (B, C, H, W) to logits (B, K) or one logit, or to something that holds
            them (`automix.network_outputs.logits_of`). Its raw module is used, and nothing about
            it has changed afterwards, also when the pass raises: parameters, ``.grad``, buffers,
            flags, and the global random generators.
        images_BCHW: floating point; not modified.
        targets: (B,) class indices or (B, K) soft targets; what ``loss`` takes second.
        statistics: what batch norm normalizes with.
        loss: takes (logits, targets); of any shape, because it is summed. By default the
            cross-entropy, of a softmax or, for one logit, of a sigmoid
            (`automix.saliency.losses.classification_loss`).

    Returns:
        (B, H, W) float32 on the images' device, not negative, sums to 1 per image; uniform where
        the gradient is zero or not finite.

    Raises:
        TypeError: the network returns no logits.
        ValueError: targets and logits do not fit, or no gradient reaches the image.
    """
    raw = raw_module(model)
    with without_trace(raw, device=images_BCHW.device, statistics=statistics):
        images = _constant(images_BCHW).to(pass_dtype(raw)).requires_grad_()
        gradient = loss_gradient(raw(images), _constant(targets), images, loss=loss)
    return normalized(gradient_magnitude(gradient))


def layer_gradient(
    model: nn.Module,
    images_BCHW: Tensor,
    targets: Tensor,
    *,
    layer: str,
    statistics: Statistics = Statistics.BATCH,
    loss: Loss | None = None,
) -> Tensor:
    """Return the root mean square over channels of d loss / d output of a layer.

    The backward pass ends at the layer, so a late layer costs little more than a forward pass; its
    map is as coarse as the layer and is enlarged bilinearly.

    Maps and the other arguments are those of `input_gradient`. ``layer`` names a module of the raw
    model whose output is (B, channels, rows, columns), or (B, tokens, features) with the patches of
    the image as its last tokens; of several calls, the last one counts.

    Raises:
        ValueError: there is no such module, it is not called, or its output is not of that shape.
    """
    raw = raw_module(model)
    with (
        without_trace(raw, device=images_BCHW.device, statistics=statistics),
        outputs_of(raw, layer, cut=True, takes_tokens=True) as outputs,
    ):
        output = raw(_constant(images_BCHW).to(pass_dtype(raw)))
        if not outputs:
            raise ValueError(f"expected a layer that the model calls, got {layer!r}")
        gradient = loss_gradient(output, _constant(targets), outputs[-1], loss=loss)
    height, width = images_BCHW.shape[2:]
    if gradient.ndim == 3:
        # The gradient of the other tokens is of no place in the image.
        magnitude_BN = gradient_magnitude(gradient.transpose(1, 2)[..., None])[..., 0]
        return normalized(resized(patch_map(magnitude_BN, height, width), height, width))
    return normalized(resized(gradient_magnitude(gradient), height, width))


@contextmanager
def outputs_of(
    model: nn.Module, layer: str, *, cut: bool, takes_tokens: bool = False
) -> Iterator[list[Tensor]]:
    """Collect what a layer gives while the block runs, ready for gradients with respect to it.

    With ``cut`` the outputs are leaves, at which a backward pass ends; otherwise they keep their
    gradient in ``.grad`` as a leaf does. With ``takes_tokens``, (B, tokens, features) will do, too.

    Raises:
        ValueError: there is no such module, or its output is not (B, channels, rows, columns).
    """
    modules = dict(model.named_modules())
    if layer not in modules:
        close = difflib.get_close_matches(layer, modules, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ValueError(f"expected the name of a module of the model, got {layer!r}{hint}")
    outputs: list[Tensor] = []

    def collect(module: nn.Module, inputs: Any, output: Any) -> Tensor:
        if not isinstance(output, Tensor) or output.ndim not in ((3, 4) if takes_tokens else (4,)):
            got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            other = " or (B, tokens, features)" if takes_tokens else ""
            raise ValueError(
                f"expected layer {layer!r} to give (B, channels, rows, columns){other}, got {got}"
            )
        collected: Tensor = output.detach().requires_grad_() if cut else output
        # Nothing changes for a leaf, which keeps its gradient anyway.
        collected.retain_grad()
        outputs.append(collected)
        return collected

    handle = modules[layer].register_forward_hook(collect)
    try:
        yield outputs
    finally:
        handle.remove()


def reduced_gradient(
    model: nn.Module,
    images_BCHW: Tensor,
    targets: Tensor,
    *,
    scale: float = 0.5,
    statistics: Statistics = Statistics.BATCH,
    loss: Loss | None = None,
) -> Tensor:
    """Return the input gradient of the shrunken images, enlarged bilinearly.

    Costs ``scale`` squared of `input_gradient`, whose maps and other arguments these are: the side
    of the shrunken images, which the model must take, as a fraction in (0, 1) of the images' side.
    """
    if not 0 < scale < 1:
        raise ValueError(f"expected a scale between 0 and 1, got {scale}")
    height, width = images_BCHW.shape[2:]
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    small = F.interpolate(images_BCHW.detach().float(), size=size, mode="bilinear", antialias=True)
    maps = input_gradient(model, small, targets, statistics=statistics, loss=loss)
    return normalized(resized(maps, height, width))


def normalized(scores_BHW: Tensor) -> Tensor:
    """Divide each map by its sum; a map that is all zero, or not finite, becomes uniform.

    Scores are not negative, of any floating-point type; maps are float32 and sum to 1 per image.
    """
    scores = scores_BHW.float()
    # By the peak first: the sum of large maps overflows, and that of denormal ones is inexact.
    scaled = scores / scores.amax(dim=(1, 2), keepdim=True)
    total = scaled.sum(dim=(1, 2), keepdim=True)
    uniform = 1.0 / (scores.shape[1] * scores.shape[2])
    return torch.where(torch.isfinite(total), scaled / total, uniform)


def gradient_magnitude(gradient_BCHW: Tensor) -> Tensor:
    """Return the root mean square over the channels, (B, H, W), up to a factor per image.

    The factor keeps the squares in range: the gradient of a well-fitted image is below 1e-20,
    whose square is 0 in float32.
    """
    peak = gradient_BCHW.abs().amax(dim=(1, 2, 3), keepdim=True)
    scaled = gradient_BCHW / peak.clamp_min(torch.finfo(gradient_BCHW.dtype).tiny)
    # Not linalg.vector_norm: 100 times slower over the channels of contiguous images (torch 2.15,
    # CPU: 18 ms against 0.16 for (128, 3, 32, 32)).
    return scaled.square().sum(dim=1).sqrt()


def resized(maps_BHW: Tensor, height: int, width: int) -> Tensor:
    """Resize maps bilinearly, averaging where they shrink; (B, height, width)."""
    if maps_BHW.shape[1:] == (height, width):
        return maps_BHW
    return F.interpolate(
        maps_BHW[:, None], size=(height, width), mode="bilinear", antialias=True
    ).squeeze(1)


def raw_module(model: nn.Module) -> nn.Module:
    """Return the module inside DistributedDataParallel, DataParallel and `torch.compile`.

    A saliency pass through the wrappers would add compiled graphs, and fails in NCCL's
    reducer from torch 2.6 on (https://github.com/pytorch/pytorch/issues/175024).
    """
    while True:
        if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model


def _constant(tensor: Tensor) -> Tensor:
    """Return a tensor without history; one of inference mode as a copy, which autograd may save."""
    return tensor.clone() if tensor.is_inference() else tensor.detach()


def pass_dtype(model: nn.Module) -> torch.dtype:
    """Return the type of the images that a raw module takes: that of its weights, or float32."""
    types = (parameter.dtype for parameter in model.parameters() if parameter.is_floating_point())
    return next(types, torch.float32)


@contextmanager
def without_trace(
    model: nn.Module, *, device: torch.device, statistics: Statistics
) -> Iterator[None]:
    """Run a block so that ``model`` and the global generators are bit-equal after it.

    Inside, no parameter requires a gradient, batch norm does not track, dropout and stochastic
    depth are off, autocast is off and gradients are recorded. Everything is put back when the
    block raises, too. ``model`` is the raw module, ``device`` that of the images, whose generator
    is put back as well as the CPU's, and ``statistics`` are what batch norm normalizes with.
    """
    modules = list(model.modules())
    with ExitStack() as stack:
        stack.enter_context(restored_generators(device))
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(mode=False))
        if any(module._compiled_call_impl is not None for module in modules):
            # `model.compile()` compiles in place and leaves no wrapper to take off.
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(torch.autocast(device.type, enabled=False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(_frozen_parameters(modules))
        stack.enter_context(_frozen_state(modules, statistics))
        yield


# Flags are written to the modules' dictionaries: `nn.Module.__setattr__` takes 2 us for each flag,
# because it looks for parameters first, and that was most of the time of these blocks.


@contextmanager
def _frozen_parameters(modules: Sequence[nn.Module]) -> Iterator[None]:
    """`autograd.grad` skips the weights' gradients anyway; this also spares saving their inputs."""
    candidates = itertools.chain.from_iterable(module._parameters.values() for module in modules)
    # Weights that two modules share come twice, and are set twice.
    parameters = [weight for weight in candidates if weight is not None and weight.requires_grad]
    try:
        for parameter in parameters:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


@contextmanager
def _frozen_state(modules: Sequence[nn.Module], statistics: Statistics) -> Iterator[None]:
    modes = [module.training for module in modules]
    tracking: list[_BatchNorm] = []
    buffers: list[tuple[dict[str, Tensor | None], dict[str, Tensor | None]]] = []
    try:
        for module, was_training in zip(modules, modes, strict=True):
            if isinstance(module, _BatchNorm):
                if module.training and module.track_running_stats:
                    # In train mode this alone makes batch norm normalize with the batch and leave
                    # its buffers alone. Momentum 0 would not: 0 * NaN is NaN.
                    tracking.append(module)
                    vars(module)["track_running_stats"] = statistics is Statistics.RUNNING
                vars(module)["training"] = was_training and statistics is Statistics.BATCH
                continue
            vars(module)["training"] = False
            if was_training and module._buffers:
                # Whatever else keeps state in buffers (instance norm, spectral norm) works on
                # copies.
                buffers.append((module._buffers, dict(module._buffers)))
                for name, buffer in module._buffers.items():
                    module._buffers[name] = None if buffer is None else buffer.clone()
        yield
    finally:
        for current, original in buffers:
            current.update(original)
        for norm in tracking:
            vars(norm)["track_running_stats"] = True
        for module, was_training in zip(modules, modes, strict=True):
            vars(module)["training"] = was_training


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put every module in evaluation mode for a block, and each flag back as it was after it."""
    training = [module for module in model.modules() if module.training]
    try:
        for module in training:
            vars(module)["training"] = False
        yield
    finally:
        for module in training:
            vars(module)["training"] = True
