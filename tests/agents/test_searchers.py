"""Searchers: proposals within reach, the same whenever the same is told, better with time."""

import sys

import numpy as np
import pytest

from agents.searchers import RandomSearch, Searcher, TreeParzenSearch
from automix.errors import ConfigError
from automix.schedule import Decision, Schedule

CHOICES = tuple(Decision(operator=name) for name in ("none", "mixup", "cutmix"))
NUM_SEGMENTS = 4
KINDS = pytest.mark.parametrize("kind", [RandomSearch, TreeParzenSearch])


def make(kind: type[RandomSearch | TreeParzenSearch], *, seed: int = 0) -> Searcher:
    return kind(CHOICES, num_segments=NUM_SEGMENTS, seed=seed)


def worth(schedule: Schedule) -> float:
    """Return the fraction of segments that follow the best schedule: CutMix, then nothing."""
    best = [CHOICES[2]] * 2 + [CHOICES[0]] * 2
    return float(np.mean([a == b for a, b in zip(decisions(schedule), best, strict=True)]))


def decisions(schedule: Schedule) -> list[Decision]:
    return schedule.decisions(NUM_SEGMENTS)


def run(searcher: Searcher, *, rounds: int) -> list[list[Schedule]]:
    batches = []
    for _ in range(rounds):
        batches.append(searcher.ask(8))
        searcher.tell(batches[-1], [worth(schedule) for schedule in batches[-1]])
    return batches


@KINDS
def test_proposals_are_schedules_of_the_choices(
    kind: type[RandomSearch | TreeParzenSearch],
) -> None:
    proposals = [schedule for batch in run(make(kind), rounds=3) for schedule in batch]
    assert len(proposals) == 24
    assert {choice for schedule in proposals for choice in decisions(schedule)} == set(CHOICES)
    assert len({schedule.decision_hash() for schedule in proposals}) > 12


@KINDS
def test_the_same_told_twice_asks_the_same(kind: type[RandomSearch | TreeParzenSearch]) -> None:
    assert run(make(kind), rounds=3) == run(make(kind), rounds=3)
    assert run(make(kind, seed=1), rounds=1) != run(make(kind), rounds=1)


def test_the_estimator_learns_and_random_search_does_not() -> None:
    means = {}
    for kind in (RandomSearch, TreeParzenSearch):
        batches = run(make(kind), rounds=12)
        means[kind] = [np.mean([worth(schedule) for schedule in batch]) for batch in batches]
    assert np.mean(means[TreeParzenSearch][-3:]) > 0.6
    assert np.mean(means[RandomSearch]) == pytest.approx(1 / 3, abs=0.1)


def test_a_missing_extra_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"pip install 'automix\[optuna\]'"):
        make(TreeParzenSearch)
