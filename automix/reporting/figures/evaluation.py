"""Figures of a trained classifier: calibration, corruptions, occlusion and attacks."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from automix.evaluation.statistics import Interval
from automix.reporting import canvas
from automix.reporting.figures.placement import spread
from automix.reporting.palette import LIGHT, Theme, ink_on
from automix.reporting.tables import number_text

Diagram = Mapping[str, Sequence[float]]
"""By bin of confidence: ``count`` of images; ``accuracy`` and mean ``confidence``, in [0, 1]."""


def reliability_figure(
    panels: Sequence[tuple[str, Diagram]], *, width: float = canvas.WIDE, theme: Theme = LIGHT
) -> Figure:
    """Draw accuracy over confidence, and below it how many images have that confidence.

    A panel is a title, such as "as trained: ECE 4.1%", and its diagram.
    """
    if not panels:
        raise ValueError("expected at least one panel, got none")
    columns = min(len(panels), max(1, int(width / 3.0)))
    figure = canvas.new_figure(width=width, height=3.6 * -(-len(panels) // columns), theme=theme)
    axes = canvas.panel_axes(figure, len(panels), num_columns=columns, lower_ratio=1)
    for (title, diagram), (upper, lower, is_first) in zip(panels, axes, strict=True):
        _draw_reliability(upper, diagram, theme)
        _draw_counts(lower, diagram, theme)
        canvas.label_axes(upper, theme, y="accuracy" if is_first else "", title=title)
        canvas.label_axes(lower, theme, x="confidence", y="images" if is_first else "")
    return figure


def _draw_reliability(axes: Axes, diagram: Diagram, theme: Theme) -> None:
    canvas.style_axes(axes, theme, grid="both")
    # A bin without images has neither accuracy nor confidence.
    filled = np.asarray(diagram["count"]) > 0
    confidence = np.asarray(diagram["confidence"])[filled]
    accuracy = np.asarray(diagram["accuracy"])[filled]
    axes.plot([0, 1], [0, 1], color=theme.muted, linewidth=1, linestyle=(0, (4, 3)))
    # The expected calibration error is the mean of these gaps, weighted by the images per bin.
    axes.vlines(confidence, confidence, accuracy, color=theme.accent, alpha=0.45, linewidth=4)
    axes.plot(confidence, accuracy, color=theme.accent, linewidth=1.8)
    for x, y, images in zip(
        confidence, accuracy, np.asarray(diagram["count"])[filled], strict=True
    ):
        [point] = axes.plot([x], [y], color=theme.accent, marker="o", markersize=4)
        canvas.hint(point, f"confidence {x:.1%}, accuracy {y:.1%}, {images:.0f} images")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    canvas.percent_axis(axes.yaxis)
    axes.tick_params(labelbottom=False)


def _draw_counts(axes: Axes, diagram: Diagram, theme: Theme) -> None:
    canvas.style_axes(axes, theme)
    count = np.asarray(diagram["count"], dtype=float)
    axes.stairs(count, np.linspace(0, 1, len(count) + 1), fill=True, color=theme.muted)
    axes.set_yticks([0, float(count.max())], ["0", f"{count.max():.0f}"])
    canvas.percent_axis(axes.xaxis)


def heatmap_figure(
    values: Sequence[Sequence[float]],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    column_title: str,
    width: float = canvas.WIDE,
    theme: Theme = LIGHT,
) -> Figure:
    """Draw (R, C) numbers as colored cells with the numbers in them; larger is darker."""
    values_RC = np.array(values, dtype=float)
    if values_RC.shape != (len(rows), len(columns)):
        raise ValueError(
            f"expected shape {(len(rows), len(columns))} from the names, got {values_RC.shape}"
        )
    height = 0.6 + 0.27 * len(rows)
    figure, axes = canvas.new_axes(width=width, height=height, theme=theme, x=column_title)
    span = float(values_RC.max() - values_RC.min()) or 1.0
    # Cividis reads the same with and without color vision; reversed, large errors are dark.
    colors = colormaps["cividis_r"]((values_RC - values_RC.min()) / span)
    # Rectangles rather than an image: they stay sharp at any size of an SVG.
    cells = [
        Rectangle((column - 0.5, row - 0.5), 1, 1) for row, column in np.ndindex(*values_RC.shape)
    ]
    axes.add_collection(PatchCollection(cells, facecolors=colors.reshape(-1, 4), linewidths=0))
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    for row, column in np.ndindex(*values_RC.shape):
        axes.text(
            column,
            row,
            number_text(float(values_RC[row, column]), digits=3),
            color=ink_on(to_hex(colors[row, column])),
            fontsize=canvas.SMALL_POINTS - (1.5 if width < 5 else 0),
            ha="center",
            va="center",
        )
    axes.xaxis.set_label_position("top")
    axes.set_xticks(range(len(columns)), [canvas.plain(name) for name in columns])
    axes.set_yticks(range(len(rows)), [canvas.plain(name) for name in rows])
    axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    axes.tick_params(labelcolor=theme.ink)
    axes.spines[:].set_visible(False)
    return figure


# Besides color, so that curves differ in print without color.
_DASHES = ("solid", (0, (5, 2)), (0, (1.5, 1.5)))
_NAMES_BESIDE_FROM = 6.0


def occlusion_figure(
    curves: Mapping[str, Mapping[str, Any]],
    *,
    chance: float,
    width: float = canvas.WIDE,
    theme: Theme = LIGHT,
) -> Figure:
    """Draw accuracy over the hidden fraction, one line per method, and the accuracy of guessing.

    A curve has ``fractions``, ascending in [0, 1], and as many ``accuracies``, in [0, 1].
    """
    if not 0 < len(curves) <= len(_DASHES):
        raise ValueError(f"expected 1 to {len(_DASHES)} curves, got {len(curves)}")
    figure, axes = canvas.new_axes(
        width=width, height=3.2, theme=theme, grid="y", x="hidden", y="accuracy"
    )
    # Only to where the curves end: their names stand beyond.
    reach = max(curve["fractions"][-1] for curve in curves.values())
    axes.plot([0, reach], [chance] * 2, color=theme.muted, linewidth=1, linestyle=(0, (4, 3)))
    colors = [theme.accent, *[theme.ink] * (len(curves) - 1)]
    for (name, curve), color, dashes in zip(curves.items(), colors, _DASHES, strict=False):
        axes.plot(
            curve["fractions"],
            curve["accuracies"],
            color=color,
            linestyle=dashes,
            linewidth=1.8,
            label=canvas.plain(name),
        )
        for hidden, accuracy in zip(curve["fractions"], curve["accuracies"], strict=True):
            [point] = axes.plot([hidden], [accuracy], color=color, marker="o", markersize=3.5)
            canvas.hint(point, f"{name}: accuracy {accuracy:.1%} with {hidden:.0%} hidden")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    canvas.percent_axis(axes.xaxis)
    canvas.percent_axis(axes.yaxis)
    canvas.write_beside(axes, "guessing", (0, chance), (4, 3), color=theme.muted)
    if width < _NAMES_BESIDE_FROM:
        style: dict[str, Any] = {"fontsize": canvas.SMALL_POINTS, "labelcolor": theme.ink}
        figure.legend(loc="outside upper left", frameon=False, **style)
        return figure
    # Names at the ends of their lines, moved apart where they would overlap.
    lasts = [curve["accuracies"][-1] for curve in curves.values()]
    heights = spread(lasts, gap=0.08, low=0.02, high=1.0)
    for (name, curve), color, height in zip(curves.items(), colors, heights, strict=True):
        end = (curve["fractions"][-1], height)
        style = {"color": color, "va": "center", "annotation_clip": False}
        canvas.write_beside(axes, canvas.plain(name), end, (8, 0), **style)
    return figure


def attacks_figure(
    rows: Sequence[tuple[str, Interval]], *, width: float = canvas.WIDE, theme: Theme = LIGHT
) -> Figure:
    """Draw the accuracy under each attack as a bar from 0, with its interval."""
    if not rows:
        raise ValueError("expected at least one attack, got none")
    height = 0.9 + 0.36 * len(rows)
    figure, axes = canvas.new_axes(width=width, height=height, theme=theme, grid="x", x="accuracy")
    positions = range(len(rows))
    accuracies = [interval.estimate for _, interval in rows]
    bars = axes.barh(positions, accuracies, height=0.55, color=theme.accent, alpha=0.55)
    for position, (name, interval), bar in zip(positions, rows, bars, strict=True):
        canvas.hint(
            bar, f"{name}: {interval.estimate:.1%} [{interval.low:.1%}, {interval.high:.1%}]"
        )
        axes.plot([interval.low, interval.high], [position] * 2, color=theme.ink, linewidth=1.5)
        text, end = f"{interval.estimate:.1%}", (interval.high, position)
        canvas.write_beside(axes, text, end, (5, 0), color=theme.ink, va="center")
    axes.set_yticks(list(positions), [canvas.plain(name) for name, _ in rows])
    axes.tick_params(axis="y", length=0, labelcolor=theme.ink)
    axes.invert_yaxis()
    # Room for the number beside a bar of 100%.
    axes.set_xlim(0, 1.16)
    canvas.percent_axis(axes.xaxis)
    return figure
