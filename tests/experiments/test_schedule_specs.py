"""Schedules by file or by description."""

import subprocess
import sys
from pathlib import Path

import pytest

from automix.errors import ConfigError, ScheduleError
from automix.experiments.compare.schedule_specs import build_schedule, merge_equal, parse_entries
from automix.experiments.compare.verdict import operator_of
from automix.experiments.schedule_files import describe
from automix.operator_info import Operator
from automix.schedule import (
    Decision,
    Mixture,
    Schedule,
    constant_decisions,
    constant_schedule,
    equal_mixture,
    even_schedule,
    in_turn,
    linear_ramp,
    mix_then_off,
    mixture_then_off,
    strong_to_weak,
)
from envs.actions import ActionCodec
from envs.config import EnvironmentConfig
from tests.source_rules import ROOT

ENVIRONMENT = EnvironmentConfig(num_segments=4, operators=(Operator.NONE, Operator.MIXUP))
MIXUP = Decision(operator=Operator.MIXUP)
NONE = Decision(operator=Operator.NONE)


def schedules_of(*texts: str, index: int = 0, seed: int = 0) -> dict[str, Schedule]:
    entries = parse_entries(texts, ENVIRONMENT, seed=seed)
    assert len({entry.name for entry in entries}) == len(entries)
    return {entry.name: entry.schedule_for(index) for entry in entries}


def save(schedule: Schedule, path: Path) -> str:
    schedule.save(path)
    return str(path)


def test_descriptions() -> None:
    schedules = schedules_of(
        "none",
        "constant:mixup",
        "constant:mixup:0.2",
        "constant:cutmix:1:0.5",
        "ramp:cutmix",
        "mix_then_off:fmix",
    )
    assert schedules == {
        "none": constant_schedule(Decision(operator=Operator.NONE)),
        "mixup 1": constant_schedule(MIXUP),
        "mixup 0.2": constant_schedule(Decision(operator=Operator.MIXUP, strength=0.2)),
        "cutmix 1 p=0.5": constant_schedule(Decision(operator=Operator.CUTMIX, probability=0.5)),
        "ramp:cutmix": linear_ramp(Operator.CUTMIX, num_segments=4),
        "mix_then_off:fmix": mix_then_off(Decision(operator=Operator.FMIX)),
    }


def test_descriptions_of_mixtures() -> None:
    cutmix, mixup = Decision(operator=Operator.CUTMIX, strength=2), MIXUP
    weighted = Mixture(
        decisions=(
            Decision(operator=Operator.CUTMIX, strength=2, probability=0.5),
            Decision(operator=Operator.MIXUP, probability=0.3),
        )
    )
    schedules = {
        "mixture:cutmix:2+mixup": constant_schedule(equal_mixture([cutmix, mixup])),
        "mixture:cutmix:2:0.5+mixup:1:0.3": constant_schedule(weighted),
        "mix_then_off:cutmix:2@0.875": mix_then_off(cutmix, off_from=0.875),
        "mix_then_off:cutmix:2+mixup@0.5": mixture_then_off([cutmix, mixup], off_from=0.5),
        "in_turn:cutmix:2+mixup": in_turn([cutmix, mixup], num_segments=4),
        "in_turn:cutmix:2+none@0.75": in_turn([cutmix, NONE], num_segments=4, off_from=0.75),
        "strong_to_weak:fmix@0.9": strong_to_weak(Operator.FMIX, off_from=0.9),
    }
    assert schedules_of(*schedules) == schedules


def test_a_mixture_is_no_constant(tmp_path: Path) -> None:
    names = schedules_of(
        "mixture:cutmix+mixup", f"shuffled_before_end:{save(mix_then_off(MIXUP), tmp_path / 'a')}"
    )
    assert list(names) == ["mixture:cutmix+mixup", "shuffled-before-end a"]
    assert all(operator_of({"name": name}) is None for name in names)


def test_constants_are_those_of_the_environment() -> None:
    schedules = schedules_of("none", "constants")
    assert list(schedules) == ["none", "mixup 0.2", "mixup 1", "mixup 2"], "none is there once"
    expected = list(map(constant_schedule, constant_decisions(ENVIRONMENT.operators)))
    assert list(schedules.values()) == expected


