"""Comparison with a baseline: paired differences, and their cost in time."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from automix.evaluation.statistics import Interval
from automix.operator_info import OPERATOR_FACTS, Operator
from automix.reporting import canvas
from automix.reporting.figures.placement import beside_points
from automix.reporting.palette import LIGHT, Theme
from automix.reporting.tables import (
    Column,
    Direction,
    Table,
    duration_text,
    duration_unit,
    number_text,
)

# Below this width the differences alone are drawn; the table beside the figure has the values.
_TWO_COLUMNS_FROM = 6.0
# The line that names the better side stands between the axes and their title.
_TITLE_PAD = 20.0
# Characters in a line: on a phone, names get a third of the width.
_LABEL_WIDTH, _TITLE_WIDTH, _NARROW_TITLE_WIDTH = 26, 44, 24


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonRow:
    """One compared schedule."""

    label: str
    value: Interval  # the metric over the seeds, mean or interquartile mean
    difference: Interval | None  # paired difference to the baseline; None for the baseline itself
    operator: Operator | None = None  # gives the color; None for schedules of several operators
    link: str = ""  # where a click on it leads; may be empty


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The content of a forest plot."""

    metric: str  # name of the metric, with its unit
    statistic: str  # of which the values are estimates, such as "mean of 100 seeds"
    better: Direction  # which way the metric is better
    # From top to bottom; exactly one has no difference, the baseline.
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
    comparison: Comparison, *, width: float = canvas.WIDE, theme: Theme = LIGHT
) -> Figure:
    """Draw each row's value, and beside it the paired difference to the baseline."""
    rows = comparison.rows
    labels = [canvas.wrapped(row.label, width=_LABEL_WIDTH) for row in rows]
    lines = max(label.count("\n") for label in labels) + 1
    height = 1.15 + (0.16 + 0.15 * lines) * len(rows)
    figure = canvas.new_figure(width=width, height=height, theme=theme)
    num_columns = 2 if width >= _TWO_COLUMNS_FROM else 1
    columns: list[Axes] = []
    # Values on the left and differences on the right share the rows.
    for index in range(num_columns):
        shared = columns[0] if columns else None
        axes = figure.add_subplot(1, num_columns, index + 1, sharey=shared)
        canvas.style_axes(axes, theme, grid="x")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=3 + num_columns))
        columns.append(axes)
    if num_columns == 2:
        x = f"{comparison.metric}, {comparison.better} is better"
        canvas.label_axes(columns[0], theme, x=x, title=comparison.statistic, pad=_TITLE_PAD)
        for height, row in enumerate(rows):
            _draw_interval(columns[0], height, row.value, row, theme)
        columns[1].tick_params(labelleft=False)
    title_width = _TITLE_WIDTH if num_columns == 2 else _NARROW_TITLE_WIDTH
    _draw_differences(columns[-1], comparison, theme, title_width=title_width)
    columns[0].set_yticks(range(len(rows)), labels)
    columns[0].tick_params(axis="y", labelsize=canvas.TEXT_POINTS - 0.5, labelcolor=theme.ink)
    columns[0].set_ylim(len(rows) - 0.4, -0.6)
    return figure


def _draw_differences(
    axes: Axes, comparison: Comparison, theme: Theme, *, title_width: int
) -> None:
    title = canvas.wrapped(f"difference to {comparison.baseline}", width=title_width)
    x = canvas.wrapped(f"difference in {comparison.metric}", width=title_width)
    canvas.label_axes(axes, theme, x=x, title=title, pad=_TITLE_PAD)
    axes.axvline(0, color=theme.muted, linewidth=1)
    low = high = 0.0
    for height, row in enumerate(comparison.rows):
        if row.difference is None:
            # A diamond at zero: the baseline differs from itself by nothing.
            style: dict[str, Any] = {"markerfacecolor": theme.surface, "markersize": 6}
            style |= {"marker": "D", "color": theme.muted, "linewidth": 0, "zorder": 4}
            [diamond] = axes.plot([0], [height], **style)
            canvas.hint(diamond, f"{row.label}: the baseline", link=row.link)
        else:
            low, high = min(low, row.difference.low), max(high, row.difference.high)
            _draw_interval(axes, height, row.difference, row, theme)
    # Room on both sides of zero even where all differences have one sign, for the names of the
    # sides: 30% of the larger reach, and 6% beyond the last interval.
    reach = max(-low, high) or 1.0
    axes.set_xlim(min(low, -0.3 * reach) - 0.06 * reach, max(high, 0.3 * reach) + 0.06 * reach)
    sides = ("better", "worse") if comparison.better is Direction.LOWER else ("worse", "better")
    at_zero: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "color": theme.muted}
    canvas.write_beside(axes, f"< {sides[0]}", (0, 1), (-6, 4), ha="right", **at_zero)
    canvas.write_beside(axes, f"{sides[1]} >", (0, 1), (6, 4), ha="left", **at_zero)


