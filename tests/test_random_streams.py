"""Draws are named by numbers, never repeat, and leave global generators alone."""

import itertools
import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from automix.random_streams import Stream, derived_seed, stream_generator

COUNTS = st.integers(0, 2**40)
NAMES = st.tuples(st.integers(0, 2**63 - 1), st.sampled_from(Stream), COUNTS, COUNTS, COUNTS)


def seed_of(name: tuple[int, Stream, int, int, int]) -> int:
    seed, stream, rank, epoch, step = name
    return derived_seed(seed, stream, rank=rank, epoch=epoch, step=step)


def test_all_draws_of_a_large_experiment_have_different_seeds() -> None:
    """200,000 neighbors, which sums such as seed + rank + step would map onto a few hundred."""
    names = list(itertools.product(range(10), Stream, range(4), range(8), range(50)))
    assert len(names) > 200_000
    assert len({seed_of(name) for name in names}) == len(names)


@given(first=NAMES, second=NAMES)
def test_equal_names_and_only_those_have_equal_seeds(
    first: tuple[int, Stream, int, int, int], second: tuple[int, Stream, int, int, int]
) -> None:
    assert (seed_of(first) == seed_of(second)) == (first == second)
    assert 0 <= seed_of(first) < 2**63


def test_digits_do_not_move_between_numbers() -> None:
    stream = Stream.MIXING
    pairs = [
        derived_seed(1, stream, rank=23),
        derived_seed(12, stream, rank=3),
        derived_seed(1, stream, rank=2, epoch=3),
        derived_seed(1, stream, epoch=23),
        derived_seed(1, stream, step=23),
    ]
    assert len(set(pairs)) == len(pairs)


def test_streams_have_names_of_their_own() -> None:
    assert len({stream.value for stream in Stream}) == len(Stream)
    assert not any("/" in stream.value for stream in Stream), "the separator of the hashed key"


def test_seeds_do_not_change_between_versions() -> None:
    """Nor between processes, as the hash of a text does; every result names its draws by them."""
    assert derived_seed(0, Stream.MIXING) == 7228684974854002445
    assert derived_seed(3, Stream.ORDER, rank=1, epoch=2, step=5) == 5772506943277352642


def test_a_generator_draws_what_its_name_says() -> None:
    def draw(step: int) -> list[float]:
        generator = stream_generator(5, Stream.MIXING, step=step)
        return torch.rand(4, generator=generator).tolist()

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)
    generator = stream_generator(5, Stream.MIXING, step=1)
    assert generator.initial_seed() == derived_seed(5, Stream.MIXING, step=1)
    assert generator.device == torch.device("cpu")


def test_neighboring_draws_are_independent() -> None:
    """The mean over 4,000 first draws and their correlation with the next: within 5 deviations."""
    draws = np.array(
        [
            torch.rand(1, generator=stream_generator(0, Stream.AUGMENTATION, step=step)).item()
            for step in range(4_000)
        ]
    )
    assert abs(draws.mean() - 0.5) < 5 / np.sqrt(12 * len(draws))
    assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 5 / np.sqrt(len(draws))


@pytest.mark.parametrize(
    "draw",
    [
        lambda: derived_seed(1, Stream.POLICY),
        lambda: torch.rand(3, generator=stream_generator(1, Stream.POLICY)),
    ],
)
def test_global_generators_are_neither_read_nor_advanced(draw: Callable[[], object]) -> None:
    def states() -> tuple[str, str, str]:
        return (
            repr(random.getstate()),
            repr(np.random.get_state()),  # noqa: NPY002
            repr(torch.get_rng_state().tolist()),
        )

    first = str(draw())
    torch.rand(1)
    before = states()
    assert str(draw()) == first
    assert states() == before
