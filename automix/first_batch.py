"""Checks of the first batch, for every operator that a schedule will use later in the run.

Whoever mixes in a loop of their own learns at the first batch, not at the first one of the segment
that needs it, that labels, images or the network do not fit.

Shape suffixes: B batch, C channels, H rows, W columns, K classes.
"""

import hashlib
import operator as operators_of_python
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from automix.mixing import StepKey, mix_step
from automix.mixture import Decision
from automix.operator_info import OPERATOR_FACTS, Operator
from automix.operators.blend import check_classes, soft_targets
from automix.operators.host import is_host
from automix.operators.sampling import check_images
from automix.operators.types import MixedBatch
from automix.saliency.sources import SaliencySource

_INTEGERS = {
    torch.int8, torch.int16, torch.int32, torch.int64,
    torch.uint8, torch.uint16, torch.uint32, torch.uint64,
}  # fmt: skip


def whole_number(where: str, value: Any, *, at_least: int) -> int:
    """Return ``value`` as an integer, which it has to be already.

    Raises:
        ValueError: it is a fraction, NaN, infinite, a truth value, no number, or too small.

    Examples:
        >>> whole_number("total_steps", 100, at_least=1)
        100
    """
    try:
        number = operators_of_python.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or number < at_least:
        raise ValueError(f"{where}: expected a whole number, {at_least} or more, got {value!r}")
    return number


def checked_batch(images_BCHW: Tensor, targets: Tensor, *, num_classes: int | None) -> Tensor:
    """Return the targets as int64 classes or floating-point rows, which all operators take.

    Args:
        images_BCHW: floating point.
        targets: (B,) integers of any type, or (B, K) numbers or truth values, on the same device.
        num_classes: K; None where targets are rows.

    Raises:
        TypeError: images or targets are no tensors, or of a type that cannot be mixed.
        ValueError: the shapes do not fit or, on a CPU, where values can be read without a wait, a
            class is out of range.
    """
    for name, value in (("images", images_BCHW), ("targets", targets)):
        if not isinstance(value, Tensor):
            raise TypeError(f"{name}: expected a tensor, got {type(value).__name__}")
    _check_images(images_BCHW)
    if targets.device != images_BCHW.device:
        raise ValueError(
            f"targets: expected a tensor on {images_BCHW.device}, the device of the images, got "
            f"{targets.device}"
        )
    _check_form(targets, len(images_BCHW), num_classes)
    if targets.ndim == 2:
        return targets if targets.is_floating_point() else targets.to(torch.float32)
    classes_B = targets.to(torch.int64)
    if is_host(classes_B) and num_classes is not None:
        check_classes(classes_B, num_classes)
    return classes_B


def _check_images(images_BCHW: Tensor) -> None:
    check_images(images_BCHW, None)
    if images_BCHW.dtype.itemsize < 2 or images_BCHW.layout != torch.strided:
        raise TypeError(
            "images: expected dense images of float16, bfloat16, float32 or float64, got "
            f"{images_BCHW.dtype} in {images_BCHW.layout}"
        )
    if 0 in images_BCHW.shape:
        raise ValueError(f"images: expected at least one, got shape {tuple(images_BCHW.shape)}")


def _check_form(targets: Tensor, batch: int, num_classes: int | None) -> None:
    shape = tuple(targets.shape)
    if shape == (batch, 1) and num_classes not in (None, 1):
        raise ValueError(
            f"targets: expected shape ({batch},) or ({batch}, {num_classes}), got {shape}; give "
            "classes as targets.squeeze(1)"
        )
    if len(shape) == 1 and num_classes == 1:
        raise ValueError(
            "targets: expected shape (B, 1), floating point, for num_classes=1 (one logit), got "
            f"{targets.dtype} of shape {shape}; give targets.float().unsqueeze(1)"
        )
    if targets.dtype not in _INTEGERS or shape != (batch,):
        # Refuses other types and shapes; of rows this is cheap, and classes are not made rows here.
        soft_targets(targets, batch, num_classes)
    elif num_classes is None:
        raise ValueError("num_classes: expected a number for integer targets, got None")


def check_values(images_BCHW: Tensor, targets: Tensor, *, num_classes: int | None) -> None:
    """Refuse values with which nothing can be learned; reads from the device.

    Args:
        images_BCHW: floating point.
        targets: as `checked_batch` returns them.
        num_classes: K, for classes.

    Raises:
        ValueError: images are not finite, or targets not finite, negative or out of range.
    """
    if not (is_finite_B := images_BCHW.detach().isfinite().flatten(1).all(1)).all():
        count = len(is_finite_B) - int(is_finite_B.sum())
        raise ValueError(
            f"images: expected finite values, got NaN or infinity in {count} of {len(images_BCHW)}"
        )
    if targets.ndim == 1:
        assert num_classes is not None
        check_classes(targets, num_classes)
    elif not (targets.isfinite() & (targets >= 0)).all():
        raise ValueError(
            "targets: expected finite values that are not negative, got "
            f"{targets.min():g} to {targets.max():g}; leave out images that a loss would ignore "
            "before they are mixed"
        )


def check_pairs(operators: Sequence[Operator], batch: int) -> None:
    """Refuse batches of one image where it would have to be mixed with another one.

    Raises:
        ValueError: nothing would ever be mixed.
    """
    if (operator := unpaired(operators, batch)) is not None:
        raise ValueError(
            f"images: expected a first batch of at least 2 for {operator.value}, which mixes "
            "images of one batch, got 1; mix batches of the loader before they are split"
        )


def refuse_learning(operators: Sequence[Operator]) -> None:
    """Refuse operators that learn, which have to see the classifier after every step.

    Raises:
        ValueError: one of them learns.
    """
    for operator in operators:
        if OPERATOR_FACTS[operator].learns:
            raise ValueError(
                f"schedule: expected operators that learn nothing in a loop of your own, got "
                f"{operator.value}; train with automix replay"
            )


