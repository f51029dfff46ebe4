"""Running a trained classifier over many images.

Shape suffixes: N images, B batch, C channels, H rows, W columns, K classes.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

Preparation = Callable[[Tensor], Tensor]
"""Makes what the network takes, (B, C, H, W) float32, of stored images, (B, C, H, W) uint8."""

EVALUATION_BATCH = 500
"""Images at a time: enough to keep a device busy, 100 MB of activations for 32-pixel images."""


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put every module in evaluation mode for a block, and each flag back as it was after it."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, was_training in modes:
            module.training = was_training


@torch.no_grad()
def predict_logits(
    model: nn.Module,
    images_NCHW: Tensor,
    *,
    prepare: Preparation,
    batch_size: int = EVALUATION_BATCH,
) -> Tensor:
    """Return (N, K) float32 logits in the order of the images; the model is left as it was.

    Args:
        model: takes what ``prepare`` returns.
        images_NCHW: uint8, any device that ``prepare`` accepts.
        prepare: normalises, and moves to the model's device where needed.
        batch_size: images at a time, at least 1.

    Raises:
        ValueError: there is no image, or ``batch_size`` is below 1.
    """
    if not len(images_NCHW) or batch_size < 1:
        raise ValueError(
            "expected at least one image and a batch size of at least 1, "
            f"got {len(images_NCHW)} and {batch_size}"
        )
    with evaluation_mode(model):
        parts = [
            model(prepare(images_NCHW[start : start + batch_size])).float()
            for start in range(0, len(images_NCHW), batch_size)
        ]
    return torch.cat(parts)
