import pytest
import torch
from torch import Tensor

from automix.saliency.cache import SaliencyCache
from automix.saliency.maps import normalised


def random_maps(batch_size: int, *, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalised(torch.rand(batch_size, 8, 6, generator=generator))


def test_every_image_has_its_own_last_map() -> None:
    cache = SaliencyCache.empty(20, 8, 6)
    first, second = random_maps(3, seed=1), random_maps(2, seed=2)
    cache.store_(torch.tensor([4, 7, 2]), first)
    cache.store_(torch.tensor([9, 7]), second)
    maps = cache.read(torch.tensor([2, 9, 4, 7]), 8, 6)
    torch.testing.assert_close(maps, torch.stack([first[2], second[0], first[0], second[1]]))


def test_an_image_without_a_map_has_a_uniform_one() -> None:
    cache = SaliencyCache.empty(20, 8, 6)
    cache.store_(torch.tensor([4]), random_maps(1))
    maps = cache.read(torch.tensor([4, 11]), 8, 6)
    assert torch.equal(maps[1], torch.full((8, 6), 1 / 48))
    assert not torch.equal(maps[0], maps[1])


@pytest.mark.parametrize(("rows", "columns"), [(4, 3), (2, 6), (16, 12)])
def test_maps_of_another_resolution(rows: int, columns: int) -> None:
    cache = SaliencyCache.empty(5, rows, columns)
    # The brightest place stays where it is.
    stored = torch.zeros(2, 8, 6)
    stored[0, :4, :3] = 1.0
    stored[1, 4:, 3:] = 1.0
    cache.store_(torch.tensor([3, 1]), stored)
    maps = cache.read(torch.tensor([3, 1]), 8, 6)
    assert maps.shape == (2, 8, 6)
    torch.testing.assert_close(maps.sum(dim=(1, 2)), torch.ones(2))
    assert maps[0, :4, :3].sum() > 0.7
    assert maps[1, 4:, 3:].sum() > 0.7


def test_the_value_is_all_there_is_to_save() -> None:
    cache = SaliencyCache.empty(5, 8, 6)
    cache.store_(torch.tensor([0, 3]), random_maps(2))
    restored = SaliencyCache(cache.maps.clone())
    cache.store_(torch.tensor([0, 3]), random_maps(2, seed=5))
    ids = torch.arange(5)
    assert not torch.equal(restored.read(ids, 8, 6), cache.read(ids, 8, 6))
    restored.store_(torch.tensor([0, 3]), random_maps(2, seed=5))
    assert torch.equal(restored.read(ids, 8, 6), cache.read(ids, 8, 6))


def test_maps_that_are_read_are_copies() -> None:
    cache = SaliencyCache.empty(5, 8, 6)
    cache.store_(torch.arange(5), random_maps(5))
    kept = cache.maps.clone()
    cache.read(torch.arange(5), 8, 6).zero_()
    assert torch.equal(cache.maps, kept)
