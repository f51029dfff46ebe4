import numpy as np
import pytest
import torch

from automix.operators.sampling import enlarge_cells, pool_cells
from tests.operators import slow_references as slow
from tests.operators.cases import seeded

SIZES = [(8, 8), (9, 14), (17, 5)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("grid", range(1, 6))
def test_pooling_and_enlarging_agree_with_loops(size: tuple[int, int], grid: int) -> None:
    maps = torch.rand((3, *size), generator=seeded(grid))
    cells = pool_cells(maps, grid)
    for index in range(3):
        expected = slow.pooled(maps[index].double().numpy(), grid)
        np.testing.assert_allclose(cells[index], expected, rtol=1e-5)
        np.testing.assert_array_equal(
            enlarge_cells(cells, size)[index, 0], slow.enlarged(cells[index].numpy(), *size)
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
