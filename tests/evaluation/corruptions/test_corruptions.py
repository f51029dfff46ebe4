import colorsys
import itertools
from collections import Counter
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torch import Tensor

from automix.evaluation.corruptions import blur_weather, noise_digital
from automix.evaluation.corruptions.registry import CORRUPTIONS, SEVERITIES, Corruption, corrupt
from automix.evaluation.counter_random import SampleRandom
from tests.evaluation.photos import make_photos

every_corruption = pytest.mark.parametrize("corruption", list(Corruption))


def random_for(num_images: int) -> SampleRandom:
    return SampleRandom(seed=0, indices=torch.arange(num_images))


def distances(images: Tensor, corrupted: Tensor) -> Tensor:
    """Root mean square difference of each image, in [0, 1]."""
    return (corrupted.double() - images.double()).div(255).square().mean((1, 2, 3)).sqrt()


def test_all_fifteen_have_five_severities() -> None:
    assert set(CORRUPTIONS) == set(Corruption)
    assert len(Corruption) == 15
    assert {len(spec.parameters) for spec in CORRUPTIONS.values()} == {5}


@every_corruption
def test_an_image_is_corrupted_the_same_alone_and_in_any_batch(corruption: Corruption) -> None:
    images = make_photos(260)
    before = images.clone()
    for severity in (1, 5):
        whole = corrupt(images, corruption, severity, seed=5)
        chosen = torch.tensor([257, 3, 120])
        part = corrupt(images[chosen], corruption, severity, seed=5, indices=chosen)
        alone = corrupt(images[3:4], corruption, severity, seed=5, indices=torch.tensor([3]))
        assert torch.equal(part, whole[chosen])
        assert torch.equal(alone, whole[3:4])
    assert torch.equal(images, before)


@every_corruption
@pytest.mark.parametrize(("height", "width", "channels"), [(32, 32, 3), (48, 40, 1), (64, 96, 3)])
def test_severities_grow_in_distance(
    corruption: Corruption, height: int, width: int, channels: int
) -> None:
    images = make_photos(24, height=height, width=width, channels=channels)
    means = [
        distances(images, corrupt(images, corruption, severity, seed=1)).mean().item()
        for severity in SEVERITIES
    ]
    assert means[0] > 0.004
    assert all(weaker < stronger for weaker, stronger in itertools.pairwise(means))
    assert means[-1] < 0.4


@pytest.mark.slow
def test_severities_grow_on_photographs(
    cifar_photos: Tensor,
) -> None:
    for corruption in Corruption:
        means = [
            distances(cifar_photos, corrupt(cifar_photos, corruption, severity, seed=0)).mean()
            for severity in SEVERITIES
        ]
        assert means == sorted(means), corruption


@every_corruption
def test_seeds_matter_exactly_where_something_is_drawn(corruption: Corruption) -> None:
    images = make_photos(4)
    same = torch.equal(
        corrupt(images, corruption, 3, seed=0), corrupt(images, corruption, 3, seed=1)
    )
    is_fixed = corruption in {
        Corruption.DEFOCUS_BLUR,
        Corruption.ZOOM_BLUR,
        Corruption.BRIGHTNESS,
        Corruption.CONTRAST,
        Corruption.PIXELATE,
        Corruption.JPEG_COMPRESSION,
    }
    assert same == is_fixed


@every_corruption
@pytest.mark.parametrize("shape", [(2, 1, 8, 8), (1, 3, 1, 1), (3, 5, 17, 9), (0, 3, 32, 32)])
def test_any_size_and_number_of_channels(
    corruption: Corruption, shape: tuple[int, int, int, int]
) -> None:
    images = torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator())
    for severity in SEVERITIES:
        result = corrupt(images, corruption, severity, seed=0)
        assert (result.shape, result.dtype) == (images.shape, torch.uint8)


@every_corruption
def test_floats_stay_in_range_and_agree_with_bytes(corruption: Corruption) -> None:
    images = make_photos(6)
    for dtype in (torch.float32, torch.float16):
        result = corrupt(images.to(dtype) / 255, corruption, 4, seed=2)
        assert result.dtype == dtype
        assert result.isfinite().all()
        assert result.min() >= 0
        assert result.max() <= 1
    exact = corrupt(images.float() / 255, corruption, 4, seed=2)
    rounded = corrupt(images, corruption, 4, seed=2)
    assert (exact * 255 - rounded).abs().max() < 0.51


