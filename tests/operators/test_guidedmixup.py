from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
import torch

from automix.operators.guidedmixup import (
    GuidedMixupDraws,
    apply_guidedmixup,
    draw_guidedmixup,
    gaussian_blur,
    greedy_partner,
)
from automix.operators.sampling import unit_sum
from tests.operators import references as ref
from tests.operators.cases import (
    NUM_CLASSES,
    Scenario,
    classes,
    random_images,
    random_saliency,
    seeded,
    shape_of,
)
from tests.operators.published import assert_same, assert_same_mask, published_case


def slow_blur(saliency: ref.Array) -> ref.Array:
    """Return the 7 x 7 Gaussian of sigma 3, mirrored at the border without the edge."""
    height, width = saliency.shape
    kernel = np.exp(-0.5 * (np.arange(-3, 4) / 3) ** 2)
    kernel /= kernel.sum()
    result = np.zeros_like(saliency)
    for y in range(height):
        for x in range(width):
            for i in range(-3, 4):
                for j in range(-3, 4):
                    source_y, source_x = mirrored(y + i, height), mirrored(x + j, width)
                    result[y, x] += kernel[i + 3] * kernel[j + 3] * saliency[source_y, source_x]
    return result


def mirrored(position: int, length: int) -> int:
    if position < 0:
        return -position
    return position if position < length else 2 * (length - 1) - position


def guidedmixup_mask(first: ref.Array, partner: ref.Array) -> ref.Array:
    first, second = slow_blur(first), slow_blur(partner)
    first, second = first / first.sum(), second / second.sum()
    return np.asarray(second / (first + second))


def slow_cycle(maps: ref.Array) -> list[int]:
    count = len(maps)
    distance = [[float(((a - b) ** 2).sum()) for b in maps] for a in maps]
    couples = [(i, j) for i in range(count) for j in range(i + 1, count)]
    if not couples:
        return [0]
    first, current = max(couples, key=lambda pair: distance[pair[0]][pair[1]])
    partner = [0] * count
    partner[first] = current
    unused = set(range(count)) - {first, current}
    while unused:
        following = max(unused, key=lambda index: distance[current][index])
        partner[current] = following
        unused.remove(following)
        current = following
    partner[current] = first
    return partner


@ref.every_scenario
@ref.every_seed
@pytest.mark.parametrize("pairing", ["greedy", "random"])
def test_agrees_with_loops(scenario: Scenario, seed: int, pairing: Any) -> None:
    images, saliency = random_images(scenario, seed), random_saliency(scenario, seed)
    draws = draw_guidedmixup(
        shape_of(images), strength=0.0, generator=seeded(seed), pairing=pairing
    )
    mixed = apply_guidedmixup(
        images, classes(scenario), draws, num_classes=NUM_CLASSES, saliency_BHW=saliency
    )
    maps = ref.array(saliency)
    expected = []
    for index, (first, partner) in enumerate(ref.pairs(images, mixed)):
        mask = guidedmixup_mask(maps[index], maps[int(mixed.partner[index])])
        expected.append(ref.by_mask(first, partner, mask))
    ref.assert_agree(mixed, expected)
    if pairing == "greedy":
        blurred = np.stack([slow_blur(one) / slow_blur(one).sum() for one in maps])
        assert mixed.partner.tolist() == slow_cycle(blurred)


@pytest.mark.parametrize("batch", range(1, 10))
@ref.every_seed
def test_greedy_pairing_agrees_with_loops(batch: int, seed: int) -> None:
    maps = random_saliency(Scenario(batch, size=(6, 5)), seed)
    assert greedy_partner(maps).tolist() == slow_cycle(ref.array(maps))


@pytest.mark.parametrize("name", ["guidedmixup_24x40", "guidedmixup_32x32"])
def test_agrees_with_published_code(shared_folder: Path, name: str) -> None:
    case = published_case(shared_folder, name)
    blurred = unit_sum(gaussian_blur(case["saliency"]))
    tolerance = 1e-5 * float(case["saliency_blurred"].mean())
    torch.testing.assert_close(blurred, case["saliency_blurred"], atol=tolerance, rtol=0)
    random_pairs, greedy_pairs = case["perm"]
    for index, partner in enumerate((random_pairs, None)):
        mixed = apply_guidedmixup(
            case["x"],
            case["y"],
            GuidedMixupDraws(partner),
            num_classes=10,
            saliency_BHW=case["saliency"],
        )
        assert_same(mixed, case, index)
        assert_same_mask(mixed, case["mask"][index], atol=1e-5)
    assert torch.equal(mixed.partner, greedy_pairs)


@pytest.mark.parametrize("batch", [2, 3, 8, 16, 33])
def test_greedy_pairing_agrees_with_published_code(shared_folder: Path, batch: int) -> None:
    case = published_case(shared_folder, "guidedmixup_greedy_pairing")
    assert torch.equal(greedy_partner(case[f"saliency_{batch}"]), case[f"perm_{batch}"])


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
