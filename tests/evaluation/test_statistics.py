import itertools

import numpy as np
import pytest
from scipy import stats

from automix.evaluation.statistics import (
    Floats,
    Interval,
    Statistic,
    bootstrap_interval,
    interquartile_mean,
    intraclass_correlation,
    paired_difference,
    probability_of_improvement,
    rank_correlation,
    score_interval,
    spearman,
    student_interval,
    widened_level,
)

NUM_EXPERIMENTS = 2_000


def covered(intervals: list[Interval], truth: float) -> float:
    return float(np.mean([interval.low <= truth <= interval.high for interval in intervals]))


def make_pair(seed: int, shape: tuple[int, ...], effect: float = 0.3) -> tuple[Floats, Floats]:
    """Paired runs: both see the difficulty of the seed, which is larger than the effect."""
    generator = np.random.default_rng(seed)
    difficulty = 3 * generator.standard_normal(shape)
    b = difficulty + generator.standard_normal(shape)
    return difficulty + effect + generator.standard_normal(shape), b


def test_interquartile_mean_is_the_mean_of_the_middle_half() -> None:
    values = np.random.default_rng(0).permutation([-100, -50, 1, 2, 3, 6, 50, 900])
    assert interquartile_mean(values) == 3
    assert interquartile_mean(values.reshape(4, 2)) == 3
    assert interquartile_mean([5.0]) == 5
    assert np.isnan(interquartile_mean([1.0, 2.0, 3.0, 4.0, np.nan]))
    for num_values in range(1, 12):
        values = np.random.default_rng(num_values).standard_normal(num_values)
        assert interquartile_mean(values) == pytest.approx(stats.trim_mean(values, 0.25))


def test_paired_difference_is_scipys_bca_at_the_widened_level() -> None:
    a, b = make_pair(1, (30,))
    interval = paired_difference(a, b, num_bootstrap=2000, seed=7)
    expected = stats.bootstrap(
        (a - b,),
        np.mean,
        n_resamples=2000,
        confidence_level=widened_level(0.95, 30),
        method="BCa",
        rng=np.random.default_rng(7),
    ).confidence_interval
    assert interval.estimate == pytest.approx((a - b).mean())
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))
    assert interval.confidence == 0.95


def test_the_widened_level_tends_to_the_level_asked_for() -> None:
    assert widened_level(0.95, 10**6) == pytest.approx(0.95, abs=1e-5)
    assert 0.95 < widened_level(0.95, 20) < widened_level(0.95, 5) < 1
    assert widened_level(0.95, 5, num_tasks=10) < widened_level(0.95, 5)


@pytest.mark.parametrize("statistic", ["mean", "iqm"])
def test_runs_are_resampled_within_each_task(statistic: Statistic) -> None:
    a, b = make_pair(2, (12, 3), effect=0)
    offsets = np.array([0.0, 100.0, 0.0])
    plain = paired_difference(a, b, num_bootstrap=500, seed=0)
    shifted = paired_difference(a + offsets, b, num_bootstrap=500, seed=0)
    # Pooled resampling would see the offsets as noise of the runs.
    assert shifted.high - shifted.low == pytest.approx(plain.high - plain.low, rel=1e-6)
    robust = paired_difference(a + offsets, b, num_bootstrap=500, seed=0, statistic=statistic)
    pooled = (a + offsets - b).ravel()
    expected = pooled.mean() if statistic == "mean" else interquartile_mean(pooled)
    assert robust.estimate == pytest.approx(expected)


def test_swapping_the_sides_mirrors_the_interval() -> None:
    a, b = make_pair(3, (25,))
    forward = paired_difference(a, b, num_bootstrap=4000, seed=0)
    backward = paired_difference(b, a, num_bootstrap=4000, seed=0)
    assert backward.estimate == pytest.approx(-forward.estimate)
    assert backward.low == pytest.approx(-forward.high, abs=0.05)
    assert backward.high == pytest.approx(-forward.low, abs=0.05)


