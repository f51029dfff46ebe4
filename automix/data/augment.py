"""Random crops, flips and erased boxes of a whole batch at once, with an explicit generator.

Draws and their application are separate: the same draws applied twice give the same pixels.
Shape suffixes: B batch, C channels, H rows, W columns.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from automix.configuration.data import AugmentConfig, PaddingMode

# After so many boxes that do not fit the image, the largest that does is taken, as in torchvision.
_BOXES_TRIED = 10
_ERASED_AREA = (0.02, 0.33)
_ERASED_RATIO = (0.3, 3.3)


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentDraws:
    """First row and column of the crop in the padded image, 0 to 2 * padding, and flip: (B,)."""

    top: Tensor
    left: Tensor
    flip: Tensor


def draw_augmentation(
    num_images: int, config: AugmentConfig, *, generator: Generator
) -> AugmentDraws:
    """Draw crops and flips, independently for each image, on the generator's device."""
    # Both are always drawn: switching the flip off leaves the crops of a seed as they were.
    device = generator.device
    corners = torch.randint(
        2 * config.crop_padding + 1, (2, num_images), generator=generator, device=device
    )
    coin = torch.randint(2, (num_images,), generator=generator, device=device)
    flip = coin.bool() if config.horizontal_flip else torch.zeros_like(coin, dtype=torch.bool)
    return AugmentDraws(top=corners[0], left=corners[1], flip=flip)


def apply_augmentation(
    images_BCHW: Tensor, draws: AugmentDraws, *, padding: int, mode: PaddingMode
) -> Tensor:
    """Return the images cropped and mirrored as drawn, (B, C, H, W) of the same dtype and device.

    ``padding`` is that of the draws, in pixels on each side; reflected, it is below H and W.
    """
    # One gather does both: on a CPU, for 128 images of 3 x 32 x 32, it takes 0.6 ms, where a crop
    # by Tensor.unfold followed by a flip through torch.where takes 1.0 ms.
    batch, channels, height, width = images_BCHW.shape
    device = images_BCHW.device
    rows = torch.arange(height, device=device) + draws.top[:, None]
    columns = torch.arange(width, device=device)
    columns = torch.where(draws.flip[:, None], width - 1 - columns, columns) + draws.left[:, None]
    if mode is PaddingMode.ZERO:
        if padding:
            images_BCHW = F.pad(images_BCHW, (padding, padding, padding, padding))
        stride = width + 2 * padding
    else:
        # F.pad has no reflection for uint8; mirrored indices need no padded copy.
        rows, columns = _reflected(rows - padding, height), _reflected(columns - padding, width)
        stride = width
    pixels = (rows[:, :, None] * stride + columns[:, None, :]).view(batch, 1, height * width)
    cut = images_BCHW.flatten(2).gather(2, pixels.expand(batch, channels, height * width))
    return cut.view(batch, channels, height, width)


def _reflected(index: Tensor, size: int) -> Tensor:
    # Mirrors indices beyond 0 and size - 1 back inside, without repeating the border pixel.
    return (size - 1) - ((size - 1) - index.abs()).abs()


