"""Comparison with a baseline: a forest plot of paired differences."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from automix.evaluation.statistics import Interval
from automix.operator_info import Operator
from automix.reporting.canvas import (
    SMALL_POINTS,
    TEXT_POINTS,
    WIDE,
    label_axes,
    new_figure,
    plain,
    style_axes,
    text_width,
)
from automix.reporting.figures.placement import beside_points
from automix.reporting.palette import LIGHT, OPERATOR_COLORS, OPERATOR_NAMES, Theme
from automix.reporting.tables import (
    Column,
    Direction,
    Table,
    duration_text,
    duration_unit,
    number_text,
)
from automix.schedule import Schedule

# Below this width the differences alone are drawn; the table beside the figure has the values.
_TWO_COLUMNS_FROM = 6.0
# The line that names the better side stands between the axes and their title.
_TITLE_PAD = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonRow:
    """One compared schedule.

    Attributes:
        label: its name.
        value: the metric over the seeds, mean or interquartile mean.
        difference: paired difference to the baseline; None for the baseline itself.
        operator: gives the color; None for schedules of several operators.
    """

    label: str
    value: Interval
    difference: Interval | None
    operator: Operator | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What a forest plot shows.

    Attributes:
        metric: name of the metric, with its unit.
        statistic: of which the values are estimates, such as "mean of 100 seeds".
        better: which way the metric is better.
        rows: from top to bottom; exactly one has no difference, the baseline.
    """

    metric: str
    statistic: str
    better: Direction
    rows: tuple[ComparisonRow, ...]

    def __post_init__(self) -> None:
        baselines = [row.label for row in self.rows if row.difference is None]
        if len(baselines) != 1:
            raise ValueError(
                f"expected one row without a difference, the baseline, got {baselines}"
            )

    @property
    def baseline(self) -> str:
        """Name of the row that the others are compared with."""
        return next(row.label for row in self.rows if row.difference is None)


def comparison_figure(
    comparison: Comparison, *, width: float = WIDE, theme: Theme = LIGHT
) -> Figure:
    """Draw each row's value, and beside it the paired difference to the baseline."""
    rows = comparison.rows
    figure = new_figure(width=width, height=1.15 + 0.31 * len(rows), theme=theme)
    is_wide = width >= _TWO_COLUMNS_FROM
    columns: list[Axes] = []
    for index in range(2 if is_wide else 1):
        shared = columns[0] if columns else None
        columns.append(figure.add_subplot(1, 2 if is_wide else 1, index + 1, sharey=shared))
        style_axes(columns[-1], theme, grid="x")
        columns[-1].tick_params(axis="y", length=0)
        columns[-1].spines["left"].set_visible(False)
        columns[-1].xaxis.set_major_locator(MaxNLocator(nbins=5 if is_wide else 4))
    if is_wide:
        _draw_values(columns[0], comparison, theme)
        columns[1].tick_params(labelleft=False)
    _draw_differences(columns[-1], comparison, theme)
    columns[0].set_yticks(range(len(rows)), [plain(row.label) for row in rows])
    columns[0].tick_params(axis="y", labelsize=TEXT_POINTS - 0.5, labelcolor=theme.ink)
    columns[0].set_ylim(len(rows) - 0.4, -0.6)
    return figure


def _draw_values(axes: Axes, comparison: Comparison, theme: Theme) -> None:
    label = f"{comparison.metric}, {comparison.better} is better"
    label_axes(axes, theme, x=label, title=comparison.statistic, pad=_TITLE_PAD)
    for height, row in enumerate(comparison.rows):
        _draw_interval(axes, height, row.value, _color(row, theme), theme)


def _draw_differences(axes: Axes, comparison: Comparison, theme: Theme) -> None:
    title = f"difference to {comparison.baseline}"
    x = f"difference in {comparison.metric}"
    label_axes(axes, theme, x=x, title=title, pad=_TITLE_PAD)
    axes.axvline(0, color=theme.muted, linewidth=1)
    left = right = 0.0
    for height, row in enumerate(comparison.rows):
        if row.difference is None:
            style: dict[str, Any] = {"markerfacecolor": theme.surface, "markersize": 6}
            axes.plot([0], [height], marker="D", color=theme.muted, linewidth=0, zorder=4, **style)
        else:
            left, right = min(left, row.difference.low), max(right, row.difference.high)
            _draw_interval(axes, height, row.difference, _color(row, theme), theme)
    _name_the_sides(axes, comparison.better, left, right, theme)