def test_intervals_are_reproducible_and_leave_the_global_generator_alone() -> None:
    a, b = make_pair(4, (10,))
    before = repr(np.random.get_state())  # noqa: NPY002
    first = paired_difference(a, b, num_bootstrap=500, seed=3)
    assert first == paired_difference(a, b, num_bootstrap=500, seed=3)
    assert first != paired_difference(a, b, num_bootstrap=500, seed=4)
    assert repr(np.random.get_state()) == before  # noqa: NPY002


def test_equal_differences_give_an_interval_without_width() -> None:
    b = np.arange(8.0)
    interval = paired_difference(b + 0.5, b, seed=0)
    assert (interval.low, interval.estimate, interval.high) == (0.5, 0.5, 0.5)


def test_where_bca_is_undefined_the_percentile_interval_is_returned() -> None:
    # Leaving out any one run leaves the interquartile mean at 0: no acceleration.
    differences = np.array([-9.0, 0, 0, 0, 0, 0, 0, 9.0])
    interval = paired_difference(
        differences, np.zeros(8), num_bootstrap=2000, seed=5, statistic="iqm"
    )
    generator = np.random.default_rng(5)
    resamples = differences[generator.integers(0, 8, size=(2000, 8))]
    level = widened_level(0.95, 8)
    expected = np.quantile(
        stats.trim_mean(resamples, 0.25, axis=1), [(1 - level) / 2, (1 + level) / 2]
    )
    assert (interval.low, interval.high) == pytest.approx(tuple(expected), abs=0.6)
    assert interval.low < 0 < interval.high


@pytest.mark.parametrize("num_runs", [2, 3, 5, 19])
def test_few_runs_give_at_least_students_interval(num_runs: int) -> None:
    a, b = make_pair(6, (num_runs,))
    interval = paired_difference(a, b, num_bootstrap=999, seed=0)
    expected = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert interval.low <= expected.low + 1e-12
    assert interval.high >= expected.high - 1e-12
    assert interval.high - interval.low < 1.5 * (expected.high - expected.low)


def test_students_interval_of_several_tasks_is_that_of_the_mean_of_means() -> None:
    table = np.random.default_rng(2).normal(size=(4, 3)) + np.array([0.0, 50.0, 100.0])
    interval = student_interval(table, confidence=0.9)
    error = np.sqrt(table.var(axis=0, ddof=1).sum() / 4) / 3
    half = stats.t.ppf(0.95, 9) * error
    assert interval.estimate == pytest.approx(table.mean())
    assert interval.high - interval.estimate == pytest.approx(half)


@pytest.mark.parametrize(
    ("statistic", "kind", "num_runs"),
    [
        pytest.param("mean", "normal", 5, marks=pytest.mark.slow),
        pytest.param("mean", "normal", 3, marks=pytest.mark.slow),
        pytest.param("mean", "normal", 10, marks=pytest.mark.slow),
        pytest.param("mean", "normal", 20, marks=pytest.mark.slow),
        pytest.param("mean", "tasks", 5, marks=pytest.mark.slow),
        pytest.param("iqm", "normal", 20, marks=pytest.mark.slow),
        pytest.param("mean", "skewed", 60, marks=pytest.mark.slow),
    ],
)
def test_coverage_of_the_paired_difference(statistic: Statistic, kind: str, num_runs: int) -> None:
    coverage = coverage_of_paired(statistic, kind, num_runs, num_experiments=NUM_EXPERIMENTS)
    assert 0.93 <= coverage <= 0.97


def test_coverage_of_the_paired_difference_in_few_experiments() -> None:
    assert 0.92 <= coverage_of_paired("mean", "normal", 5, num_experiments=300) <= 0.98


def coverage_of_paired(
    statistic: Statistic, kind: str, num_runs: int, *, num_experiments: int
) -> float:
    generator = np.random.default_rng(11)
    shape = (num_experiments, num_runs, 4) if kind == "tasks" else (num_experiments, num_runs)
    b = generator.standard_normal(shape)
    noise = generator.exponential(size=shape) if kind == "skewed" else generator.normal(1, 2, shape)
    intervals = [
        paired_difference(ours, other, num_bootstrap=400, seed=index, statistic=statistic)
        for index, (ours, other) in enumerate(zip(b + noise, b, strict=True))
    ]
    return covered(intervals, 1.0)


