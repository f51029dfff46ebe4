import numpy as np
import pytest

from automix.reporting.figures.learning import LearningCurve, learning_curve_figure
from tests.reporting.examples import (
    CURVE,
)


def test_a_learning_curve_groups_episodes_by_rollout() -> None:
    returns = [1.0, 3.0, 2.0, 8.0, 5.0]
    curve = LearningCurve.from_returns(returns, per_rollout=2)
    assert curve.episodes == (2, 4, 5)
    assert curve.mean == (2.0, 5.0, 5.0)
    assert curve.low == (1.5, 3.5, 5.0)
    assert curve.high == (2.5, 6.5, 5.0)
    assert curve.best == (3.0, 8.0, 8.0)


def test_a_learning_curve_draws_its_numbers() -> None:
    axes = learning_curve_figure(CURVE).axes[0]
    lines = {str(line.get_label()): np.asarray(line.get_ydata()) for line in axes.get_lines()}
    assert lines["rollout mean, quartiles"].tolist() == list(CURVE.mean)
    assert lines["best so far"].tolist() == list(CURVE.best)
    assert lines["greedy policy"].tolist() == [0.6, 0.75]
    assert lines["best constant"].tolist() == [0.7, 0.7]
    named = " ".join(text.get_text() for text in axes.texts)
    assert all(name in named for name in lines)


def test_an_uneven_learning_curve_is_refused() -> None:
    with pytest.raises(ValueError, match="one value per rollout"):
        LearningCurve(episodes=(1, 2), mean=(1.0,), low=(1.0,), high=(1.0,), best=(1.0,))
    with pytest.raises(ValueError, match="at least one rollout"):
        LearningCurve.from_returns([], per_rollout=4)
