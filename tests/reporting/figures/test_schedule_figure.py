import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch

from automix.operator_info import OPERATOR_FACTS, Operator
from automix.reporting.canvas import NARROW, WIDE
from automix.reporting.figures.schedule import (
    SchedulePanel,
    fractions_over_training,
    relative_strength,
    schedule_figure,
    schedule_table,
)
from automix.schedule import Decision, Schedule, equal_mixture, even_schedule, mix_then_off
from tests.reporting.examples import CROWDED, LEARNED, schedule_of
from tests.test_mixture import mixtures


def drawn_areas(figure: Figure) -> dict[Operator, float]:
    """Read each operator's area from the steps that were drawn into the first axes."""
    areas = {}
    for patch in figure.axes[0].patches:
        if isinstance(patch, StepPatch):
            values, edges, baseline = patch.get_data()
            area = float(((values - baseline) * np.diff(edges)).sum())
            areas[Operator(str(patch.get_label()))] = area
    return areas


def expected_areas(schedule: Schedule, until: float = 1.0) -> dict[Operator, float]:
    """Sum fraction times length, segment by segment."""
    areas = dict.fromkeys(Operator, 0.0)
    ends = [*(segment.start for segment in schedule.segments[1:]), 1.0]
    for segment, end in zip(schedule.segments, ends, strict=True):
        length = max(0.0, min(end, until) - segment.start)
        for decision in segment.mixture.decisions:
            fraction = 0.0 if decision.operator is Operator.NONE else decision.probability
            areas[decision.operator] += length * fraction
        areas[Operator.NONE] += length * (1 - segment.mixture.probability)
    return {operator: area for operator, area in areas.items() if area > 0}


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    starts = draw(st.sets(st.integers(1, 19), max_size=8))
    segments = [
        (start / 20, draw(st.sampled_from(Operator)).value, draw(st.integers(0, 100)) / 100)
        for start in (0, *sorted(starts))
    ]
    return schedule_of(*segments)


@given(
    schedule=schedules() | st.lists(mixtures(), min_size=1, max_size=4).map(even_schedule),
    until=st.sampled_from([0.33, 0.5, 1.0]),
)
@settings(max_examples=15, deadline=None)
def test_drawn_areas_are_the_probabilities(schedule: Schedule, until: float) -> None:
    panel = SchedulePanel(title="", schedules=(schedule,), until=until)
    areas = drawn_areas(schedule_figure([panel], width=NARROW))
    assert areas == pytest.approx(expected_areas(schedule, until))
    assert sum(areas.values()) == pytest.approx(until)


def test_areas_of_several_schedules_are_means() -> None:
    panel = SchedulePanel(title="", schedules=(LEARNED, CROWDED))
    areas = drawn_areas(schedule_figure([panel]))
    first, second = expected_areas(LEARNED), expected_areas(CROWDED)
    expected = {
        operator: (first.get(operator, 0) + second.get(operator, 0)) / 2
        for operator in first | second
    }
    assert areas == pytest.approx(expected)


def test_areas_have_the_colors_of_their_operators() -> None:
    figure = schedule_figure([SchedulePanel(title="", schedules=(CROWDED,))])
    patches = [patch for patch in figure.axes[0].patches if isinstance(patch, StepPatch)]
    assert len(patches) == len(Operator)
    for patch in patches:
        color = OPERATOR_FACTS[Operator(str(patch.get_label()))].color
        assert to_hex(patch.get_facecolor()) == color


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("schedule", [LEARNED, CROWDED])
def test_every_area_is_named_where_it_is_or_by_a_key(schedule: Schedule, width: float) -> None:
    figure = schedule_figure([SchedulePanel(title="", schedules=(schedule,))], width=width)
    axes = figure.axes[0]
    legend = axes.get_legend()
    keys = [text.get_text() for text in legend.get_texts()] if legend else []
    named = Counter(text.get_text() for text in axes.texts)
    data = fractions_over_training([schedule])
    for operator in expected_areas(schedule):
        fraction = data.fractions[list(Operator).index(operator)]
        label = OPERATOR_FACTS[operator].label
        num_areas = sum(is_there for is_there, _ in itertools.groupby(fraction > 0))
        assert (label in keys) == (named[label] < num_areas)
        assert named[label] <= num_areas
    assert len(keys) == len(set(keys))


