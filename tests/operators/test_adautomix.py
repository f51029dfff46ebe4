"""The mask of Adversarial AutoMixup: Mixup without a network, pixel by pixel with one."""

import numpy as np
import pytest
import torch

from automix.operator_info import Operator
from automix.operators.adautomix import AdAutoMixDraws, MaskNetwork, apply_adautomix
from automix.operators.mixup_cutmix import MixupDraws, apply_mixup
from tests.operators import references as ref
from tests.operators.cases import NUM_CLASSES, Scenario, classes, draw, random_images


def trained_network(channels: int) -> MaskNetwork:
    """Return a network that scores something."""
    generator = torch.Generator().manual_seed(0)
    network = MaskNetwork(channels, generator=generator)
    torch.nn.init.normal_(network.head.weight, generator=generator)
    return network.requires_grad_(False)


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
        one, other = (torch.from_numpy(image).float()[None] for image in (first, partner))
        mask = network(one, other, draws.lam[index : index + 1])[0, 0]
        expected.append(ref.by_mask(first, partner, ref.array(mask)))
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
