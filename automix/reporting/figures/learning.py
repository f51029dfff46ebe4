"""Learning curve of the agent: episode returns over the episodes of the search."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from automix.reporting.canvas import SMALL_POINTS, WIDE, hint, new_axes, write_beside
from automix.reporting.figures.placement import spread
from automix.reporting.palette import LIGHT, Theme
from automix.reporting.tables import number_text

# Below this width the names stand above the axes, in inches.
_NAMES_BESIDE_FROM = 6.0
_MOST_POINTS = 60


def learning_curve_figure(
    returns: Sequence[float],
    *,
    per_rollout: int,
    link: str = "",
    width: float = WIDE,
    theme: Theme = LIGHT,
) -> Figure:
    """Draw the mean return per rollout with its quartiles, and the best return so far.

    ``returns`` are those of all episodes, in the order they ended; a click on a point of a rollout
    leads to ``link``.
    """
    if not returns:
        raise ValueError("expected at least one episode, got none")
    is_wide = width >= _NAMES_BESIDE_FROM
    x = "episodes (each one training run)"
    figure, axes = new_axes(width=width, height=3.2, theme=theme, grid="y", x=x, y="episode return")
    _draw_lines(axes, np.asarray(returns), per_rollout, theme, link=link)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6 if is_wide else 4, integer=True))
    axes.set_xlim(left=0, right=len(returns))
    if is_wide:
        _name_at_the_right(axes, figure, theme)
    else:
        style: dict[str, Any] = {"fontsize": SMALL_POINTS, "labelcolor": theme.ink, "ncols": 2}
        style |= {"frameon": False, "columnspacing": 1.0, "handlelength": 1.4}
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1), **style)
    return figure


def _draw_lines(
    axes: Axes, returns: NDArray[np.float64], per_rollout: int, theme: Theme, *, link: str
) -> None:
    # One group per rollout, within which all episodes follow one policy; the last may be short.
    ends = [*range(per_rollout, len(returns), per_rollout), len(returns)]
    groups = np.split(returns, ends[:-1])
    low, high = np.transpose([np.quantile(group, (0.25, 0.75)) for group in groups])
    axes.fill_between(ends, low, high, color=theme.accent, alpha=0.22, linewidth=0)
    style: dict[str, Any] = {"linewidth": 2, "label": "rollout mean, quartiles"}
    means = [float(group.mean()) for group in groups]
    axes.plot(ends, means, color=theme.accent, **style)
    # Thinned out: each point of its own is some hundred bytes of the page.
    step = -(-len(ends) // _MOST_POINTS)
    for end, mean in list(zip(ends, means, strict=True))[::step]:
        style_of_point: dict[str, Any] = {"marker": "o", "markersize": 4, "label": "_point"}
        [point] = axes.plot([end], [mean], color=theme.accent, **style_of_point)
        hint(point, f"episode {end}: rollout mean {number_text(mean)}", link=link)
    # Steps, as the best return only changes when an episode beats it.
    style = {"linewidth": 1.2, "drawstyle": "steps-post", "label": "best so far"}
    axes.plot(ends, [returns[:end].max() for end in ends], color=theme.ink, **style)


def _name_at_the_right(axes: Axes, figure: Figure, theme: Theme) -> None:
    """Write each line's name and last value beside its end, moved apart where they would touch."""
    lines = [line for line in axes.get_lines() if line.get_label() != "_point"]
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
