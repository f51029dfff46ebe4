"""Operations of AutoAugment and its successors on many images, each at its own strength.

They are those of `torchvision.transforms.v2.functional` on uint8 tensors, which take one strength
for a whole batch. What has no strength is torchvision's own.
Shape suffixes: B images, C channels, H rows, W columns.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Operation = Callable[[Tensor, Tensor], Tensor]
"""Takes (B, C, H, W) uint8 and (B,) float32 strengths on one device, returns uint8 of the shape."""

# ITU-R 601-2, as in torchvision.
_LUMA = (0.2989, 0.587, 0.114)


def geometric_matrix(name: str, strength_B: Tensor, height: int, width: int) -> Tensor:
    """Return (B, 2, 3), where each pixel of the result is read, in pixels from the image's center.

    A shear is relative to the upper left corner, as torchvision's policies have it; a translation
    is in whole pixels, a rotation in degrees.
    """
    zero, one = torch.zeros_like(strength_B), torch.ones_like(strength_B)
    match name:
        case "ShearX":
            rows = [one, strength_B, strength_B * (height / 2)], [zero, one, zero]
        case "ShearY":
            rows = [one, zero, zero], [strength_B, one, strength_B * (width / 2)]
        case "TranslateX":
            rows = [one, zero, -strength_B.trunc()], [zero, one, zero]
        case "TranslateY":
            rows = [one, zero, zero], [zero, one, -strength_B.trunc()]
        case "Rotate":
            # torchvision counts angles against the clock.
            cos, sin = torch.deg2rad(-strength_B).cos(), torch.deg2rad(-strength_B).sin()
            rows = [cos, sin, zero], [-sin, cos, zero]
        case _:
            raise ValueError(f"expected a geometric operation, got {name!r}")
    return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)


GEOMETRIC = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")


def moved(images_BCHW: Tensor, matrix_B23: Tensor) -> Tensor:
    """Return the images read where the matrices say, the nearest pixel, black outside."""
    height, width = images_BCHW.shape[2:]
    device = images_BCHW.device
    x = torch.linspace((1 - width) / 2, (width - 1) / 2, width, device=device)
    y = torch.linspace((1 - height) / 2, (height - 1) / 2, height, device=device)
    rows, columns = torch.meshgrid(y, x, indexing="ij")
    points_P3 = torch.stack((columns, rows, torch.ones_like(rows)), dim=2).flatten(0, 1)
    # grid_sample counts from -1 to 1, the outer borders of the image.
    scale = torch.tensor([width / 2, height / 2], device=device)
    grid = points_P3 @ (matrix_B23.transpose(1, 2) / scale)
    grid = grid.view(-1, height, width, 2)
    sampled = F.grid_sample(
        images_BCHW.float(), grid, mode="nearest", padding_mode="zeros", align_corners=False
    )
    return sampled.round_().to(torch.uint8)


def _brightness(images: Tensor, strength: Tensor) -> Tensor:
    return _bytes(images * _factor(strength))


def _contrast(images: Tensor, strength: Tensor) -> Tensor:
    gray = _gray(images) if images.shape[1] == 3 else images.float()
    return _blend(images, gray.mean(dim=(1, 2, 3), keepdim=True), strength)


def _color(images: Tensor, strength: Tensor) -> Tensor:
    return _blend(images, _gray(images), strength) if images.shape[1] == 3 else images


def _sharpness(images: Tensor, strength: Tensor) -> Tensor:
    channels, height, width = images.shape[1:]
    if min(height, width) <= 2:
        return images
    kernel = torch.full((3, 3), 1 / 13, device=images.device)
    kernel[1, 1] = 5 / 13
    output = images.float()
    # In place below: `images` are bytes, of which this is a copy.
    smooth = F.conv2d(output, kernel.expand(channels, 1, 3, 3), groups=channels).round_()
    inner = output[:, :, 1:-1, 1:-1]
    inner += (smooth - inner) * (1 - _factor(strength))
    return _bytes(output)


def _posterize(images: Tensor, strength: Tensor) -> Tensor:
    # The upper bits stay: 0xFF << (8 - bits).
    bits = strength.to(torch.int32)
    masks = torch.bitwise_left_shift(torch.full_like(bits, 255), 8 - bits) & 255
    return images & masks.to(torch.uint8).view(-1, 1, 1, 1)


def _solarize(images: Tensor, strength: Tensor) -> Tensor:
    return torch.where(images >= (255 * strength).view(-1, 1, 1, 1), 255 - images, images)


def _hue(images: Tensor, strength: Tensor) -> Tensor:
    if images.shape[1] != 3:
        return images
    # Its public form takes one shift for all images.
    from torchvision.transforms.v2.functional._color import (  # noqa: PLC0415
        _hsv_to_rgb,
        _rgb_to_hsv,
    )

    hsv = _rgb_to_hsv(images.float().div_(255))
    hsv[:, 0] = (hsv[:, 0] + strength.view(-1, 1, 1)).remainder_(1)
    # As torchvision converts floats to bytes: 1.0 is 255, and the 256 steps are of one size.
    shifted: Tensor = _hsv_to_rgb(hsv).mul_(256 - 1e-3).to(torch.uint8)
    return shifted


def _without_strength(name: str) -> Operation:
    def operation(images: Tensor, strength: Tensor) -> Tensor:
        del strength
        # Imported here: it takes a second, and most runs have no need of it.
        from torchvision.transforms.v2 import functional  # noqa: PLC0415

        result: Tensor = getattr(functional, name)(images)
        return result

    return operation


OPERATIONS: dict[str, Operation] = {
    "Brightness": _brightness,
    "Color": _color,
    "Contrast": _contrast,
    "Sharpness": _sharpness,
    "Posterize": _posterize,
    "Solarize": _solarize,
    "AutoContrast": _without_strength("autocontrast"),
    "Equalize": _without_strength("equalize"),
    "Invert": _without_strength("invert"),
    "Hue": _hue,
}
"""By torchvision's name. Strengths of the first four are those of its policies: 1 is added."""


def _factor(strength_B: Tensor) -> Tensor:
    return (1 + strength_B).view(-1, 1, 1, 1)


def _gray(images_BCHW: Tensor) -> Tensor:
    weights = torch.tensor(_LUMA, device=images_BCHW.device).view(3, 1, 1)
    return (images_BCHW * weights).sum(dim=1, keepdim=True).floor_()


def _blend(images_BCHW: Tensor, other: Tensor, strength_B: Tensor) -> Tensor:
    factor = _factor(strength_B)
    return _bytes(images_BCHW * factor + other * (1 - factor))


def _bytes(values: Tensor) -> Tensor:
    return values.clamp_(0, 255).to(torch.uint8)