def unpaired(operators: Sequence[Operator], batch: int) -> Operator | None:
    """Return the first operator that would mix an image with another one of a batch of one."""
    for operator in operators if batch == 1 else ():
        # RecursiveMix has the batch before.
        if operator is not Operator.NONE and not OPERATOR_FACTS[operator].needs_previous:
            return operator
    return None


def rehearse(
    operators: Sequence[Operator],
    images_BCHW: Tensor,
    targets: Tensor,
    *,
    key: StepKey,
    num_classes: int,
    model: nn.Module | None,
    saliency: SaliencySource | None,
) -> None:
    """Mix a batch by each operator, and drop the results.

    What fails, fails here: labels that a loss refuses, a network without logits or without a
    gradient to the image, images smaller than the grid of an operator, too little memory. There is
    one saliency pass, which leaves no trace; a distributed one must be made by all processes.

    Raises:
        TypeError: an operator, the network or the loss refuses the type of something.
        ValueError: the same of a shape or value; or the saliency pass failed in other words.
    """
    images_BCHW, targets = images_BCHW.detach(), targets.detach()
    maps_BHW: Tensor | None = None
    if any(OPERATOR_FACTS[operator].needs_saliency for operator in operators):
        assert model is not None
        assert saliency is not None
        maps_BHW = _first_maps(model, images_BCHW, targets, saliency)
    for operator in operators:
        if operator is Operator.NONE:
            continue
        previous: MixedBatch | None = None
        for _ in range(2 if OPERATOR_FACTS[operator].needs_previous else 1):
            previous = mix_step(
                Decision(operator=operator),
                images_BCHW,
                targets,
                key=key,
                num_classes=num_classes,
                model=model,
                saliency=lambda *_: maps_BHW,  # type: ignore[arg-type]
                previous=previous,
            )


def _first_maps(
    model: nn.Module, images_BCHW: Tensor, targets: Tensor, saliency: SaliencySource
) -> Tensor:
    _refuse_flat_shards(model)
    try:
        maps_BHW = saliency(model, images_BCHW, targets)
    except (TypeError, ValueError) as error:
        # Ours name the place; those of a network or a loss of the user do not.
        if str(error).partition(":")[0] in ("saliency", "network", "targets", "images", "loss"):
            raise
        raise _failed(error, images_BCHW) from error
    except torch.OutOfMemoryError as error:
        error.add_note(
            "saliency: expected memory for a pass of the first batch; a schedule uses it"
        )
        raise
    except Exception as error:
        raise _failed(error, images_BCHW) from error
    if not isinstance(maps_BHW, Tensor):
        raise TypeError(f"saliency: expected maps (B, H, W), got {type(maps_BHW).__name__}")
    if maps_BHW.ndim == 3 and maps_BHW.is_floating_point():
        highest_B, lowest_B = maps_BHW.amax((1, 2)), maps_BHW.amin((1, 2))
        if maps_BHW[0].numel() > 1 and bool((highest_B == lowest_B).all()):
            warnings.warn(
                "saliency: expected maps with a peak, got uniform ones for the whole first batch: "
                "the loss does not depend on the images, or its gradient is not finite",
                stacklevel=2,
            )
    return maps_BHW


def _refuse_flat_shards(model: nn.Module) -> None:
    """Refuse FSDP1, which exchanges the parameters of a module for parts of flat ones.

    A pass that leaves no trace takes parameters as they are, and torch's words name sizes alone.
    """
    fsdp = sys.modules.get("torch.distributed.fsdp")  # a network that has it has imported it
    if fsdp and any(isinstance(it, fsdp.FullyShardedDataParallel) for it in model.modules()):
        raise TypeError(
            "saliency: expected a network that was sharded by fully_shard (FSDP2), got "
            "FullyShardedDataParallel (FSDP1); wrap it with torch.distributed.fsdp.fully_shard"
        )


def _failed(error: Exception, images_BCHW: Tensor) -> ValueError:
    reason = next(iter(str(error).splitlines()), "")
    return ValueError(
        f"saliency: expected a pass through network and loss for images {images_BCHW.dtype} of "
        f"shape {tuple(images_BCHW.shape)}, got {type(error).__name__}: {reason}"
    )


def check_ranks_agree(model: nn.Module, device: torch.device, *, named: str) -> None:
    """Refuse processes that train a network together but would not make the same passes.

    A pass of a network whose parts talk between processes (synchronized norms, sharded weights)
    waits for all of them. Whether a step has one is drawn from what ``named`` holds: seed,
    schedule, steps. Every process calls this at its first batch.

    Raises:
        ValueError: ``named`` differs between processes.
    """
    if not (dist.is_available() and dist.is_initialized()) or not _talks(model):
        return
    digest = hashlib.blake2b(named.encode(), digest_size=7).digest()
    number = int.from_bytes(digest, "little")
    # The maximum of x and of -x: equal in size only if all processes have the same x.
    extremes = torch.tensor([number, -number], device=device)
    dist.all_reduce(extremes, op=dist.ReduceOp.MAX)
    if int(extremes.sum()) != 0:
        raise ValueError(
            "seed: expected the same seed, schedule, total_steps and step in all processes that "
            f"train together, got another one in rank {dist.get_rank()} or elsewhere; pass the "
            "number of the process as rank= alone"
        )


def _talks(model: nn.Module) -> bool:
    distributed = nn.parallel.DistributedDataParallel, nn.SyncBatchNorm
    return any(isinstance(module, distributed) for module in model.modules()) or any(
        hasattr(parameter, "device_mesh") for parameter in model.parameters()
    )
