"""On a GPU: the same results as on a CPU, and the host never waits."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from automix.operator_info import Operator
from automix.operators.registry import OPERATORS
from automix.operators.types import MixedBatch
from tests.operators.cases import (
    ALL,
    NUM_CLASSES,
    Scenario,
    classes,
    draw,
    random_images,
    random_saliency,
    shape_of,
)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]
SCENARIO = Scenario(24)


@contextmanager
def waiting_is_an_error() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def on_gpu(value: Any) -> Any:
    """Return draws with their tensors on the GPU."""
    if isinstance(value, Tensor):
        return value.cuda()
    if not isinstance(value, tuple):
        return value
    moved = [on_gpu(part) for part in value]
    return value._make(moved) if hasattr(value, "_make") else tuple(moved)


@pytest.mark.parametrize("operator", ALL)
def test_applying_does_not_wait(operator: Operator) -> None:
    spec = OPERATORS[operator]
    images, saliency = random_images(SCENARIO).cuda(), random_saliency(SCENARIO).cuda()
    targets = classes(SCENARIO).remainder(NUM_CLASSES).cuda()
    draws = spec.draw(
        shape_of(images),
        strength=spec.facts.strength.default,
        generator=torch.Generator(images.device).manual_seed(0),
    )
    previous: MixedBatch | None = None
    for _ in range(2):  # RecursiveMix has a batch before in the second round
        with waiting_is_an_error():
            mixed = spec.apply(
                images,
                targets,
                draws,
                num_classes=NUM_CLASSES,
                saliency_BHW=saliency,
                previous=previous,
            )
        previous = mixed
        torch.testing.assert_close(mixed.targets.sum(1).cpu(), torch.ones(24))


@pytest.mark.parametrize("operator", ALL)
def test_the_result_is_that_of_a_cpu(operator: Operator) -> None:
    spec = OPERATORS[operator]
    images, saliency = random_images(SCENARIO), random_saliency(SCENARIO)
    targets, draws = classes(SCENARIO).remainder(NUM_CLASSES), draw(operator, images)
    inputs = images, targets, draws, saliency
    expected, mixed = (
        spec.apply(*batch[:3], num_classes=NUM_CLASSES, saliency_BHW=batch[3])
        for batch in (inputs, on_gpu(inputs))
    )
    # Sums in another order may tip single cells of a choice.
    is_close = torch.isclose(mixed.images.cpu(), expected.images, atol=1e-4).float()
    assert is_close.mean() > 0.97
