import math

import numpy as np
import pytest
import torch

from automix.operator_info import Operator
from automix.operators.registry import OPERATORS
from automix.operators.saliency_grafting import (
    apply_bernoulli_grafting,
    apply_saliency_grafting,
    draw_bernoulli_grafting,
    draw_saliency_grafting,
)
from automix.operators.types import BatchShape
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


def grafting(
    first: ref.Array, partner: ref.Array, uniform: ref.Array, temperature: float
) -> tuple[ref.Array, float]:
    """Return the cells of the partner, and `lam`, for pooled maps."""
    heat = np.exp(partner / partner.max() / temperature)
    probability = np.minimum(heat / heat.mean(), 1)
    cells = (uniform < probability).astype(np.float64)
    if cells.all():
        cells[np.unravel_index(partner.argmin(), partner.shape)] = 0
    if not cells.any():
        cells[np.unravel_index(partner.argmax(), partner.shape)] = 1
    return cells, importance(first, partner, cells)


def importance(first: ref.Array, partner: ref.Array, cells: ref.Array) -> float:
    """Return `lam`: what survives of the first image, of what survives of both."""
    of_own = math.sqrt(((first * (1 - cells)) ** 2).sum() / (first**2).sum())
    of_partner = math.sqrt(((partner * cells) ** 2).sum() / (partner**2).sum())
    return of_own / (of_own + of_partner)


@ref.every_scenario
@ref.every_seed
@pytest.mark.parametrize("temperature", [0.01, 0.2, 1.0, 10.0])
def test_agrees_with_loops(scenario: Scenario, seed: int, temperature: float) -> None:
    images, saliency = random_images(scenario, seed), random_saliency(scenario, seed)
    draws = draw_saliency_grafting(
        shape_of(images), strength=temperature, generator=seeded(seed), grid=3
    )
    mixed = apply_saliency_grafting(
        images, classes(scenario), draws, num_classes=NUM_CLASSES, saliency_BHW=saliency
    )
    cells = [ref.pooled(own_map, 3) for own_map in ref.array(saliency)]
    expected = []
    for index, (first, partner) in enumerate(ref.pairs(images, mixed)):
        grafted, lam = grafting(
            cells[index],
            cells[int(mixed.partner[index])],
            ref.array(draws.uniform[index]),
            temperature,
        )
        image, _ = ref.by_mask(first, partner, ref.enlarged(grafted, *scenario.size))
        expected.append((image, lam))
    ref.assert_agree(mixed, expected)


@ref.every_scenario
@ref.every_seed
@pytest.mark.parametrize("alpha", [0.2, 1.0, 5.0])
@pytest.mark.parametrize("threshold", [0.5, 1.0])
def test_bernoulli_grafting_agrees_with_loops(
    scenario: Scenario, seed: int, alpha: float, threshold: float
) -> None:
    images, saliency = random_images(scenario, seed), random_saliency(scenario, seed)
    draws = draw_bernoulli_grafting(
        shape_of(images), strength=alpha, generator=seeded(seed), grid=3
    )
    mixed = apply_bernoulli_grafting(
        images,
        classes(scenario),
        draws,
        num_classes=NUM_CLASSES,
        saliency_BHW=saliency,
        threshold=threshold,
    )
    maps = [ref.pooled(own_map, 3) for own_map in ref.array(saliency)]
    expected = []
    for index, (first, partner) in enumerate(ref.pairs(images, mixed)):
        partner_map = maps[int(mixed.partner[index])]
        cells = np.zeros((3, 3))
        for row, column in np.ndindex(3, 3):
            is_candidate = partner_map[row, column] >= threshold * partner_map.mean()
            is_kept = draws.uniform[index, row, column] < draws.rate[index]
            cells[row, column] = is_candidate and is_kept
        image, _ = ref.by_mask(first, partner, ref.enlarged(cells, *scenario.size))
        expected.append((image, importance(maps[index], partner_map, cells)))
    ref.assert_agree(mixed, expected)


@pytest.mark.parametrize(
    ("operator", "least", "most"),
    [(Operator.SALIENCY_GRAFTING, 0.0, 1.0), (Operator.BERNOULLI_GRAFTING, 2.0, 4.0)],
)
def test_cells_that_differ_between_two_draws_of_a_pair(
    operator: Operator, least: float, most: float
) -> None:
    # On maps with the contrast of a trained network. The rule of the temperature (0.05, the
    # weakest) grafts what is above the mean with certainty: 0.4 of 16 cells differ. Of about 7
    # candidates that are kept with p uniform in [0, 1], E[2 p (1 - p)] = 1/3 differ at one rate,
    # and 1/2 at two rates.
    batch = 256
    spec = OPERATORS[operator]
    maps = torch.from_numpy(np.random.default_rng(0).gamma(1 / 0.36, size=(batch, 4, 4))).float()
    masks = []
    for seed in range(2):
        draws = spec.draw(
            BatchShape(batch, 4, 4),
            strength=0.05 if operator is Operator.SALIENCY_GRAFTING else 1.0,
            generator=seeded(seed),
        )
        draws = draws._replace(partner=torch.arange(batch).roll(1))
        mixed = spec.apply(
            torch.zeros(batch, 1, 4, 4),
            torch.zeros(batch).long(),
            draws,
            num_classes=1,
            saliency_BHW=maps,
        )
        assert mixed.mask is not None
        masks.append(mixed.mask)
    assert least < float((masks[0] != masks[1]).sum()) / batch < most


def test_a_flat_map_has_only_candidates() -> None:
    scenario = Scenario(8)
    images = random_images(scenario)
    draws = draw_bernoulli_grafting(shape_of(images), strength=1.0, generator=seeded(0))
    everything = draws._replace(rate=torch.ones(8))
    mixed = apply_bernoulli_grafting(
        images,
        classes(scenario),
        everything,
        num_classes=NUM_CLASSES,
        saliency_BHW=torch.full((8, 32, 32), 0.3),
    )
    assert mixed.mask is not None
    assert mixed.mask.min() == 1
    assert torch.equal(mixed.lam, torch.zeros(8))
