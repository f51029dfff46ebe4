"""The decisions that a training followed, step by step, kept as runs of equal ones."""

import itertools
from typing import Any, Self

from automix.schedule import Decision, decisions_hash


class AppliedDecisions:
    """What was handed to the trainer, in order."""

    def __init__(self) -> None:
        self._runs: list[tuple[Decision, int]] = []

    def add(self, decision: Decision, num_steps: int) -> None:
        """Note that ``num_steps`` more steps followed ``decision``."""
        if self._runs and self._runs[-1][0] == decision:
            num_steps += self._runs.pop()[1]
        self._runs.append((decision, num_steps))

    def __len__(self) -> int:
        """Return how many steps have been taken."""
        return sum(count for _, count in self._runs)

    def hash(self) -> str:
        """Return the hash of the decision of every step, that of `decisions_hash`."""
        steps = (itertools.repeat(decision, count) for decision, count in self._runs)
        return decisions_hash(list(itertools.chain.from_iterable(steps)))

    def to_plain(self) -> list[dict[str, Any]]:
        """Return the first step, the step after the last, and the decision of each run."""
        stops = list(itertools.accumulate(count for _, count in self._runs))
        return [
            {"start": stop - count, "stop": stop, "decision": decision.model_dump(mode="json")}
            for (decision, count), stop in zip(self._runs, stops, strict=True)
        ]

    @classmethod
    def from_plain(cls, runs: list[dict[str, Any]]) -> Self:
        """Return the decisions whose `to_plain` is ``runs``."""
        applied = cls()
        for run in runs:
            applied.add(Decision.from_plain(run["decision"]), run["stop"] - run["start"])
        return applied
