"""Learning curve of the agent: episode returns over the episodes of the search."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Self

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from automix.reporting.canvas import SMALL_POINTS, WIDE, new_axes, plain, write_beside
from automix.reporting.figures.placement import spread
from automix.reporting.palette import LIGHT, Theme
from automix.reporting.tables import number_text

# Below this width the names stand above the axes, in inches.
_NAMES_BESIDE_FROM = 6.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningCurve:
    """Episode returns by rollout; all four sequences have one entry per rollout."""

    episodes: tuple[int, ...]  # number of episodes finished by the end of the rollout, increasing
    mean: tuple[float, ...]  # mean return of the rollout's episodes
    low: tuple[float, ...]  # their lower quartile
    high: tuple[float, ...]  # their upper quartile
    best: tuple[float, ...]  # highest return of any episode so far
    # (episodes finished, return) of evaluations without exploration.
    greedy: tuple[tuple[int, float], ...] = ()
    # Returns of other policies, by name; drawn as level lines.
    references: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        lengths = {len(values) for values in (self.mean, self.low, self.high, self.best)}
        if lengths != {len(self.episodes)} or not self.episodes:
            raise ValueError(
                f"expected one value per rollout and at least one rollout, got "
                f"{len(self.episodes)} rollouts and {sorted(lengths)} values"
            )

    @classmethod
    def from_returns(
        cls,
        returns: Sequence[float],
        *,
        per_rollout: int,
        greedy: Sequence[tuple[int, float]] = (),
        references: Mapping[str, float] | None = None,
    ) -> Self:
        """Group the returns of all episodes, in the order they ended, into rollouts."""
        # One group per rollout, in the order of the episodes; the last one may be short.
        starts = range(0, len(returns), per_rollout)
        groups = [np.asarray(returns[start : start + per_rollout]) for start in starts]
        ends = [min(start + per_rollout, len(returns)) for start in starts]
        quartiles = [np.quantile(group, (0.25, 0.75)) for group in groups]
        return cls(
            episodes=tuple(ends),
            mean=tuple(float(group.mean()) for group in groups),
            low=tuple(float(low) for low, _ in quartiles),
            high=tuple(float(high) for _, high in quartiles),
            best=tuple(float(max(returns[:end])) for end in ends),
            greedy=tuple(greedy),
            references=MappingProxyType(dict(references or {})),
        )


def learning_curve_figure(
    curve: LearningCurve,
    *,
    return_name: str = "episode return",
    width: float = WIDE,
    theme: Theme = LIGHT,
) -> Figure:
    """Draw the mean return per rollout with its quartiles, the best so far and the greedy policy.

    ``return_name`` labels the vertical axis, with the unit of the return.
    """
    is_wide = width >= _NAMES_BESIDE_FROM
    x = "episodes (each one training run)"
    figure, axes = new_axes(width=width, height=3.2, theme=theme, grid="y", x=x, y=return_name)
    _draw_lines(axes, curve, theme)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6 if is_wide else 4, integer=True))
    axes.set_xlim(left=0, right=curve.episodes[-1])
    if is_wide:
        _name_at_the_right(axes, figure, theme)
    else:
        style: dict[str, Any] = {"fontsize": SMALL_POINTS, "labelcolor": theme.ink, "ncols": 2}
        style |= {"frameon": False, "columnspacing": 1.0, "handlelength": 1.4}
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1), **style)
    return figure


def _draw_lines(axes: Axes, curve: LearningCurve, theme: Theme) -> None:
    axes.fill_between(
        curve.episodes, curve.low, curve.high, color=theme.accent, alpha=0.22, linewidth=0
    )
    style: dict[str, Any] = {"linewidth": 2, "label": "rollout mean, quartiles"}
    axes.plot(curve.episodes, curve.mean, color=theme.accent, **style)
    # Steps, as the best return only changes when an episode beats it.
    style = {"linewidth": 1.2, "drawstyle": "steps-post", "label": "best so far"}
    axes.plot(curve.episodes, curve.best, color=theme.ink, **style)
    if curve.greedy:
        episodes, returns = zip(*curve.greedy, strict=True)
        style = {"markerfacecolor": theme.surface, "markersize": 5, "marker": "o", "linewidth": 0}
        # Unclipped, so that the last circle, on the edge, is whole.
        style |= {"clip_on": False, "zorder": 4, "label": "greedy policy"}
        axes.plot(episodes, returns, color=theme.ink, **style)
    # References differ in their dashes: color is for the curves.
    styles = itertools.cycle([(0, (4, 3)), (0, (1, 2)), (0, (6, 2, 1, 2))])
    for (name, value), dashes in zip(curve.references.items(), styles, strict=False):
        axes.axhline(value, color=theme.muted, linewidth=1, linestyle=dashes, label=plain(name))


def _name_at_the_right(axes: Axes, figure: Figure, theme: Theme) -> None:
    """Write each line's name and last value beside its end, moved apart where they would touch."""
    # References are level lines, so their last value is their only one.
    lines = axes.get_lines()
    values = [float(np.asarray(line.get_ydata())[-1]) for line in lines]
    low, high = axes.get_ylim()
    # One and a quarter lines of text, in units of the vertical axis.
    gap = 1.25 * SMALL_POINTS / (figure.get_figheight() * 0.78 * 72) * (high - low)
    places = spread(values, gap=gap, low=low, high=high)
    for line, value, place in zip(lines, values, places, strict=True):
        text = f"{line.get_label()} {number_text(value)}"
        color = theme.accent if line.get_color() == theme.accent else theme.ink
        style: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "va": "center"}
        write_beside(axes, text, (1, place), (7, 0), color=color, **style)
