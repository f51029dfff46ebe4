import numpy as np
import pytest
import torch
from scipy import ndimage

from automix.evaluation.corruptions.blur_weather import (
    Boundary,
    box_resize,
    convolve,
    gaussian_blur,
    mirrored,
    reference_pixels,
    sample_bilinearly,
    zoom,
)


def noise(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).random(shape)).float()


@pytest.mark.parametrize("boundary", ["nearest", "symmetric"])
@pytest.mark.parametrize("sigma", [0.4, 1.7, 9.0])
def test_gaussian_blur_agrees_with_scipy(boundary: Boundary, sigma: float) -> None:
    images = noise(2, 3, 13, 20)
    result = gaussian_blur(images, sigma, boundary=boundary, truncate=3)
    expected = ndimage.gaussian_filter(
        images.numpy(),
        sigma,
        mode="nearest" if boundary == "nearest" else "reflect",
        truncate=3,
        axes=(2, 3),
    )
    torch.testing.assert_close(result, torch.from_numpy(expected), atol=1e-5, rtol=0)


def test_a_gaussian_without_width_changes_nothing() -> None:
    images = noise(1, 1, 5, 5)
    assert torch.equal(gaussian_blur(images, 0.05), images)


@pytest.mark.parametrize("size", [1, 3, 7])
def test_convolution_agrees_with_scipy(size: int) -> None:
    images, kernel = noise(2, 3, 6, 9), noise(size, size)
    expected = ndimage.correlate(
        images.numpy(), kernel.numpy()[None, None], mode="mirror", axes=None
    )
    torch.testing.assert_close(convolve(images, kernel), torch.from_numpy(expected))


def test_folding_reaches_any_distance() -> None:
    assert mirrored(torch.arange(-5, 6), 3).tolist() == [1, 0, 1, 2, 1, 0, 1, 2, 1, 0, 1]
    assert mirrored(torch.arange(-3, 3), 1).tolist() == [0] * 6


def test_bilinear_sampling_agrees_with_scipy() -> None:
    generator = np.random.default_rng(1)
    images = noise(2, 1, 8, 11)
    rows, columns = generator.uniform(-6, 14, (2, 2, 8, 11)).astype(np.float32)
    result = sample_bilinearly(images, torch.from_numpy(rows), torch.from_numpy(columns))
    for image, row, column, sampled in zip(images, rows, columns, result, strict=True):
        expected = ndimage.map_coordinates(image[0].numpy(), (row, column), order=1, mode="mirror")
        np.testing.assert_allclose(sampled[0], expected, atol=1e-5)


@pytest.mark.parametrize("factor", [1.0, 1.13, 2.0])
def test_zoom_agrees_with_sampling_about_the_center(factor: float) -> None:
    images = noise(2, 2, 9, 14)
    rows = 4 + (torch.arange(9) - 4) / factor
    columns = 6.5 + (torch.arange(14) - 6.5) / factor
    grid = torch.meshgrid(rows, columns, indexing="ij")
    expected = sample_bilinearly(images, *(part.expand(2, 9, 14) for part in grid))
    torch.testing.assert_close(zoom(images, factor), expected, atol=1e-5, rtol=0)


def test_box_resize_averages_areas() -> None:
    images = noise(2, 3, 12, 8)
    torch.testing.assert_close(
        box_resize(images, 4, 4), torch.nn.functional.avg_pool2d(images, (3, 2))
    )
    torch.testing.assert_close(box_resize(images, 7, 5).mean((2, 3)), images.mean((2, 3)))
    row = torch.tensor([0.0, 3.0, 6.0]).view(1, 1, 1, 3)
    torch.testing.assert_close(box_resize(row, 1, 2), torch.tensor([1.0, 5.0]).view(1, 1, 1, 2))


def test_lengths_grow_with_the_image_and_never_shrink() -> None:
    assert [reference_pixels(*size) for size in ((8, 8), (32, 32), (96, 64), (224, 224))] == [
        1,
        1,
        2,
        7,
    ]
