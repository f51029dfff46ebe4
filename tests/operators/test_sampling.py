from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch

from automix.operators.mixup_cutmix import draw_cutmix
from automix.operators.recursivemix import draw_recursivemix
from automix.operators.registry import OPERATORS
from automix.operators.resizemix import draw_resizemix
from automix.operators.sampling import (
    BoxRule,
    box_lam,
    centered_box,
    draw_beta,
    draw_gamma,
    draw_index,
    draw_partner,
    draw_uniform,
    enlarge_cells,
    pool_cells,
)
from automix.operators.types import BatchShape
from tests.operators.cases import seeded
from tests.operators.published import published_case
from tests.operators.references import enlarged, pooled

MANY = 20_000


@pytest.mark.parametrize("alpha", [0.01, 0.2, 1.0, 2.0, 10.0])
def test_beta_has_its_distribution(alpha: float) -> None:
    """Pins the private function under `draw_beta`: what it returns, and from which generator."""
    generator = seeded(0)
    before, global_before = generator.get_state(), torch.get_rng_state()
    lam = draw_beta(MANY, alpha, generator)
    assert not torch.equal(generator.get_state(), before)
    assert torch.equal(torch.get_rng_state(), global_before)
    assert torch.equal(lam, draw_beta(MANY, alpha, seeded(0)))
    assert (lam.shape, lam.dtype) == ((MANY,), torch.float32)
    assert lam.min() >= 0
    assert lam.max() <= 1
    # Most of Beta(0.01, 0.01) rounds to 0 or 1, where a test of a continuous distribution fails.
    between = (lam > 1e-6) & (lam < 1 - 1e-6)
    cdf = scipy.stats.beta(alpha, alpha).cdf
    fraction = float(cdf(1 - 1e-6) - cdf(1e-6))
    deviation = (fraction * (1 - fraction) / MANY) ** 0.5
    assert abs(float(between.double().mean()) - fraction) <= 4 * deviation + 1e-9
    # The probability integral transform of what is between is uniform.
    uniform = (cdf(lam[between].double().numpy()) - cdf(1e-6)) / fraction
    assert scipy.stats.kstest(uniform, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan")])
def test_beta_refuses(alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha: expected a positive number, got"):
        draw_beta(3, alpha, seeded(0))


@pytest.mark.parametrize("shape", [0.5, 2.0, 4.0])
def test_gamma_has_its_distribution(shape: float) -> None:
    """Pins the private function under `draw_gamma`."""
    generator = seeded(0)
    before, global_before = generator.get_state(), torch.get_rng_state()
    gamma = draw_gamma(MANY, shape, generator)
    assert not torch.equal(generator.get_state(), before)
    assert torch.equal(torch.get_rng_state(), global_before)
    assert torch.equal(gamma, draw_gamma(MANY, shape, seeded(0)))
    assert (gamma.shape, gamma.dtype) == ((MANY,), torch.float32)
    assert scipy.stats.kstest(gamma.numpy(), scipy.stats.gamma(shape).cdf).pvalue > 1e-3


def test_gamma_is_positive_and_finite() -> None:
    gamma = draw_gamma(MANY, 0.01, seeded(0))
    assert gamma.min() > 0
    assert gamma.isfinite().all()


@pytest.mark.parametrize("shape", [0.0, -1.0, float("nan")])
def test_gamma_refuses(shape: float) -> None:
    with pytest.raises(ValueError, match="shape: expected a positive number, got"):
        draw_gamma(3, shape, seeded(0))


def test_one_number_for_the_batch() -> None:
    for values in (
        draw_beta(5, 1.0, seeded(1), per="batch"),
        draw_uniform(5, seeded(1), per="batch"),
        draw_index(5, 1000, seeded(1), per="batch"),
    ):
        assert values.shape == (5,)
        assert values.unique().numel() == 1  # type: ignore[no-untyped-call]
    assert draw_beta(5, 1.0, seeded(1)).unique().numel() == 5  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("batch", [1, 2, 3, 8])
def test_partners_are_a_permutation(batch: int) -> None:
    partner = draw_partner(batch, seeded(batch))
    assert torch.equal(partner.sort().values, torch.arange(batch))


def test_uniform_and_index_cover_their_range() -> None:
    uniform = draw_uniform(MANY, seeded(0), low=0.5, high=2.0)
    assert scipy.stats.kstest(uniform.numpy(), scipy.stats.uniform(0.5, 1.5).cdf).pvalue > 1e-3
    index = draw_index(MANY, 7, seeded(0))
    assert scipy.stats.chisquare(index.bincount().numpy()).pvalue > 1e-3
    assert index.bincount().shape == (7,)


@pytest.mark.parametrize("operator", sorted(OPERATORS))
def test_draws_are_on_the_device_of_the_generator(operator: str) -> None:
    spec = next(spec for name, spec in OPERATORS.items() if name == operator)
    strength = spec.facts.strength.default
    draws = spec.draw(BatchShape(3, 8, 8), strength=strength, generator=seeded(0))
    for value in draws:
        assert value is None or value.device.type == "cpu"


@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_boxes_inside_keep_their_size(strength: float) -> None:
    shape = BatchShape(MANY, 24, 40)
    box = draw_resizemix(shape, strength=strength, generator=seeded(0), placement="inside").box
    y0, y1, x0, x1 = box.unbind(1)
    assert y0.min() == 0
    assert y1.max() == 24
    assert x1.max() == 40
    sides = torch.stack([(y1 - y0) / 24, (x1 - x0) / 40])
    assert sides.min() >= 0.1 - 1 / 24
    assert sides.max() < strength
    # One share for both sides: they differ by less than a pixel.
    assert (sides[0] - sides[1]).abs().max() < 1 / 24


def test_areas_are_as_documented() -> None:
    shape = BatchShape(MANY, 64, 64)
    lam = draw_cutmix(shape, strength=1.0, generator=seeded(0)).lam
    assert abs(float(lam.mean()) - 0.5) < 0.01
    box = draw_recursivemix(shape, strength=0.25, generator=seeded(0)).box
    area = (box[:, 1] - box[:, 0]) * (box[:, 3] - box[:, 2]) / 64**2
    assert area.max() <= 0.25
    assert area.max() > 0.21


@pytest.mark.parametrize(
    ("draw", "strength"),
    [(draw_resizemix, 0.1), (draw_resizemix, 1.5), (draw_recursivemix, 0.0)],
)
def test_refused_strengths(draw: object, strength: float) -> None:
    assert callable(draw)
    with pytest.raises(ValueError, match="strength: expected above"):
        draw(BatchShape(2, 8, 8), strength=strength, generator=seeded(0))


SIZES = [(8, 8), (9, 14), (17, 5)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("grid", range(1, 6))
def test_pooling_and_enlarging_agree_with_loops(size: tuple[int, int], grid: int) -> None:
    maps = torch.rand((3, *size), generator=seeded(grid))
    cells = pool_cells(maps, grid)
    for index in range(3):
        expected = pooled(maps[index].double().numpy(), grid)
        np.testing.assert_allclose(cells[index], expected, rtol=1e-5)
        np.testing.assert_array_equal(
            enlarge_cells(cells, size)[index, 0], enlarged(cells[index].numpy(), *size)
        )


@pytest.mark.parametrize("size", SIZES)
def test_pooling_undoes_enlarging(size: tuple[int, int]) -> None:
    cells = torch.rand((2, 5, 5), generator=seeded(0))
    torch.testing.assert_close(pool_cells(enlarge_cells(cells, size)[:, 0], 5), cells)


@pytest.mark.parametrize("grid", [0, 6])
def test_a_grid_finer_than_the_image_is_refused(grid: int) -> None:
    message = f"grid: expected 1 to 5 cells along a side for images of 5 x 7, got {grid}"
    with pytest.raises(ValueError, match=message):
        pool_cells(torch.ones(1, 5, 7), grid)


@pytest.mark.parametrize("rule", ["clovaai", "timm", "torchvision"])
def test_boxes_and_their_area(shared_folder: Path, rule: BoxRule) -> None:
    case = published_case(shared_folder, "cutmix_boxes")
    side = (1 - case["lam_drawn"].float()).sqrt()
    for height, width in {(rows, columns) for rows, columns in case["size"].tolist()}:
        rows = (case["size"] == torch.tensor([height, width])).all(1)
        box = centered_box(side[rows], case["cy"][rows], case["cx"][rows], (height, width), rule)
        assert torch.equal(box, case[f"box_{rule}"][rows])
        torch.testing.assert_close(
            box_lam(box, (height, width)), case[f"lam_{rule}"][rows].float(), atol=1e-6, rtol=0
        )