def _draw_interval(
    axes: Axes, height: int, value: Interval, row: ComparisonRow, theme: Theme
) -> None:
    line = axes.hlines(height, value.low, value.high, color=theme.ink, linewidth=1.6)
    text = f"{row.label}: {_interval_text(value)}"
    canvas.hint(line, text, link=row.link)
    canvas.hint(
        _draw_estimate(axes, value.estimate, height, row.operator, theme), text, link=row.link
    )


def _draw_estimate(
    axes: Axes, x: float, y: float, operator: Operator | None, theme: Theme
) -> Artist:
    color = theme.surface if operator is None else OPERATOR_FACTS[operator].color
    style: dict[str, Any] = {"color": color, "markeredgecolor": theme.ink, "markersize": 7}
    [point] = axes.plot([x], [y], marker="o", linewidth=0, zorder=3, **style)
    return point


def _interval_text(value: Interval) -> str:
    estimate, low, high = (number_text(it) for it in (value.estimate, value.low, value.high))
    return f"{estimate} [{low}, {high}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Time and training runs by stage, and the yardstick."""

    # (name, seconds, training runs), from top to bottom; None where there is no such number.
    stages: tuple[tuple[str, float | None, int | None], ...]
    training_seconds: float  # mean duration of one training run, positive

    def __post_init__(self) -> None:
        if not self.training_seconds > 0:
            raise ValueError(f"expected a positive duration, got {self.training_seconds}")
        if not self.stages or any((seconds or 0) < 0 for _, seconds, _ in self.stages):
            raise ValueError(f"expected stages of at least 0 seconds, got {self.stages}")

    @property
    def timed(self) -> list[tuple[str, float, int | None]]:
        """Stages that have a time."""
        return [(name, it, runs) for name, it, runs in self.stages if it is not None]


def cost_figure(cost: Cost, *, width: float = canvas.WIDE, theme: Theme = LIGHT) -> Figure:
    """Draw a bar per stage that has a time, with its duration and its training runs."""
    heights = range(len(cost.timed))
    durations = [seconds for _, seconds, _ in cost.timed]
    longest = max(durations, default=0.0)
    # One unit for the axis, that of the longest stage; each bar has its own in its text.
    unit, length = duration_unit(longest)
    x = f"time in {unit} (mean of a training run: {duration_text(cost.training_seconds)})"
    height = 0.8 + 0.34 * len(heights)
    figure, axes = canvas.new_axes(width=width, height=height, theme=theme, grid="x", x=x)
    axes.spines["left"].set_visible(False)
    bars = [seconds / length for seconds in durations]
    patches = axes.barh(heights, bars, height=0.62, color=theme.accent)
    axes.set_yticks(heights, [canvas.plain(name) for name, _, _ in cost.timed])
    axes.tick_params(axis="y", length=0, labelsize=canvas.TEXT_POINTS - 0.5, labelcolor=theme.ink)
    axes.set_ylim(len(heights) - 0.4, -0.6)
    for height, (name, seconds, runs), bar in zip(heights, cost.timed, patches, strict=True):
        text = duration_text(seconds) + ("" if runs is None else f", {runs} runs")
        canvas.hint(bar, f"{name}: {text}")
        # A long bar takes its text inside, so that it need not leave room beside it.
        is_inside = seconds > 0.6 * longest
        canvas.write_beside(
            axes,
            text,
            (seconds / length, height),
            (-5 if is_inside else 5, 0),
            ha="right" if is_inside else "left",
            va="center",
            color=theme.surface if is_inside else theme.ink,
        )
    axes.set_xlim(0, longest / length * 1.02 or 1.0)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5 if width > 5 else 3))
    return figure


