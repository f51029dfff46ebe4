"""Schedules over training: the fraction of the batches each operator mixes, and its strength.

Shape suffixes: O operators (in the order of `Operator`), E intervals between edges.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from automix.errors import ConfigError
from automix.files import write_bytes
from automix.mixture import Decision, Mixture
from automix.operator_info import OPERATOR_FACTS, Operator
from automix.reporting import canvas
from automix.reporting.figures.placement import place_in_area
from automix.reporting.palette import LIGHT, Theme, ink_on
from automix.reporting.tables import Column, Table
from automix.schedule import Schedule

Floats = NDArray[np.float64]

# `none` is the rest of the batches, so it lies on top of the stack.
_STACK = (*(operator for operator in Operator if operator is not Operator.NONE), Operator.NONE)
_PANEL_INCHES = 3.6


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulePanel:
    """The content of one pair of axes."""

    title: str  # written above; may be empty
    schedules: tuple[Schedule, ...]  # one schedule, or the same search with several seeds
    # Progress up to which the training run is decided; the rest stays blank. In [0, 1].
    until: float = 1.0

    def __post_init__(self) -> None:
        if not self.schedules:
            raise ValueError("expected at least one schedule, got none")
        if not 0 <= self.until <= 1:
            raise ValueError(f"expected a fraction of the training run in [0, 1], got {self.until}")


def schedule_figure(
    panels: Sequence[SchedulePanel], *, width: float = canvas.WIDE, theme: Theme = LIGHT
) -> Figure:
    """Draw schedules: areas for operators, below them a line for the strength.

    With several schedules in a panel the areas are means over them, the whiskers and the band
    quartiles over them.
    """
    if not panels:
        raise ValueError("expected at least one panel, got none")
    columns = min(len(panels), max(1, int(width / _PANEL_INCHES)))
    rows = math.ceil(len(panels) / columns)
    height = rows * (3.3 if columns == 1 and width > 5 else 3.0)
    figure = canvas.new_figure(width=width, height=height, theme=theme)
    # About this part of a panel, in points, is inside the axes: names must fit into it.
    size = (0.84 * width / columns * 72, 0.62 * height / rows * 72)
    axes = canvas.panel_axes(figure, len(panels), num_columns=columns, lower_ratio=1.25)
    for panel, (upper, lower, is_first) in zip(panels, axes, strict=True):
        _draw_fractions(upper, panel, size, theme)
        _draw_strength(lower, panel, size[0], theme)
        canvas.label_axes(upper, theme, y="fraction of batches" if is_first else "")
        canvas.label_axes(lower, theme, x="training progress", y="strength" if is_first else "")
    return figure


def write_schedule_picture(path: Path, picture: Path) -> Path:
    """Draw a schedule file as a PNG; return where it was written.

    Raises:
        ConfigError: the name of the picture does not end in .png.
        ScheduleError: the file is no schedule.
    """
    if picture.suffix.lower() != ".png":
        raise ConfigError(f"{picture}: expected a file name that ends in .png, got another")
    panel = SchedulePanel(title=path.name, schedules=(Schedule.load(path),))
    write_bytes(picture, canvas.png_bytes(schedule_figure([panel])))
    return picture


def _draw_fractions(
    axes: Axes, panel: SchedulePanel, size: tuple[float, float], theme: Theme
) -> None:
    canvas.style_axes(axes, theme)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    canvas.percent_axis(axes.yaxis)
    axes.tick_params(labelbottom=False)
    keys = _draw_stack(axes, panel, size, theme) if panel.until else []
    _head(axes, panel.title, keys, size[0], theme)


def _draw_stack(
    axes: Axes, panel: SchedulePanel, size: tuple[float, float], theme: Theme
) -> list[Patch | Line2D]:
    """Draw the areas; return the keys of those that cannot be named where they are drawn."""
    data = fractions_over_training(panel.schedules, until=panel.until)
    # Whiskers would cross the names.
    is_named = len(panel.schedules) == 1
    stack = np.zeros(len(data.edges) - 1)
    keys: list[Patch | Line2D] = []
    for operator in _STACK:
        fraction = data.fractions[list(Operator).index(operator)]
        if not fraction.any():
            continue
        color, name = OPERATOR_FACTS[operator].color, OPERATOR_FACTS[operator].label
        area = axes.stairs(
            stack + fraction,
            data.edges,
            baseline=stack,
            fill=True,
            facecolor=color,
            edgecolor=theme.surface,
            linewidth=0.6,
            label=operator.value,
        )
        canvas.hint(area, f"{name}: {_fractions_text(data.edges, fraction)}")
        # Each area of its own: where an operator comes back, it is named again.
        places = [
            place_in_area(data.edges, stack, stack + np.where(area, fraction, 0), name, size)
            for area in (_areas(fraction > 0) if is_named else ())
        ]
        if not places or None in places:
            keys.append(Patch(facecolor=color, label=name))
        style: dict[str, Any] = {"color": ink_on(color), "fontsize": canvas.TEXT_POINTS}
        for place in filter(None, places):
            axes.text(*place[:2], name, rotation=place[2], ha="center", va="center", **style)
        stack = stack + fraction
    if len(panel.schedules) > 1:
        keys.append(_draw_quartiles(axes, data, theme))
    return keys


def _fractions_text(edges: Floats, fraction: Floats) -> str:
    """Return the fraction of batches by part of the training run, in words."""
    # Neighbors of one value are one part.
    firsts = [i for i in range(len(fraction)) if i == 0 or fraction[i] != fraction[i - 1]]
    ends = [*firsts[1:], len(fraction)]
    parts = [
        f"{fraction[first]:.0%} of batches from {edges[first]:.0%} to {edges[end]:.0%}"
        for first, end in zip(firsts, ends, strict=True)
        if fraction[first] > 0
    ]
    return ", ".join(parts)


def _areas(is_there: NDArray[np.bool_]) -> Iterator[NDArray[np.bool_]]:
    """Yield a mask of each run of neighboring intervals in which something is there."""
    # The number of the run to which an interval belongs: it counts the beginnings so far.
    number = np.cumsum(is_there & ~np.concatenate([[False], is_there[:-1]]))
    for run in range(1, number[-1] + 1):
        yield is_there & (number == run)


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorFractions:
    """Mean fraction of the batches per operator over training."""

    edges: Floats  # (E + 1,) float64, increasing from 0: where any schedule changes, and the end
    fractions: Floats  # (O, E) float64; each column sums to 1
    mixed_low: Floats  # (E,) float64, lower quartile over schedules of the fraction that is mixed
    mixed_high: Floats  # (E,) float64, upper quartile


def fractions_over_training(
    schedules: Sequence[Schedule], *, until: float = 1.0
) -> OperatorFractions:
    """Return the mean over ``schedules`` of each operator's fraction, up to progress ``until``."""
    edges = _starts_before(schedules, until)
    operators = list(Operator)
    none = operators.index(Operator.NONE)
    fractions = np.zeros((len(schedules), len(operators), len(edges)))
    for index, schedule in enumerate(schedules):
        for interval, start in enumerate(edges):
            mixture = schedule.mixture_at(start)
            for decision in mixture.decisions:
                row = operators.index(decision.operator)
                fractions[index, row, interval] += decision.probability
            # The rest of the batches is left as it is, so `none` is set last.
            fractions[index, none, interval] = 1 - mixture.probability
    low, high = np.quantile(1 - fractions[:, none], (0.25, 0.75), axis=0)
    return OperatorFractions(
        edges=np.array([*edges, until]),
        fractions=fractions.mean(axis=0),
        mixed_low=low,
        mixed_high=high,
    )


