"""Splits are disjoint, stratified, seeded, and stable when another part changes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from automix.data.pools import ClassLabels, part_count, stratified_parts
from automix.errors import DataError

class_sizes = st.lists(st.integers(min_value=6, max_value=40), min_size=1, max_size=5)
part_sizes = st.one_of(st.integers(0, 1), st.floats(0, 0.3))


def shuffled_labels(sizes: list[int]) -> Tensor:
    labels = torch.cat([torch.full((size,), label) for label, size in enumerate(sizes)])
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]


def pool_of(labels: Tensor, *, pool: int = 0) -> ClassLabels:
    names = [f"class{label}" for label in range(int(labels.max()) + 1)]
    return ClassLabels(labels=labels, class_names=names, where="photos/train", pool=pool)


@settings(deadline=None)
@given(sizes=class_sizes, test=part_sizes, reward=part_sizes, seed=st.integers(0, 2**40))
def test_parts_are_disjoint_complete_and_stratified(
    sizes: list[int], test: float, reward: float, seed: int
) -> None:
    labels = shuffled_labels(sizes)
    parts = stratified_parts(
        pool_of(labels), {"test": test, "reward": reward}, rest="train", seed=seed
    )
    assert sorted(torch.cat(list(parts.values())).tolist()) == list(range(len(labels)))
    for name, size in (("test", test), ("reward", reward)):
        counts = torch.bincount(labels[parts[name]], minlength=len(sizes)).tolist()
        assert counts == [part_count(size, class_size) for class_size in sizes]
    for indices in parts.values():
        assert indices.tolist() == sorted(indices.tolist())


@settings(deadline=None)
@given(sizes=class_sizes, seed=st.integers(0, 1000))
def test_a_part_does_not_depend_on_later_parts(sizes: list[int], seed: int) -> None:
    pool = pool_of(shuffled_labels(sizes))
    small = stratified_parts(pool, {"test": 0.2, "train": 2}, rest=None, seed=seed)
    large = stratified_parts(pool, {"test": 0.2, "train": 4}, rest=None, seed=seed)
    assert small["test"].equal(large["test"])
    assert set(small["train"].tolist()) < set(large["train"].tolist())


def test_the_seed_and_the_pool_choose_the_images() -> None:
    labels = shuffled_labels([30, 30])
    draws = [
        tuple(
            stratified_parts(pool_of(labels, pool=pool), {"reward": 10}, rest=None, seed=seed)[
                "reward"
            ].tolist()
        )
        for seed, pool in ((0, 0), (0, 0), (1, 0), (0, 1))
    ]
    assert draws[0] == draws[1]
    assert len(set(draws)) == 3


def test_global_random_state_is_neither_read_nor_advanced() -> None:
    pool = pool_of(shuffled_labels([30, 30]))
    parts = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        parts.append(stratified_parts(pool, {"reward": 3}, rest="train", seed=0)["reward"])
        assert torch.get_rng_state().equal(before)
    assert parts[0].equal(parts[1])


@pytest.mark.parametrize(
    ("size", "num_images", "expected"),
    [(7, 100, 7), (0, 100, 0), (0.0, 100, 0), (0.29, 100, 29), (0.5, 5, 2), (0.01, 5, 1)],
)
def test_part_count(size: float, num_images: int, expected: int) -> None:
    assert part_count(size, num_images) == expected


def test_too_few_images_names_class_and_counts() -> None:
    pool = pool_of(torch.tensor([0, 0, 0, 0, 1, 1]))
    with pytest.raises(DataError) as caught:
        stratified_parts(pool, {"test": 1, "reward": 0.2}, rest="train", seed=0)
    assert str(caught.value) == (
        "photos/train: expected at least 3 images of class 'class1' "
        "(test 1, reward 1, train 1), got 2"
    )
