"""Comparison with a baseline: a forest plot of paired differences."""

from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from automix.evaluation.intervals import Interval
from automix.reporting.canvas import (
    SMALL_POINTS,
    TEXT_POINTS,
    WIDE,
    label_axes,
    new_figure,
    plain,
    style_axes,
)
from automix.reporting.palette import LIGHT, OPERATOR_COLOURS, Theme
from automix.reporting.values import Direction
from automix.vocabulary import Operator

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
        operator: gives the colour; None for schedules of several operators.
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
        _draw_interval(axes, height, row.value, _colour(row, theme), theme)


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
            _draw_interval(axes, height, row.difference, _colour(row, theme), theme)
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


def _draw_interval(axes: Axes, height: int, value: Interval, colour: str, theme: Theme) -> None:
    axes.hlines(height, value.low, value.high, color=theme.ink, linewidth=1.6)
    style: dict[str, Any] = {"color": colour, "markeredgecolor": theme.ink, "markersize": 7}
    axes.plot([value.estimate], [height], marker="o", linewidth=0, zorder=3, **style)


def _colour(row: ComparisonRow, theme: Theme) -> str:
    return theme.surface if row.operator is None else OPERATOR_COLOURS[row.operator]