def _starts_before(schedules: Sequence[Schedule], until: float) -> list[float]:
    """Return where any of the schedules changes before progress ``until``, in order."""
    starts = {segment.start for schedule in schedules for segment in schedule.segments}
    return sorted(start for start in starts if start < until)


def _draw_quartiles(axes: Axes, data: OperatorFractions, theme: Theme) -> Line2D:
    """Draw whiskers over the fraction that is mixed, and return their key."""
    # In the middle of each interval; the pale line behind keeps them visible on any color.
    middles = (data.edges[:-1] + data.edges[1:]) / 2
    axes.vlines(middles, data.mixed_low, data.mixed_high, color=theme.surface, linewidth=3)
    axes.vlines(middles, data.mixed_low, data.mixed_high, color=theme.ink, linewidth=1.3)
    style: dict[str, Any] = {"linestyle": "none", "marker": "|", "markersize": 8, "mew": 1.3}
    return Line2D([], [], color=theme.ink, label="mixed: quartiles", **style)


def _head(axes: Axes, title: str, keys: list[Patch | Line2D], points: float, theme: Theme) -> None:
    """Write the title, and a legend of what could not be named where it is drawn."""
    lines = 0
    if keys:
        # As many columns as fit into the width, and a title above as many lines.
        widest = max(canvas.text_width(str(key.get_label()), canvas.SMALL_POINTS) for key in keys)
        columns = max(1, int(points / (widest + 2.5 * canvas.SMALL_POINTS)))
        lines = math.ceil(len(keys) / columns)
        style: dict[str, Any] = {"fontsize": canvas.SMALL_POINTS, "labelcolor": theme.ink}
        style |= {"frameon": False, "borderaxespad": 0.2, "borderpad": 0, "columnspacing": 0.9}
        style |= {"handlelength": 1.0, "handleheight": 1.0, "handletextpad": 0.4}
        axes.legend(
            handles=keys, loc="lower left", bbox_to_anchor=(-0.01, 1), ncols=columns, **style
        )
    canvas.label_axes(axes, theme, title=title, pad=6 + 13 * lines)


def _draw_strength(axes: Axes, panel: SchedulePanel, points: float, theme: Theme) -> None:
    canvas.style_axes(axes, theme)
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.25, 1.7)  # room above "strong" for the value of a line
    axes.set_yticks([0, 1], ["weak", "strong"])
    canvas.percent_axis(axes.xaxis)
    if not panel.until:
        return
    if len(panel.schedules) == 1:
        _draw_one_strength(axes, panel, points, theme)
    else:
        _draw_strength_band(axes, panel, theme)


