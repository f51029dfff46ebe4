"""Ways that only a CPU takes give the same bits as those of a device."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from automix.operator_info import Operator
from automix.operators import host
from automix.operators.guidedmixup import GuidedMixupDraws, greedy_cycle
from automix.operators.host import by_blocks
from automix.operators.puzzlemix.transport import move_patches, transport_plan
from tests.operators.cases import (
    ALL,
    Scenario,
    apply,
    draw,
    random_images,
    random_saliency,
    seeded,
)


def as_on_a_device(call: Callable[[], Any]) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.compiler, "is_compiling", lambda: True)
        return call()


@pytest.mark.parametrize("operator", ALL)
@pytest.mark.parametrize(
    "scenario",
    [
        Scenario(5),
        Scenario(3, size=(24, 40), layout="channels_last"),
        Scenario(4, size=(48, 48), dtype=torch.bfloat16),
    ],
    ids=str,
)
def test_both_ways_mix_alike(
    operator: Operator, scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "_BLOCK_BYTES", 2 * 4 * 32 * 32)  # two maps, or part of one
    images = random_images(scenario)
    draws = draw(operator, images)
    if operator == Operator.GUIDEDMIXUP:
        draws = GuidedMixupDraws(partner=None)
    mixed = apply(operator, scenario, images, draws)
    expected = as_on_a_device(lambda: apply(operator, scenario, images, draws))
    assert torch.equal(mixed.images, expected.images)
    assert mixed.images.stride() == expected.images.stride()
    assert torch.equal(mixed.targets, expected.targets)


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from([1, 2, 3, 5, 8, 14]),
    st.integers(0, 2**31),
    st.sampled_from([0.0, 0.05, 0.8, 5.0]),
    st.sampled_from([0.1, 0.6, 0.9]),
    st.sampled_from([1, 4, 20]),
)
def test_both_ways_make_the_same_plan(
    side: int, seed: int, t_eps: float, visible_fraction: float, contrast: int
) -> None:
    worth = torch.rand((6, side, side), generator=seeded(seed)) ** contrast
    worth[1] = (worth[1] > 0.5).float()  # ties
    visible = torch.rand((6, side, side), generator=seeded(seed + 1)) < visible_fraction
    worth /= worth.sum((1, 2), keepdim=True).clamp_min(1e-9)

    def plan() -> Tensor:
        return transport_plan(worth, visible, t_eps)

    assert torch.equal(plan(), as_on_a_device(plan))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "strided"])
@pytest.mark.parametrize(("size", "side"), [((32, 48), 8), ((32, 32), 16), ((33, 40), 4)])
def test_both_ways_move_the_same_patches(
    dtype: torch.dtype, layout: str, size: tuple[int, int], side: int
) -> None:
    images = random_images(Scenario(3, size=size, dtype=dtype, layout=layout))
    source = torch.randint(-1, side * side, (3, side * side), generator=seeded(0))

    def moved() -> Tensor:
        return move_patches(images, source)

    assert torch.equal(moved(), as_on_a_device(moved))
    assert moved().stride() == as_on_a_device(moved).stride()


def test_patches_of_images_that_begin_anywhere_in_memory() -> None:
    odd = torch.arange(2 * 3 * 8 * 8 + 1.0)[1:].view(2, 3, 8, 8)  # not at a multiple of 16 bytes
    source = torch.randint(-1, 4, (2, 4), generator=seeded(0))
    assert torch.equal(move_patches(odd, source), move_patches(odd.clone(), source))


@pytest.mark.parametrize("batch", [1, 2, 3, 4, 17])
def test_both_ways_pair_alike(batch: int) -> None:
    maps = random_saliency(Scenario(batch, size=(6, 6))).flatten(1)
    maps[-1] = maps[0]  # a tie
    assert torch.equal(greedy_cycle(maps), as_on_a_device(lambda: greedy_cycle(maps)))


def test_blocks_cover_a_batch_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "_BLOCK_BYTES", 64)
    batch, seen = torch.arange(70.0).view(7, 10), []

    def doubled(part: slice) -> Tensor:
        seen.append(len(batch[part]))
        return 2 * batch[part]

    assert torch.equal(by_blocks(doubled, batch), 2 * batch)
    assert seen == [1] * 7
    seen.clear()
    assert torch.equal(as_on_a_device(lambda: by_blocks(doubled, batch)), 2 * batch)
    assert seen == [7]
