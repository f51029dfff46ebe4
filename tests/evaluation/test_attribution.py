"""Checks of saliency maps, on classifiers whose attribution is known."""

import functools

import pytest
import torch
from torch import Tensor

from automix.evaluation.attribution import map_agreement, removal_curves
from automix.evaluation.classifier import macro_std
from automix.evaluation.inference import EvaluationImages, ImageBatch
from automix.evaluation.occlusion import FRACTIONS

NUM_IMAGES, SIDE, CELLS = 400, 8, 16
# Four classes by the two bits of two cells of 2 x 2 pixels; nothing else matters.
KNOWN = ((0, 0), (2, 3))


def images() -> EvaluationImages:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (NUM_IMAGES, 1, SIDE, SIDE), generator=generator)
    labels = torch.arange(NUM_IMAGES) % 4
    for bit, (row, column) in enumerate(KNOWN):
        is_bright = (labels >> bit & 1).view(-1, 1, 1)
        cell = slice(2 * row, 2 * row + 2), slice(2 * column, 2 * column + 2)
        pixels[:, 0, *cell] = torch.where(is_bright > 0, 255, 0)
    return EvaluationImages.whole(pixels.to(torch.uint8), labels)


def predict(pixels: Tensor) -> Tensor:
    """Read the two cells; what is filled with the mean counts as dark."""
    bits = [pixels[:, 0, 2 * row, 2 * column] > 200 for row, column in KNOWN]
    return torch.nn.functional.one_hot(bits[0].long() + 2 * bits[1].long(), 4).float()


def true_maps(batch: ImageBatch) -> Tensor:
    maps = torch.full((len(batch.images), SIDE, SIDE), 0.01)
    for row, column in KNOWN:
        maps[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = 1
    return maps


def wrong_maps(batch: ImageBatch) -> Tensor:
    return 1.01 - true_maps(batch)


curves_by = functools.partial(removal_curves, predict, images=images(), patch_size=2, fill=(0.5,))


def test_the_true_map_hurts_most() -> None:
    curves = curves_by(true_maps, seed=0)
    assert curves.fractions == FRACTIONS
    assert curves.salient[0] == curves.random[0] == curves.least[0] == 1
    # A tenth of 16 cells is the two that matter: all images look dark twice, as a quarter are.
    assert set(curves.salient[1:]) == {0.25}
    # The two cells go last.
    assert set(curves.least[:9]) == {1.0}
    # Of k removed cells each of the two is one with k / 16, and half of the images are dark there.
    for fraction, accuracy in zip(FRACTIONS, curves.random, strict=True):
        count = round(fraction * CELLS)
        both = count * (count - 1) / (CELLS * (CELLS - 1))
        one = 2 * count * (CELLS - count) / (CELLS * (CELLS - 1))
        assert accuracy == pytest.approx(1 - one / 2 - both * 3 / 4, abs=0.05)
    low, high = curves.margin_interval
    assert 0.2 < low < curves.margin < high
    expected = [random - 0.25 for random in curves.random[1:]]
    assert curves.margin == pytest.approx(sum(expected) / len(expected))


def test_a_wrong_map_hurts_less_than_chance_and_a_random_one_as_much() -> None:
    assert curves_by(wrong_maps, seed=0).margin_interval[1] < 0

    def random_maps(batch: ImageBatch) -> Tensor:
        shape = len(batch.images), SIDE // 2, SIDE // 2
        cells = torch.rand(shape, generator=torch.Generator().manual_seed(5))
        return cells.repeat_interleave(2, 1).repeat_interleave(2, 2)

    low, high = curves_by(random_maps, seed=0).margin_interval
    assert low < 0 < high or abs(low + high) < 0.03


def test_agreement_of_maps() -> None:
    first = torch.rand(300, 16, generator=torch.Generator().manual_seed(0))
    second = torch.rand(300, 16, generator=torch.Generator().manual_seed(1))
    same = map_agreement(first, first.exp())
    assert same.rank_correlation == pytest.approx(1)
    assert same.top_quarter == 1
    turned = map_agreement(first, -first)
    assert turned.rank_correlation == pytest.approx(-1)
    assert turned.top_quarter == 0
    chance = map_agreement(first, second)
    assert chance.rank_correlation == pytest.approx(0, abs=0.05)
    assert chance.top_quarter == pytest.approx(0.25, abs=0.04)
    # Three of four shared, and a swap of the first two ranks: 1 - 6 * 2 / (4 * 15).
    ranks, swapped = torch.tensor([[4.0, 3, 2, 1]] * 2), torch.tensor([[3.0, 4, 2, 1]] * 2)
    assert map_agreement(ranks, swapped).rank_correlation == pytest.approx(0.8)
    assert map_agreement(ranks, swapped).top_quarter == 0


def test_macro_std_by_hand() -> None:
    # Class 0: group 0 right 3 of 3, group 1 right 0 of 1. Class 1: all of group 0 and right.
    labels = torch.tensor([0, 0, 0, 0, 1, 1])
    groups = torch.tensor([0, 0, 0, 1, 0, 0])
    logits = torch.eye(3)[torch.tensor([0, 0, 0, 1, 1, 1])]
    # sqrt(3/4 (1 - 3/4)^2 + 1/4 (0 - 3/4)^2) = sqrt(3) / 4; class 2 has no image.
    expected = (3**0.5 / 4 + 0) / 2
    assert macro_std(logits, labels, groups=groups, num_groups=2) == pytest.approx(expected)
    everywhere = torch.zeros(6, dtype=torch.int64)
    assert macro_std(logits, labels, groups=everywhere, num_groups=5) == 0
    with pytest.raises(ValueError, match="expected one label and one group"):
        macro_std(logits, labels, groups=groups[:3], num_groups=2)
