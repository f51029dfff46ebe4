import pytest
import torch
from torch import Tensor, nn

from automix.saliency.cache import CachedSaliency, SaliencyCache
from automix.saliency.maps import normalised
from automix.saliency.spectral import spectral_residual

MODEL = nn.Identity()


class Counting:
    """A source whose maps tell which call they are from."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, model: nn.Module, images_BCHW: Tensor, targets: Tensor) -> Tensor:
        self.calls += 1
        maps = torch.ones(images_BCHW.shape[0], *images_BCHW.shape[2:])
        maps[:, 0, 0] += self.calls
        return normalised(maps)


def batch(*ids: int, size: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    images = torch.randn(20, 3, size, size, generator=torch.Generator().manual_seed(0))
    sample_ids = torch.tensor(ids)
    return images[sample_ids], sample_ids % 3, sample_ids


def maps_at(
    cached: CachedSaliency, cache: SaliencyCache, step: int, *ids: int, size: int = 8
) -> Tensor:
    images, targets, sample_ids = batch(*ids, size=size)
    return cached.maps(MODEL, images, targets, cache=cache, sample_ids=sample_ids, step=step)


def test_asks_the_source_every_k_steps_only() -> None:
    source = Counting()
    cached = CachedSaliency(source=source, refresh_every=3)
    cache = SaliencyCache.empty(20, 8, 8)
    calls = []
    for step in range(7):
        maps_at(cached, cache, step, 4, 7)
        calls.append(source.calls)
    assert calls == [1, 1, 1, 2, 2, 2, 3]


def test_images_get_their_own_last_map() -> None:
    cached = CachedSaliency(source=Counting(), refresh_every=2)
    cache = SaliencyCache.empty(20, 8, 8)
    first = maps_at(cached, cache, 0, 4, 7)
    second = maps_at(cached, cache, 2, 9, 2)
    assert not torch.equal(first[0], second[0])
    mixed = maps_at(cached, cache, 3, 2, 4, 9, 7)
    assert torch.equal(mixed, torch.stack([second[1], first[0], second[0], first[1]]))
    assert cache.refreshed_at[[4, 7, 9, 2, 0]].tolist() == [0, 0, 2, 2, -1]


def test_an_image_without_a_map_gets_its_spectral_residual() -> None:
    cached = CachedSaliency(source=Counting(), refresh_every=2)
    cache = SaliencyCache.empty(20, 8, 8)
    known = maps_at(cached, cache, 0, 4)
    maps = maps_at(cached, cache, 1, 11, 4)
    torch.testing.assert_close(maps[0], spectral_residual(batch(11, 4)[0])[0])
    assert torch.equal(maps[1], known[0])


def test_coarse_maps_save_memory() -> None:
    cached = CachedSaliency(source=Counting(), refresh_every=2)
    cache = SaliencyCache.empty(20, 4, 2)
    due = maps_at(cached, cache, 0, 4, 7)
    kept = maps_at(cached, cache, 1, 4, 7)
    assert due.shape == (2, 8, 8)
    assert torch.equal(due, kept)
    torch.testing.assert_close(kept.sum(dim=(1, 2)), torch.ones(2))
    assert (kept[:, 0, 0] == kept.amax(dim=(1, 2))).all()


def test_continues_from_a_saved_value() -> None:
    cached = CachedSaliency(source=Counting(), refresh_every=2)
    cache = SaliencyCache.empty(20, 8, 8)
    maps_at(cached, cache, 0, 4, 7)
    saved = SaliencyCache(maps=cache.maps.clone(), refreshed_at=cache.refreshed_at.clone())
    expected = maps_at(cached, cache, 1, 7, 4)
    maps_at(cached, cache, 2, 7, 4)
    assert torch.equal(maps_at(cached, saved, 1, 7, 4), expected)


def test_every_step_is_the_source_itself() -> None:
    source = Counting()
    cached = CachedSaliency(source=source, refresh_every=1)
    cache = SaliencyCache.empty(20, 8, 8)
    maps = maps_at(cached, cache, 5, 4, 7)
    source.calls = 0
    images, targets, _ = batch(4, 7)
    torch.testing.assert_close(maps, source(MODEL, images, targets))


def test_never_refreshing_is_refused() -> None:
    with pytest.raises(ValueError, match="expected refresh_every of at least 1, got 0"):
        CachedSaliency(source=Counting(), refresh_every=0)