def brute_force_improvement(a: Floats, b: Floats) -> float:
    wins = [1.0 if x > y else 0.5 if x == y else 0.0 for x, y in itertools.product(a, b)]
    return float(np.mean(wins))


def test_probability_of_improvement_agrees_with_all_pairs_and_with_mann_whitney() -> None:
    generator = np.random.default_rng(5)
    a, b = generator.integers(0, 6, 9).astype(float), generator.integers(0, 6, 7).astype(float)
    estimate = probability_of_improvement(a, b).estimate
    assert estimate == pytest.approx(brute_force_improvement(a, b))
    assert estimate == pytest.approx(stats.mannwhitneyu(a, b).statistic / 63)
    tables = np.stack([a, a[::-1] + 1, a * 2], 1), np.stack([b, b, b], 1)
    expected = np.mean(
        [brute_force_improvement(tables[0][:, t], tables[1][:, t]) for t in range(3)]
    )
    assert probability_of_improvement(*tables).estimate == pytest.approx(expected)


def test_paired_probability_of_improvement_is_a_proportion_with_wilsons_interval() -> None:
    a, b = np.arange(10.0), np.arange(10.0) + np.array([-1] * 7 + [1] * 3)
    interval = probability_of_improvement(a, b, paired=True)
    expected = stats.binomtest(7, 10).proportion_ci(method="wilson")
    assert interval.estimate == pytest.approx(0.7)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize("paired", [False, True])
def test_a_side_that_always_wins_still_has_an_interval(paired: bool) -> None:
    interval = probability_of_improvement(np.arange(5.0) + 9, np.arange(5.0), paired=paired)
    assert (interval.estimate, interval.high) == (1, 1)
    assert 0.5 < interval.low < 0.9
    mirrored = probability_of_improvement(np.arange(5.0), np.arange(5.0) + 9, paired=paired)
    assert mirrored.high == pytest.approx(1 - interval.low)