def test_a_random_schedule_differs_between_runs_and_not_between_calls() -> None:
    drawn = [schedules_of("random", index=index)["random"] for index in range(20)]
    assert drawn == [schedules_of("random", index=index)["random"] for index in range(20)]
    assert len({schedule.decision_hash() for schedule in drawn}) > 15
    assert drawn[0] != schedules_of("random", seed=1)["random"]
    reachable = set(ActionCodec(ENVIRONMENT).decisions())
    assert {segment.decision for s in drawn for segment in s.segments} == reachable


def test_a_file_is_called_after_its_run(tmp_path: Path) -> None:
    texts = [
        save(constant_schedule(MIXUP), tmp_path / "search" / "schedule.json"),
        save(mix_then_off(MIXUP), tmp_path / "mine.json"),
    ]
    assert schedules_of(*texts) == {
        "search": constant_schedule(MIXUP),
        "mine": mix_then_off(MIXUP),
    }


def test_two_files_of_one_name_are_both_compared(tmp_path: Path) -> None:
    first = save(constant_schedule(MIXUP), tmp_path / "a" / "mine.json")
    second = save(mix_then_off(MIXUP), tmp_path / "b" / "mine.json")
    again = save(constant_schedule(MIXUP), tmp_path / "c" / "mine.json")
    assert schedules_of(first, second, again) == {
        "mine": constant_schedule(MIXUP),
        second: mix_then_off(MIXUP),
    }


def test_draws_from_two_files_of_one_name_are_both_compared(tmp_path: Path) -> None:
    choices = [Decision(operator=Operator.MIXUP, probability=number / 4) for number in range(4)]
    first, second = (
        f"shuffled:{save(even_schedule(decisions), tmp_path / folder / 'mine.json')}"
        for folder, decisions in (("a", choices), ("b", [MIXUP, MIXUP, *choices[:2]]))
    )
    assert list(schedules_of(first, first, second)) == ["shuffled mine", second]


@pytest.mark.parametrize("text", ["none", "constant:mixup", "random", "ramp:cutmix", "constants"])
def test_a_schedule_that_is_named_twice_is_compared_once(text: str) -> None:
    assert schedules_of(text, text) == schedules_of(text)


def test_strengths_that_print_alike_are_both_compared() -> None:
    schedules = schedules_of("constant:mixup:0.2", "constant:mixup:0.2000000001")
    assert list(schedules) == ["mixup 0.2", "constant:mixup:0.2000000001"]


def test_shuffling_takes_the_segments_of_a_file(tmp_path: Path) -> None:
    choices = [Decision(operator=Operator.MIXUP, probability=number / 4) for number in range(4)]
    text = f"shuffled:{save(even_schedule(choices), tmp_path / 'mine.json')}"
    drawn = [schedules_of(text, index=index)["shuffled mine"] for index in range(10)]
    assert len({schedule.decision_hash() for schedule in drawn}) > 5
    for schedule in drawn:
        assert {segment.decision for segment in schedule.segments} == set(choices)


def test_marginals_are_matched_by_independent_segments(tmp_path: Path) -> None:
    choices = [Decision(operator=Operator.MIXUP, probability=number / 4) for number in range(4)]
    text = f"marginal_matched:{save(even_schedule(choices), tmp_path / 'mine.json')}"
    drawn = [schedules_of(text, index=index)["marginal-matched mine"] for index in range(20)]
    assert drawn[0] == schedules_of(text)["marginal-matched mine"]
    assert len({schedule.decision_hash() for schedule in drawn}) > 15
    # Unlike a shuffle, a draw may repeat a decision.
    assert any(len({segment.decision for segment in schedule.segments}) < 4 for schedule in drawn)


