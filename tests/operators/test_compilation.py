"""Every applying half is one graph, compiled a few times at most."""

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from automix.operator_info import Operator
from automix.operators.registry import OPERATORS
from tests.operators.cases import (
    ALL,
    NUM_CLASSES,
    Scenario,
    apply,
    classes,
    draw,
    previous_batch,
    random_images,
    random_saliency,
)

DRAWS = 50


@pytest.mark.parametrize("operator", ALL)
def test_one_graph_and_at_most_two_recompilations(operator: Operator) -> None:
    torch.compiler.reset()
    counter = CompileCounter()
    spec = OPERATORS[operator]
    compiled = torch.compile(spec.apply, fullgraph=True, backend=counter)
    whole, last = Scenario(6, size=(16, 16)), Scenario(3, size=(16, 16))
    previous = previous_batch(whole) if spec.facts.needs_previous else None
    for step in range(DRAWS + 1):
        scenario = last if step == DRAWS else whole
        images = random_images(scenario, step)
        draws = draw(operator, images, step)
        mixed = compiled(
            images,
            classes(scenario),
            draws,
            num_classes=NUM_CLASSES,
            saliency_BHW=random_saliency(scenario) if spec.facts.needs_saliency else None,
            previous=previous,
        )
        if scenario == last and not spec.facts.needs_previous:
            expected = apply(operator, scenario, images, draws)
            torch.testing.assert_close(mixed.images, expected.images, atol=1e-6, rtol=0)
            torch.testing.assert_close(mixed.targets, expected.targets, atol=1e-6, rtol=0)
    assert 1 <= counter.frame_count <= 3
