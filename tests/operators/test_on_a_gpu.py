"""On a GPU: the same results as on a CPU, and the host never waits."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from automix.operators.registry import OPERATORS
from automix.vocabulary import Operator
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


@pytest.fixture
def _waiting_is_an_error() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


def on_gpu(value: Any) -> Any:
    """Return draws with their tensors on the GPU."""
    if isinstance(value, Tensor):
        return value.cuda()
    return type(value)(*map(on_gpu, value)) if isinstance(value, tuple) else value


@pytest.mark.parametrize("operator", ALL)
@pytest.mark.usefixtures("_waiting_is_an_error")
def test_applying_does_not_wait(operator: Operator) -> None:
    torch.cuda.set_sync_debug_mode("default")
    spec = OPERATORS[operator]
    images, saliency = random_images(SCENARIO).cuda(), random_saliency(SCENARIO).cuda()
    targets = classes(SCENARIO).remainder(NUM_CLASSES).cuda()
    draws = spec.draw(
        shape_of(images),
        strength=spec.facts.strength.default,
        generator=torch.Generator(images.device).manual_seed(0),
    )
    previous = None
    for _ in range(2):  # RecursiveMix has a batch before in the second round
        torch.cuda.set_sync_debug_mode("error")
        previous = spec.apply(
            images,
            targets,
            draws,
            num_classes=NUM_CLASSES,
            saliency_BHW=saliency,
            previous=previous,
        )
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(previous.targets.sum(1).cpu(), torch.ones(24))


@pytest.mark.parametrize("operator", ALL)
def test_the_result_is_that_of_a_cpu(operator: Operator) -> None:
    spec = OPERATORS[operator]
    images, saliency = random_images(SCENARIO), random_saliency(SCENARIO)
    targets, draws = classes(SCENARIO).remainder(NUM_CLASSES), draw(operator, images)
    expected, mixed = (
        spec.apply(
            move(images),
            move(targets),
            move(draws),
            num_classes=NUM_CLASSES,
            saliency_BHW=move(saliency),
        )
        for move in (lambda value: value, on_gpu)
    )
    # Sums in another order may tip single cells of a choice.
    is_close = torch.isclose(mixed.images.cpu(), expected.images, atol=1e-4).float()
    assert is_close.mean() > 0.97
