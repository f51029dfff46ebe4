"""Batched crop and flip against a slow loop over single images."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from automix.configuration.data import AugmentConfig, PaddingMode
from automix.data.augment import AugmentDraws, apply_augmentation, draw_augmentation


def slow_reference(
    images: Tensor, draws: AugmentDraws, *, padding: int, mode: PaddingMode
) -> Tensor:
    height, width = images.shape[2:]
    cut = []
    for image, top, left, flip in zip(
        images, draws.top.tolist(), draws.left.tolist(), draws.flip.tolist(), strict=True
    ):
        padded = F.pad(
            image.float(),
            (padding,) * 4,
            mode="constant" if mode is PaddingMode.ZERO else "reflect",
        )
        crop = padded[:, top : top + height, left : left + width]
        cut.append(crop.flip(2) if flip else crop)
    return torch.stack(cut).to(images.dtype)


@settings(deadline=None)
@given(
    batch=st.integers(1, 5),
    channels=st.integers(1, 3),
    height=st.integers(3, 8),
    width=st.integers(3, 8),
    padding=st.integers(0, 2),
    mode=st.sampled_from(PaddingMode),
    seed=st.integers(0, 1000),
)
def test_equals_the_slow_reference(
    *,
    batch: int,
    channels: int,
    height: int,
    width: int,
    padding: int,
    mode: PaddingMode,
    seed: int,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, channels, height, width)
    images = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
    before = images.clone()
    config = AugmentConfig(crop_padding=padding, horizontal_flip=True)
    draws = draw_augmentation(batch, config, generator=generator)
    fast = apply_augmentation(images, draws, padding=padding, mode=mode)
    assert fast.equal(slow_reference(images, draws, padding=padding, mode=mode))
    assert images.equal(before)


def test_draws_are_per_image_cover_the_range_and_follow_the_seed() -> None:
    config = AugmentConfig(crop_padding=2, horizontal_flip=True)
    first, again, other = (
        draw_augmentation(500, config, generator=torch.Generator().manual_seed(seed))
        for seed in (0, 0, 1)
    )
    assert set(first.top.tolist()) == set(first.left.tolist()) == {0, 1, 2, 3, 4}
    assert not first.top.equal(first.left)
    assert 200 < int(first.flip.sum()) < 300
    for name in ("top", "left", "flip"):
        assert getattr(first, name).equal(getattr(again, name))
        assert not getattr(first, name).equal(getattr(other, name))


def test_switching_the_flip_off_leaves_the_crops_as_they_were() -> None:
    crops, both = (
        draw_augmentation(
            50,
            AugmentConfig(crop_padding=2, horizontal_flip=flip),
            generator=torch.Generator().manual_seed(0),
        )
        for flip in (False, True)
    )
    assert crops.top.equal(both.top)
    assert not crops.flip.any()


def test_global_random_state_is_neither_read_nor_advanced() -> None:
    before = torch.get_rng_state()
    generator = torch.Generator().manual_seed(0)
    draw_augmentation(8, AugmentConfig(crop_padding=1), generator=generator)
    assert torch.get_rng_state().equal(before)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_no_padding_and_no_flip_is_the_identity(dtype: torch.dtype) -> None:
    images = torch.arange(2 * 3 * 4 * 5).view(2, 3, 4, 5).to(dtype)
    config = AugmentConfig()
    draws = draw_augmentation(2, config, generator=torch.Generator())
    assert apply_augmentation(images, draws, padding=0, mode=PaddingMode.ZERO).equal(images)