def cost_table(cost: Cost, *, name: str, title: str, caption: str = "") -> Table:
    """Return one row per stage, and their sum: training runs, and time."""
    columns = (
        Column(name="stage"),
        Column(name="training runs", digits=9),
        Column(name="time", unit="s"),
    )
    counts = [runs for _, _, runs in cost.stages if runs is not None]
    total = ("total", sum(counts) if counts else None, sum(it for _, it, _ in cost.timed))
    rows = tuple((stage, runs, seconds) for stage, seconds, runs in cost.stages)
    return Table(name=name, title=title, columns=columns, rows=(*rows, total), caption=caption)


@dataclass(frozen=True, slots=True, kw_only=True)
class GainPoint:
    """One method in the plane of cost and gain."""

    label: str
    cost: float  # all its training and searching, in plain training runs; positive
    gain: Interval  # paired difference of the metric to the baseline, signed so that up is better
    operator: Operator | None = None  # gives the color; None for schedules of several operators
    link: str = ""  # where a click on it leads; may be empty


def gain_figure(
    points: Sequence[GainPoint],
    *,
    metric: str,
    better: Direction,
    width: float = canvas.WIDE,
    theme: Theme = LIGHT,
) -> Figure:
    """Draw gain over cost, with intervals; cost on a logarithmic axis.

    ``better`` is the way the metric itself is better; gains point up in either case.
    """
    if not points:
        raise ValueError("expected at least one point, got none")
    height = 3.4
    x = "cost in plain training runs"
    y = f"gain: {'decrease' if better is Direction.LOWER else 'increase'} of {metric}"
    figure, axes = canvas.new_axes(width=width, height=height, theme=theme, grid="y", x=x, y=y)
    axes.axhline(0, color=theme.muted, linewidth=1)
    for point in points:
        axes.vlines(point.cost, point.gain.low, point.gain.high, color=theme.ink, linewidth=1.4)
        drawn = _draw_estimate(axes, point.cost, point.gain.estimate, point.operator, theme)
        text = f"{point.label}: {_interval_text(point.gain)}, cost {number_text(point.cost)} runs"
        canvas.hint(drawn, text, link=point.link)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    costs = [point.cost for point in points]
    # Room for the names, which stand left of the points of the right half.
    axes.set_xlim(min(costs) / 1.6, max(costs) * 1.6)
    # About this part of the figure, at 72 points per inch, is inside the axes.
    _name_points(axes, points, (width * 0.84 * 72, height * 0.8 * 72), theme)
    return figure


def _name_points(
    axes: Axes, points: Sequence[GainPoint], size: tuple[float, float], theme: Theme
) -> None:
    """Write each name beside its point, on the side away from the edge, without overlap."""
    low, high = axes.get_ylim()
    left, right = (math.log(edge) for edge in axes.get_xlim())
    # Points on the page: the logarithm of the cost across, the gain upwards.
    anchors = [
        (
            (math.log(point.cost) - left) / (right - left) * size[0],
            (point.gain.estimate - low) / (high - low) * size[1],
        )
        for point in points
    ]
    widths = [canvas.text_width(point.label, canvas.SMALL_POINTS) for point in points]
    offsets = beside_points(anchors, widths, height=1.3 * canvas.SMALL_POINTS, page_width=size[0])
    for point, offset in zip(points, offsets, strict=True):
        canvas.write_beside(
            axes,
            canvas.plain(point.label),
            (point.cost, point.gain.estimate),
            offset,
            ha="left" if offset[0] > 0 else "right",
            va="center",
            color=theme.ink,
            bbox={"facecolor": theme.surface, "edgecolor": "none", "pad": 0.5},
        )