def test_an_operator_that_comes_back_is_named_again() -> None:
    schedule = schedule_of((0, "mixup", 1), (0.3, "cutmix", 1), (0.6, "mixup", 1))
    figure = schedule_figure([SchedulePanel(title="", schedules=(schedule,))])
    places = sorted((text.get_position()[0], text.get_text()) for text in figure.axes[0].texts)
    assert [name for _, name in places] == ["Mixup", "CutMix", "Mixup"]
    assert [x for x, _ in places] == pytest.approx([0.15, 0.45, 0.8], abs=0.01)
    assert figure.axes[0].get_legend() is None


def test_strength_values_stand_above_their_lines() -> None:
    schedule = schedule_of((0, "mixup", 1), (0.5, "saliency_grafting", 1))
    figure = schedule_figure([SchedulePanel(title="", schedules=(schedule,))])
    texts = figure.axes[1].texts
    assert [(text.get_text(), text.get_position()[0]) for text in texts] == [
        ("2", 0.25),
        ("0.5", 0.75),
    ]


def test_equally_strong_operators_of_a_mixture_are_dashes_of_one_line() -> None:
    mixture = equal_mixture(
        [
            Decision(operator=Operator.CUTMIX, strength=2),
            Decision(operator=Operator.SALIENCY_GRAFTING, strength=0.5),
            Decision(operator=Operator.MIXUP, strength=0.2),
        ]
    )
    panel = SchedulePanel(title="", schedules=(mix_then_off(mixture, off_from=0.5),))
    axes = schedule_figure([panel]).axes[1]
    texts = [(text.get_text(), *text.get_position()) for text in axes.texts]
    assert texts == [("2 / 0.5", 0.25, 1.17), ("0.2", 0.25, 0.17)]
    colors = [to_hex(line.get_color()[0]) for line in axes.collections]  # type: ignore[attr-defined]
    for decision in mixture.decisions:
        assert colors.count(OPERATOR_FACTS[decision.operator].color) == 1


def test_a_mixture_has_a_row_for_each_decision() -> None:
    mixture = equal_mixture([Decision(operator=Operator.CUTMIX), Decision(operator=Operator.MIXUP)])
    table = schedule_table(mix_then_off(mixture), name="x", title="x")
    assert table.rows == ((0, "CutMix", 1, 50), (0, "Mixup", 1, 50), (75, "none", None, 0))


def test_whiskers_are_quartiles_of_the_mixed_fraction() -> None:
    schedules = tuple(
        schedule_of((0, "mixup", fraction)) for fraction in (0.0, 0.25, 0.5, 0.75, 1.0)
    )
    fractions = fractions_over_training(schedules)
    assert fractions.mixed_low.tolist() == [0.25]
    assert fractions.mixed_high.tolist() == [0.75]
    assert fractions.fractions[list(Operator).index(Operator.MIXUP)].tolist() == [0.5]


def test_nothing_is_drawn_before_the_first_decision() -> None:
    figure = schedule_figure([SchedulePanel(title="", schedules=(LEARNED,), until=0.0)])
    assert drawn_areas(figure) == {}


def test_relative_strength_runs_from_weak_to_strong() -> None:
    def at(strength: float, operator: str = "mixup", probability: float = 1.0) -> float:
        decision = Decision(operator=Operator(operator), strength=strength, probability=probability)
        return relative_strength(decision)

    assert [at(0.2), at(1.0), at(2.0)] == [0, 0.5, 1]
    assert at(0.01) == 0
    assert at(10) == 1
    assert math.isnan(at(0, "guidedmixup"))
    assert math.isnan(at(1.0, probability=0.0))


@pytest.mark.parametrize("until", [-0.1, 1.1])
def test_progress_outside_the_training_run_is_refused(until: float) -> None:
    with pytest.raises(ValueError, match="fraction of the training run"):
        SchedulePanel(title="", schedules=(LEARNED,), until=until)


def test_nothing_to_draw_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one panel"):
        schedule_figure([])
    with pytest.raises(ValueError, match="at least one schedule"):
        SchedulePanel(title="", schedules=())
