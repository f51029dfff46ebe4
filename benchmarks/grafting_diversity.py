"""Diversity of the two rules of Saliency Grafting: cells that differ between two draws of a pair.

    python -m benchmarks.grafting_diversity

Maps have the contrast of a trained network's: 4 x 4 cells, gamma-distributed with a coefficient of
variation of 0.6.
"""

import numpy as np
import torch
from torch import Tensor

from automix.operator_info import OPERATOR_FACTS, Operator
from automix.operators.registry import OPERATORS
from automix.operators.types import BatchShape

_GRID, _BATCH = 4, 4096
_VARIATION = 0.6


def cells_that_differ(operator: Operator, strength: float) -> Tensor:
    """Return for each pair how many of 16 cells are grafted in one of two draws only, (B,)."""
    # The coefficient of variation of a gamma distribution is the inverse root of its shape.
    shape = (_BATCH, _GRID, _GRID)
    maps = torch.from_numpy(np.random.default_rng(0).gamma(_VARIATION**-2, size=shape)).float()
    spec, masks = OPERATORS[operator], []
    for seed in range(2):
        draws = spec.draw(
            BatchShape(*shape),
            strength=strength,
            generator=torch.Generator().manual_seed(seed),
        )
        # The same pairs in both draws.
        draws = draws._replace(partner=torch.arange(_BATCH).roll(1))
        images, classes = torch.zeros(_BATCH, 1, _GRID, _GRID), torch.zeros(_BATCH).long()
        mixed = spec.apply(images, classes, draws, num_classes=1, saliency_BHW=maps)
        assert mixed.mask is not None
        masks.append(mixed.mask)
    return (masks[0] != masks[1]).sum(dim=(1, 2, 3)).double()


def main() -> None:
    """Print a row for each rule and strength."""
    print("| rule | cells that differ, of 16 |\n|---|---:|")
    for operator in (Operator.SALIENCY_GRAFTING, Operator.BERNOULLI_GRAFTING):
        for strength in OPERATOR_FACTS[operator].strength.levels:
            differ_B = cells_that_differ(operator, strength)
            half = 1.96 * float(differ_B.std()) / _BATCH**0.5
            print(f"| {operator.value} {strength:g} | {float(differ_B.mean()):.2f} +- {half:.2f} |")


if __name__ == "__main__":
    main()
