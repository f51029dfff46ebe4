import pytest
import torch
from scipy import stats

from automix.evaluation.counter_random import SampleRandom
from automix.random_streams import Stream, derived_seed

MASK = (1 << 64) - 1


def slow_mix(value: int) -> int:
    """SplitMix64 as published, on unbounded integers."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


def make_random(indices: list[int], seed: int = 3) -> SampleRandom:
    return SampleRandom(seed=seed, indices=torch.tensor(indices))


def test_numbers_are_splitmix_of_seed_name_sample_and_counter() -> None:
    step = 0x9E3779B97F4A7C15
    key = derived_seed(3, Stream.CORRUPTION, step=int.from_bytes(b"noise", "little"))
    result = make_random([0, 7]).uniform("noise", (5,))
    for row, index in enumerate((0, 7)):
        sample_key = slow_mix((index * step + key) & MASK)
        for column in range(5):
            bits = slow_mix((sample_key + (column + 1) * step) & MASK)
            assert result[row, column].item() == ((bits >> 41) + 0.5) / 2**23


def test_a_sample_meets_the_same_numbers_in_any_batch() -> None:
    whole = make_random(list(range(50))).normal("noise", (3, 4))
    part = make_random([31, 2]).normal("noise", (3, 4))
    assert torch.equal(part, whole[[31, 2]])
    assert torch.equal(make_random([31]).uniform("x", (7,)), make_random([31]).uniform("x", (7,)))


def test_names_seeds_and_samples_give_unrelated_numbers() -> None:
    base = make_random([0, 1]).normal("noise", (20_000,))
    other_name = make_random([0]).normal("field", (20_000,))
    other_seed = make_random([0], seed=4).normal("noise", (20_000,))
    table = torch.cat((base, other_name, other_seed))
    assert (torch.corrcoef(table) - torch.eye(4)).abs().max() < 0.03
    neighbors = torch.corrcoef(torch.stack((base[0, :-1], base[0, 1:])))
    assert neighbors[0, 1].abs() < 0.03


def test_distributions() -> None:
    random = make_random(list(range(100)))
    uniform = random.uniform("u", (500,))
    assert 0 < uniform.min() < 1e-3
    assert 0.999 < uniform.max() < 1
    assert stats.kstest(uniform.flatten().numpy(), "uniform").pvalue > 0.01
    assert stats.kstest(uniform[:, 0].numpy(), "uniform").pvalue > 0.01
    normal = random.normal("n", (500,)).flatten().numpy()
    assert stats.kstest(normal, "norm").pvalue > 0.01
    whole = random.integers("i", (500,), high=7)
    counts = torch.bincount(whole.flatten(), minlength=7)
    assert len(counts) == 7
    assert stats.chisquare(counts.numpy()).pvalue > 0.01


def test_the_global_generator_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    make_random([1]).normal("noise", (9,))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4)])
def test_shapes(shape: tuple[int, ...]) -> None:
    assert make_random([5, 6]).uniform("u", shape).shape == (2, *shape)
