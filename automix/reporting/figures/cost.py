"""What a search costs, in seconds and in trainings, and what it gains for that."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from automix.evaluation.intervals import Interval
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
from automix.reporting.palette import LIGHT, OPERATOR_COLOURS, Theme
from automix.reporting.values import Direction, duration_text, duration_unit, number_text
from automix.vocabulary import Operator


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
        cost: all its training and searching, in plain trainings; positive.
        gain: paired difference of the metric to the baseline, signed so that up is better.
        operator: gives the colour; None for schedules of several operators.
    """

    label: str
    cost: float
    gain: Interval
    operator: Operator | None = None


def cost_figure(cost: Cost, *, width: float = WIDE, theme: Theme = LIGHT) -> Figure:
    """Draw a bar per stage, with its duration in seconds and in plain trainings."""
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
        colour = theme.surface if point.operator is None else OPERATOR_COLOURS[point.operator]
        axes.vlines(point.cost, point.gain.low, point.gain.high, color=theme.ink, linewidth=1.4)
        style: dict[str, Any] = {"color": colour, "markeredgecolor": theme.ink, "markersize": 7}
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