def _name_the_sides(axes: Axes, better: Direction, left: float, right: float, theme: Theme) -> None:
    """Leave room on both sides of zero, and say which is the better one."""
    reach = max(-left, right) or 1.0
    left, right = min(left, -0.3 * reach) - 0.06 * reach, max(right, 0.3 * reach) + 0.06 * reach
    axes.set_xlim(left, right)
    sides = ("better", "worse") if better is Direction.LOWER else ("worse", "better")
    for text, offset, alignment in zip(sides, (-6, 6), ("right", "left"), strict=True):
        axes.annotate(
            f"< {text}" if offset < 0 else f"{text} >",
            xy=(0, 1),
            xycoords=("data", "axes fraction"),
            xytext=(offset, 4),
            textcoords="offset points",
            ha=alignment,
            color=theme.muted,
            fontsize=SMALL_POINTS,
        )


def _draw_interval(axes: Axes, height: int, value: Interval, color: str, theme: Theme) -> None:
    axes.hlines(height, value.low, value.high, color=theme.ink, linewidth=1.6)
    style: dict[str, Any] = {"color": color, "markeredgecolor": theme.ink, "markersize": 7}
    axes.plot([value.estimate], [height], marker="o", linewidth=0, zorder=3, **style)


def _color(row: ComparisonRow, theme: Theme) -> str:
    return theme.surface if row.operator is None else OPERATOR_COLORS[row.operator]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Time by stage, and the yardstick.

    Attributes:
        stages: (name, seconds), from top to bottom.
        training_seconds: duration of one plain training, positive.
    """

    stages: tuple[tuple[str, float], ...]
    training_seconds: float

    def __post_init__(self) -> None:
        if not self.training_seconds > 0:
            raise ValueError(f"expected a positive duration, got {self.training_seconds}")
        if not self.stages or any(seconds < 0 for _, seconds in self.stages):
            raise ValueError(f"expected stages of at least 0 seconds, got {self.stages}")

    def in_trainings(self, seconds: float) -> float:
        """Return a duration as a multiple of one plain training."""
        return seconds / self.training_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class GainPoint:
    """One method in the plane of cost and gain.

    Attributes:
        label: its name.
        cost: all its training and searching, in plain training runs; positive.
        gain: paired difference of the metric to the baseline, signed so that up is better.
        operator: gives the color; None for schedules of several operators.
    """

    label: str
    cost: float
    gain: Interval
    operator: Operator | None = None


def cost_figure(cost: Cost, *, width: float = WIDE, theme: Theme = LIGHT) -> Figure:
    """Draw a bar per stage, with its duration in seconds and in plain training runs."""
    figure = new_figure(width=width, height=0.8 + 0.34 * len(cost.stages), theme=theme)
    axes = figure.add_subplot()
    style_axes(axes, theme, grid="x")
    axes.spines["left"].set_visible(False)
    heights = range(len(cost.stages))
    longest = max(seconds for _, seconds in cost.stages)
    unit, length = duration_unit(longest)
    axes.barh(
        heights,
        [seconds / length for _, seconds in cost.stages],
        height=0.62,
        color=theme.accent,
    )
    axes.set_yticks(heights, [plain(name) for name, _ in cost.stages])
    axes.tick_params(axis="y", length=0, labelsize=TEXT_POINTS - 0.5, labelcolor=theme.ink)
    axes.set_ylim(len(cost.stages) - 0.4, -0.6)
    for height, (_, seconds) in zip(heights, cost.stages, strict=True):
        trainings = number_text(cost.in_trainings(seconds), digits=2)
        # A long bar takes its text inside, so that it need not leave room beside it.
        is_inside = seconds > 0.6 * longest
        axes.annotate(
            f"{duration_text(seconds)} = {trainings} trainings",
            xy=(seconds / length, height),
            xytext=(-5 if is_inside else 5, 0),
            textcoords="offset points",
            ha="right" if is_inside else "left",
            va="center",
            color=theme.surface if is_inside else theme.ink,
            fontsize=SMALL_POINTS,
        )
    axes.set_xlim(0, longest / length * 1.02 or 1.0)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5 if width > 5 else 3))
    yardstick = duration_text(cost.training_seconds)
    label_axes(axes, theme, x=f"time in {unit} (one plain training: {yardstick})")
    return figure


def gain_figure(
    points: Sequence[GainPoint],
    *,
    metric: str,
    better: Direction,
    width: float = WIDE,
    theme: Theme = LIGHT,
) -> Figure:
    """Draw gain over cost, with intervals; cost on a logarithmic axis.

    Args:
        points: the methods.
        metric: name of the metric, with its unit.
        better: which way the metric itself is better; gains point up in either case.
        width: inches.
        theme: inks.
    """
    if not points:
        raise ValueError("expected at least one point, got none")
    figure = new_figure(width=width, height=3.4, theme=theme)
    axes = figure.add_subplot()
    style_axes(axes, theme, grid="y")
    axes.axhline(0, color=theme.muted, linewidth=1)
    for point in points:
        color = theme.surface if point.operator is None else OPERATOR_COLORS[point.operator]
        axes.vlines(point.cost, point.gain.low, point.gain.high, color=theme.ink, linewidth=1.4)
        style: dict[str, Any] = {"color": color, "markeredgecolor": theme.ink, "markersize": 7}
        axes.plot([point.cost], [point.gain.estimate], marker="o", linewidth=0, zorder=3, **style)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    costs = [point.cost for point in points]
    # Room for the names, which stand left of the points of the right half.
    axes.set_xlim(min(costs) / 1.6, max(costs) * 1.6)
    sign = "decrease" if better is Direction.LOWER else "increase"
    label_axes(axes, theme, x="cost in plain trainings", y=f"gain: {sign} of {metric}")
    _name_points(axes, points, (width * 0.84 * 72, 3.4 * 0.8 * 72), theme)
    return figure


def _name_points(
    axes: Axes, points: Sequence[GainPoint], size: tuple[float, float], theme: Theme
) -> None:
    """Write each name beside its point, on the side away from the edge, without overlap."""
    low, high = axes.get_ylim()
    left, right = (math.log(edge) for edge in axes.get_xlim())
    anchors = [
        (
            (math.log(point.cost) - left) / (right - left) * size[0],
            (point.gain.estimate - low) / (high - low) * size[1],
        )
        for point in points
    ]
    widths = [text_width(point.label, SMALL_POINTS) for point in points]
    offsets = beside_points(anchors, widths, height=1.3 * SMALL_POINTS, page_width=size[0])
    for point, (x, y) in zip(points, offsets, strict=True):
        axes.annotate(
            plain(point.label),
            xy=(point.cost, point.gain.estimate),
            xytext=(x, y),
            textcoords="offset points",
            ha="left" if x > 0 else "right",
            va="center",
            color=theme.ink,
            fontsize=SMALL_POINTS,
            bbox={"facecolor": theme.surface, "edgecolor": "none", "pad": 0.5},
        )


def schedule_table(schedule: Schedule, *, name: str, title: str, caption: str = "") -> Table:
    """Return one row per segment: where it begins, operator, strength and mixed share."""
    rows = []
    for segment in schedule.segments:
        decision = segment.decision
        is_mixing = decision.operator is not Operator.NONE and decision.probability > 0
        rows.append(
            (
                100 * segment.start,
                OPERATOR_NAMES[decision.operator if is_mixing else Operator.NONE],
                decision.strength if is_mixing else None,
                100 * decision.probability if is_mixing else 0,
            )
        )
    columns = (
        Column(name="start", unit="% of training"),
        Column(name="operator"),
        Column(name="strength"),
        Column(name="mixed batches", unit="%"),
    )
    return Table(name=name, title=title, columns=columns, rows=tuple(rows), caption=caption)


def comparison_table(comparison: Comparison, *, name: str, title: str, caption: str = "") -> Table:
    """Return one row per schedule: its value and its paired difference to the baseline."""
    columns = (
        Column(name="schedule"),
        Column(name=comparison.metric, unit=comparison.statistic, better=comparison.better),
        Column(name=f"difference to {comparison.baseline}"),
    )
    rows = tuple((row.label, row.value, row.difference) for row in comparison.rows)
    return Table(name=name, title=title, columns=columns, rows=rows, caption=caption)


def cost_table(cost: Cost, *, name: str, title: str, caption: str = "") -> Table:
    """Return one row per stage, and their sum: seconds, and plain training runs of that length."""
    total = sum(seconds for _, seconds in cost.stages)
    stages = (*cost.stages, ("total", total))
    columns = (
        Column(name="stage"),
        Column(name="time", unit="s"),
        Column(name="plain trainings", digits=2),
    )
    rows = tuple((stage, seconds, cost.in_trainings(seconds)) for stage, seconds in stages)
    return Table(name=name, title=title, columns=columns, rows=rows, caption=caption)