@dataclass(frozen=True, slots=True, kw_only=True)
class CropBoxes:
    """A box inside each image, in whole pixels: (B,) int64, height and width at least 1."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor


def draw_crop_boxes(
    heights_B: Tensor,
    widths_B: Tensor,
    *,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    generator: Generator,
) -> CropBoxes:
    """Draw boxes as torchvision's RandomResizedCrop does, independently for each image.

    A box has a uniform fraction of the area and a log-uniform aspect ratio; of ten such boxes the
    first that fits is taken, at a uniform place. If none fits, it is the central box of the nearest
    possible aspect ratio. Inception's crop: https://arxiv.org/abs/1409.4842.

    Heights and widths of the images are int64 on the generator's device. ``scale`` is the smallest
    and largest fraction of the area, in (0, 1], ``ratio`` that of width over height.
    """
    # 22 numbers per image, however many boxes are tried: no loop, no wait for the device, and the
    # draws of an image do not depend on those of another.
    shape = (2, len(heights_B), _BOXES_TRIED + 1)
    uniform = torch.rand(shape, generator=generator, device=generator.device)
    height_B1, width_B1 = heights_B[:, None], widths_B[:, None]
    # With area a and aspect r = width / height: height = sqrt(a / r), width = sqrt(a r).
    area = height_B1 * width_B1 * _between(uniform[0, :, 1:], *scale)
    aspect = _between(uniform[1, :, 1:], math.log(ratio[0]), math.log(ratio[1])).exp()
    heights, widths = (area / aspect).sqrt().round(), (area * aspect).sqrt().round()
    fits = (heights >= 1) & (heights <= height_B1) & (widths >= 1) & (widths <= width_B1)
    # The first that fits: of equal values argmax may return any, so they are made unequal.
    order = torch.arange(_BOXES_TRIED, 0, -1, device=generator.device)
    first = (fits * order).argmax(dim=1, keepdim=True)
    any_fits = fits.any(dim=1)
    height = heights.gather(1, first).squeeze(1).long()
    width = widths.gather(1, first).squeeze(1).long()
    central_height = (widths_B / ratio[0]).round().long().clamp(min=1)
    central_width = (heights_B * ratio[1]).round().long().clamp(min=1)
    height = torch.where(any_fits, height, torch.minimum(heights_B, central_height))
    width = torch.where(any_fits, width, torch.minimum(widths_B, central_width))
    # A central box ignores the draw of its corner.
    corner = torch.where(any_fits, uniform[:, :, 0], 0.5)
    top = _whole_steps(corner[0], heights_B - height)
    left = _whole_steps(corner[1], widths_B - width)
    return CropBoxes(top=top, left=left, height=height, width=width)


def apply_resized_crop(images_BCHW: Tensor, boxes: CropBoxes, flip_B: Tensor) -> Tensor:
    """Return each image's box scaled to the image's size, mirrored where ``flip_B`` is true.

    Images are floating point; the result has their shape, dtype and device.
    """
    height, width = images_BCHW.shape[2:]
    rows_BH = _sampled(boxes.top, boxes.height, height)
    columns_BW = _sampled(boxes.left, boxes.width, width)
    columns_BW = torch.where(flip_B[:, None], columns_BW.flip(1), columns_BW)
    # grid_sample counts from -1, the center of the first pixel, to 1, the center of the last.
    rows_BH = rows_BH * (2 / max(height - 1, 1)) - 1
    columns_BW = columns_BW * (2 / max(width - 1, 1)) - 1
    batch = len(images_BCHW)
    grid = torch.stack(
        (
            columns_BW[:, None, :].expand(batch, height, width),
            rows_BH[:, :, None].expand(batch, height, width),
        ),
        dim=3,
    )
    # Bilinear without antialiasing, as torchvision's resize: a box is only ever enlarged.
    return F.grid_sample(
        images_BCHW,
        grid.to(images_BCHW.dtype),
        mode="bilinear",
        padding_mode="border",
        align_corners=True,
    )


def draw_erased_boxes(
    num_images: int, probability: float, *, height: int, width: int, generator: Generator
) -> CropBoxes:
    """Draw the boxes of torchvision's RandomErasing, independently for each image.

    A box has a uniform 2% to 33% of the area and a log-uniform aspect ratio of 0.3 to 3.3; of ten
    the first that is smaller than the image is taken. Where none is, or the coin says no, it is
    empty: height and width 0. https://arxiv.org/abs/1708.04896.
    """
    device = generator.device
    uniform = torch.rand((2, num_images, _BOXES_TRIED + 1), generator=generator, device=device)
    coin = torch.rand(num_images, generator=generator, device=device)
    area = height * width * _between(uniform[0, :, 1:], *_ERASED_AREA)
    low, high = map(math.log, _ERASED_RATIO)
    aspect = _between(uniform[1, :, 1:], low, high).exp()
    heights, widths = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
    fits = (heights < height) & (widths < width)
    order = torch.arange(_BOXES_TRIED, 0, -1, device=device)
    first = (fits * order).argmax(dim=1, keepdim=True)
    is_erased = fits.any(dim=1) & (coin < probability)
    box_height = heights.gather(1, first).squeeze(1).long() * is_erased
    box_width = widths.gather(1, first).squeeze(1).long() * is_erased
    return CropBoxes(
        top=_whole_steps(uniform[0, :, 0], height - box_height),
        left=_whole_steps(uniform[1, :, 0], width - box_width),
        height=box_height,
        width=box_width,
    )


def erase_(images_BCHW: Tensor, boxes: CropBoxes) -> Tensor:
    """Set a box of each normalized image to 0, the mean color, in place; return the images."""
    height, width = images_BCHW.shape[2:]
    rows = torch.arange(height, device=images_BCHW.device) - boxes.top[:, None]
    columns = torch.arange(width, device=images_BCHW.device) - boxes.left[:, None]
    is_row = (rows >= 0) & (rows < boxes.height[:, None])
    is_column = (columns >= 0) & (columns < boxes.width[:, None])
    return images_BCHW.masked_fill_((is_row[:, :, None] & is_column[:, None, :])[:, None], 0)


def _between(uniform: Tensor, low: float, high: float) -> Tensor:
    return low + (high - low) * uniform


def _whole_steps(uniform_B: Tensor, room_B: Tensor) -> Tensor:
    # Uniform integers from 0 to room; 0.5 gives the middle. The product can round up to room + 1.
    return (uniform_B * (room_B + 1)).long().minimum(room_B)


def _sampled(start_B: Tensor, length_B: Tensor, count: int) -> Tensor:
    # (B, count) coordinates, in pixels of the image, that enlarging a stretch of it samples. Pixel
    # centers are at i + 0.5: sample i of n reads the stretch at (i + 0.5) length / n - 0.5.
    centers = torch.arange(count, device=start_B.device) + 0.5
    inside = centers * (length_B[:, None] / count) - 0.5
    inside = inside.clamp(min=0).minimum(length_B[:, None] - 1)
    return start_B[:, None] + inside