@every_corruption
def test_flat_black_and_white_images_are_no_trouble(corruption: Corruption) -> None:
    for level in (0.0, 1.0):
        images = torch.full((2, 3, 16, 16), level)
        result = corrupt(images, corruption, 5, seed=0)
        assert result.isfinite().all()


def test_shot_noise_is_the_inverse_poisson_distribution() -> None:
    levels = torch.arange(256).float().div(255).view(1, 1, 16, 16).expand(20, 1, 16, 16)
    random = random_for(20)
    for photons in (500, 50):
        result = noise_digital.shot_noise(levels, random, photons) * photons
        uniform = random.uniform("noise", (1, 16, 16)).double().numpy()
        expected = stats.poisson.ppf(uniform, levels.double().numpy() * photons)
        # Probabilities are kept to 2^-31, and uniforms to 2^-23.
        assert (np.abs(result.numpy() - expected) > 1e-3).mean() < 1e-3
    assert (noise_digital.shot_noise(torch.zeros(1, 1, 9, 9), random_for(1), 50) == 0).all()


def test_impulses_are_black_and_white_in_equal_shares() -> None:
    images = torch.full((50, 3, 32, 32), 0.5)
    result = noise_digital.impulse_noise(images, random_for(50), 0.07)
    counts = Counter(result.flatten().tolist())
    total = images.numel()
    assert set(counts) == {0.0, 0.5, 1.0}
    assert counts[0.0] / total == pytest.approx(0.035, rel=0.03)
    assert counts[1.0] / total == pytest.approx(0.035, rel=0.03)


def test_disk_blur_spreads_a_point_over_the_disk() -> None:
    images = torch.zeros(1, 1, 21, 21)
    images[0, 0, 10, 10] = 1
    result = blur_weather.defocus_blur(images, random_for(1), 4.0, 0.01)[0, 0]
    offsets = torch.arange(21) - 10.0
    distance = (offsets.square() + offsets[:, None].square()).sqrt()
    area = torch.pi * 4.0**2
    torch.testing.assert_close(result[distance < 3.2] * area, torch.ones(37), atol=0.01, rtol=0)
    assert (result[distance > 4.8] == 0).all()
    assert result.sum().item() == pytest.approx(1)


def test_motion_blur_smears_along_its_angle_and_keeps_the_sum() -> None:
    images = torch.zeros(40, 1, 33, 33)
    images[:, 0, 16, 16] = 1
    angles = torch.linspace(-3, 3, 40)
    result = blur_weather.directional_blur(images, angles, sigma=2.5)
    torch.testing.assert_close(result.sum((1, 2, 3)), torch.ones(40))
    offsets = torch.arange(33) - 16.0
    down = (result.sum(3)[:, 0] * offsets).sum(1)
    right = (result.sum(2)[:, 0] * offsets).sum(1)
    # The image is read in the direction of the angle, so its content moves against it.
    torch.testing.assert_close(torch.atan2(-down, -right), angles, atol=0.02, rtol=0)


def test_glass_blur_moves_values_by_at_most_one_pixel() -> None:
    columns = torch.arange(32.0).expand(2, 1, 32, 32) / 31
    result = blur_weather.glass_blur(columns, random_for(2), 0.05, 1.0, 1)
    moved = ((result - columns) * 31).round()
    assert set(moved.flatten().tolist()) == {-1.0, 0.0, 1.0}
    untouched = blur_weather.glass_blur(columns, random_for(2), 0.05, 0.0, 2)
    assert torch.equal(untouched, columns)


def test_brightness_adds_to_the_value_of_hsv() -> None:
    images = make_photos(1, height=8, width=8).float() / 255
    images[0, :, 0, 0] = 0
    result = blur_weather.brightness(images, random_for(1), 0.2)[0]
    for row, column in np.ndindex(8, 8):
        hue, saturation, value = colorsys.rgb_to_hsv(*images[0, :, row, column].tolist())
        expected = colorsys.hsv_to_rgb(hue, saturation, min(value + 0.2, 1))
        np.testing.assert_allclose(result[:, row, column], expected, atol=1e-5)


