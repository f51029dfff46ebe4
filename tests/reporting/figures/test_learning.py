import numpy as np
import pytest
from matplotlib.collections import PolyCollection

from automix.reporting.figures.learning import learning_curve_figure


def test_a_learning_curve_groups_episodes_by_rollout() -> None:
    axes = learning_curve_figure([1.0, 3.0, 2.0, 8.0, 5.0], per_rollout=2).axes[0]
    lines = {str(line.get_label()): line for line in axes.get_lines()}
    assert np.asarray(lines.pop("_point").get_xydata()).tolist() == [[5, 5]], "the last rollout"
    assert list(lines) == ["rollout mean, quartiles", "best so far"]
    mean, best = (np.asarray(line.get_xydata()).tolist() for line in lines.values())
    assert mean == [[2, 2], [4, 5], [5, 5]]
    assert best == [[2, 3], [4, 8], [5, 8]]
    (band,) = (area for area in axes.collections if isinstance(area, PolyCollection))
    corners = {tuple(corner) for corner in np.asarray(band.get_paths()[0].vertices).tolist()}
    assert corners == {(2, 1.5), (2, 2.5), (4, 3.5), (4, 6.5), (5, 5)}
    named = " ".join(text.get_text() for text in axes.texts)
    assert all(name in named for name in lines)


def test_a_learning_curve_without_episodes_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one episode"):
        learning_curve_figure([], per_rollout=4)