@pytest.mark.parametrize("effect", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("paired", [False, True])
def test_coverage_of_the_probability_of_improvement(effect: float, paired: bool) -> None:
    generator = np.random.default_rng(6)
    shape = (NUM_EXPERIMENTS, 40) if paired else (NUM_EXPERIMENTS, 12)
    a, b = generator.normal(effect, 1, shape), generator.normal(0, 1, shape)
    truth = float(stats.norm.cdf(effect / np.sqrt(2)))
    intervals = [probability_of_improvement(x, y, paired=paired) for x, y in zip(a, b, strict=True)]
    assert 0.93 <= covered(intervals, truth) <= 0.97


def anova_icc(table: Floats) -> float:
    rows, columns = table.shape
    row_means = table.mean(axis=1, keepdims=True)
    between = columns * ((row_means - table.mean()) ** 2).sum() / (rows - 1)
    within = ((table - row_means) ** 2).sum() / (rows * (columns - 1))
    return float((between - within) / (between + (columns - 1) * within))


def test_intraclass_correlation_agrees_with_shrout_and_fleiss() -> None:
    # Table 2 of the paper: four judges, six targets; ICC(1,1) is .17.
    table = np.array(
        [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], float
    )
    interval = intraclass_correlation(table)
    assert interval.estimate == pytest.approx(0.166, abs=1e-3)
    assert interval.estimate == pytest.approx(anova_icc(table))
    assert (interval.low, interval.high) == pytest.approx((-0.133, 0.723), abs=1e-3)


def test_intraclass_correlation_of_noiseless_schedules_is_one() -> None:
    table = np.repeat(np.arange(4.0)[:, None], 3, axis=1)
    interval = intraclass_correlation(table)
    assert (interval.low, interval.estimate, interval.high) == (1, 1, 1)


@pytest.mark.parametrize(
    "fraction", [0.3, *[pytest.param(x, marks=pytest.mark.slow) for x in (0.0, 0.8)]]
)
def test_coverage_of_the_intraclass_correlation(fraction: float) -> None:
    generator = np.random.default_rng(8)
    schedules = np.sqrt(fraction) * generator.standard_normal((NUM_EXPERIMENTS, 10, 1))
    tables = schedules + np.sqrt(1 - fraction) * generator.standard_normal((NUM_EXPERIMENTS, 10, 4))
    intervals = [intraclass_correlation(table) for table in tables]
    assert 0.93 <= covered(intervals, fraction) <= 0.97


def test_rank_correlation_agrees_with_scipy_with_ties() -> None:
    generator = np.random.default_rng(9)
    a, b = generator.integers(0, 5, (2, 3, 15)).astype(float)
    expected = [stats.spearmanr(x, y).statistic for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(rank_correlation(a, b), expected)
    np.testing.assert_array_equal(rank_correlation(a, np.zeros_like(b)), 0)


def test_spearman_agrees_with_scipy_and_is_invariant_to_monotone_maps() -> None:
    generator = np.random.default_rng(10)
    a = generator.standard_normal(24)
    b = a + generator.standard_normal(24)
    interval = spearman(a, b, num_bootstrap=1000, seed=1)
    assert interval.estimate == pytest.approx(stats.spearmanr(a, b).statistic)
    assert interval.low < interval.estimate < interval.high <= 1
    assert spearman(np.exp(a), b**3, num_bootstrap=1000, seed=1) == interval
    assert spearman(a, -a, num_bootstrap=200, seed=0).high == pytest.approx(-1)


@pytest.mark.slow
def test_coverage_of_the_rank_correlation() -> None:
    generator = np.random.default_rng(12)
    a = generator.standard_normal((NUM_EXPERIMENTS, 24))
    b = 0.5 * a + np.sqrt(0.75) * generator.standard_normal(a.shape)
    truth = 6 / np.pi * np.arcsin(0.25)  # of a normal pair with correlation 0.5
    intervals = [
        spearman(x, y, num_bootstrap=300, seed=index)
        for index, (x, y) in enumerate(zip(a, b, strict=True))
    ]
    assert 0.93 <= covered(intervals, truth) <= 0.97


def test_score_interval_holds_the_values_that_the_estimate_does_not_refute() -> None:
    interval = score_interval(0.3, lambda p: p * (1 - p) / 20, 0.9)
    z = stats.norm.ppf(0.95)
    for end in (interval.low, interval.high):
        assert abs(0.3 - end) == pytest.approx(z * np.sqrt(end * (1 - end) / 20), rel=1e-6)


def test_bad_input_is_refused_with_what_was_expected() -> None:
    a, b = make_pair(0, (6,))
    with pytest.raises(ValueError, match=r"b: expected the shape of a, \(6,\), got \(5,\)"):
        paired_difference(a, b[:5], seed=0)
    with pytest.raises(ValueError, match="expected at least 2 paired runs, got 1"):
        paired_difference(a[:1], b[:1], seed=0)
    with pytest.raises(ValueError, match="a: expected finite values, got 1 of 6"):
        paired_difference(np.where(a == a.max(), np.nan, a), b, seed=0)
    with pytest.raises(ValueError, match="confidence: expected a number between 0 and 1, got 95"):
        paired_difference(a, b, confidence=95, seed=0)
    with pytest.raises(ValueError, match="num_bootstrap: expected at least 100, got 9"):
        paired_difference(a, b, num_bootstrap=9, seed=0)
    with pytest.raises(ValueError, match="num_bootstrap"):
        bootstrap_interval((a,), np.mean, confidence=0.9, num_bootstrap=0, seed=0)
    with pytest.raises(ValueError, match="b: expected the tasks of a"):
        probability_of_improvement(a.reshape(3, 2), b)
    with pytest.raises(ValueError, match="b: expected the shape of a"):
        probability_of_improvement(a, b[:4], paired=True)
    with pytest.raises(ValueError, match="table: expected at least 2 schedules by 2 runs"):
        intraclass_correlation(a)
    with pytest.raises(ValueError, match="table: expected values that differ"):
        intraclass_correlation(np.ones((3, 3)))
    with pytest.raises(ValueError, match="expected at least 4 items, got 3"):
        spearman(a[:3], b[:3], seed=0)
    with pytest.raises(ValueError, match="constant score"):
        spearman(a, np.ones(6), seed=0)
    with pytest.raises(ValueError, match="values: expected one value for each run"):
        interquartile_mean([])
