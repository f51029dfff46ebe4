import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from automix.saliency.gradient import gradient_magnitude, normalized, resized
from benchmarks.saliency_agreement import agreement


@pytest.mark.parametrize("scale", [1e-44, 1e-30, 1.0, 1e37])
def test_sums_to_one_at_any_scale(scale: float) -> None:
    scores = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0)) * scale
    torch.testing.assert_close(normalized(scores).sum(dim=(1, 2)), torch.ones(3))


@pytest.mark.parametrize("value", [0.0, torch.nan, torch.inf])
def test_degenerate_maps_become_uniform(value: float) -> None:
    scores = torch.rand(2, 4, 6)
    scores[1] = 0.0
    scores[1, 2, 3] = value
    maps = normalized(scores)
    assert torch.equal(maps[1], torch.full((4, 6), 1 / 24))
    torch.testing.assert_close(maps[0], scores[0] / scores[0].sum())


def test_half_precision_scores_give_float32_maps() -> None:
    maps = normalized(torch.rand(2, 32, 32).half())
    assert maps.dtype == torch.float32
    torch.testing.assert_close(maps.sum(dim=(1, 2)), torch.ones(2))


@pytest.mark.parametrize("scale", [1e-35, 1.0, 1e30])
def test_magnitude_keeps_proportions(scale: float) -> None:
    gradient = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    expected = gradient.square().mean(dim=1).sqrt()
    torch.testing.assert_close(
        normalized(gradient_magnitude(gradient * scale)), normalized(expected)
    )


def test_resized_keeps_constants_and_shapes() -> None:
    maps = torch.full((2, 8, 6), 0.3)
    for height, width in ((8, 6), (16, 12), (3, 5)):
        torch.testing.assert_close(
            resized(maps, height, width), torch.full((2, height, width), 0.3)
        )


def slow_agreement(first: Tensor, second: Tensor, grid: int) -> float:
    tops = []
    for scores in (first, second):
        side = scores.shape[0] // grid
        cells = {
            (row, column): scores[
                row * side : (row + 1) * side, column * side : (column + 1) * side
            ]
            .mean()
            .item()
            for row in range(grid)
            for column in range(grid)
        }
        tops.append(set(sorted(cells, key=lambda cell: -cells[cell])[: grid * grid // 4]))
    return len(tops[0] & tops[1]) / len(tops[0])


@given(seed=st.integers(0, 1000), grid=st.sampled_from([2, 4, 8]))
def test_agreement_is_the_overlap_of_the_top_quarters(seed: int, grid: int) -> None:
    maps = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
    values = agreement(maps[0], maps[1], grid=grid)
    for row in range(3):
        assert values[row].item() == pytest.approx(slow_agreement(maps[0, row], maps[1, row], grid))
    assert torch.equal(agreement(maps[0], maps[0], grid=grid), torch.ones(3))