def _draw_one_strength(axes: Axes, panel: SchedulePanel, points: float, theme: Theme) -> None:
    """Draw a level line per run of equal strength, with its value above it where that fits."""
    starts = _starts_before(panel.schedules, panel.until)
    # Neighboring segments of equal strengths are one line.
    runs: list[tuple[float, float, _Levels]] = []
    for start, end in itertools.pairwise([*starts, panel.until]):
        levels = _levels(panel.schedules[0].mixture_at(start))
        if runs and runs[-1][2] == levels:
            runs[-1] = (runs[-1][0], end, levels)
        else:
            runs.append((start, end, levels))
    for start, end, levels in runs:
        _draw_levels(axes, (start, end), levels, points, theme)


def _draw_levels(
    axes: Axes, span: tuple[float, float], levels: "_Levels", points: float, theme: Theme
) -> None:
    start, end = span
    style: dict[str, Any] = {"color": theme.ink, "fontsize": canvas.SMALL_POINTS}
    if len(levels) > 1:
        # A value may lie on the line above its own.
        style["path_effects"] = [withStroke(linewidth=2.5, foreground=theme.surface)]
    for height, decisions in levels.items():
        # The outline keeps pale operators visible on a pale page.
        axes.hlines(height, start, end, color=theme.muted, linewidth=4.5)
        for number, (operator, _) in enumerate(decisions):
            # Operators of a mixture that are equally strong are dashes of one line, in turn.
            others = len(decisions) - 1
            dashes = (4.0 * number, (4.0, 4.0 * others)) if others else "solid"
            color = OPERATOR_FACTS[operator].color
            axes.hlines(height, start, end, color=color, linewidth=3.5, linestyle=dashes)
        value = " / ".join(dict.fromkeys(f"{strength:g}" for _, strength in decisions))
        if (end - start) * points > canvas.text_width(value, canvas.SMALL_POINTS) + 2:
            axes.text((start + end) / 2, height + 0.17, value, ha="center", va="bottom", **style)


def relative_strength(decision: Decision) -> float:
    """Return where the strength lies between weak (0) and strong (1); NaN where there is none."""
    # Linear between the levels, which are not evenly spaced: each level has its own height.
    levels = OPERATOR_FACTS[decision.operator].strength.levels
    if len(levels) < 2 or decision.probability == 0:
        return math.nan
    return float(np.interp(decision.strength, levels, np.linspace(0, 1, len(levels))))


_Levels = dict[float, list[tuple[Operator, float]]]


def _levels(mixture: Mixture) -> _Levels:
    """Return the operators and strengths that lie at each height between weak and strong."""
    levels: _Levels = {}
    for decision in mixture.decisions:
        height = relative_strength(decision)
        if not math.isnan(height):
            levels.setdefault(height, []).append((decision.operator, decision.strength))
    return levels


def _mean_strength(mixture: Mixture) -> float:
    """Return the mean of the relative strengths by weight; NaN where there is none."""
    pairs = [(relative_strength(it), it.probability) for it in mixture.decisions]
    defined = [(height, weight) for height, weight in pairs if not math.isnan(height)]
    total = sum(weight for _, weight in defined)
    return sum(height * (weight / total) for height, weight in defined) if defined else math.nan


def _draw_strength_band(axes: Axes, panel: SchedulePanel, theme: Theme) -> None:
    """Draw median and quartiles over the schedules that mix with an adjustable strength."""
    starts = _starts_before(panel.schedules, panel.until)
    strengths = np.array(
        [[_mean_strength(entry.mixture_at(start)) for start in starts] for entry in panel.schedules]
    )
    # Intervals in which no schedule has a strength stay blank.
    some = ~np.isnan(strengths).all(axis=0)
    quartiles = np.full((3, len(starts)), np.nan)
    quartiles[:, some] = np.nanquantile(strengths[:, some], (0.25, 0.5, 0.75), axis=0)
    # The last value once more, for the right end of the steps.
    low, median, high = np.concatenate([quartiles, quartiles[:, -1:]], axis=1)
    edges = [*starts, panel.until]
    axes.fill_between(edges, low, high, step="post", color=theme.accent, alpha=0.25, linewidth=0)
    axes.plot(edges, median, drawstyle="steps-post", color=theme.accent, linewidth=1.8)


def schedule_table(schedule: Schedule, *, name: str, title: str, caption: str = "") -> Table:
    """Return one row per decision: where it begins, operator, strength and mixed fraction."""
    # A probability of 0 is written as `none`, whatever the operator.
    rows = [
        (
            100 * segment.start,
            OPERATOR_FACTS[decision.operator if decision.mixes else Operator.NONE].label,
            decision.strength if decision.mixes else None,
            100 * decision.probability if decision.mixes else 0,
        )
        for segment in schedule.segments
        for decision in segment.mixture.decisions
    ]
    columns = (
        Column(name="start", unit="% of training"),
        Column(name="operator"),
        Column(name="strength"),
        Column(name="mixed batches", unit="%"),
    )
    return Table(name=name, title=title, columns=columns, rows=tuple(rows), caption=caption)
