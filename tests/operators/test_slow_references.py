"""Every operator agrees with a slow version of it."""

from typing import Any

import numpy as np
import pytest
from torch import Tensor

from automix.operator_info import Operator
from automix.operators.guidedmixup import apply_guidedmixup, draw_guidedmixup, greedy_partner
from automix.operators.registry import OPERATORS
from automix.operators.resizemix import apply_resizemix, draw_resizemix
from automix.operators.rmix import apply_rmix, draw_rmix
from automix.operators.saliency_grafting import apply_saliency_grafting, draw_saliency_grafting
from automix.operators.types import MixedBatch
from tests.operators import slow_references as slow
from tests.operators.cases import (
    NUM_CLASSES,
    Scenario,
    apply,
    classes,
    draw,
    previous_batch,
    random_images,
    random_saliency,
    seeded,
    shape_of,
)

SCENARIOS = [Scenario(3, channels=1, size=(9, 14)), Scenario(2, size=(16, 8))]
every_scenario = pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
every_seed = pytest.mark.parametrize("seed", range(3))


def array(tensor: Tensor) -> slow.Array:
    return tensor.double().numpy()


def pairs(images: Tensor, mixed: MixedBatch) -> list[tuple[slow.Array, slow.Array]]:
    return list(zip(array(images), array(images[mixed.partner]), strict=True))


def assert_agree(mixed: MixedBatch, expected: list[slow.Mixed]) -> None:
    images, lam = (np.stack(values) for values in zip(*expected, strict=True))
    np.testing.assert_allclose(array(mixed.images), images, atol=2e-5)
    np.testing.assert_allclose(array(mixed.lam), lam, atol=1e-6)


def mixed_by(operator: Operator, scenario: Scenario, seed: int) -> tuple[Tensor, Any, MixedBatch]:
    images = random_images(scenario, seed)
    draws = draw(operator, images, seed)
    return images, draws, apply(operator, scenario, images, draws)


@every_scenario
@every_seed
def test_mixup(scenario: Scenario, seed: int) -> None:
    images, draws, mixed = mixed_by(Operator.MIXUP, scenario, seed)
    expected = []
    for (own, partner), lam in zip(pairs(images, mixed), draws.lam.tolist(), strict=True):
        expected.append(slow.by_mask(own, partner, np.full(scenario.size, 1 - lam)))
    assert_agree(mixed, expected)


@every_scenario
@every_seed
def test_cutmix(scenario: Scenario, seed: int) -> None:
    images, draws, mixed = mixed_by(Operator.CUTMIX, scenario, seed)
    expected = []
    for (own, partner), box in zip(pairs(images, mixed), draws.box, strict=True):
        expected.append(slow.by_mask(own, partner, slow.box_mask(box, *scenario.size)))
    assert_agree(mixed, expected)


@every_scenario
@every_seed
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("placement", ["clipped", "inside"])
def test_resizemix(scenario: Scenario, seed: int, interpolation: Any, placement: Any) -> None:
    images = random_images(scenario, seed)
    draws = draw_resizemix(
        shape_of(images), strength=0.8, generator=seeded(seed), placement=placement
    )
    mixed = apply_resizemix(
        images, classes(scenario), draws, num_classes=NUM_CLASSES, interpolation=interpolation
    )
    is_bilinear = interpolation == "bilinear"
    expected = []
    for (own, partner), box in zip(pairs(images, mixed), draws.box, strict=True):
        expected.append(slow.resized(own, partner, box, is_bilinear=is_bilinear))
    assert_agree(mixed, expected)


@every_scenario
@every_seed
def test_recursivemix(scenario: Scenario, seed: int) -> None:
    images, draws, mixed = mixed_by(Operator.RECURSIVEMIX, scenario, seed)
    shown = array(previous_batch(scenario).images)
    expected = [
        slow.resized(own, before, box, is_bilinear=False)
        for own, before, box in zip(array(images), shown, draws.box, strict=True)
    ]
    assert_agree(mixed, expected)


@every_scenario
@every_seed
def test_fmix(scenario: Scenario, seed: int) -> None:
    images, draws, mixed = mixed_by(Operator.FMIX, scenario, seed)
    expected = []
    for index, (own, partner) in enumerate(pairs(images, mixed)):
        lam, coin = float(draws.lam[index]), float(draws.coin[index])
        mask = slow.fmix_mask(array(draws.noise[index]), lam, coin, *scenario.size)
        expected.append(slow.by_mask(own, partner, mask))
    assert_agree(mixed, expected)


