import itertools

import numpy as np
import pytest
from scipy import stats

from automix.evaluation.significance import holm, paired_p_value


def slow_holm(p_values: list[float]) -> list[float]:
    """The smallest level at which the step-down procedure refuses each hypothesis."""
    ranked = sorted(p_values)
    count = len(p_values)
    corrected = []
    for value in p_values:
        position = max(i for i, other in enumerate(ranked) if other == value)
        steps = [min(1.0, (count - i) * ranked[i]) for i in range(position + 1)]
        corrected.append(max(steps))
    return corrected


def test_holm_agrees_with_the_example_of_the_textbooks() -> None:
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])


@pytest.mark.parametrize("seed", range(5))
def test_holm_agrees_with_a_slow_reference(seed: int) -> None:
    values = (np.random.default_rng(seed).random(12) ** 3).tolist()
    np.testing.assert_allclose(holm(values), slow_holm(values))


def test_holm_keeps_the_family_wise_error() -> None:
    generator = np.random.default_rng(3)
    families = generator.random((2_000, 8))
    wrong = np.mean([(holm(family) <= 0.05).any() for family in families])
    assert wrong < 0.065
    assert np.mean((families <= 0.05).any(axis=1)) > 0.3


def test_holm_of_one_or_no_comparison_changes_nothing() -> None:
    assert holm([0.2]).tolist() == [0.2]
    assert holm([]).size == 0


def test_paired_p_value_is_exact_for_few_runs() -> None:
    generator = np.random.default_rng(0)
    a, b = generator.normal(0.8, 1, 8), generator.normal(0, 1, 8)
    differences = a - b
    patterns = np.array(list(itertools.product([-1, 1], repeat=8)))
    means = (patterns * differences).mean(axis=1)
    expected = np.mean(np.abs(means) >= abs(differences.mean()) - 1e-12)
    assert paired_p_value(a, b, seed=0) == pytest.approx(expected)


def test_paired_p_value_of_many_runs_is_close_to_the_t_test_and_never_zero() -> None:
    generator = np.random.default_rng(1)
    b = generator.standard_normal(60)
    noise = generator.standard_normal(60)
    ours = paired_p_value(b + noise + 0.25, b, num_permutations=5000, seed=0)
    assert ours == pytest.approx(stats.ttest_rel(b + noise + 0.25, b).pvalue, abs=0.02)
    assert 0 < paired_p_value(b + 50 + noise, b, num_permutations=999, seed=0) <= 0.002


def test_p_values_of_unrelated_data_are_uniform() -> None:
    generator = np.random.default_rng(2)
    pairs = generator.standard_normal((300, 2, 30))
    values = [paired_p_value(a, b, num_permutations=199, seed=i) for i, (a, b) in enumerate(pairs)]
    assert stats.kstest(values, "uniform").pvalue > 0.01


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="p_values: expected numbers from 0 to 1"):
        holm([0.1, 1.2])
    with pytest.raises(ValueError, match="p_values: expected numbers from 0 to 1"):
        holm([0.1, float("nan")])
    with pytest.raises(ValueError, match="expected two rows of equal length"):
        paired_p_value([1.0, 2.0], [1.0], seed=0)
    with pytest.raises(ValueError, match="expected finite values"):
        paired_p_value([1.0, float("inf")], [1.0, 2.0], seed=0)
