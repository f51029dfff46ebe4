"""Every applying half is one graph, compiled a few times at most."""

from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from automix.operator_info import Operator
from automix.operators.comixup.energy import CoMixupWeights
from automix.operators.puzzlemix.energy import PuzzleWeights
from automix.operators.registry import OPERATORS
from tests.operators.cases import (
    ALL,
    NUM_CLASSES,
    Scenario,
    classes,
    draw,
    previous_batch,
    random_images,
    random_saliency,
)

# One with a ratio, one with a box, one with saliency, one with a state. The others take seconds
# each, and the solvers, which unroll into thousands of operations, half a minute.
QUICK = (Operator.MIXUP, Operator.CUTMIX, Operator.SALIENCY_GRAFTING, Operator.RECURSIVEMIX)
LAST = Scenario(3, size=(16, 16))


@pytest.mark.parametrize(
    "operator",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in ALL],
)
def test_one_graph_and_at_most_two_recompilations(operator: Operator) -> None:
    # The last batch of an epoch is smaller.
    assert 1 <= num_graphs(operator, [Scenario(6, size=(16, 16))] * 20 + [LAST]) <= 3


@pytest.mark.parametrize(
    ("operator", "options"),
    [
        pytest.param(Operator.COMIXUP, {"weights": CoMixupWeights(grid=2)}, marks=pytest.mark.slow),
        (Operator.PUZZLEMIX, {"weights": PuzzleWeights(grid=2), "transport": False}),
    ],
)
def test_one_graph_of_a_long_solver(operator: Operator, options: dict[str, object]) -> None:
    assert num_graphs(operator, [LAST] * 3, **options) == 1


def num_graphs(operator: Operator, scenarios: list[Scenario], **options: Any) -> int:
    """Return how many graphs are compiled for batches that follow each other."""
    torch.compiler.reset()
    counter = CompileCounter()
    spec = OPERATORS[operator]
    compiled = torch.compile(spec.apply, fullgraph=True, backend=counter)
    previous = previous_batch(scenarios[0]) if spec.facts.needs_previous else None
    for step, scenario in enumerate(scenarios):
        images = random_images(scenario, step)
        draws = draw(operator, images, step)
        inputs: dict[str, Any] = {
            "num_classes": NUM_CLASSES,
            "saliency_BHW": random_saliency(scenario),
        }
        mixed = compiled(images, classes(scenario), draws, previous=previous, **inputs, **options)
    if not spec.facts.needs_previous:
        expected = spec.apply(images, classes(scenario), draws, **inputs, **options)
        torch.testing.assert_close(mixed.images, expected.images, atol=1e-6, rtol=0)
        torch.testing.assert_close(mixed.targets, expected.targets, atol=1e-6, rtol=0)
    return counter.frame_count
