from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from automix.saliency.sources import CachedSource

MODEL = nn.Identity()
CPU = torch.device("cpu")


class Counting:
    """Returns maps that hold the number of the call."""

    def __init__(self) -> None:
        self.num_calls = 0

    def __call__(self, model: nn.Module, images_BCHW: Tensor, targets: Tensor) -> Tensor:
        self.num_calls += 1
        return torch.full((images_BCHW.shape[0], 4, 4), float(self.num_calls))


def asking(cache: CachedSource) -> Callable[[int], list[float]]:
    """Return a function that asks for the maps of a batch of so many images."""
    images = torch.zeros(5, 3, 4, 4)
    return lambda size: cache(MODEL, images[:size], torch.arange(size))[:, 0, 0].tolist()


def test_maps_are_kept_while_a_batch_is_held() -> None:
    cache = CachedSource(Counting(), refresh_every=3)
    maps_of = asking(cache)
    seen = []
    for step in range(7):
        cache.hold(step // 3)
        seen.append(maps_of(2))
    assert seen == [[1, 1]] * 3 + [[2, 2]] * 3 + [[3, 3]]


def test_a_batch_that_is_not_mixed_at_first_has_maps_of_its_own() -> None:
    cache = CachedSource(Counting(), refresh_every=3)
    maps_of = asking(cache)
    cache.hold(0)
    assert maps_of(2) == [1, 1]
    cache.hold(2)  # nothing was asked for while batch 1 was held
    assert maps_of(1) == [2]
    assert maps_of(1) == [2]


@pytest.mark.parametrize("refresh_every", [1, 3])
def test_without_a_batch_or_with_one_step_nothing_is_kept(refresh_every: int) -> None:
    cache = CachedSource(Counting(), refresh_every=refresh_every)
    maps_of = asking(cache)
    if refresh_every == 1:
        cache.hold(0)
    assert [maps_of(1), maps_of(1)] == [[1], [2]]
    assert cache.state_dict() is None


def test_the_state_is_all_there_is_to_save() -> None:
    cache = CachedSource(Counting(), refresh_every=2)
    cache.hold(4)
    asking(cache)(3)
    state = cache.state_dict()
    source = Counting()
    other = CachedSource(source, refresh_every=2)
    other.hold(7)
    asking(other)(1)
    other.load_state_dict(state, device=CPU)
    other.hold(4)
    assert asking(other)(3) == [1, 1, 1]
    assert source.num_calls == 1
    other.load_state_dict(None, device=CPU)
    other.hold(4)
    assert asking(other)(3) == [2, 2, 2]


def test_clearing_forgets_maps_and_batch() -> None:
    cache = CachedSource(Counting(), refresh_every=2)
    cache.hold(4)
    asking(cache)(1)
    cache.clear()
    assert cache.state_dict() is None
    assert [asking(cache)(1), asking(cache)(1)] == [[2], [3]]


def test_refused_number_of_steps() -> None:
    with pytest.raises(ValueError, match="refresh_every: expected 1 step or more, got 0"):
        CachedSource(Counting(), refresh_every=0)
