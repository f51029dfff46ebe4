"""Schedules in words and in the flags of timm."""

import re

import pytest
from hypothesis import given

from automix.mixture import Decision, Mixture, equal_mixture
from automix.operator_info import Operator
from automix.schedule import (
    Schedule,
    constant_schedule,
    even_schedule,
    in_turn,
    linear_ramp,
    mix_then_off,
)
from automix.schedule_words import in_words, names_of, timm_flags
from tests.test_schedule_mixtures import schedules

MIXUP, CUTMIX = Decision(operator=Operator.MIXUP), Decision(operator=Operator.CUTMIX)
NONE = Decision(operator=Operator.NONE)


@pytest.mark.parametrize(
    ("schedule", "sentence", "flags"),
    [
        (constant_schedule(NONE), "throughout, no batch is mixed", "--mixup 0 --cutmix 0"),
        (constant_schedule(CUTMIX), "throughout, every batch is mixed by cutmix 1", "--cutmix 1"),
        (
            mix_then_off(equal_mixture([MIXUP, CUTMIX]), off_from=0.875),
            "until 87.5% of the training run every batch is mixed by mixup 1 or cutmix 1, then "
            "none",
            "--mixup 1 --cutmix 1 --mixup-switch-prob 0.5 --mixup-off-epoch 262 (of 300)",
        ),
        (
            even_schedule([NONE, Decision(operator=Operator.RESIZEMIX, probability=0.5)]),
            "until 50% of the training run no batch is mixed, then 50% of batches are mixed by "
            "resizemix 0.8",
            "--cutmix 1 --mixup-prob 0.25; not said by them: resizemix, no mixing before 50%",
        ),
        (
            in_turn([CUTMIX, MIXUP], num_segments=14),
            "14 changes, 88% of batches mixed; from 87.5% on, no batch is mixed",
            "--mixup 1 --cutmix 1 --mixup-switch-prob 0.5 --mixup-off-epoch 262 (of 300); not said "
            "by them: the changes before the end",
        ),
    ],
)
def test_schedules_are_told_in_words_and_flags(
    schedule: Schedule, sentence: str, flags: str
) -> None:
    assert in_words(schedule) == sentence
    assert timm_flags(schedule) == flags


def test_unequal_weights_are_told() -> None:
    decisions = [
        decision.model_copy(update={"probability": weight})
        for decision, weight in ((MIXUP, 0.6), (CUTMIX, 0.2))
    ]
    mixture = Mixture(decisions=tuple(decisions))
    assert names_of(mixture) == "mixup 1 (60%) or cutmix 1 (20%)"
    assert timm_flags(constant_schedule(mixture)) == (
        "--mixup 1 --cutmix 1 --mixup-prob 0.8 --mixup-switch-prob 0.25"
    )
    # A ramp over 11 segments ends at 0, so 10/11 of the run mix with 0.55 on average.
    ramp = linear_ramp(Operator.MIXUP, num_segments=11)
    assert timm_flags(ramp, epochs=11) == (
        "--mixup 1 --mixup-prob 0.55 --mixup-off-epoch 10 (of 11); not said by them: the changes "
        "before the end"
    )


@given(schedules())
def test_any_schedule_has_words_and_flags_that_timm_would_read(schedule: Schedule) -> None:
    assert in_words(schedule)
    flags = timm_flags(schedule).partition(";")[0]
    mixes = any(segment.mixture.mixes for segment in schedule.segments)
    assert bool(re.search(r"--(mixup|cutmix) (?!0\b)", flags)) == mixes or "0." in flags
    for name, value in re.findall(r"--mixup-(prob|switch-prob) (\S+)", flags):
        assert 0 <= float(value) <= 1, name
