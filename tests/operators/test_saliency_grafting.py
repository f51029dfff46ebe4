import math

import numpy as np
import pytest

from automix.operators.saliency_grafting import apply_saliency_grafting, draw_saliency_grafting
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
    of_own = math.sqrt(((first * (1 - cells)) ** 2).sum() / (first**2).sum())
    of_partner = math.sqrt(((partner * cells) ** 2).sum() / (partner**2).sum())
    return cells, of_own / (of_own + of_partner)


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
