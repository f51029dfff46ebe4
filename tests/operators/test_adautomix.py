"""The mask of Adversarial AutoMixup: Mixup without a network, pixel by pixel with one."""

import numpy as np
import pytest
import torch

from automix.operator_info import Operator
from automix.operators.adautomix import AdAutoMixDraws, MaskNetwork, apply_adautomix
from automix.operators.mixup_cutmix import MixupDraws, apply_mixup
from tests.operators import references as ref
from tests.operators.cases import NUM_CLASSES, Scenario, classes, draw, random_images
from tests.operators.references import Array


def trained_network(channels: int) -> MaskNetwork:
    """Return a network that scores something."""
    generator = torch.Generator().manual_seed(0)
    network = MaskNetwork(channels, generator=generator)
    torch.nn.init.normal_(network.head.weight, generator=generator)
    return network.requires_grad_(False)


def slow_mask(network: MaskNetwork, first: Array, partner: Array, lam: float) -> Array:
    """Return the mask of one pair: cells, two convolutions and a score, and its odds, in NumPy."""
    layers = [ref.array(parameter) for parameter in network.parameters()]
    here, there = pooled(first), pooled(partner)
    score = scored(layers, here, there, lam) - scored(layers, there, here, 1 - lam)
    raised = (1 - lam) * np.exp(score)
    return enlarged(raised / (raised + lam), first.shape[1:])


def pooled(image: Array) -> Array:
    channels, *size = image.shape
    grid = [min(8, side) for side in size]
    cells = np.empty((channels, *grid))
    for y, x in np.ndindex(*grid):
        rows, columns = (
            slice(place * side // count, -(-(place + 1) * side // count))
            for place, side, count in zip((y, x), size, grid, strict=True)
        )
        cells[:, y, x] = image[:, rows, columns].mean(axis=(1, 2))
    return cells


def scored(layers: list[Array], first: Array, second: Array, weight: float) -> Array:
    features = np.concatenate((first, second, np.full((1, *first.shape[1:]), weight)))
    for kernel, bias in (layers[0:2], layers[2:4]):
        padded = np.pad(features, ((0, 0), (1, 1), (1, 1)))
        features = np.empty((len(kernel), *features.shape[1:]))
        for y, x in np.ndindex(*features.shape[1:]):
            window = padded[:, y : y + 3, x : x + 3]
            features[:, y, x] = np.maximum((kernel * window).sum(axis=(1, 2, 3)) + bias, 0)
    head: Array = np.tensordot(layers[4][0, :, 0, 0], features, 1) + layers[5][0]
    return head


def enlarged(cells: Array, size: tuple[int, ...]) -> Array:
    pixels = np.empty(size)
    for pixel in np.ndindex(*size):
        value = 0.0
        places = [
            max((at + 0.5) * count / side - 0.5, 0.0)
            for at, count, side in zip(pixel, cells.shape, size, strict=True)
        ]
        for corner in np.ndindex(2, 2):
            weight, index = 1.0, []
            for place, step, count in zip(places, corner, cells.shape, strict=True):
                below = int(place)
                weight *= place - below if step else 1 - (place - below)
                index.append(min(below + step, count - 1))
            value += weight * cells[tuple(index)]
        pixels[pixel] = value
    return pixels


@ref.every_scenario
@ref.every_seed
def test_an_untrained_network_is_mixup(scenario: Scenario, seed: int) -> None:
    images = random_images(scenario, seed)
    draws = draw(Operator.ADAUTOMIX, images, seed)
    mixup = apply_mixup(images, classes(scenario), MixupDraws(*draws), num_classes=NUM_CLASSES)
    fresh = MaskNetwork(images.shape[1], generator=torch.Generator().manual_seed(1))
    for network in (None, fresh):
        mixed = apply_adautomix(
            images, classes(scenario), draws, num_classes=NUM_CLASSES, network=network
        )
        torch.testing.assert_close(mixed.images, mixup.images)
        torch.testing.assert_close(mixed.lam, mixup.lam)


@ref.every_scenario
@ref.every_seed
def test_agrees_with_loops(scenario: Scenario, seed: int) -> None:
    images = random_images(scenario, seed)
    draws = draw(Operator.ADAUTOMIX, images, seed)
    network = trained_network(images.shape[1])
    mixed = apply_adautomix(
        images, classes(scenario), draws, num_classes=NUM_CLASSES, network=network
    )
    expected = []
    for index, (first, partner) in enumerate(ref.pairs(images, mixed)):
        # One pair at a time: a mask depends on nothing else in the batch.
        mask = slow_mask(network, first, partner, float(draws.lam[index]))
        expected.append(ref.by_mask(first, partner, mask))
    ref.assert_agree(mixed, expected)
    assert np.ptp(ref.array(mixed.mask[0])) > 0.01  # type: ignore[index]


def test_parents_exchanged_get_the_rest_of_the_mask() -> None:
    images, lam = torch.rand(2, 3, 12, 9), torch.tensor([0.3, 0.8])
    network = trained_network(3)
    mask = network(images, images.flip(0), lam)
    torch.testing.assert_close(network(images.flip(0), images, 1 - lam), 1 - mask)


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_one_parent_alone_stays_alone(weight: float) -> None:
    images = torch.rand(2, 3, 8, 8)
    draws = AdAutoMixDraws(torch.tensor([1, 0]), torch.full((2,), weight))
    mixed = apply_adautomix(
        images, torch.arange(2), draws, num_classes=2, network=trained_network(3)
    )
    torch.testing.assert_close(mixed.images, images if weight else images.flip(0))
    torch.testing.assert_close(mixed.lam, draws.lam)
