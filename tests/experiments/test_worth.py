"""Worth of the parts of a schedule, on losses whose effects are known."""

import math

import numpy as np
import pytest

from automix.experiments.search.worth import TrainedRun, explanation, explanation_text, worth_of
from automix.mixture import Decision, Mixture, equal_mixture
from automix.operator_info import Operator
from automix.schedule import Schedule, constant_schedule, mix_then_off
from automix.schedule_words import parts_of

MIXUP, CUTMIX = Decision(operator=Operator.MIXUP), Decision(operator=Operator.CUTMIX)
NONE = Decision(operator=Operator.NONE)
BOTH = equal_mixture([MIXUP, CUTMIX])
# Effects of a whole run of each operator, before and after 3/4 of it, in nats.
EARLY = {Operator.MIXUP: -0.08, Operator.CUTMIX: -0.05}
LATE = {Operator.MIXUP: 0.0, Operator.CUTMIX: 0.03}
FIELD = (
    *(constant_schedule(mixing) for mixing in (NONE, MIXUP, CUTMIX, BOTH)),
    *(mix_then_off(mixing) for mixing in (MIXUP, CUTMIX, BOTH)),
    mix_then_off(BOTH, off_from=0.875),
)


def true_effect(mixture: Mixture, effects: dict[Operator, float]) -> float:
    return sum(it.probability * effects.get(it.operator, 0.0) for it in mixture.decisions)


def true_loss(schedule: Schedule) -> float:
    loss = 0.3
    for start, end, mixture in parts_of(schedule):
        loss += max(0.0, min(end, 0.75) - start) / 0.75 * true_effect(mixture, EARLY)
        loss += max(0.0, end - max(start, 0.75)) / 0.25 * true_effect(mixture, LATE)
    return loss


def runs_of(num_seeds: int, *, noise: float, seed: int) -> list[TrainedRun]:
    generator = np.random.default_rng(seed)
    runs = []
    for pair in range(num_seeds):
        shared = 0.03 * generator.standard_normal()
        runs += [
            TrainedRun(one, true_loss(one) + shared + noise * generator.standard_normal(), pair)
            for one in FIELD
        ]
    return runs


def test_effects_are_found_where_there_is_no_noise() -> None:
    parts = worth_of(mix_then_off(BOTH), runs_of(6, noise=1e-5, seed=0))
    assert [(part.start, part.end, part.label, part.instead) for part in parts] == [
        (0.0, 0.75, "mixup 1 or cutmix 1", "none"),
        (0.75, 1.0, "none", "mixup 1 or cutmix 1"),
    ]
    assert [part.effect.estimate for part in parts] == pytest.approx([-0.065, -0.015], abs=2e-3)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    held = []
    for seed in range(40):
        parts = worth_of(mix_then_off(BOTH), runs_of(6, noise=0.02, seed=seed))
        held += [
            part.effect.low <= truth <= part.effect.high
            for part, truth in zip(parts, (-0.065, -0.015), strict=True)
        ]
    # 95% of 80 is 76; below 68 lies 1 in 10,000.
    assert sum(held) >= 68


def test_noise_alone_has_no_worth() -> None:
    generator = np.random.default_rng(0)
    runs = [
        TrainedRun(one, generator.standard_normal(), pair) for pair in range(6) for one in FIELD
    ]
    for part in worth_of(mix_then_off(MIXUP), runs):
        assert part.effect.low < 0 < part.effect.high


def test_what_cannot_be_estimated_is_left_out() -> None:
    runs = runs_of(1, noise=0.01, seed=0)
    assert worth_of(mix_then_off(BOTH), runs) == []
    assert worth_of(constant_schedule(NONE), runs_of(6, noise=0.01, seed=0)) == []
    # A part without mixing at the beginning could be compared with anything.
    late = Schedule.from_plain(
        mix_then_off(MIXUP).to_plain()
        | {"segments": [{"start": 0, "decision": {"operator": "none"}},
                        {"start": 0.5, "decision": {"operator": "mixup"}}]}
    )  # fmt: skip
    parts = worth_of(late, runs_of(6, noise=0.01, seed=0))
    assert [(part.start, part.label) for part in parts] == [(0.5, "mixup 1")]


def test_runs_that_diverged_are_left_out() -> None:
    runs = runs_of(6, noise=0.01, seed=0)
    broken = [*runs, TrainedRun(constant_schedule(CUTMIX), math.inf, 0)]
    assert worth_of(mix_then_off(BOTH), broken) == worth_of(mix_then_off(BOTH), runs)


def test_the_paragraph_says_what_how_much_and_how_in_timm() -> None:
    text = explanation_text(explanation(mix_then_off(BOTH), runs_of(6, noise=0.01, seed=0)))
    assert text.startswith("The schedule: until 75% of the training run every batch is mixed by")
    assert "by an additive fit to 48 training runs: mixup 1 or cutmix 1 from 0% to 75%" in text
    assert "--mixup-off-epoch 225 (of 300)." in text
    few = explanation_text(explanation(mix_then_off(BOTH), []))
    assert "worth" not in few
