import numpy as np
import pytest
import scipy.ndimage
import torch

from automix.operators.guidedmixup import gaussian_blur
from tests.operators.cases import seeded


@pytest.mark.parametrize("size", [(32, 32), (4, 9)])
@pytest.mark.parametrize(("width", "sigma"), [(7, 3.0), (3, 0.8), (1, 1.0)])
def test_blur_agrees_with_scipy(size: tuple[int, int], width: int, sigma: float) -> None:
    maps = torch.rand((2, *size), generator=seeded(0))
    weights = np.exp(-0.5 * ((np.arange(width) - width // 2) / sigma) ** 2)
    weights /= weights.sum()
    expected = maps.double().numpy()
    for axis in (1, 2):
        expected = scipy.ndimage.correlate1d(expected, weights, axis=axis, mode="mirror")
    np.testing.assert_allclose(gaussian_blur(maps, size=width, sigma=sigma), expected, atol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (1, 8)])
def test_blur_of_small_maps_keeps_constants(size: tuple[int, int]) -> None:
    maps = torch.full((2, *size), 3.0)
    torch.testing.assert_close(gaussian_blur(maps), maps)


@pytest.mark.parametrize(("width", "sigma"), [(4, 3.0), (0, 3.0), (7, 0.0)])
def test_refused_kernels(width: int, sigma: float) -> None:
    with pytest.raises(ValueError, match="expected a"):
        gaussian_blur(torch.ones(1, 8, 8), size=width, sigma=sigma)