def test_one_schedule_by_description() -> None:
    assert build_schedule("constant:mixup", ENVIRONMENT, seed=0) == constant_schedule(MIXUP)
    with pytest.raises(ConfigError, match="expected the description of one schedule, got 4"):
        build_schedule("constants", ENVIRONMENT, seed=0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a schedule file, none, portfolio"),
        ("constantss", r"got 'constantss' \(did you mean 'constants'\?\)"),
        ("constant:", "expected an operator among none, mixup,"),
        ("constant:mixup:0", r"expected a strength in \[0.01, 10\]"),
        ("constant:mixup:1:2", "probability: expected less than or equal to 1, got 2"),
        ("constant:mixup:nan", "strength: expected a number, got 'nan'"),
        ("constant:mixup:true", "strength: expected a number, got true"),
        ("none:mixup", "expected a schedule file, none, portfolio"),
        ("ramp:mixupp", r"got 'mixupp' \(did you mean 'mixup'\?\)"),
        ("mixture:", "expected an operator among none, mixup,"),
        ("mixture:cutmix+", "expected an operator among none, mixup,"),
        ("mixture:cutmix:1:0.6+mixup:1:0.5", "probabilities of at most 1 together, got 1.1"),
        ("mix_then_off:cutmix@1", r"expected a fraction in \(0, 1\) after @, got '1'"),
        ("in_turn:cutmix+mixup@", r"expected a fraction in \(0, 1\) after @, got ''"),
        ("in_turn:cutmix@nan", r"expected a fraction in \(0, 1\) after @, got 'nan'"),
        ("strong_to_weak:none", "expected an operator that mixes, got 'none'"),
        ("mix_then_off:none", "expected an operator that mixes, got 'none'"),
    ],
)
def test_a_wrong_description_is_one_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parse_entries((text,), ENVIRONMENT, seed=0)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_schedule_is_named(tmp_path: Path) -> None:
    for text in (
        "absent.json",
        "shuffled:absent.json",
        "shuffled:",
        "marginal_matched:absent.json",
    ):
        with pytest.raises(ScheduleError, match="expected a readable file, got"):
            parse_entries((text,), ENVIRONMENT, seed=0)
    (tmp_path / "text").write_text("x")
    with pytest.raises(ScheduleError, match="text: expected a JSON schedule"):
        parse_entries((str(tmp_path / "text"),), ENVIRONMENT, seed=0)


def test_a_file_of_mixtures_is_described() -> None:
    lines = describe(Path(__file__).parents[1] / "golden/schedule-v2.json").splitlines()
    assert lines[0].endswith("schedule-v2.json: 3 segments, version 2")
    assert lines[1:4] == [
        "     0.0% to   33.3%  cutmix 2 p=0.5 + saliency_grafting 0.2 p=0.25",
        "    33.3% to   87.5%  mixup 0.2",
        "    87.5% to  100.0%  none",
    ]


def test_showing_a_schedule_loads_neither_torch_nor_a_plotting_library(tmp_path: Path) -> None:
    script = f"""
import sys
from automix.cli.main import main
assert main(["schedule", "recommend", {str(tmp_path / "mine.json")!r}]) == 0
assert main(["schedule", "show", {str(tmp_path / "mine.json")!r}]) == 0
heavy = [name for name in ("torch", "matplotlib", "scipy") if name in sys.modules]
sys.exit(f"loaded: {{heavy}}" if heavy else 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr


def test_equal_schedules_are_one_entry_with_all_names(tmp_path: Path) -> None:
    # Segments at which nothing changes, and an operator that mixes no batch, do not count.
    same = save(even_schedule([MIXUP] * 4), tmp_path / "learned")
    texts = ["constant:none", f"{same}", "constants", "constant:mixup:1:0", "random", "ramp:mixup"]
    texts = [*texts, f"shuffled:{same}"]
    entries = merge_equal(parse_entries(texts, ENVIRONMENT, seed=0), num_runs=4)
    assert [(entry.name, entry.also) for entry in entries] == [
        ("none", ("constant:mixup:1:0",)),
        ("learned", ("mixup 1", "shuffled learned")),
        ("mixup 0.2", ()),
        ("mixup 2", ()),
        ("random", ()),
        ("ramp:mixup", ()),
    ]
