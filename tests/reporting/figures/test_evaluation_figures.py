import numpy as np
import pytest
from matplotlib.patches import Rectangle

from automix.reporting.canvas import WIDE
from automix.reporting.figures.evaluation import (
    attacks_figure,
    heatmap_figure,
    occlusion_figure,
    reliability_figure,
)
from automix.reporting.palette import LIGHT
from tests.reporting.examples import (
    ATTACKS,
    CURVES,
    ERRORS,
    FIGURES,
    RELIABILITY,
)


def test_reliability_leaves_empty_bins_out() -> None:
    axes = reliability_figure([RELIABILITY]).axes
    line = axes[0].get_lines()[1]
    assert np.asarray(line.get_xdata()).tolist() == [0.4, 0.6, 0.9]
    assert np.asarray(line.get_ydata()).tolist() == [0.5, 0.7, 0.95]


def test_heatmap_writes_every_number() -> None:
    axes = FIGURES["heatmap"]().axes[0]
    texts = {tuple(text.get_position()): text.get_text() for text in axes.texts}
    for (row, column), value in np.ndenumerate(np.array(ERRORS)):
        assert float(texts[(column, row)]) == value


def test_a_heatmap_of_another_shape_than_its_names_is_refused() -> None:
    with pytest.raises(ValueError, match="expected shape"):
        heatmap_figure([[1.0]], rows=["a"], columns=["x", "y"], column_title="")


def test_occlusion_curves_are_drawn_as_given_and_named() -> None:
    figure = occlusion_figure(CURVES, chance=0.1, width=WIDE, theme=LIGHT)
    (axes,) = figure.axes
    chance, *others = axes.lines
    lines = [line for line in others if len(np.asarray(line.get_xdata())) > 1]
    assert np.asarray(chance.get_ydata()).tolist() == [0.1, 0.1]
    for line, curve in zip(lines, CURVES.values(), strict=True):
        assert np.asarray(line.get_xdata()).tolist() == list(curve["fractions"])
        assert np.asarray(line.get_ydata()).tolist() == list(curve["accuracies"])
    assert len({str(line.get_linestyle()) for line in lines}) == len(CURVES)
    with pytest.raises(ValueError, match="expected 1 to 3 curves, got 0"):
        occlusion_figure({}, chance=0.1)


def test_attacks_are_bars_from_zero_with_their_intervals() -> None:
    (axes,) = attacks_figure(ATTACKS, width=WIDE, theme=LIGHT).axes
    bars = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    assert [bar.get_x() for bar in bars] == [0, 0, 0]
    assert [bar.get_width() for bar in bars] == [1.0, 0.4, 0.0]
    ends = [np.asarray(line.get_xdata()).tolist() for line in axes.lines]
    assert ends[1] == pytest.approx([0.35, 0.45])
    with pytest.raises(ValueError, match="expected at least one attack"):
        attacks_figure([])