def test_contrast_keeps_the_mean_and_scales_the_deviation() -> None:
    images = make_photos(3).float() / 255
    result = noise_digital.contrast(images, random_for(3), 0.4)
    torch.testing.assert_close(result.mean((2, 3)), images.mean((2, 3)))
    torch.testing.assert_close(result.std((2, 3)), 0.4 * images.std((2, 3)))


def test_pixelation_makes_blocks_of_the_mean() -> None:
    images = make_photos(2).float() / 255
    result = noise_digital.pixelate(images, random_for(2), 0.5)
    blocks = torch.nn.functional.avg_pool2d(images, 2)
    torch.testing.assert_close(result, blocks.repeat_interleave(2, 2).repeat_interleave(2, 3))


def test_elastic_transform_without_displacement_changes_nothing() -> None:
    images = make_photos(2, height=20, width=33).float() / 255
    result = noise_digital.elastic_transform(images, random_for(2), 0.0, 1.0, 0.0)
    torch.testing.assert_close(result, images, atol=1e-5, rtol=0)


def test_elastic_jitter_moves_the_three_points_by_the_draws() -> None:
    rows = torch.arange(32.0).view(1, 1, 32, 1).expand(1, 1, 32, 32) / 31
    random = random_for(1)
    moved = noise_digital.elastic_transform(rows, random, 0.0, 1.0, 2.0)[0, 0] * 31
    draws = (2 * random.uniform("corners", (3, 2)) - 1)[0] * 2
    for (row, column), draw in zip(((26, 26), (26, 6), (6, 6)), draws, strict=True):
        assert moved[row, column].item() == pytest.approx(row + draw[0].item(), abs=1e-3)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 40), (17, 21)])
def test_plasma_spans_zero_to_one_and_is_rougher_with_less_decay(height: int, width: int) -> None:
    roughness = []
    for decay in (3, 1.75, 1.2):
        maps = blur_weather.plasma(random_for(20), "fog", height, width, decay=decay)
        assert maps.shape == (20, 1, height, width)
        assert maps.min() >= 0
        assert maps.max() <= 1
        assert (maps.amax((1, 2, 3)) - maps.amin((1, 2, 3))).min() > 0.4
        roughness.append((maps[..., 1:] - maps[..., :-1]).abs().mean().item())
    assert roughness == sorted(roughness)


@pytest.mark.parametrize("quality", [95, 80, 58, 40, 10])
@pytest.mark.parametrize(
    ("height", "width", "channels"), [(32, 32, 3), (48, 64, 1), (33, 47, 3), (20, 9, 1)]
)
def test_jpeg_agrees_with_libjpeg(quality: int, height: int, width: int, channels: int) -> None:
    images = make_photos(8, height=height, width=width, channels=channels, seed=4)
    result = noise_digital.jpeg_compression(images.float() / 255, random_for(8), quality) * 255
    decoded = torch.stack([through_libjpeg(image, quality) for image in images])
    difference = (result - decoded).abs()
    loss = (images - decoded).abs()
    # Where a coefficient is half-way between two steps, fixed and floating point may differ.
    assert difference.mean() < 0.08 * loss.mean() + 0.25
    if quality <= 40:
        assert (difference > 2).float().mean() < 0.1


def through_libjpeg(image: Tensor, quality: int) -> Tensor:
    pixels = image.permute(1, 2, 0).numpy() if len(image) == 3 else image[0].numpy()
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality)
    decoded = torch.from_numpy(np.array(Image.open(stream), dtype=np.float32))
    return decoded.permute(2, 0, 1) if len(image) == 3 else decoded[None]


def test_wrong_arguments_are_refused() -> None:
    images = make_photos(3)
    with pytest.raises(ValueError, match="severity: expected 1 to 5, got 6"):
        corrupt(images, Corruption.FOG, 6, seed=0)
    with pytest.raises(ValueError, match="images: expected uint8 or floating of shape"):
        corrupt(images.long(), Corruption.FOG, 1, seed=0)
    with pytest.raises(ValueError, match="images: expected uint8 or floating of shape"):
        corrupt(images[0], Corruption.FOG, 1, seed=0)
    with pytest.raises(ValueError, match="indices: expected one for each of 3 images"):
        corrupt(images, Corruption.FOG, 1, seed=0, indices=torch.arange(2))
