"""Schedules: which decision holds when, and the file they are kept in."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from automix.errors import ScheduleError
from automix.operator_info import OPERATOR_FACTS, Operator
from automix.schedule import (
    MAX_SEGMENTS,
    Decision,
    Schedule,
    Segment,
    decisions_hash,
    even_schedule,
)

GOLDEN = Path(__file__).parent / "golden"


@st.composite
def decisions(draw: st.DrawFn) -> Decision:
    operator = draw(st.sampled_from(Operator))
    facts = OPERATOR_FACTS[operator].strength
    return Decision(
        operator=operator,
        strength=draw(st.floats(facts.low, facts.high)),
        probability=draw(st.floats(0, 1)),
    )


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    starts = draw(st.lists(st.floats(0, 1, exclude_min=True, exclude_max=True), unique=True))
    return Schedule(
        segments=tuple(
            Segment(start=start, decision=draw(decisions())) for start in [0.0, *sorted(starts)]
        ),
        provenance=draw(st.dictionaries(st.text(), st.text(), max_size=3)),
    )


@settings(deadline=None)
@given(schedule=schedules())
def test_a_schedule_survives_its_file(schedule: Schedule) -> None:
    text = schedule.to_json()
    again = Schedule.from_json(text, source="here")
    assert again == schedule
    assert again.to_json() == text
    assert again.decision_hash() == schedule.decision_hash()
    assert text.isascii()


@settings(deadline=None)
@given(schedule=schedules(), progress=st.floats(0, 1))
def test_the_decision_is_that_of_the_last_segment_that_has_begun(
    schedule: Schedule, progress: float
) -> None:
    begun = [segment for segment in schedule.segments if segment.start <= progress]
    assert schedule.at(progress) == begun[-1].decision
    for segment in schedule.segments:
        assert schedule.at(segment.start) == segment.decision
    assert schedule.at(1.0) == schedule.segments[-1].decision


@pytest.mark.parametrize("progress", [-1e-9, 1.0000001, math.nan])
def test_there_is_no_decision_outside_the_training(progress: float) -> None:
    schedule = even_schedule([Decision(operator=Operator.MIXUP)])
    with pytest.raises(ValueError, match=r"expected a progress in \[0, 1\], got"):
        schedule.at(progress)


@settings(deadline=None)
@given(num_segments=st.integers(1, 60), steps_each=st.integers(1, 60))
def test_equal_segments_hold_for_equally_many_steps(num_segments: int, steps_each: int) -> None:
    """The k-th segment begins exactly at step k n of N n, whatever N and n: no float drifts."""
    choices = [
        Decision(operator=Operator.MIXUP, probability=index / num_segments)
        for index in range(num_segments)
    ]
    steps = even_schedule(choices).decisions(num_segments * steps_each)
    assert steps == [choice for choice in choices for _ in range(steps_each)]


def test_a_schedule_is_independent_of_the_length_of_a_training() -> None:
    off = Decision(operator=Operator.NONE)
    on = Decision(operator=Operator.CUTMIX)
    schedule = Schedule(segments=(Segment(start=0, decision=on), Segment(start=0.75, decision=off)))
    assert schedule.decisions(4) == [on, on, on, off]
    assert schedule.decisions(8) == [on] * 6 + [off] * 2
    assert schedule.decisions(3) == [on, on, on], "no step of three begins in the last quarter"


def test_the_strength_defaults_to_the_published_one() -> None:
    for operator, facts in OPERATOR_FACTS.items():
        assert Decision(operator=operator).strength == facts.strength.default
        read = Decision.from_mapping({"operator": operator.value}, source="here")
        assert read == Decision(operator=operator)


@pytest.mark.parametrize("operator", Operator)
def test_a_strength_outside_the_range_is_refused(operator: Operator) -> None:
    facts = OPERATOR_FACTS[operator].strength
    for strength in (math.nextafter(facts.low, -1), math.nextafter(facts.high, 100)):
        with pytest.raises(ValidationError, match=r"expected a strength in \["):
            Decision(operator=operator, strength=strength)
    for strength in {facts.low, *facts.levels, facts.high}:
        assert Decision(operator=operator, strength=strength).strength == strength


@pytest.mark.parametrize(
    ("values", "label"),
    [
        ({"operator": "none"}, "none"),
        ({"operator": "mixup", "probability": 0}, "none"),
        ({"operator": "mixup", "strength": 0.2}, "mixup 0.2"),
        ({"operator": "cutmix", "probability": 0.5}, "cutmix 1 p=0.5"),
    ],
)
def test_labels(values: dict[str, Any], label: str) -> None:
    assert Decision.from_mapping(values, source="here").label() == label


def test_the_hash_of_decisions_ignores_provenance_and_nothing_else() -> None:
    decision = Decision(operator=Operator.MIXUP, strength=0.2)
    other = Decision(operator=Operator.MIXUP, strength=0.3)
    schedule = even_schedule([decision, other])
    names = schedule.model_copy(update={"provenance": {"seed": "3"}})
    assert names.decision_hash() == schedule.decision_hash()
    moved = Schedule(
        segments=(
            Segment(start=0, decision=decision),
            Segment(start=math.nextafter(0.5, 1), decision=other),
        )
    )
    different = [moved, even_schedule([other, decision]), even_schedule([decision])]
    assert len({segment.decision_hash() for segment in [schedule, *different]}) == 4
    assert decisions_hash([decision, other]) != decisions_hash([other, decision])
    assert decisions_hash([decision]) != decisions_hash([decision, decision])


def test_a_file_is_written_whole_and_read_back(tmp_path: Path) -> None:
    schedule = even_schedule([Decision(operator=Operator.FMIX)] * 3)
    file = tmp_path / "deep" / "schedule.json"
    schedule.save(file)
    assert Schedule.load(file) == schedule
    assert [path.name for path in file.parent.iterdir()] == ["schedule.json"]


def test_a_file_may_hold_as_many_segments_as_a_schedule(tmp_path: Path) -> None:
    schedule = even_schedule(
        [Decision(operator=Operator.SALIENCY_GRAFTING, probability=1 / 3)] * MAX_SEGMENTS
    )
    file = tmp_path / "large.json"
    schedule.save(file)
    assert Schedule.load(file) == schedule
    with pytest.raises(ValidationError, match="at most 10000 items"):
        even_schedule([Decision(operator=Operator.NONE)] * (MAX_SEGMENTS + 1))


def test_the_file_of_version_1_stays_readable() -> None:
    """Never change this file: users have such files."""
    path = GOLDEN / "schedule-v1.json"
    schedule = Schedule.load(path)
    assert schedule == Schedule(
        segments=(
            Segment(start=0, decision=Decision(operator=Operator.MIXUP, strength=0.2)),
            Segment(
                start=1 / 3,
                decision=Decision(
                    operator=Operator.SALIENCY_GRAFTING, strength=2.0, probability=0.5
                ),
            ),
            Segment(start=0.75, decision=Decision(operator=Operator.NONE)),
        ),
        provenance={"origin": "written by hand", "seed": "0"},
    )
    assert schedule.to_json() == path.read_text()
    assert schedule.decision_hash() == "8a78f0b0531c4b75"


def test_the_golden_file_needs_nothing_but_json() -> None:
    values = json.loads((GOLDEN / "schedule-v1.json").read_text())
    current = [s for s in values["segments"] if s["start"] <= 0.5][-1]["decision"]
    assert current == {"operator": "saliency_grafting", "strength": 2.0, "probability": 0.5}


@given(
    text=st.text(max_size=60)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=5), inner),
        max_leaves=8,
    ).map(lambda value: json.dumps({"format": "automix-schedule", "version": 1, "segments": value}))
)
def test_any_text_is_a_schedule_or_refused_in_one_line(text: str) -> None:
    try:
        schedule = Schedule.from_json(text, source="here")
    except ScheduleError as error:
        message = str(error)
        assert message.startswith("here: ")
        assert "expected" in message
        assert "\n" not in message
    else:
        assert Schedule.from_json(schedule.to_json(), source="again") == schedule
