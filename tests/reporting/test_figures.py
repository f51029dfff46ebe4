import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from automix.reporting.canvas import NARROW, WIDE
from automix.reporting.figures.comparison import (
    Comparison,
    ComparisonRow,
    Cost,
    comparison_figure,
    cost_figure,
    gain_figure,
)
from automix.reporting.figures.evaluation import (
    Heatmap,
    OcclusionLine,
    attacks_figure,
    heatmap_figure,
    occlusion_figure,
    reliability_figure,
)
from automix.reporting.figures.learning import LearningCurve, learning_curve_figure
from automix.reporting.palette import LIGHT
from automix.reporting.tables import Direction, duration_text, number_text
from tests.reporting.examples import (
    ATTACKS,
    COMPARISON,
    COST,
    CURVE,
    CURVES,
    FIGURES,
    GAINS,
    HEATMAP,
    RELIABILITY,
    interval,
)


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("name", FIGURES)
def test_every_text_lies_inside_the_picture(name: str, width: float) -> None:
    figure = FIGURES[name](width=width, theme=LIGHT)
    FigureCanvasAgg(figure).draw()  # type: ignore[no-untyped-call]
    page = figure.bbox
    texts = [text for text in figure.findobj(Text) if isinstance(text, Text)]
    shown = [text for text in texts if text.get_visible() and text.get_text().strip()]
    assert len(shown) > 5
    axes = [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]
    ticks = [label for axis in axes for label in axis.get_ticklabels()]
    for text in shown:
        box = text.get_window_extent()
        inside = (
            box.x0 >= page.x0 - 2
            and box.x1 <= page.x1 + 2
            and box.y0 >= page.y0 - 2
            and box.y1 <= page.y1 + 2
        )
        # Ticks beyond the limits exist but are not drawn.
        assert inside or text in ticks, text.get_text()


@pytest.mark.parametrize("name", FIGURES)
def test_axes_are_labeled(name: str) -> None:
    figure = FIGURES[name](width=WIDE, theme=LIGHT)
    assert any(axes.get_xlabel() for axes in figure.axes)
    assert figure.get_figwidth() == WIDE


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
    assert bars == pytest.approx([310 / 60, 142 / 60, 1.1 / 60])
    assert axes.texts[0].get_text() == "5.2 min = 310 runs"
    assert "min" in axes.get_xlabel()


def test_a_cost_needs_a_yardstick() -> None:
    with pytest.raises(ValueError, match="positive duration"):
        Cost(stages=(("search", 1.0),), training_seconds=0)
    with pytest.raises(ValueError, match="at least 0 seconds"):
        Cost(stages=(("search", -1.0),), training_seconds=1)


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


def test_a_learning_curve_groups_episodes_by_rollout() -> None:
    returns = [1.0, 3.0, 2.0, 8.0, 5.0]
    curve = LearningCurve.from_returns(returns, per_rollout=2)
    assert curve.episodes == (2, 4, 5)
    assert curve.mean == (2.0, 5.0, 5.0)
    assert curve.low == (1.5, 3.5, 5.0)
    assert curve.high == (2.5, 6.5, 5.0)
    assert curve.best == (3.0, 8.0, 8.0)


def test_a_learning_curve_draws_its_numbers() -> None:
    axes = learning_curve_figure(CURVE).axes[0]
    lines = {str(line.get_label()): np.asarray(line.get_ydata()) for line in axes.get_lines()}
    assert lines["rollout mean, quartiles"].tolist() == list(CURVE.mean)
    assert lines["best so far"].tolist() == list(CURVE.best)
    assert lines["greedy policy"].tolist() == [0.6, 0.75]
    assert lines["best constant"].tolist() == [0.7, 0.7]
    named = " ".join(text.get_text() for text in axes.texts)
    assert all(name in named for name in lines)


def test_an_uneven_learning_curve_is_refused() -> None:
    with pytest.raises(ValueError, match="one value per rollout"):
        LearningCurve(episodes=(1, 2), mean=(1.0,), low=(1.0,), high=(1.0,), best=(1.0,))
    with pytest.raises(ValueError, match="at least one rollout"):
        LearningCurve.from_returns([], per_rollout=4)


def test_reliability_leaves_empty_bins_out() -> None:
    axes = reliability_figure([RELIABILITY]).axes
    line = axes[0].get_lines()[1]
    assert np.asarray(line.get_xdata()).tolist() == [0.4, 0.6, 0.9]
    assert np.asarray(line.get_ydata()).tolist() == [0.5, 0.7, 0.95]


def test_heatmap_writes_every_number() -> None:
    axes = heatmap_figure(HEATMAP).axes[0]
    texts = {tuple(text.get_position()): text.get_text() for text in axes.texts}
    for (row, column), value in np.ndenumerate(np.array(HEATMAP.values)):
        assert float(texts[(column, row)]) == value


def test_a_heatmap_of_another_shape_than_its_names_is_refused() -> None:
    with pytest.raises(ValueError, match="expected shape"):
        Heatmap(values=[[1.0]], rows=["a"], columns=["x", "y"], better=Direction.LOWER)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0880, "0.0880"), (0.000123, "0.000123"), (123456, "123456"), (0, "0"), (-12.345, "-12.3"),
     (9.999, "10.00"), (1.5e9, "1.50e+09")],
)  # fmt: skip
def test_numbers_are_written_with_three_digits(value: float, text: str) -> None:
    assert number_text(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (0.0123, "12 ms"), (1.05, "1.1 s"), (90, "90 s"), (310, "5.2 min"),
     (6000, "100 min"), (20000, "5.6 h"), (400000, "4.6 days")],
)  # fmt: skip
def test_durations_are_written_in_the_unit_a_reader_would_choose(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_occlusion_curves_are_drawn_as_given_and_named() -> None:
    figure = occlusion_figure(CURVES, chance=0.1, width=WIDE, theme=LIGHT)
    (axes,) = figure.axes
    chance, *lines = axes.lines
    assert np.asarray(chance.get_ydata()).tolist() == [0.1, 0.1]
    for line, curve in zip(lines, CURVES, strict=True):
        assert np.asarray(line.get_xdata()).tolist() == list(curve.fractions)
        assert np.asarray(line.get_ydata()).tolist() == list(curve.accuracies)
    assert len({str(line.get_linestyle()) for line in lines}) == len(CURVES)
    with pytest.raises(ValueError, match="expected 1 to 3 curves, got 0"):
        occlusion_figure([], chance=0.1)
    with pytest.raises(ValueError, match="expected one accuracy for each of at least one fraction"):
        OcclusionLine(name="x", fractions=(0, 1), accuracies=(1,))


def test_attacks_are_bars_from_zero_with_their_intervals() -> None:
    (axes,) = attacks_figure(ATTACKS, width=WIDE, theme=LIGHT).axes
    bars = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    assert [bar.get_x() for bar in bars] == [0, 0, 0]
    assert [bar.get_width() for bar in bars] == [1.0, 0.4, 0.0]
    ends = [np.asarray(line.get_xdata()).tolist() for line in axes.lines]
    assert ends[1] == pytest.approx([0.35, 0.45])
    with pytest.raises(ValueError, match="expected at least one attack"):
        attacks_figure([])
