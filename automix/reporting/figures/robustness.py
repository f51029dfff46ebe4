"""Pictures of what a classifier stands: occlusion, and attacks."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from automix.evaluation.intervals import Interval
from automix.reporting.canvas import (
    SMALL_POINTS,
    WIDE,
    label_axes,
    new_figure,
    percent_axis,
    plain,
    style_axes,
)
from automix.reporting.figures.placement import spread
from automix.reporting.palette import LIGHT, Theme

# Besides colour, so that curves can be told apart in grey.
_DASHES = ("solid", (0, (5, 2)), (0, (1.5, 1.5)))
_NAMES_BESIDE_FROM = 6.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareCurve:
    """Accuracy over a share that is hidden.

    Attributes:
        name: of the curve, such as "random patches".
        shares: what is hidden, in [0, 1], ascending.
        accuracies: in [0, 1], one for each.
    """

    name: str
    shares: Sequence[float]
    accuracies: Sequence[float]

    def __post_init__(self) -> None:
        if len(self.shares) != len(self.accuracies) or not self.shares:
            raise ValueError(
                f"expected one accuracy for each of at least one share, got "
                f"{len(self.accuracies)} and {len(self.shares)}"
            )


def occlusion_figure(
    curves: Sequence[ShareCurve], *, chance: float, width: float = WIDE, theme: Theme = LIGHT
) -> Figure:
    """Draw accuracy over what is hidden, one line per curve, and the accuracy of guessing."""
    if not 0 < len(curves) <= len(_DASHES):
        raise ValueError(f"expected 1 to {len(_DASHES)} curves, got {len(curves)}")
    figure = new_figure(width=width, height=3.2, theme=theme)
    axes = figure.add_subplot()
    style_axes(axes, theme, grid="y")
    # To where the curves end: their names stand beyond.
    reach = max(curve.shares[-1] for curve in curves)
    axes.plot([0, reach], [chance] * 2, color=theme.muted, linewidth=1, linestyle=(0, (4, 3)))
    for curve, dashes in zip(curves, _DASHES, strict=False):
        colour = theme.accent if curve is curves[0] else theme.ink
        axes.plot(
            curve.shares,
            curve.accuracies,
            color=colour,
            linestyle=dashes,
            linewidth=1.8,
            marker="o",
            markersize=3.5,
            label=plain(curve.name),
        )
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    percent_axis(axes, "x")
    percent_axis(axes, "y")
    label_axes(axes, theme, x="hidden", y="accuracy")
    axes.annotate(
        "guessing",
        (0, chance),
        xytext=(4, 3),
        textcoords="offset points",
        color=theme.muted,
        fontsize=SMALL_POINTS,
    )
    if width < _NAMES_BESIDE_FROM:
        legend = figure.legend(loc="outside upper left", frameon=False, fontsize=SMALL_POINTS)
        for text in legend.get_texts():
            text.set_color(theme.ink)
        return figure
    ends = [curve.accuracies[-1] for curve in curves]
    for curve, height in zip(curves, spread(ends, gap=0.08, low=0.02, high=1.0), strict=True):
        axes.annotate(
            plain(curve.name),
            (curve.shares[-1], height),
            xytext=(8, 0),
            textcoords="offset points",
            color=theme.accent if curve is curves[0] else theme.ink,
            fontsize=SMALL_POINTS,
            va="center",
            annotation_clip=False,
        )
    return figure


def attacks_figure(
    rows: Sequence[tuple[str, Interval]], *, width: float = WIDE, theme: Theme = LIGHT
) -> Figure:
    """Draw the accuracy under each attack as a bar from 0, with its interval."""
    if not rows:
        raise ValueError("expected at least one attack, got none")
    figure = new_figure(width=width, height=0.9 + 0.36 * len(rows), theme=theme)
    axes = figure.add_subplot()
    style_axes(axes, theme, grid="x")
    positions = range(len(rows))
    shares = [interval.estimate for _, interval in rows]
    axes.barh(positions, shares, height=0.55, color=theme.accent, alpha=0.55)
    for position, (_, interval) in zip(positions, rows, strict=True):
        axes.plot([interval.low, interval.high], [position] * 2, color=theme.ink, linewidth=1.5)
        axes.annotate(
            f"{interval.estimate:.1%}",
            (interval.high, position),
            xytext=(5, 0),
            textcoords="offset points",
            color=theme.ink,
            fontsize=SMALL_POINTS,
            va="center",
        )
    axes.set_yticks(list(positions), [plain(name) for name, _ in rows])
    axes.tick_params(axis="y", length=0, labelcolor=theme.ink)
    axes.invert_yaxis()
    # Room for the number beside a bar of 100%.
    axes.set_xlim(0, 1.16)
    percent_axis(axes, "x")
    label_axes(axes, theme, x="accuracy")
    return figure
