"""Checks of what a caller passes to an operator: shapes and types only, never values.

Looking at values would make the host wait for the device in every training step.
"""

import torch
from torch import Tensor


def check_images(images_BCHW: Tensor, drawn_B: Tensor | None) -> None:
    """Refuse images that cannot be mixed with the drawn parameters.

    Args:
        images_BCHW: (B, C, H, W), floating point.
        drawn_B: any of the parameters, one entry for each image; None if there are none.

    Raises:
        TypeError: the images are not floating point (uint8 images, say).
        ValueError: the images are not a batch, or not the batch that the draws are for.
    """
    if not images_BCHW.is_floating_point():
        raise TypeError(
            "images: expected a floating point tensor (convert and scale uint8 images first), "
            f"got {images_BCHW.dtype}"
        )
    if images_BCHW.dim() != 4:
        raise ValueError(f"images: expected shape (B, C, H, W), got {tuple(images_BCHW.shape)}")
    if drawn_B is None:
        return
    if images_BCHW.shape[0] != drawn_B.shape[0]:
        raise ValueError(
            f"draws: expected parameters for {images_BCHW.shape[0]} images, got {drawn_B.shape[0]}"
        )
    if images_BCHW.device != drawn_B.device:
        raise ValueError(
            f"draws: expected tensors on {images_BCHW.device}, the device of the images, got "
            f"{drawn_B.device} (the device of the generator)"
        )


def required_saliency(saliency_BHW: Tensor | None, images_BCHW: Tensor) -> Tensor:
    """Return the saliency maps as float32, or refuse them.

    Args:
        saliency_BHW: (B, H, W) floating point, non-negative, any scale.
        images_BCHW: (B, C, H, W) the images the maps belong to.

    Raises:
        TypeError: the maps are not floating point.
        ValueError: there are no maps, or their shape is not that of the images.
    """
    batch, _, height, width = images_BCHW.shape
    if saliency_BHW is None:
        raise ValueError("saliency: expected maps of shape (B, H, W), got None")
    if tuple(saliency_BHW.shape) != (batch, height, width):
        raise ValueError(
            f"saliency: expected shape {(batch, height, width)}, got {tuple(saliency_BHW.shape)}"
        )
    if not saliency_BHW.is_floating_point():
        raise TypeError(f"saliency: expected a floating point tensor, got {saliency_BHW.dtype}")
    return saliency_BHW.to(torch.float32)