@every_scenario
@every_seed
def test_gridmix(scenario: Scenario, seed: int) -> None:
    images, draws, mixed = mixed_by(Operator.GRIDMIX, scenario, seed)
    expected = []
    for index, (own, partner) in enumerate(pairs(images, mixed)):
        numbers = {name: float(values[index]) for name, values in draws._asdict().items()}
        mask = slow.gridmix_mask(numbers, *scenario.size)
        expected.append(slow.by_mask(own, partner, mask))
    assert_agree(mixed, expected)


@every_scenario
@every_seed
def test_saliencymix(scenario: Scenario, seed: int) -> None:
    images, draws, mixed = mixed_by(Operator.SALIENCYMIX, scenario, seed)
    saliency = random_saliency(scenario)[mixed.partner]
    expected = []
    for index, (own, partner) in enumerate(pairs(images, mixed)):
        row, column = divmod(int(saliency[index].argmax()), scenario.size[1])
        box = slow.clovaai_box(float(draws.lam[index]), row, column, *scenario.size)
        expected.append(slow.by_mask(own, partner, slow.box_mask(box, *scenario.size)))
    assert_agree(mixed, expected)


@every_scenario
@every_seed
@pytest.mark.parametrize("grid", [1, 2, 4, 5])
def test_rmix(scenario: Scenario, seed: int, grid: int) -> None:
    images, saliency = random_images(scenario, seed), random_saliency(scenario, seed)
    draws = draw_rmix(shape_of(images), strength=1.0, generator=seeded(seed))
    mixed = apply_rmix(
        images,
        classes(scenario),
        draws,
        num_classes=NUM_CLASSES,
        saliency_BHW=saliency,
        grid=grid,
    )
    cells = [slow.pooled(own_map, grid) for own_map in array(saliency)]
    expected = []
    for index, (own, partner) in enumerate(pairs(images, mixed)):
        other = int(mixed.partner[index])
        percentiles = (float(draws.percentile[index]), float(draws.percentile[other]))
        lam = float(draws.lam[index])
        mask = slow.rmix_mask(cells[index], cells[other], percentiles, lam, scenario.size)
        expected.append(slow.by_mask(own, partner, mask))
    assert_agree(mixed, expected)


@every_scenario
@every_seed
@pytest.mark.parametrize("pairing", ["greedy", "random"])
def test_guidedmixup(scenario: Scenario, seed: int, pairing: Any) -> None:
    images, saliency = random_images(scenario, seed), random_saliency(scenario, seed)
    draws = draw_guidedmixup(
        shape_of(images), strength=0.0, generator=seeded(seed), pairing=pairing
    )
    mixed = apply_guidedmixup(
        images, classes(scenario), draws, num_classes=NUM_CLASSES, saliency_BHW=saliency
    )
    maps = array(saliency)
    expected = []
    for index, (own, partner) in enumerate(pairs(images, mixed)):
        mask = slow.guidedmixup_mask(maps[index], maps[int(mixed.partner[index])])
        expected.append(slow.by_mask(own, partner, mask))
    assert_agree(mixed, expected)
    if pairing == "greedy":
        blurred = np.stack([slow.blurred(one) / slow.blurred(one).sum() for one in maps])
        assert mixed.partner.tolist() == slow.greedy_cycle(blurred)


@every_scenario
@every_seed
@pytest.mark.parametrize("temperature", [0.01, 0.2, 1.0, 10.0])
def test_saliency_grafting(scenario: Scenario, seed: int, temperature: float) -> None:
    images, saliency = random_images(scenario, seed), random_saliency(scenario, seed)
    draws = draw_saliency_grafting(
        shape_of(images), strength=temperature, generator=seeded(seed), grid=3
    )
    mixed = apply_saliency_grafting(
        images, classes(scenario), draws, num_classes=NUM_CLASSES, saliency_BHW=saliency
    )
    cells = [slow.pooled(own_map, 3) for own_map in array(saliency)]
    expected = []
    for index, (own, partner) in enumerate(pairs(images, mixed)):
        grafted, lam = slow.grafting(
            cells[index],
            cells[int(mixed.partner[index])],
            array(draws.uniform[index]),
            temperature,
        )
        image, _ = slow.by_mask(own, partner, slow.enlarged(grafted, *scenario.size))
        expected.append((image, lam))
    assert_agree(mixed, expected)


@pytest.mark.parametrize("batch", range(1, 10))
@every_seed
def test_greedy_pairing(batch: int, seed: int) -> None:
    maps = random_saliency(Scenario(batch, size=(6, 5)), seed)
    assert greedy_partner(maps).tolist() == slow.greedy_cycle(array(maps))


def test_every_operator_has_a_reference() -> None:
    here = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    elsewhere = {Operator.NONE, Operator.PUZZLEMIX, Operator.COMIXUP}
    assert set(OPERATORS) - elsewhere <= here
