"""Maps without information: flat, zero, not finite, or with a single pixel."""

import pytest
import torch
from torch import Tensor

from automix.operator_info import Operator
from automix.operators.registry import OPERATORS
from automix.operators.sampling import unit_sum
from automix.operators.types import MixedBatch
from tests.operators.cases import (
    NUM_CLASSES,
    WITH_SALIENCY,
    Scenario,
    classes,
    draw,
    random_images,
    random_saliency,
)

SCENARIO = Scenario(5)
with_saliency = pytest.mark.parametrize("operator", WITH_SALIENCY)


def mixed_with(operator: Operator, saliency: Tensor) -> MixedBatch:
    images = random_images(SCENARIO)
    return OPERATORS[operator].apply(
        images,
        classes(SCENARIO),
        draw(operator, images),
        num_classes=NUM_CLASSES,
        saliency_BHW=saliency,
    )


def flat(value: float) -> Tensor:
    return torch.full((5, 32, 32), value)


def spoilt(value: float) -> Tensor:
    maps = random_saliency(SCENARIO)
    maps[:, 3, 4] = value
    return maps


@with_saliency
@pytest.mark.parametrize(
    "saliency",
    [flat(0.0), flat(7.0), flat(float("nan")), spoilt(float("nan")), spoilt(float("inf"))],
    ids=["zero", "seven", "nan", "one nan", "one infinity"],
)
def test_maps_without_information_count_as_uniform(operator: Operator, saliency: Tensor) -> None:
    mixed, uniform = mixed_with(operator, saliency), mixed_with(operator, flat(1.0))
    torch.testing.assert_close(mixed.images, uniform.images, atol=1e-6, rtol=0)
    torch.testing.assert_close(mixed.targets, uniform.targets, atol=1e-6, rtol=0)


@with_saliency
def test_one_spoilt_map_leaves_the_others_alone(operator: Operator) -> None:
    maps = random_saliency(SCENARIO)
    maps[2] = float("nan")
    ones = random_saliency(SCENARIO)
    ones[2] = 1
    mixed, expected = mixed_with(operator, maps), mixed_with(operator, ones)
    assert torch.equal(mixed.images, expected.images)
    assert torch.equal(mixed.targets, expected.targets)


@with_saliency
@pytest.mark.parametrize("scale", [1e-25, 1e-6, 1e6, 1e25])
def test_scale_does_not_matter(operator: Operator, scale: float) -> None:
    maps = random_saliency(SCENARIO)
    mixed, expected = mixed_with(operator, maps * scale), mixed_with(operator, maps)
    torch.testing.assert_close(mixed.images, expected.images, atol=1e-5, rtol=0)
    torch.testing.assert_close(mixed.targets, expected.targets, atol=1e-5, rtol=0)


@with_saliency
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_maps_of_any_precision(operator: Operator, dtype: torch.dtype) -> None:
    maps = random_saliency(SCENARIO).to(dtype)
    mixed, expected = mixed_with(operator, maps), mixed_with(operator, maps.float())
    assert torch.equal(mixed.images, expected.images)


@with_saliency
def test_one_salient_pixel(operator: Operator) -> None:
    maps = flat(0.0)
    maps[:, 20, 9] = 1
    mixed = mixed_with(operator, maps)
    assert mixed.images.isfinite().all()
    assert (mixed.targets.sum(1) - 1).abs().max() <= 1e-6


def test_saliencymix_falls_back_to_the_drawn_center() -> None:
    images = random_images(SCENARIO)
    draws = draw(Operator.SALIENCYMIX, images)
    mask = mixed_with(Operator.SALIENCYMIX, flat(1.0)).mask
    assert mask is not None
    for index in torch.nonzero(draws.lam < 0.9).flatten().tolist():
        assert mask[index, 0, draws.row[index], draws.column[index]] == 1


def test_guidedmixup_of_flat_maps_is_an_even_blend() -> None:
    assert torch.allclose(mixed_with(Operator.GUIDEDMIXUP, flat(0.0)).lam, torch.tensor(0.5))


def test_rmix_of_flat_maps_is_mixup() -> None:
    draws = draw(Operator.RMIX, random_images(SCENARIO))
    torch.testing.assert_close(mixed_with(Operator.RMIX, flat(0.0)).lam, draws.lam)


def test_grafting_of_flat_maps_leaves_one_cell() -> None:
    mask = mixed_with(Operator.SALIENCY_GRAFTING, flat(0.0)).mask
    assert mask is not None
    torch.testing.assert_close(mask.mean((1, 2, 3)), torch.full((5,), 15 / 16))


def test_shares_sum_to_one() -> None:
    nothing = torch.zeros(2, 2)
    maps = torch.stack([nothing, nothing + torch.nan, torch.tensor([[1.0, 0.0], [0.0, 3.0]])])
    even = torch.full((2, 2), 0.25)
    assert torch.equal(unit_sum(maps), torch.stack([even, even, maps[2] / 4]))
