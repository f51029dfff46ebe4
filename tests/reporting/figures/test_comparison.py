import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.patches import Rectangle

from automix.reporting.canvas import NARROW
from automix.reporting.figures.comparison import (
    Comparison,
    ComparisonRow,
    Cost,
    comparison_figure,
    cost_figure,
    gain_figure,
)
from automix.reporting.tables import Direction
from tests.reporting.examples import (
    COMPARISON,
    COST,
    GAINS,
    interval,
)


def test_differences_are_drawn_where_they_are() -> None:
    values, differences = comparison_figure(COMPARISON).axes
    drawn = [
        (round(float(np.asarray(line.get_xdata())[0]), 6), np.asarray(line.get_ydata())[0])
        for line in differences.get_lines()
        if line.get_marker() in {"o", "D"}
    ]
    assert sorted(drawn, key=lambda point: point[1]) == [(-0.004, 0), (0, 1), (0.028, 2)]
    lines = [line for line in values.collections if isinstance(line, LineCollection)]
    segments = [tuple(np.asarray(line.get_segments()[0])[:, 0].round(6)) for line in lines]
    assert segments == [(0.085, 0.091), (0.089, 0.095), (0.117, 0.123)]
    low, high = differences.get_xlim()
    assert low < -0.007
    assert high > 0.031


def test_a_narrow_comparison_keeps_the_differences() -> None:
    assert len(comparison_figure(COMPARISON, width=NARROW).axes) == 1


@pytest.mark.parametrize(
    ("better", "expected"),
    [(Direction.LOWER, ["< better", "worse >"]), (Direction.HIGHER, ["< worse", "better >"])],
)
def test_the_better_side_is_named(better: Direction, expected: list[str]) -> None:
    comparison = Comparison(metric="m", statistic="mean", better=better, rows=COMPARISON.rows)
    texts = [text.get_text() for text in comparison_figure(comparison).axes[1].texts]
    assert texts == expected


@pytest.mark.parametrize("differences", [(None, None), (0.1, 0.2)])
def test_a_comparison_has_one_baseline(differences: tuple[float | None, ...]) -> None:
    rows = tuple(
        ComparisonRow(
            label="row",
            value=interval(1.0),
            difference=None if difference is None else interval(difference),
        )
        for difference in differences
    )
    with pytest.raises(ValueError, match="the baseline"):
        Comparison(metric="m", statistic="mean", better=Direction.LOWER, rows=rows)


def test_bars_are_as_long_as_the_stages() -> None:
    axes = cost_figure(COST).axes[0]
    bars = [patch.get_width() for patch in axes.patches if isinstance(patch, Rectangle)]
    assert bars == pytest.approx([310 / 60, 1.1 / 60]), "one of the stages has no time"
    assert [text.get_text() for text in axes.texts] == ["5.2 min, 300 runs", "1.1 s"]
    assert "min" in axes.get_xlabel()


def test_a_cost_needs_a_yardstick() -> None:
    with pytest.raises(ValueError, match="positive duration"):
        Cost(stages=(("search", 1.0, 1),), training_seconds=0)
    with pytest.raises(ValueError, match="at least 0 seconds"):
        Cost(stages=(("search", -1.0, 1),), training_seconds=1)


def test_gains_are_drawn_over_their_cost() -> None:
    axes = gain_figure(GAINS, metric="NLL", better=Direction.LOWER).axes[0]
    points = [
        (float(np.asarray(line.get_xdata())[0]), float(np.asarray(line.get_ydata())[0]))
        for line in axes.get_lines()
        if line.get_marker() == "o"
    ]
    assert points == [(point.cost, point.gain.estimate) for point in GAINS]
    assert "decrease" in axes.get_ylabel()
    with pytest.raises(ValueError, match="at least one point"):
        gain_figure([], metric="NLL", better=Direction.LOWER)
